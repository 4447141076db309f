"""Settings of ``sanet profile``; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from sanet.config import Precision
from sanet.references import name_of
from sanet.settings import SIDES, Chosen, check, plain, require, within
from sanet.structures import UsageError, choose


@dataclass(frozen=True)
class Published:
    """What a paper, or a run of your own, says of a network.

    Args:
        parameters: in millions.
        macs: multiply-accumulates of one image, in 10^9.
        miou: mean IoU in per cent.
        note: why what is counted here differs.
    """

    parameters: float | None = within(None, 1e-9, 1e9)
    macs: float | None = within(None, 1e-9, 1e9)
    miou: float | None = within(None, 0, 100)
    note: str = ""

    def __post_init__(self) -> None:
        check(self, "published ")


@dataclass(frozen=True)
class ProfileConfig:
    """Which networks to measure, and how.

    Args:
        networks: names of networks, or "module:Name" of heads of your own.
        backbones: timm model names; every network is measured over every backbone.
        sizes: heights and widths of the images, such as [[512, 512], [1024, 2048]].
        output_stride: stride of the last feature stage: 8 as in the paper, 16 or 32.
        num_classes: number of classes.
        batch: images at a time, for memory and time.
        time: measure time as well; without it nothing is computed, only counted.
        repeats: timed passes of every network, after the warm-up.
        device: where to measure time: "cpu", "cuda", "mps" or "xpu"; by default the best there is.
        precision: of the timed passes: "32-true"; "bf16-mixed" and "16-mixed" compute in 16 bits where that is safe.
        threads: CPU threads; by default PyTorch's.
        output: folder for profile.csv, profile.md and the plot of accuracy against cost.
        published: figures to compare with, and accuracies to plot, such as {fcn: {miou: 78.7, macs: 162.7}}; with
            several backbones, "fcn/resnet101" in place of "fcn".
    """

    networks: tuple[Chosen, ...] = ("sanet", "fcn")
    backbones: tuple[str, ...] = ("resnet101",)
    sizes: tuple[tuple[int, int], ...] = ((512, 512),)
    output_stride: int = within(8, 1, 32)
    num_classes: int = within(21, 1, 65_536)
    batch: int = within(1, 1, 10_000)
    time: bool = False
    repeats: int = within(20, 1, 100_000)
    device: str | None = None
    precision: Precision = "32-true"
    threads: int | None = within(None, 1, 1024)
    output: str | None = None
    published: dict[str, Published] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self)
        for name in ("networks", "backbones", "sizes"):
            values = getattr(self, name)
            if not values or any(values.count(value) > 1 for value in values):
                raise UsageError(f"{name} {plain(values)}: one or more, none twice")
        for size in self.sizes:
            require("sizes", size, SIDES[0], 10**8)  # what is only counted takes no memory
        if self.published and len(self.sizes) > 1:
            raise UsageError(f"published figures belong to one size of images, but sizes has {len(self.sizes)}")
        names = [name_of(network) for network in self.networks]
        keys = [f"{name}/{backbone}" for name in names for backbone in self.backbones]
        for key in self.published:
            choose("published network", key, [*keys, *(names if len(self.backbones) == 1 else ())])
