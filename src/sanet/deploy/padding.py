"""TensorFlow's SAME padding, as some of timm's layers have it, in a form that tracing understands."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from timm.layers.std_conv import ScaledStdConv2dSame, StdConv2dSame
from torch import Tensor, nn

# Layers that pad what they get before they do what the other class does.
PLAIN: dict[type[nn.Module], type[nn.Module]] = {
    Conv2dSame: nn.Conv2d,
    AvgPool2dSame: nn.AvgPool2d,
    MaxPool2dSame: nn.MaxPool2d,
}


class SamePadded(nn.Module):
    """One of timm's layers, with its padding computed in integers; see ``same_padding``.

    Args:
        layer: the layer; one that can be told not to pad is.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer, self.plain = layer, PLAIN.get(type(layer), type(layer))
        self.value = float("-inf") if isinstance(layer, nn.MaxPool2d) else 0.0
        if self.plain is type(layer):
            layer.same_pad = False

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> what the layer gives."""
        layer: Any = self.layer
        sides = zip(maps.shape[-2:], layer.kernel_size, layer.stride, getattr(layer, "dilation", (1, 1)), strict=True)
        rows, columns = (same_padding(*side) for side in sides)
        padded = F.pad(maps, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), value=self.value)
        output: Tensor = self.plain.forward(layer, padded)
        return output


def replace_same_padding(network: nn.Module) -> None:
    """Put ``SamePadded`` around every layer of a network that pads as TensorFlow does."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            standardised = isinstance(layer, (StdConv2dSame, ScaledStdConv2dSame)) and layer.same_pad
            if type(layer) in PLAIN or standardised:
                setattr(parent, name, SamePadded(layer))


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> int:
    """What TensorFlow's SAME adds to a side, as in timm, but in integers.

    timm rounds a quotient of floats up and forbids negative results also where there are none. Without that, what a
    layer adds and takes cancels; else the expressions for sizes grow from layer to layer, and tracing takes minutes.
    """
    reach = (kernel - 1) * dilation + 1
    missing = ((size + stride - 1) // stride - 1) * stride + reach - size
    return missing if reach >= stride else max(missing, 0)
