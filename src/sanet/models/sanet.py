"""Squeeze-and-Attention Networks: the paper in one file.

Source: Zhong et al., "Squeeze-and-Attention Networks for Semantic Segmentation", CVPR 2020 (arXiv 1909.03402), sections
3.1 to 3.3; the loss is in ``training/losses.py``. Where the text is silent, the sizes were chosen to meet the
parameters and MACs of its table 6; others do so, too (``docs/paper.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanet.models.backbones import Level
from sanet.models.norms import BatchNorm2d
from sanet.structures import UsageError, choose

Pooling = Literal["average", "max"]
Readout = Literal["mask", "dense", "sum"]
Branch = Literal["dense", "category"]
LARGEST_WINDOW = 512


class HeadOutput(NamedTuple):
    """What a head predicts, at the size of its feature maps; see ``SegmentationOutput`` for all but the first.

    Attributes:
        readout: (B, K, h, w), what becomes the logits.
    """

    readout: Tensor
    mask: Tensor
    dense: Tensor | None = None
    category: Tensor | None = None
    border: Tensor | None = None


def conv_branch(in_channels: int, out_channels: int, reduction: int, groups: int) -> nn.Sequential:
    """F(.) of equations (1) to (5): (B, C, h, w) -> (B, K, h, w) through C / reduction channels.

    The first convolution has ``groups`` groups, or as many as divide C ("group convolution using 2 groups for
    the first convolution operations in both main and attention channels").
    """
    groups = gcd(groups, in_channels)
    hidden = max(1, in_channels // reduction // groups) * groups
    return nn.Sequential(
        nn.Conv2d(in_channels, hidden, 3, padding=1, groups=groups, bias=False),
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
    """

    def __init__(self, channels: int, hidden: int = 4, residual: bool = True) -> None:
        super().__init__()
        self.excite = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, channels), nn.Sigmoid()
        )
        self.residual = conv_branch(channels, channels, reduction=4, groups=2) if residual else None

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        # (3): w = sigmoid(W_2 ReLU(W_1 APool(X_in)))
        weights = self.excite(features.mean(dim=(2, 3)))[:, :, None, None]
        weighted: Tensor = weights * features
        # (2): X_out = w X_in + F(X_in)
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
        self.main = conv_branch(in_channels, out_channels, reduction, groups)
        self.attention = conv_branch(in_channels, out_channels, reduction, groups)

    def attend(self, features: Tensor) -> Tensor:
        """X_attn = Up(F_attn(APool(X_in))), equation (5): (B, C, h, w) -> (B, K, h, w)."""
        height, width = features.shape[-2:]
        squeezed = self.attention(self.pool(features))
        # Up by the very factor of the pooling, then cut: cells stay over the pixels that they summarise.
        grown = resize(squeezed, [side * self.downsample for side in squeezed.shape[-2:]])
        return grown.narrow(-2, 0, height).narrow(-1, 0, width)

    def forward(self, features: Tensor) -> Tensor:
        """X_out = X_attn * X_res + X_attn, equation (4): (B, C, h, w) -> (B, K, h, w)."""
        attention = self.attend(features)
        return torch.addcmul(attention, attention, self.main(features))


class FCNHead(nn.Module):
    """The dilated FCN baseline of tables 1, 3 and 6: a single 1x1 convolution on the last stage."""

    def __init__(self, levels: Sequence[Level], num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(levels[-1].channels, num_classes, 1)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions."""
        mask = self.classifier(features[-1])
        return HeadOutput(readout=mask, mask=mask)


class FCNSEHead(nn.Module):
    """FCN-SE of table 3: a squeeze-and-excitation module on the stage that feeds the FCN's 1x1 convolution.

    Args:
        levels: of the backbone.
        num_classes: K.
        hidden: channels of the squeezed layer.
        residual: add F(X_in) as equation (2) has it; without it, channels are re-weighted and nothing more.
    """

    def __init__(self, levels: Sequence[Level], num_classes: int, hidden: int = 4, residual: bool = True) -> None:
        super().__init__()
        self.excitation = SqueezeExcitation(levels[-1].channels, hidden, residual)
        self.classifier = nn.Conv2d(levels[-1].channels, num_classes, 1)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions."""
        mask = self.classifier(self.excitation(features[-1]))
        return HeadOutput(readout=mask, mask=mask)


class SANetHead(nn.Module):
    """Squeeze-and-attention heads on the last four stages, figure 3 and section 3.3.

    Args:
        levels: of the backbone, four or more.
        num_classes: K.
        reduction: hidden channels of a squeeze-and-attention module are C / reduction.
        groups: groups of the first convolutions.
        downsample: pooling window of the attention channels.
        pooling: "average" (equation 5) or "max" (section 3.3).
        heads: the stages, 1 to 4, that have a squeeze-and-attention module.
        branches: what the loss supervises beside the mask: "dense", a prediction from stage 4, and "category", the
            classes in the image (columns Den and Cat of table 1).
        category_hidden: hidden units of the categorical branch ("set the channel number of the intermediate
            fully connected layer of SE modules to 4").
        readout: what predicts: "mask" (the merged stages, as the abstract says), "dense" (section 3.3) or
            their "sum".
    """

    def __init__(
        self,
        levels: Sequence[Level],
        num_classes: int,
        reduction: int = 4,
        groups: int = 2,
        downsample: int = 8,
        pooling: Pooling = "average",
        heads: Sequence[int] = (1, 2, 3, 4),
        branches: Sequence[Branch] = ("dense", "category"),
        category_hidden: int = 4,
        readout: Readout = "mask",
    ) -> None:
        super().__init__()
        if not heads or set(heads) - {1, 2, 3, 4} or len(set(heads)) < len(heads):
            raise UsageError(f'heads {list(heads)}: one or more of the stages 1, 2, 3, 4; network "fcn" has none')
        for branch in branches:
            choose("branch", branch, get_args(Branch))
        if choose("readout", readout, get_args(Readout)) != "mask" and "dense" not in branches:
            raise UsageError(f'readout "{readout}" needs the branch "dense"')
        self.readout, self.numbers = readout, sorted(heads)
        self.attention = nn.ModuleList(
            SqueezeAttention(levels[number - 5].channels, num_classes, reduction, groups, downsample, pooling)
            for number in self.numbers
        )
        channels = levels[-1].channels
        self.mask: nn.Module = nn.Conv2d(len(heads) * num_classes, num_classes, 1)
        self.dense = nn.Conv2d(channels, num_classes, 1) if "dense" in branches else None
        self.category = (
            nn.Sequential(
                nn.Linear(channels, category_hidden), nn.ReLU(inplace=True), nn.Linear(category_hidden, num_classes)
            )
            if "category" in branches
            else None
        )

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions."""
        attended = [module(features[number - 5]) for number, module in zip(self.numbers, self.attention, strict=True)]
        mask, last = self.merge(attended), features[-1]
        category = None if self.category is None else self.category(last.mean(dim=(2, 3)))
        if self.dense is None:
            return HeadOutput(mask, mask, None, category)
        # "The regularized dense segmentation prediction of a SANet is Y_den + Y_SA4."
        dense = self.dense(last) + self.coarse(attended[-1]) if 4 in self.numbers else self.dense(last)
        readouts = {"mask": mask, "dense": dense, "sum": mask + resize(dense, mask.shape[-2:])}
        return HeadOutput(readouts[self.readout], mask, dense, category)

    def merge(self, attended: list[Tensor]) -> Tensor:
        """Y_mask: the outputs of the stages at the size of the finest, concatenated, and a 1x1 convolution."""
        size = attended[0].shape[-2:]
        return cast(Tensor, self.mask(torch.cat([resize(maps, size) for maps in attended], dim=1)))

    def coarse(self, maps: Tensor) -> Tensor:
        """Y_SA4, of K maps."""
        return maps


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, over pixel areas (``align_corners=False``), as everywhere in this package."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
