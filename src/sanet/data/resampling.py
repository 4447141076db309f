"""A part of a resized image from the part of the image that it shows, as if the whole of it had been resized.

Bilinear with antialiasing, as PyTorch does it on the CPU: 8 bits in whole numbers, rows after columns, both rounded,
which gives the same values bit for bit; floats as floats, the same but for the order of additions.
"""

from __future__ import annotations

import platform
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WEIGHT_BITS, MOST_PRECISION = 15, 22  # of PyTorch's whole numbers


class Taps(NamedTuple):
    """Which pixels of a side make those of a part of the resized side, and with which weights.

    Attributes:
        first: the first pixel that is needed.
        stop: the one behind the last.
        starts: (n,) of every pixel of the part the first that it is made of, counted from ``first``.
        weights: (n, taps), which add up to 1; 0 beyond the last.
        largest: weight of all, of the whole resized side.
    """

    first: int
    stop: int
    starts: NDArray[np.int64]
    weights: NDArray[np.float64]
    largest: float

    @staticmethod
    def of(length: int, size: int, kept: slice) -> Taps:
        """For a side of ``length`` pixels that becomes ``size``, of which ``kept`` are wanted."""
        scale = length / size
        support = max(scale, 1.0)
        centers = scale * (np.arange(size) + 0.5)
        starts = np.maximum((centers - support + 0.5).astype(np.int64), 0)
        stops = np.minimum((centers + support + 0.5).astype(np.int64), length)
        taps = np.arange((stops - starts).max())
        distances = np.abs((starts[:, None] + taps - centers[:, None] + 0.5) / support)
        weights = np.maximum(0, 1 - distances) * (taps < (stops - starts)[:, None])
        weights /= weights.sum(axis=1, keepdims=True)
        first, stop = int(starts[kept].min()), int(stops[kept].max())
        return Taps(first, stop, starts[kept] - first, weights[kept], float(weights.max()))

    @property
    def source(self) -> slice:
        """The pixels of the side that are needed."""
        return slice(self.first, self.stop)


def resampled(pixels: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """(C, H, W) of the pixels that are needed, as (C, h, w) of the same type."""
    exact = pixels.dtype == torch.uint8 and in_whole_numbers()
    values = pixels.numpy()
    values = values if exact else values.astype(np.float32)
    for taps, axis in ((columns, 2), (rows, 1)):
        moved = np.moveaxis(values, axis, 0)
        values = np.moveaxis(_whole(moved, taps) if exact else _floats(moved, taps), 0, axis)
    found = torch.from_numpy(np.ascontiguousarray(values))
    return found if exact or pixels.is_floating_point() else found.round_().to(pixels.dtype)


def in_whole_numbers() -> bool:
    """Whether torchvision resizes 8 bits in whole numbers on this machine."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")


def _whole(values: NDArray[np.uint8], taps: Taps) -> NDArray[np.uint8]:
    bits = next(
        (bits for bits in range(MOST_PRECISION) if int(0.5 + taps.largest * 2 ** (bits + 1)) >= 2**WEIGHT_BITS),
        MOST_PRECISION,
    )
    weights = (0.5 + taps.weights * 2**bits).astype(np.int32)
    sums = np.full((len(weights), *values.shape[1:]), 2 ** (bits - 1), np.int32)
    for tap in range(weights.shape[1]):
        sums += values[np.minimum(taps.starts + tap, len(values) - 1)] * weights[:, tap, None, None]
    return (sums >> bits).clip(0, 255).astype(np.uint8)


def _floats(values: NDArray[np.float32], taps: Taps) -> NDArray[np.float32]:
    weights = taps.weights.astype(np.float32)
    sums = np.zeros((len(weights), *values.shape[1:]), np.float32)
    for tap in range(weights.shape[1]):
        sums += values[np.minimum(taps.starts + tap, len(values) - 1)] * weights[:, tap, None, None]
    return sums
