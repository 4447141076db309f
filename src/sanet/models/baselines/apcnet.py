"""APCNet: every pixel gathers from the regions of grids of several sizes, by weights that the image decides.

Source: He et al., "Adaptive Pyramid Context Network for Semantic Segmentation", CVPR 2019, section 3. Where the text is
silent, sizes and norms are those of MMSegmentation's implementation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sanet.models.backbones import Level
from sanet.models.norms import conv_norm_relu
from sanet.models.sanet import HeadOutput


class AdaptiveContext(nn.Module):
    """Adaptive context module at one scale, figure 3.

    Args:
        channels: C.
        hidden: C'.
        scale: s; the image is a grid of s x s regions.
    """

    def __init__(self, channels: int, hidden: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.reduce, self.reduce_regions = conv_norm_relu(channels, hidden, 1), conv_norm_relu(channels, hidden, 1)
        self.context, self.affinity = conv_norm_relu(hidden, hidden, 1), nn.Conv2d(hidden, scale**2, 1)
        self.carry, self.fuse = conv_norm_relu(hidden, hidden, 1), conv_norm_relu(hidden, hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        maps = self.reduce(features)
        regions = self.reduce_regions(self.pooled(features)).flatten(2)  # (B, C', s * s)
        # Equation (2): weights from what a pixel shows and what the image shows.
        context = self.context(maps.mean((2, 3), keepdim=True))
        weights = self.affinity(maps + context).sigmoid().flatten(2)  # (B, s * s, h * w)
        gathered = torch.bmm(regions, weights).view_as(maps)  # equation (1)
        fused: Tensor = self.fuse(self.carry(gathered) + maps)
        return fused

    def pooled(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, s, s): adaptive pooling to means, in a form that exports for any size."""
        rows, columns = (_bins(side, self.scale, features) for side in features.shape[-2:])
        return rows @ features @ columns.T


class APCNetHead(nn.Module):
    """APCNet on the last stage: figure 2.

    Args:
        levels: of the backbone.
        num_classes: K.
        hidden: channels of the modules and of the features that are classified.
        scales: of the modules (paper's best: 1, 2, 3, 6).
    """

    def __init__(
        self, levels: Sequence[Level], num_classes: int, hidden: int = 512, scales: Sequence[int] = (1, 2, 3, 6)
    ) -> None:
        super().__init__()
        channels = levels[-1].channels
        self.modules_of_scales = nn.ModuleList(AdaptiveContext(channels, hidden, scale) for scale in scales)
        self.squeeze = conv_norm_relu(channels + len(scales) * hidden, hidden, 3)
        self.classifier = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(hidden, num_classes, 1))

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions."""
        last = features[-1]
        gathered = [module(last) for module in self.modules_of_scales]
        mask = self.classifier(self.squeeze(torch.cat([last, *gathered], dim=1)))
        return HeadOutput(mask, mask)


def _bins(side: int, count: int, like: Tensor) -> Tensor:
    """(count, side): each row averages the pixels from floor(i * side / count) to ceil((i + 1) * side / count)."""
    bins = torch.arange(count, device=like.device)[:, None]
    pixels = torch.arange(side, device=like.device)
    inside = (pixels >= bins * side // count) & (pixels < ((bins + 1) * side + count - 1) // count)
    shares = inside.to(like.dtype)
    return shares / shares.sum(1, keepdim=True)
