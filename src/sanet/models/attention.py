"""The modules of the paper: squeeze-and-excitation, and squeeze-and-attention.

Source: Zhong et al., "Squeeze-and-Attention Networks for Semantic Segmentation", CVPR 2020, sections 3.1 to 3.3.
Where the text is silent, the sizes were chosen to meet the parameters and MACs of its table 6; others do so, too (see
``docs/paper.md``).
"""

from __future__ import annotations

from math import gcd
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanet.models.norms import BatchNorm2d
from sanet.structures import UsageError, choose

Pooling = Literal["average", "max"]
LARGEST_WINDOW = 512


class GroupConv2d(nn.Conv2d):
    """Grouped convolution, group by group: the same function, but dense kernels are an eighth faster on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        if self.groups == 1:
            return super().forward(input)
        return torch.cat(
            [
                F.conv2d(part, weight, padding=self.padding)
                for part, weight in zip(input.chunk(self.groups, 1), self.weight.chunk(self.groups), strict=True)
            ],
            dim=1,
        )


def convolution_channel(in_channels: int, out_channels: int, reduction: int, groups: int) -> nn.Sequential:
    """F(.) of equations (1) to (5): (B, C, h, w) -> (B, K, h, w) through C / reduction channels.

    The first convolution has ``groups`` groups, or as many as divide C ("group convolution using 2 groups for
    the first convolution operations in both main and attention channels").
    """
    groups = gcd(groups, in_channels)
    hidden = max(1, in_channels // reduction // groups) * groups
    return nn.Sequential(
        GroupConv2d(in_channels, hidden, 3, padding=1, groups=groups, bias=False),
        BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, out_channels, 3, padding=1, bias=False),
        BatchNorm2d(out_channels),
    )


class SqueezeExcitation(nn.Module):
    """Squeeze-and-excitation module, equations (2) and (3); with weights of one, the residual block of (1).

    Args:
        channels: C of the input and of the output.
        hidden: channels of the squeezed layer ("set the channel number of the intermediate fully connected layer of
            SE modules to 4").
        residual: add F(X_in) as equation (2) has it; without it, channels are re-weighted and nothing more.
        reduction: the hidden layer of F has C / reduction maps.
        groups: groups of the first convolution of F.
    """

    def __init__(
        self, channels: int, hidden: int = 4, residual: bool = True, reduction: int = 4, groups: int = 2
    ) -> None:
        super().__init__()
        self.excite = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Sigmoid()
        )
        self.residual = convolution_channel(channels, channels, reduction, groups) if residual else None

    def forward(self, features: Tensor) -> Tensor:
        """X_out = w X_in + F(X_in), w = sigmoid(W_2 ReLU(W_1 APool(X_in))): (B, C, h, w) -> (B, C, h, w)."""
        weights = self.excite(features.mean(dim=(2, 3)))[:, :, None, None]
        weighted: Tensor = weights * features
        return weighted if self.residual is None else weighted + self.residual(features)


class SqueezeAttention(nn.Module):
    """Squeeze-and-attention module, equations (4) and (5).

    Args:
        in_channels: C of the input.
        out_channels: K; "we adapt outputs of SA heads to the class number".
        reduction: the hidden layers of both channels have C / reduction maps (paper: 4).
        groups: groups of the first convolutions (paper: 2).
        downsample: side of the pooling window of the attention channel (paper: 8).
        pooling: "average" as in equation (5) and figure 2, or "max" as in section 3.3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        reduction: int = 4,
        groups: int = 2,
        downsample: int = 8,
        pooling: Pooling = "average",
    ) -> None:
        super().__init__()
        if downsample > LARGEST_WINDOW:  # a map is grown by this factor, also from a single cell
            raise UsageError(f"downsample {downsample}: {LARGEST_WINDOW} at most")
        # ceil_mode keeps the border pixels; the average there is over real pixels only.
        pools = {
            "average": nn.AvgPool2d(downsample, ceil_mode=True),
            "max": nn.MaxPool2d(downsample, ceil_mode=True),
        }
        self.downsample = downsample
        self.pool = pools[choose("pooling", pooling, tuple(pools))]
        self.main = convolution_channel(in_channels, out_channels, reduction, groups)
        self.attention = convolution_channel(in_channels, out_channels, reduction, groups)

    def attend(self, features: Tensor) -> Tensor:
        """X_attn = Up(F_attn(APool(X_in))), equation (5): (B, C, h, w) -> (B, K, h, w)."""
        height, width = features.shape[-2:]
        squeezed = self.attention(self.pool(features))
        # Up by the very factor of the pooling, then cut: cells stay over the pixels that they summarise.
        size = [side * self.downsample for side in squeezed.shape[-2:]]
        grown = F.interpolate(squeezed, size=size, mode="bilinear", align_corners=False)
        return grown.narrow(-2, 0, height).narrow(-1, 0, width)

    def forward(self, features: Tensor) -> Tensor:
        """X_out = X_attn * X_res + X_attn, equation (4): (B, C, h, w) -> (B, K, h, w)."""
        attention = self.attend(features)
        return torch.addcmul(attention, attention, self.main(features))
