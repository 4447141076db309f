"""DilatedNet: a context module of dilated convolutions over the scores of a front end.

Source: Yu and Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016 (arXiv 1511.07122),
section 3 and table 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from sanet.models.backbones import Level
from sanet.models.sanet import HeadOutput
from sanet.structures import choose

DILATIONS = (1, 1, 2, 4, 8, 16, 1)
# Of the paper's "basic" and "large" module, in multiples of K: what goes in, and what each layer gives.
WIDTHS = {"basic": (1,) * 9, "large": (1, 2, 2, 4, 8, 16, 32, 32, 1)}


class DilatedNetHead(nn.Module):
    """A 1x1 convolution to K scores, and the context module, which maps K scores to K scores.

    Its layers start as the identity, equations (4) and (5), with a little noise in the latter.

    Args:
        levels: of the backbone.
        num_classes: K.
        context: "basic" or "large", a line of table 1.
    """

    def __init__(self, levels: Sequence[Level], num_classes: int, context: str = "basic") -> None:
        super().__init__()
        self.front = nn.Conv2d(levels[-1].channels, num_classes, 1)
        widths = WIDTHS[choose("context", context, tuple(WIDTHS))]
        self.context = nn.Sequential(*_layers([width * num_classes for width in widths]))

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions."""
        mask = self.context(self.front(features[-1]))
        return HeadOutput(mask, mask)


def _layers(widths: Sequence[int]) -> Iterator[nn.Module]:
    """Seven 3x3 convolutions, each cut off at 0, and a 1x1 convolution."""
    for (before, after), dilation in zip(pairwise(widths[:-1]), DILATIONS, strict=True):
        yield _as_identity(nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation), widths[0])
        yield nn.ReLU(inplace=True)
    yield _as_identity(nn.Conv2d(widths[-2], widths[-1], 1), widths[0])


@torch.no_grad()
def _as_identity(layer: nn.Conv2d, classes: int) -> nn.Conv2d:
    """Weights by which channels of a class give those of the same class; equation (5), and (4) where all are alike."""
    before, after = layer.in_channels, layer.out_channels
    of_input, of_output = (torch.arange(count) * classes // count for count in (before, after))
    share = classes / after
    same = (of_output[:, None] == of_input).float()
    nn.init.normal_(layer.weight, std=0.0 if before == after == classes else 0.01 * share)
    side = layer.weight.shape[-1] // 2
    layer.weight[:, :, side, side] += share * same
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
