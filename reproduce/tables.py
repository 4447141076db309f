"""The paper's tables as tables of repeated runs, and how they move to other data.

On the data of the paper a row is its recipe. On other data it keeps the network and the loss terms of its recipe, and
takes everything else from ``SMALL``, which two CPU cores train in minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from reproduce.published import PUBLISHED
from reproduce.recipes import RECIPES, Recipe
from sanet import (
    AugmentationConfig,
    DataConfig,
    InferenceConfig,
    LossConfig,
    ModelConfig,
    RepeatConfig,
    SanetError,
    TrainConfig,
)


@dataclass(frozen=True)
class Table:
    """A table or a figure.

    Args:
        title: heading.
        claims: pairs of rows, by their names without backbones: the first is said to be better than the second.
        published: whether the claims are the paper's.
    """

    title: str
    claims: tuple[tuple[str, str], ...] = ()
    published: bool = True


def _over(table: str) -> tuple[tuple[str, str], ...]:
    """SANet is said to be better than those that have less."""
    scores = {row.network.removeprefix("smp_"): next(iter(row.figures.values())) for row in PUBLISHED
              if row.table == table and row.network}  # fmt: skip
    return tuple(("sanet", network) for network, score in scores.items() if score < scores["sanet"])


TABLES = {
    "table1": Table(
        "Table 1: what each part of SANet adds",
        (("sa", "fcn"), ("sa-cat", "sa"), ("sanet", "sa-cat"), ("sanet", "sa"), ("sanet", "fcn")),
    ),
    "table3": Table(
        "Table 3: squeeze-and-attention against squeeze-and-excitation", (("sanet", "fcn"), ("sanet", "fcn_se"))
    ),
    "figure4": Table(
        "Figure 4: the weights of the categorical and the dense loss",
        (("alpha0.2", "alpha0"), ("alpha0.2", "alpha1"), ("beta0.8", "beta0")),
    ),
    "table2": Table("Table 2: PASCAL Context, 60 classes with background", _over("table2")),
    "table4": Table("Table 4: PASCAL VOC without COCO", _over("table4")),
    "coco": Table("COCO, before table 5"),
    "table5": Table("Table 5: PASCAL VOC after COCO", _over("table5")),
    "table6": Table("Table 6: accuracy beside cost", (("sanet", "fcn"), ("sanet", "deeplabv3plus"))),
    "baselines": Table(
        "Baselines on the same backbone, data and schedule",
        tuple(("sanet", name) for name in ("deeplabv3plus", "pspnet", "upernet", "fpn", "segformer")),
        published=False,
    ),
}
# How the rows of a table are trained on data that they were not made for.
SMALL = TrainConfig(
    augmentation=AugmentationConfig(crop=(192, 256)),
    loss=LossConfig(class_weighting="sqrt"),
    epochs=15,
    validate_every=15,
)
BACKBONES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
OPTIONS: dict[str, dict[str, Any]] = {
    # At twice the paper's output stride, cells of its 8 would hold a quarter of a small image; 2 was chosen on
    # images that were kept out of training (docs/paper.md).
    "sanet": {"downsample": 2},
    # As wide as that library has them, at 256, these train several times as slowly as SANet over a small backbone.
    "smp_upernet": {"decoder_channels": 64},
    "smp_segformer": {"decoder_segmentation_channels": 64},
}


def table_of(
    name: str,
    data: DataConfig,
    backbones: Sequence[str] = (),
    epochs: int | None = None,
    crop: tuple[int, int] | None = None,
    settings: dict[str, Any] | None = None,
    **table: Any,
) -> RepeatConfig:
    """A table of the paper on a dataset.

    Args:
        name: of ``TABLES``.
        data: the dataset.
        backbones: timm models in place of the recipes', the smallest first; rows over larger ones are left out.
        epochs: passes over the training split, in place of the recipes'.
        crop: height and width of the training crops, in place of the recipes'.
        settings: further settings of all rows, such as {accelerator: cpu}.
        **table: of ``RepeatConfig``, such as ``seeds`` and ``output``.

    Raises:
        SanetError: there is no such table, or it has fewer backbones than are named.
    """
    if name not in TABLES:
        raise SanetError(f"no table {name!r}; there are {', '.join(TABLES)}")
    recipes = {key: recipe for key, recipe in RECIPES.items() if key.startswith(f"{name}-")}
    theirs = list(dict.fromkeys(recipe.config.model.backbone for recipe in recipes.values()))
    if len(backbones) > len(theirs):
        raise SanetError(f"{len(backbones)} backbones are named, but the rows of {name} are over {len(theirs)}")
    first = next(iter(recipes.values()))
    small = data.name != first.config.data.name
    ours = (tuple(backbones) or (BACKBONES if small else tuple(theirs)))[: len(theirs)]
    rows: dict[str, Any] = {}
    for key, recipe in recipes.items():
        rank = theirs.index(recipe.config.model.backbone)
        if rank < len(ours):
            network = key.removeprefix(f"{name}-").rpartition("-")[0]
            config = _moved(recipe, ours[rank], small, epochs, crop)
            label = f"{recipe.label}, {ours[rank].partition('.')[0]}" if len(ours) > 1 else recipe.label
            own = {"label": label, "published": dict(recipe.published)}
            rows[f"{network}/{ours[rank]}"] = {**asdict(config), **(settings or {}), **own}
            for shared in ("data", "seed", "output"):
                del rows[f"{network}/{ours[rank]}"][shared]
    pairs = [
        (f"{better}/{backbone}", f"{worse}/{backbone}")
        for backbone in ours
        for better, worse in TABLES[name].claims
        if f"{better}/{backbone}" in rows and f"{worse}/{backbone}" in rows
    ]
    rest = [row for row in PUBLISHED if row.table == name and not row.network and not small]
    return RepeatConfig(
        rows,
        quoted={row.label: dict(row.figures) for row in rest},
        comparisons=tuple(pairs),
        title=TABLES[name].title,
        name=name,
        data=data,
        inference=InferenceConfig() if small else first.inference,
        split=None if small else first.split,
        **table,
    )


def _moved(recipe: Recipe, backbone: str, small: bool, epochs: int | None, crop: tuple[int, int] | None) -> TrainConfig:
    """The run of a recipe over another backbone and, where it is small, on other data."""
    config, model = recipe.config, replace(recipe.config.model, backbone=backbone)
    if small:
        options = {**model.options, **OPTIONS.get(str(model.name), {})}
        stride = 32 if model.output_stride == 32 else 16
        model = ModelConfig(model.name, backbone, stride, options=options)
        config = replace(SMALL, loss=replace(SMALL.loss, terms=recipe.config.loss.terms))
    if epochs is not None:
        config = replace(config, epochs=epochs, validate_every=epochs)
    if crop is not None:
        config = replace(config, augmentation=replace(config.augmentation, crop=crop))
    return replace(config, model=model)
