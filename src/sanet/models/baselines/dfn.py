"""DFN: a smooth network, in which coarse stages choose among the maps of finer ones, and a border network beside it.

Source: Yu et al., "Learning a Discriminative Feature Network for Semantic Segmentation", CVPR 2018 (arXiv 1804.09337).
Where the text is silent (where norms stand, the widths of both networks, the blocks before a prediction), it is as in
the code of its first author. Trained as there: ``loss.terms: {mask: 1, dense: 1, border: 0.1}``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanet.models.backbones import Level
from sanet.models.norms import conv_norm_relu
from sanet.models.sanet import HeadOutput, resize


class RefinementResidualBlock(nn.Module):
    """Figure 2 (b): 1x1 to the width that goes out, then two convolutions beside a shortcut; and a ReLU, if asked."""

    def __init__(self, in_channels: int, out_channels: int, activated: bool = True) -> None:
        super().__init__()
        self.unify = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.refine = nn.Sequential(
            conv_norm_relu(out_channels, out_channels, 3),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        )
        self.activated = activated

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        unified = self.unify(maps)
        refined: Tensor = unified + self.refine(unified)
        return F.relu(refined) if self.activated else refined


class ChannelAttentionBlock(nn.Module):
    """Figure 2 (c), equation (3): both stages together weigh the channels of the finer one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1), nn.Sigmoid()
        )

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Two (B, C, h, w) -> (B, C, h, w)."""
        weights = self.weigh(torch.cat([fine, coarse], dim=1).mean((2, 3), keepdim=True))
        chosen: Tensor = fine * weights + coarse
        return chosen


class DFNHead(nn.Module):
    """Figure 2 (a), over the last four stages.

    Args:
        levels: of the backbone, of which the last four count.
        num_classes: K.
        hidden: channels of the smooth network.
        border: channels of the border network.
    """

    def __init__(self, levels: Sequence[Level], num_classes: int, hidden: int = 512, border: int = 21) -> None:
        super().__init__()
        channels = [level.channels for level in levels[-4:]]
        self.context = conv_norm_relu(channels[-1], hidden, 1)
        self.enter = nn.ModuleList(RefinementResidualBlock(width, hidden) for width in channels)
        self.attend = nn.ModuleList(ChannelAttentionBlock(hidden) for _ in channels)
        self.leave = nn.ModuleList(RefinementResidualBlock(hidden, hidden) for _ in channels)
        self.classify = nn.ModuleList(_prediction(hidden, num_classes) for _ in channels)
        self.border_enter = nn.ModuleList(RefinementResidualBlock(width, border) for width in channels)
        self.border_leave = nn.ModuleList(RefinementResidualBlock(border, border) for _ in channels[1:])
        self.border_classify = nn.ModuleList(_prediction(border, 1) for _ in channels)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions at the size of the first of the last four stages.

        ``dense`` are those of the three coarser stages, the coarsest first; ``border`` has a map of every stage.
        """
        stages = features[-4:]
        size = stages[0].shape[-2:]
        coarse, masks = self.context(stages[-1].mean((2, 3), keepdim=True)), []
        smooth = zip(stages, self.enter, self.attend, self.leave, self.classify, strict=True)
        for stage, enter, attend, leave, classify in reversed([*smooth]):
            coarse = leave(attend(enter(stage), resize(coarse, stage.shape[-2:])))
            masks.append(resize(classify(coarse), size))
        *dense, mask = masks
        return HeadOutput(mask, mask, torch.cat(dense, dim=1), border=self.borders(stages))

    def borders(self, stages: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, h_i, w_i) -> (B, 4, h, w) logits: from fine to coarse, each stage added to what came before."""
        maps = self.border_enter[0](stages[0])
        found = [self.border_classify[0](maps)]
        rest = zip(stages[1:], self.border_enter[1:], self.border_leave, self.border_classify[1:], strict=True)
        for stage, enter, leave, classify in rest:
            maps = leave(maps + resize(enter(stage), maps.shape[-2:]))
            found.append(classify(maps))
        return torch.cat(found, dim=1)


def _prediction(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        RefinementResidualBlock(channels, 9 * outputs, activated=False), nn.Conv2d(9 * outputs, outputs, 1)
    )
