"""RefineNet: the stages of a backbone, coarsest first, each refined with what came before it.

Source: Lin et al., "RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic Segmentation", CVPR 2017
(arXiv 1611.06612), section 3, the cascade of four.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from sanet.models.backbones import Level
from sanet.models.sanet import HeadOutput, resize


class ResidualUnit(nn.Module):
    """Residual convolution unit, figure 3 (b): two ReLU-convolution pairs beside a shortcut, without batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        refined: Tensor = maps + self.second(F.relu(self.first(F.relu(maps))))
        return refined


class ChainedPooling(nn.Module):
    """Chained residual pooling, figure 3 (d): each pooled and convolved from the one before, and all added."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(blocks))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        total = path = F.relu(maps)
        for convolution in self.convolutions:
            path = convolution(F.max_pool2d(path, 5, stride=1, padding=2))
            total = total + path
        return total


class RefineBlock(nn.Module):
    """One RefineNet block, figure 3 (a).

    Args:
        paths: channels of what comes in, the finest first.
        channels: of what goes out.
        pools: pooling blocks in the chain.
    """

    def __init__(self, paths: Sequence[int], channels: int, pools: int) -> None:
        super().__init__()
        self.adapt = nn.ModuleList(nn.Sequential(ResidualUnit(path), ResidualUnit(path)) for path in paths)
        self.fuse = nn.ModuleList(nn.Conv2d(path, channels, 3, padding=1) for path in paths if len(paths) > 1)
        self.pool, self.output = ChainedPooling(channels, pools), ResidualUnit(channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, h_i, w_i) -> (B, C, h_0, w_0)."""
        paths = [adapt(path) for adapt, path in zip(self.adapt, maps, strict=True)]
        if self.fuse:
            paths = [resize(fuse(path), maps[0].shape[-2:]) for fuse, path in zip(self.fuse, paths, strict=True)]
        refined: Tensor = self.output(self.pool(sum(paths[1:], start=paths[0])))
        return refined


class RefineNetHead(nn.Module):
    """RefineNet-4 to RefineNet-1, figure 2 (c), over the stages at strides 32 to 4 (or as the backbone has them).

    Each stage is brought to its width by a 3x3 convolution first, as in the authors' code; two residual units stand
    before the prediction (section 3.2). Nothing normalises the sums of its paths, so that it takes small rates: in our
    tests it learns at 0.02 and diverges at 0.05, where all other networks learn.

    Args:
        levels: of the backbone, of which the last four count.
        num_classes: K.
        hidden: channels of all blocks but that of the last stage, which has twice as many (authors: 256 and 512).
        pools: pooling blocks in a chain (figure 3: 2; 4 in Nekrasov et al., "Light-Weight RefineNet", BMVC 2018).
    """

    def __init__(self, levels: Sequence[Level], num_classes: int, hidden: int = 256, pools: int = 4) -> None:
        super().__init__()
        widths = (hidden, hidden, hidden, 2 * hidden)
        self.squeeze = nn.ModuleList(
            nn.Conv2d(level.channels, width, 3, padding=1, bias=False)
            for level, width in zip(levels[-4:], widths, strict=True)
        )
        inputs = ((hidden, hidden), (hidden, hidden), (hidden, 2 * hidden), (2 * hidden,))
        self.blocks = nn.ModuleList(
            RefineBlock(paths, width, pools) for paths, width in zip(inputs, widths, strict=True)
        )
        self.classifier = nn.Sequential(
            ResidualUnit(hidden), ResidualUnit(hidden), nn.Dropout2d(0.1), nn.Conv2d(hidden, num_classes, 1)
        )

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions, at the size of the first of the last four stages."""
        maps = [squeeze(stage) for squeeze, stage in zip(self.squeeze, features[-4:], strict=True)]
        refined = self.blocks[3]([maps[3]])
        for block, stage in zip((self.blocks[2], self.blocks[1], self.blocks[0]), reversed(maps[:3]), strict=True):
            refined = block([stage, refined])
        mask = self.classifier(refined)
        return HeadOutput(mask, mask)
