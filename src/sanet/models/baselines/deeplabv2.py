"""DeepLabv2: the last stage is looked at with several fields of view, and their scores are added.

Source: Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully
Connected CRFs", TPAMI 2018 (arXiv 1606.00915), section 3.2. Its CRF is a step behind the network, and not here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sanet.models.backbones import Level
from sanet.models.sanet import HeadOutput


class DeepLabv2Head(nn.Module):
    """Atrous spatial pyramid pooling, "ASPP-L", over a ResNet: figure 4.

    Each branch is one 3x3 convolution to K channels, as in the authors' published ResNet-101; figure 7, of VGG-16, has
    two further layers in each.

    Args:
        levels: of the backbone.
        num_classes: K.
        rates: of the convolutions at output stride 8 (paper, ASPP-L: 6, 12, 18, 24; ASPP-S: 2, 4, 8, 12).
    """

    def __init__(self, levels: Sequence[Level], num_classes: int, rates: Sequence[int] = (6, 12, 18, 24)) -> None:
        super().__init__()
        channels = levels[-1].channels
        branches = [nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in rates]
        for branch in branches:
            nn.init.normal_(branch.weight, std=0.01)  # as in the authors' code
        self.branches = nn.ModuleList(branches)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions."""
        mask = torch.stack([branch(features[-1]) for branch in self.branches]).sum(0)
        return HeadOutput(mask, mask)
