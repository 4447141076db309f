"""A head: pyramid pooling (Zhao et al., CVPR 2017) in a few lines."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanet import HeadOutput, Level


class PSP(nn.Module):
    """The last stage beside its means over windows of several sides.

    Args:
        levels: channels and strides of the backbone's stages.
        num_classes: K.
        windows: sides of the windows, in cells of the last stage.
        hidden: channels of each mean.
    """

    def __init__(
        self, levels: Sequence[Level], num_classes: int, windows: Sequence[int] = (2, 4), hidden: int = 16
    ) -> None:
        super().__init__()
        channels = levels[-1].channels
        # Average pooling by a window, which every format can export; adaptive pooling to a number of cells is not.
        self.pools = nn.ModuleList(nn.AvgPool2d(window, ceil_mode=True) for window in windows)
        self.reduce = nn.ModuleList(nn.Conv2d(channels, hidden, 1) for _ in windows)
        self.classify = nn.Conv2d(channels + hidden * len(windows), num_classes, 1)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions (B, K, h, w)."""
        last = features[-1]
        pooled = [reduce(pool(last)) for pool, reduce in zip(self.pools, self.reduce, strict=True)]
        grown = [F.interpolate(maps, last.shape[-2:], mode="bilinear", align_corners=False) for maps in pooled]
        mask = self.classify(torch.cat([last, *grown], dim=1))
        return HeadOutput(readout=mask, mask=mask)
