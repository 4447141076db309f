"""ParseNet: what the whole image shows is put beside the features of every pixel, both at the same scale.

Source: Liu, Rabinovich and Berg, "ParseNet: Looking Wider to See Better", 2015 (arXiv 1506.04579), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanet.models.backbones import Level
from sanet.models.sanet import HeadOutput


class L2Norm(nn.Module):
    """Equations (1) and (2): the channels of a pixel at length 1, then each times a factor that is learnt.

    Args:
        channels: C.

    Attributes:
        scale: (C,), gamma; 10 at first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), 10.0))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return F.normalize(features, dim=1) * self.scale[:, None, None]


class ParseNetHead(nn.Module):
    """ParseNet on the last stage, with the early fusion of figure 3.

    Args:
        levels: of the backbone.
        num_classes: K.
    """

    def __init__(self, levels: Sequence[Level], num_classes: int) -> None:
        super().__init__()
        channels = levels[-1].channels
        self.local, self.context = L2Norm(channels), L2Norm(channels)
        self.classifier = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(2 * channels, num_classes, 1))

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions."""
        last = features[-1]
        context = self.context(last.mean((2, 3), keepdim=True)).expand_as(last)  # "unpool" by repetition
        mask = self.classifier(torch.cat([self.local(last), context], dim=1))
        return HeadOutput(mask, mask)
