"""Layers whose padding depends on the size of a map, in a form that tracing and other runtimes understand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.helpers import to_2tuple
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


class WholeWindows(nn.Module):
    """A pooling whose windows lie side by side and go beyond the border (``ceil_mode``), over padded maps.

    Runtimes differ where a window is larger than the map: OpenVINO returns nothing there.

    Args:
        layer: the pooling.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.sides, self.averages = to_2tuple(layer.kernel_size), isinstance(layer, nn.AvgPool2d)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> what the layer gives: of the pixels that are real."""
        sides = zip(maps.shape[-2:], self.sides, strict=True)
        rows, columns = (same_padding(size, side, side, 1) for size, side in sides)

        def padded(values: Tensor, fill: float) -> Tensor:
            return F.pad(values, (0, columns, 0, rows), value=fill)

        if not self.averages:
            return F.max_pool2d(padded(maps, float("-inf")), self.sides)
        real = F.avg_pool2d(padded(torch.ones_like(maps[:1, :1]), 0.0), self.sides)
        return F.avg_pool2d(padded(maps, 0.0), self.sides) / real


def replace_padding(network: nn.Module) -> None:
    """Put ``SamePadded`` around what pads as TensorFlow does, and ``WholeWindows`` in place of what it stands for."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            standardised = isinstance(layer, (StdConv2dSame, ScaledStdConv2dSame)) and layer.same_pad
            if type(layer) in PLAIN or standardised:
                setattr(parent, name, SamePadded(layer))
            elif type(layer) in (nn.AvgPool2d, nn.MaxPool2d) and _has_border_windows(layer):
                setattr(parent, name, WholeWindows(layer))


def _has_border_windows(layer: Any) -> bool:
    """Whether windows lie side by side, from the first pixel on, and the last ones may be cut by the border."""
    apart = to_2tuple(layer.stride) == to_2tuple(layer.kernel_size) and to_2tuple(layer.padding) == (0, 0)
    plain = to_2tuple(getattr(layer, "dilation", 1)) == (1, 1) and not getattr(layer, "divisor_override", None)
    return bool(layer.ceil_mode and apart and plain)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> int:
    """What TensorFlow's SAME adds to a side, as in timm, but in integers.

    timm rounds a quotient of floats up and forbids negative results also where there are none. Without that, what a
    layer adds and takes cancels; else the expressions for sizes grow from layer to layer, and tracing takes minutes.
    """
    reach = (kernel - 1) * dilation + 1
    missing = ((size + stride - 1) // stride - 1) * stride + reach - size
    return missing if reach >= stride else max(missing, 0)
