"""Joint random changes of a training picture and its mask.

Pictures are resized bilinearly, masks by the nearest neighbour; masks are padded with the ignore value. Every call
draws the same numbers whatever the picture's size and the settings, so that a setting changes only what it names.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from sanet.structures import Sample

PADDING_GREY = 128
# Of red, green and blue, as in ITU-R BT.601.
GREY = torch.tensor([0.299, 0.587, 0.114])


class Span(NamedTuple):
    """What a resize and a crop make of one side of a picture.

    Attributes:
        size: length of the resized side.
        start: first of its pixels that is kept.
        kept: number of pixels that are kept.
        offset: where they begin in the crop; the rest of it is padding.
    """

    size: int
    start: int
    kept: int
    offset: int

    @staticmethod
    def place(length: int, factor: float, crop: int, draw: float) -> Span:
        """Any place is as likely as another, of the crop in the side or of a shorter side in the crop.

        Args:
            length: of the side.
            factor: of the resize.
            crop: length of the crop.
            draw: uniform in [0, 1).
        """
        size = max(1, round(length * factor))
        shift = int(draw * (abs(size - crop) + 1))
        return Span(size, shift, crop, 0) if size >= crop else Span(size, 0, size, shift)

    @property
    def source(self) -> slice:
        """The kept pixels of the resized side."""
        return slice(self.start, self.start + self.kept)

    @property
    def target(self) -> slice:
        """Where they lie in the crop."""
        return slice(self.offset, self.offset + self.kept)

    def nearest(self, length: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The pixels of the side before its resize whose centres are nearest to those of the kept ones."""
        kept = np.arange(self.start, self.start + self.kept)
        return (2 * kept + 1) * length // (2 * self.size)


class TrainingTransform:
    """Random scale, crop, mirror and photometric jitter; see ``AugmentationConfig`` for the ranges.

    Args:
        crop: height and width of the result, in pixels.
        scale: smallest and largest factor of the random resize.
        hflip: probability of a left-right flip.
        jitter: largest relative change of brightness, contrast and saturation, each drawn by itself; padding keeps
            its grey.
        ignore_index: what the mask is padded with where the picture is smaller than the crop.
    """

    def __init__(
        self, crop: tuple[int, int], scale: tuple[float, float], hflip: float, jitter: float, ignore_index: int
    ) -> None:
        self.crop, self.scale = (crop[0], crop[1]), scale
        self.hflip, self.jitter, self.ignore_index = hflip, jitter, ignore_index

    def __call__(self, sample: Sample) -> Sample:
        """(3, H, W) and (H, W) of any size in, the crop's size out; dtypes stay."""
        low, high = self.scale
        scale, top, left, flip, *strengths = torch.rand(7).tolist()
        order = torch.randperm(3).tolist()
        height, width = sample.mask.shape
        factor = low + (high - low) * scale
        rows = Span.place(height, factor, self.crop[0], top)
        columns = Span.place(width, factor, self.crop[1], left)
        image = resized_part(sample.image, rows, columns)
        mask = nearest_part(sample.mask, rows, columns)
        if self.jitter:
            image = color_jitter(image, [1 + self.jitter * (2 * strength - 1) for strength in strengths], order)
        image = self._padded(image, rows, columns, PADDING_GREY)
        mask = self._padded(mask, rows, columns, self.ignore_index)
        if flip < self.hflip:
            image, mask = image.flip(-1), mask.flip(-1)
        return Sample(image, mask, sample.name)

    def _padded(self, part: Tensor, rows: Span, columns: Span, value: int) -> Tensor:
        if part.shape[-2:] == self.crop:
            return part
        whole = part.new_full((*part.shape[:-2], *self.crop), value)
        whole[..., rows.target, columns.target] = part
        return whole


def resized_part(image: Tensor, rows: Span, columns: Span) -> Tensor:
    """The kept part of a picture (3, H, W) uint8 resized bilinearly, with antialiasing, as (3, h, w).

    PyTorch is three times as fast on the whole picture, pixel by pixel in memory, as Pillow, which can leave the rest
    out, on the part alone: `benchmarks/loading.py`.
    """
    by_pixel = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    resized: Tensor = F.resize(by_pixel, [rows.size, columns.size], antialias=True)
    return resized[:, rows.source, columns.source]


def nearest_part(mask: Tensor, rows: Span, columns: Span) -> Tensor:
    """The kept part of a mask (H, W) resized to the nearest neighbour, as (h, w)."""
    height, width = mask.shape
    return torch.from_numpy(mask.numpy().take(rows.nearest(height), 0).take(columns.nearest(width), 1))


def color_jitter(image: Tensor, strengths: list[float], order: list[int]) -> Tensor:
    """Brightness, contrast and saturation, as torchvision's ``ColorJitter`` but rounded once, after all three.

    Args:
        image: (3, H, W) uint8.
        strengths: factors of brightness, contrast and saturation.
        order: which of the three comes first, second and third.
    """
    values = image.to(torch.float32, memory_format=torch.contiguous_format)
    for change in order:
        # Away from black, from the mean grey or from each pixel's own.
        grey = torch.zeros(()) if change == 0 else torch.tensordot(GREY, values, dims=1)
        values.lerp_(grey.mean() if change == 1 else grey, 1 - strengths[change]).clamp_(0, 255)
    return values.round_().to(torch.int16).to(torch.uint8)  # through int16, which is three times as fast
