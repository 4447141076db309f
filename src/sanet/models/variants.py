"""Other readings of the paper's head, and controls that tell what its attention brings; see ``docs/paper.md``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from sanet.models.backbones import Level
from sanet.models.norms import BatchNorm2d
from sanet.models.sanet import Branch, SANetHead, SqueezeAttention, SqueezeExcitation, resize
from sanet.structures import UsageError, choose

Reading = Literal["A", "C"]
Mechanism = Literal["attention", "excitation", "none"]
GROUPS = 2


class Stage(SqueezeAttention):
    """What a head does with one stage: (B, C, h, w) -> (B, K, h, w).

    Args:
        channels: C.
        num_classes: K.
        hidden: maps of the hidden layers.
        reading: "A", attention at K maps, as in ``sanet.py``; "C", at the hidden ones, and a 1x1 convolution behind it.
        mechanism: what multiplies the main channel; "none": nothing does.
        downsample: side of the pooling window of the attention channel.
        adapts: of reading C, whether that convolution is part of the stage.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        hidden: int,
        reading: Reading,
        mechanism: Mechanism,
        downsample: int,
        adapts: bool,
    ) -> None:
        super().__init__(channels, num_classes, downsample=downsample)
        self.main = _branch(channels, num_classes, hidden, reading)
        self.attention = (
            _branch(channels, num_classes, hidden, reading) if mechanism == "attention" else nn.Sequential()
        )
        self.excitation = SqueezeExcitation(channels, residual=False) if mechanism == "excitation" else nn.Identity()
        self.adapt = nn.Conv2d(hidden, num_classes, 1) if reading == "C" and adapts else nn.Identity()
        self.mechanism = mechanism

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, K, h, w)."""
        attends = self.mechanism == "attention"
        maps = super().forward(features) if attends else self.main(self.excitation(features))
        merged: Tensor = self.adapt(maps)
        return merged


def _branch(channels: int, num_classes: int, hidden: int, reading: Reading) -> nn.Sequential:
    first = nn.Conv2d(channels, hidden, 3, padding=1, groups=GROUPS, bias=False)
    layers: list[nn.Module] = [first, BatchNorm2d(hidden), nn.ReLU(inplace=True)]
    if reading == "A":
        layers += [nn.Conv2d(hidden, num_classes, 3, padding=1, bias=False), BatchNorm2d(num_classes)]
    return nn.Sequential(*layers)


class SumOfStages(nn.Module):
    """Adds up the maps of the stages: with a 1x1 convolution before it, what one over their concatenation computes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, maps: Tensor) -> Tensor:
        """(B, n K, h, w) -> (B, K, h, w)."""
        batch, _, height, width = maps.shape
        return maps.view(batch, -1, self.num_classes, height, width).sum(dim=1)


class SANetVariantHead(SANetHead):
    """SANet's head in another reading of the paper, without its attention, or over a top-down path.

    Args:
        levels: of the backbone, four or more.
        num_classes: K.
        reading: "A", K maps are attended to, as in ``sanet.py``; "C", the hidden ones, whose maps of all stages are
            concatenated before one 1x1 convolution to K.
        mechanism: "attention"; "excitation", squeeze-and-excitation (equation 3) in its place; "none", stages that
            are merged as they are.
        least: smallest number of hidden maps.
        reduction: hidden maps are C / reduction, or ``least``.
        downsample: pooling window of the attention channels.
        stem: read the level before the four stages as well, at stride 2; not every backbone has it.
        path: of reading C, refine the hidden maps from stage to stage, the coarsest first (Lin et al., "Feature Pyramid
            Networks", CVPR 2017), by a 3x3 convolution of each with those that come from below, before they become K.
        branches: see ``SANetHead``.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        num_classes: int,
        reading: Reading = "C",
        mechanism: Mechanism = "attention",
        least: int = 64,
        reduction: int = 4,
        downsample: int = 8,
        stem: bool = False,
        path: bool = False,
        branches: Sequence[Branch] = ("dense", "category"),
    ) -> None:
        super().__init__(levels, num_classes, reduction, GROUPS, downsample, branches=branches)
        choose("reading", reading, ("A", "C"))
        choose("mechanism", mechanism, ("attention", "excitation", "none"))
        if path and reading != "C":
            raise UsageError('path: only with reading "C", whose stages have more than K maps')
        if stem and len(levels) < 5:
            raise UsageError("stem: the backbone has no level before stage 1")
        self.numbers = [*([0] if stem else []), *self.numbers]
        stages = []
        for number in self.numbers:
            channels = levels[number - 5].channels
            hidden = least if path else max(least, channels // reduction) // GROUPS * GROUPS
            stages.append(Stage(channels, num_classes, hidden, reading, mechanism, downsample, adapts=not path))
        self.attention = nn.ModuleList(stages)
        self.path = nn.ModuleList(_refining(2 * least, least) for _ in stages[1:]) if path else None
        if path:
            self.deepest, self.mask = nn.Conv2d(least, num_classes, 1), nn.Conv2d(least, num_classes, 1)
        elif reading == "C":
            self.mask = SumOfStages(num_classes)

    def merge(self, attended: list[Tensor]) -> Tensor:
        """See ``SANetHead``; or along the path."""
        if self.path is None:
            return super().merge(attended)
        *finer, maps = attended
        for stage, refine in zip(reversed(finer), self.path, strict=True):
            maps = refine(torch.cat([resize(maps, stage.shape[-2:]), stage], dim=1))
        return cast(Tensor, self.mask(maps))

    def coarse(self, maps: Tensor) -> Tensor:
        """See ``SANetHead``."""
        return maps if self.path is None else cast(Tensor, self.deepest(maps))


def _refining(channels: int, hidden: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
    return nn.Sequential(convolution, BatchNorm2d(hidden), nn.ReLU(inplace=True))
