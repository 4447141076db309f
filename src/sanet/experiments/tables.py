"""The paper's tables as experiments: the recipes that are their rows, what they claim, and how they move to other data.

On the data of the paper a row is its recipe. On other data it keeps the network and the loss of its recipe, and takes
everything else from ``SMALL``, which two CPU cores train in minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sanet.config import AugmentationConfig, InferenceConfig, LossConfig, ModelConfig, TrainConfig
from sanet.evaluation.protocol import digest_of
from sanet.experiments.config import EXPERIMENTS, ExperimentConfig
from sanet.experiments.recipes import RECIPES, Recipe
from sanet.structures import UsageError, choose

# What does not decide what a run comes out as; its seed is named apart.
INCIDENTAL = ("output", "num_workers", "accelerator", "checkpoint_minutes", "seed")


def decisive(config: TrainConfig) -> dict[str, Any]:
    """What decides what a run comes out as.

    A published data set is the same wherever it lies; a folder is known by its place, however that is spelt. What is
    in them is compared apart (``sanet.experiments.fingerprint``).
    """
    root = config.data.root
    place = str(Path(root).resolve()) if config.data.name == "folder" and root is not None else None
    config = replace(config, data=replace(config.data, root=place))
    return {name: value for name, value in asdict(config).items() if name not in INCIDENTAL}


@dataclass(frozen=True)
class Setting:
    """How the rows of a table are trained on data that they were not made for.

    Args:
        config: the run; the row brings its network and its loss weights.
        backbones: the smallest of a table becomes the first, and so on; rows over larger ones are left out.
        output_stride: of the backbones that dilate.
        options: further arguments of networks, by name.
    """

    config: TrainConfig
    backbones: tuple[str, ...]
    output_stride: int
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


SMALL = Setting(
    TrainConfig(
        augmentation=AugmentationConfig(crop=(192, 256)),
        loss=LossConfig(class_weighting="sqrt"),
        epochs=15,
        validate_every=15,
    ),
    ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"),
    output_stride=16,
    options={
        # At twice the paper's output stride, cells of its 8 would hold a quarter of a small picture; 2 was chosen on
        # pictures that were held out from training (docs/paper.md).
        "sanet": {"downsample": 2},
        # As wide as that library has them, at 256, these train several times as slowly as SANet over a small backbone.
        "smp_upernet": {"decoder_channels": 64},
        "smp_segformer": {"decoder_segmentation_channels": 64},
    },
)


@dataclass(frozen=True)
class Row:
    """A network of a table, and how it is trained and scored here.

    Attributes:
        label: what a reader is shown.
        name: its own within the table.
        network: the name without the backbone; claims are about these.
        recipe: the paper's row.
        config: the run, but for its seed and output.
        views: how it is scored.
    """

    label: str
    name: str
    network: str
    recipe: Recipe
    config: TrainConfig
    views: InferenceConfig

    @property
    def key(self) -> str:
        """Name of its runs: rows of any table that are trained alike have the same one."""
        model = self.config.model
        return f"{model.name}-{model.backbone}-{digest_of(decisive(self.config))[:8]}"

    def arguments(self) -> str:
        """Those of its network that are not its recipe's, in words."""
        theirs = self.recipe.config.model.options
        own = {name: value for name, value in self.config.model.options.items() if theirs.get(name) != value}
        return ", ".join(f"{name} {value}" for name, value in own.items())

    def moved(self) -> bool:
        """Whether it is trained otherwise than the paper's row: on other data, over another backbone, for less long."""
        ours, theirs = decisive(self.config), decisive(self.recipe.config)
        del ours["data"]["root"], theirs["data"]["root"]
        return ours != theirs


def rows_of(name: str, config: ExperimentConfig) -> list[Row]:
    """The rows of an experiment on a data set.

    Raises:
        UsageError: there is no such experiment, or it has fewer backbones than are named.
    """
    choose("experiment", name, tuple(EXPERIMENTS))
    recipes = {key: recipe for key, recipe in RECIPES.items() if key.startswith(f"{name}-")}
    theirs = list(dict.fromkeys(recipe.config.model.backbone for recipe in recipes.values()))
    if len(config.backbones) > len(theirs):
        raise UsageError(
            f"--backbones names {len(config.backbones)}, but the rows of {name} are over {len(theirs)}, the smallest "
            f"first: name {len(theirs)} or fewer"
        )
    rows = []
    for key, recipe in recipes.items():
        small = config.data.name != recipe.config.data.name
        ours = (config.backbones or (SMALL.backbones if small else tuple(theirs)))[: len(theirs)]
        rank = theirs.index(recipe.config.model.backbone)
        if rank >= len(ours):
            continue
        network = key.removeprefix(f"{name}-").rpartition("-")[0]
        backbone = ours[rank]
        base = _small(recipe) if small else recipe.config
        run = replace(
            base,
            data=config.data,
            model=replace(base.model, backbone=backbone, pretrained_backbone=config.pretrained_backbone),
            num_workers=config.num_workers,
            accelerator=config.accelerator,
            precision=config.precision,
            **_schedule(base, config),
        )
        views = InferenceConfig() if small else recipe.views
        label = f"{recipe.label}, {backbone.partition('.')[0]}" if len(ours) > 1 else recipe.label
        rows.append(Row(label, f"{network}/{backbone}", network, recipe, run, views))
    return rows


def _small(recipe: Recipe) -> TrainConfig:
    """The run of a recipe on data that it was not made for."""
    theirs = recipe.config.model
    options = {**theirs.options, **SMALL.options.get(theirs.name, {})}
    stride = 32 if theirs.output_stride == 32 else SMALL.output_stride
    model = ModelConfig(theirs.name, output_stride=stride, options=options)
    loss = replace(SMALL.config.loss, terms=recipe.config.loss.terms)
    return replace(SMALL.config, model=model, loss=loss)


def _schedule(base: TrainConfig, config: ExperimentConfig) -> dict[str, Any]:
    """What replaces the recipe's epochs and crop."""
    changes: dict[str, Any] = {}
    if config.epochs is not None:
        changes |= {"epochs": config.epochs, "validate_every": config.epochs}
    if config.crop is not None:
        changes["augmentation"] = replace(base.augmentation, crop=config.crop)
    return changes


def claims_of(name: str, rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """The pairs that the experiment is about, for each backbone that has both."""
    backbones = dict.fromkeys(row.config.model.backbone for row in rows)
    by_name = {row.name: row for row in rows}
    return [
        (by_name[f"{better}/{backbone}"], by_name[f"{worse}/{backbone}"])
        for backbone in backbones
        for better, worse in EXPERIMENTS[name].claims
        if f"{better}/{backbone}" in by_name and f"{worse}/{backbone}" in by_name
    ]
