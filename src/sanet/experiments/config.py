"""The experiments by name, and what of them is left to choose; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from sanet.config import SIDES, WORKERS, Accelerator, DataConfig, Precision, check, within
from sanet.structures import choose


@dataclass(frozen=True)
class Experiment:
    """A table or a figure.

    Args:
        title: heading of the page.
        claims: pairs of rows, by their names without backbones: the first is said to be better than the second.
        chart: "bars", a bar for each row; "cost", accuracy over cost; "curves", over the weights of the loss.
        published: whether the claims are the paper's.
    """

    title: str
    claims: tuple[tuple[str, str], ...]
    chart: Literal["bars", "cost", "curves"] = "bars"
    published: bool = True


EXPERIMENTS = {
    "table1": Experiment(
        "Table 1: what each part of SANet adds",
        (("sa", "fcn"), ("sa-cat", "sa"), ("sanet", "sa-cat"), ("sanet", "sa"), ("sanet", "fcn")),
    ),
    "table3": Experiment(
        "Table 3: squeeze-and-attention against squeeze-and-excitation", (("sanet", "fcn"), ("sanet", "fcn_se"))
    ),
    "figure4": Experiment(
        "Figure 4: the weights of the categorical and the dense loss",
        (("alpha0.2", "alpha0"), ("alpha0.2", "alpha1"), ("beta0.8", "beta0")),
        "curves",
    ),
    "table6": Experiment("Table 6: accuracy beside cost", (("sanet", "fcn"), ("sanet", "deeplabv3plus")), "cost"),
    "peers": Experiment(
        "Rivals on the same backbone, data and schedule",
        tuple(("sanet", rival) for rival in ("deeplabv3plus", "pspnet", "upernet", "fpn", "segformer")),
        "cost",
        published=False,
    ),
}


@dataclass(frozen=True)
class ExperimentConfig:
    """What of an experiment is left to choose; everything else is the recipes'.

    Args:
        data: the data set.
        output: folder for the runs, which all experiments in it share, and for a folder of each with table and page.
        seeds: runs of each row, with the seeds 0, 1 and so on; a claim is judged from three.
        epochs: passes over the training split, in place of the recipes'.
        crop: height and width of the training crops, in place of the recipes'.
        backbones: timm models in place of the recipes', the smallest first; rows over larger ones are left out.
        pretrained_backbone: start the backbones from their ImageNet weights.
        num_workers: processes that load pictures, for each that trains.
        accelerator: where to train: "cpu", "gpu", or "auto" for a GPU where there is one.
        precision: "32-true", or "bf16-mixed" to compute in bfloat16 where that is safe.
    """

    data: DataConfig = field(default_factory=DataConfig)
    output: str = "experiments"
    seeds: int = within(3, 1, 1000)
    epochs: int | None = within(None, 1, 100_000)
    crop: tuple[int, int] | None = within(None, *SIDES)
    backbones: tuple[str, ...] = ()
    pretrained_backbone: bool = True
    num_workers: int = within(1, *WORKERS)
    accelerator: Accelerator = "auto"
    precision: Precision = "32-true"

    def __post_init__(self) -> None:
        check(self)
        choose("accelerator", self.accelerator, get_args(Accelerator))
        choose("precision", self.precision, get_args(Precision))
