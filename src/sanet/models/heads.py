"""The heads of the paper's own networks: feature levels of a backbone in, predictions out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanet.models.attention import Pooling, SqueezeAttention, SqueezeExcitation
from sanet.models.backbones import Level
from sanet.structures import UsageError, choose

Readout = Literal["mask", "dense", "sum"]
READOUTS = get_args(Readout)
Branch = Literal["dense", "category"]
BRANCHES: tuple[Branch, ...] = get_args(Branch)


class HeadOutput(NamedTuple):
    """Predictions at feature size; see ``SegmentationOutput`` for the last three fields.

    Attributes:
        readout: (B, K, h, w), what becomes the logits.
    """

    readout: Tensor
    mask: Tensor
    dense: Tensor | None = None
    category: Tensor | None = None


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
            classes in the picture (columns Den and Cat of table 1).
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
        branches: Sequence[Branch] = BRANCHES,
        category_hidden: int = 4,
        readout: Readout = "mask",
    ) -> None:
        super().__init__()
        if not heads or set(heads) - {1, 2, 3, 4} or len(set(heads)) < len(heads):
            raise UsageError(f'heads {list(heads)}: one or more of the stages 1, 2, 3, 4; network "fcn" has none')
        for branch in branches:
            choose("branch", branch, BRANCHES)
        if choose("readout", readout, READOUTS) != "mask" and "dense" not in branches:
            raise UsageError(f'readout "{readout}" needs the branch "dense"')
        self.readout = readout
        self.numbers = sorted(heads)
        self.strides = [levels[number - 5].stride for number in self.numbers]
        self.attention = nn.ModuleList(
            SqueezeAttention(levels[number - 5].channels, num_classes, reduction, groups, downsample, pooling)
            for number in self.numbers
        )
        channels = levels[-1].channels
        self.mask = nn.Conv2d(len(heads) * num_classes, num_classes, 1)
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
        attended = {
            number: module(features[number - 5]) for number, module in zip(self.numbers, self.attention, strict=True)
        }
        mask = self.merge(list(attended.values()))
        last = features[-1]
        category = None if self.category is None else self.category(last.mean(dim=(2, 3)))
        if self.dense is None:
            return HeadOutput(mask, mask, None, category)
        # "The regularized dense segmentation prediction of a SANet is Y_den + Y_SA4."
        dense = self.dense(last) + attended[4] if 4 in attended else self.dense(last)
        readout = dense if self.readout == "dense" else mask
        if self.readout == "sum":
            readout = mask + resize(dense, mask.shape[-2:])
        return HeadOutput(readout, mask, dense, category)

    def merge(self, attended: Sequence[Tensor]) -> Tensor:
        """Y_mask: the maps (B, K, h_i, w_i) at the finest size, concatenated, and a 1x1 convolution -> (B, K, h, w).

        The convolution and the up-sampling commute, and maps of one stride are summed before they are up-sampled:
        the same function for less time.
        """
        finest = attended[0].shape[-2:]
        weights = torch.chunk(self.mask.weight, len(attended), dim=1)
        sums: dict[int, Tensor] = {}
        for stride, maps, weight in zip(self.strides, attended, weights, strict=True):
            # The bias once, with the finest maps.
            part = F.conv2d(maps, weight, None if sums else self.mask.bias)
            sums[stride] = sums[stride] + part if stride in sums else part
        first, *others = sums.values()
        for maps in others:
            first = first + resize(maps, finest)
        return first


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear, over pixel areas (``align_corners=False``), as everywhere in this package."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
