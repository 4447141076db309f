"""What to train, and how, for the rows of the paper's tables; each recipe says what differs from another.

The paper gives: poly schedule, SGD, batch 16, synchronised batch norm, a learning rate of 0.001 on PASCAL Context
and 0.0001 on PASCAL VOC, 80 epochs on Context (section 4.1) and on VOC (4.4), 50 on VOC after pre-training on COCO
(4.1), 20 for ablations. It is silent on crops and augmentation, on the heads' rate and on the schedule over COCO; those
are its reference [40]'s (EncNet): crops of 480, scales 0.5 to 2, flips, ten times the rate for the heads,
multi-scale and flipped evaluation, and on COCO 30 epochs at 0.01. The ImageNet weights are those that PyTorch users
had when it was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from reproduce.published import EFFICIENTNET_B7, PUBLISHED, RESNET101
from sanet import (
    AugmentationConfig,
    DataConfig,
    InferenceConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    SanetError,
    TrainConfig,
)

RESNET50 = "resnet50.tv_in1k"
MULTI_SCALE = InferenceConfig(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=True)


@dataclass(frozen=True)
class Recipe:
    """A row of a table, or a run that somebody has published a figure of.

    Args:
        label: what the row is called in its table.
        config: the run; its data.root and output are left to the user.
        where: where the figure stands.
        published: scores in per cent, by the names that ours have, "miou" and so on.
        inference: inference settings of the evaluation.
        split: on which split the figure was taken.
    """

    label: str
    config: TrainConfig
    where: str
    published: Mapping[str, float]
    inference: InferenceConfig = MULTI_SCALE
    split: str = "val"

    def but(self, label: str, where: str, published: Mapping[str, float], **changes: Any) -> Recipe:
        """Another row that differs in settings of ``TrainConfig``."""
        return replace(self, label=label, config=replace(self.config, **changes), where=where, published=published)


def sanet(backbone: str, **options: Any) -> ModelConfig:
    """SANet over a dilated backbone, as in the paper."""
    return ModelConfig("sanet", backbone, output_stride=8, options=options)


def baseline(name: str, backbone: str) -> ModelConfig:
    """Another network over the same backbone."""
    return ModelConfig(name, backbone, output_stride=8)


CONTEXT = TrainConfig(
    data=DataConfig("reproduce.context:Context59"),
    augmentation=AugmentationConfig(crop=(480, 480), scale=(0.5, 2.0), hflip=0.5, jitter=0.0),
    model=sanet(RESNET101),
    optimizer=OptimizerConfig(learning_rate=1e-3, head_lr_multiplier=10.0),
    epochs=80,
    batch_size=16,
    num_workers=4,
    validate_every=5,
)
VOC = replace(CONTEXT, data=DataConfig("voc_aug"), optimizer=replace(CONTEXT.optimizer, learning_rate=1e-4))
COCO = replace(
    VOC, data=DataConfig("reproduce.coco:COCO"), optimizer=replace(VOC.optimizer, learning_rate=1e-2), epochs=30
)
CAMVID = TrainConfig(
    data=DataConfig("camvid"),
    augmentation=AugmentationConfig(crop=(288, 384), scale=(0.75, 2.25)),
    model=ModelConfig("sanet", "tf_efficientnet_lite2", output_stride=16, options={"downsample": 2}),
    # Without it the thin and rare classes are hardly found, and with more than that they are seen where they are not.
    loss=LossConfig(class_weighting="fourth_root"),
    epochs=80,
    validate_every=20,
)

UNDILATED = ("refinenet", "dfn")
DFN = LossConfig({"mask": 1.0, "dense": 1.0, "border": 0.1})

best = Recipe(
    "SANet",
    CONTEXT,
    "table 1, and table 2 with background",
    {"miou": 53.0, "miou_with_background": 52.1, "pixel_accuracy": 80.6},
)
voc_test = Recipe("SANet", VOC, "table 4, test server", {"miou": 83.2}, split="val")
# What the ablations share: 20 epochs over ResNet-50.
ablation = best.but("SANet", "none", {}, model=sanet(RESNET50), epochs=20)


def _table_1() -> dict[str, Recipe]:
    """PASCAL Context, 59 classes: what each part of SANet adds, and larger backbones."""

    def part(label: str, model: ModelConfig, miou: float, accuracy: float) -> Recipe:
        return ablation.but(label, "table 1", {"miou": miou, "pixel_accuracy": accuracy}, model=model)

    return {
        "table1-fcn-resnet50": part("FCN", baseline("fcn", RESNET50), 43.2, 74.5),
        "table1-sa-resnet50": part("SA", sanet(RESNET50, branches=[]), 49.2, 77.2),
        "table1-sa-cat-resnet50": part("SA + Cat", sanet(RESNET50, branches=["category"]), 50.7, 79.0),
        "table1-sanet-resnet50": part("SANet (SA + Cat + Den)", sanet(RESNET50), 51.9, 79.3),
        "table1-sanet-resnet101": replace(best, label="SANet (SA + Cat + Den)"),
        "table1-sanet-efficientnet_b7": best.but(
            "SANet (SA + Cat + Den)",
            best.where,
            {"miou": 55.3, "miou_with_background": 54.4, "pixel_accuracy": 81.6},
            model=sanet(EFFICIENTNET_B7),
        ),
    }


def _table_3() -> dict[str, Recipe]:
    """PASCAL Context, 20 epochs: squeeze-and-attention against squeeze-and-excitation."""
    rows = {
        "fcn": ("FCN", (76.2, 44.9), (76.7, 45.6)),
        "fcn_se": ("FCN-SE", (76.0, 44.6), (76.6, 45.7)),
        "sanet": ("SANet", (78.9, 49.0), (79.2, 50.1)),
    }
    return {
        f"table3-{name}-{backbone.partition('.')[0]}": ablation.but(
            label, "table 3", {"miou": miou, "pixel_accuracy": accuracy}, model=baseline(name, backbone)
        )
        for name, (label, *scores) in rows.items()
        for backbone, (accuracy, miou) in zip((RESNET50, RESNET101), scores, strict=True)
    }


def _figure_4() -> dict[str, Recipe]:
    """PASCAL Context, 20 epochs: the weights of the categorical and the dense loss, one at a time.

    The paper has them as curves only.
    """
    steps = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    own = LossConfig().terms
    alphas = {f"alpha{value:g}": (f"α = {value:g}", LossConfig({**own, "category": value})) for value in steps}
    betas = {f"beta{value:g}": (f"β = {value:g}", LossConfig({**own, "dense": value})) for value in steps}
    return {
        f"figure4-{name}-resnet50": ablation.but(label, "figure 4, as a curve", {}, loss=loss)
        for name, (label, loss) in (alphas | betas).items()
    }


def _systems() -> dict[str, Recipe]:
    """Tables 2, 4, 5 and 6: what the paper compares with, as far as it runs here, over the backbones of SANet's rows.

    Those on PASCAL VOC are the test server's, for which `python -m reproduce submit` writes the archive. A row of table
    5 starts from its network after COCO: --init-from.
    """
    bases = {"table2": best, "table4": voc_test, "table5": replace(voc_test, config=replace(VOC, epochs=50)),
             "table6": voc_test}  # fmt: skip
    rows = {}
    for row in PUBLISHED:
        if row.network:
            model = ModelConfig(row.network, row.ours, output_stride=32 if row.network in UNDILATED else 8)
            changes = {"model": model} | ({"loss": DFN} if row.network == "dfn" else {})
            where = row.table if row.table == "table2" else f"{row.table}, test server"
            rows[row.recipe] = bases[row.table].but(row.label, where, row.figures, **changes)
            if row.table == "table5":
                coco = Recipe(row.label, replace(COCO, **changes), "none: before table 5", {}, InferenceConfig())
                rows[row.recipe.replace("table5", "coco")] = coco
    return rows


def _baselines() -> dict[str, Recipe]:
    """Networks that the paper could not have, trained as the rows of its ablations are."""
    heads = {
        "sanet": "SANet",
        "smp_deeplabv3plus": "DeepLabV3+",
        "smp_pspnet": "PSPNet",
        "smp_upernet": "UPerNet",
        "smp_fpn": "FPN",
        "smp_segformer": "SegFormer decoder",
    }
    # The one whose decoder doubles the size from level to level has a backbone that does not dilate.
    return {
        f"baselines-{name.removeprefix('smp_')}-resnet50": ablation.but(
            label, "none", {}, model=ModelConfig(name, RESNET50, output_stride=32 if name == "smp_fpn" else 8)
        )
        for name, label in heads.items()
    }


RECIPES: dict[str, Recipe] = {
    **_table_1(),
    **_table_3(),
    **_figure_4(),
    **_systems(),
    **_baselines(),
    # Of this package, measured: docs/results.md.
    "camvid": Recipe(
        "SANet", CAMVID, "docs/results.md", {"miou": 64.7}, inference=InferenceConfig(shorter_side=720), split="test"
    ),
}


def recipe(name: str) -> Recipe:
    """A recipe by name.

    Raises:
        SanetError: there is none of that name; the message lists the choices.
    """
    if name not in RECIPES:
        raise SanetError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]
