"""Data augmentation: joint random changes of a training image and its mask, and of whole batches.

Images are resized bilinearly, masks by the nearest neighbour; masks are padded with the ignore value. Every call of
``TrainingTransform`` draws the same numbers whatever the image's size and the settings, so that a setting changes only
what it names.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from sanet.config import AugmentationConfig
from sanet.data.windows import LargeSample
from sanet.references import Kind, name_of
from sanet.structures import Batch, Sample, UsageError

# Called with a sample, a batch; or, of torchvision, with its image and its mask.
TRANSFORMS = Kind("transforms", {}, {"torchvision.transforms.v2": "torchvision.transforms.v2:Transform"})
BATCH_TRANSFORMS = Kind("batch_transforms", {})

PADDING_GREY = 128  # of 8-bit images
# Of red, green and blue, as in ITU-R BT.601.
GREY = torch.tensor([0.299, 0.587, 0.114])


class Span(NamedTuple):
    """What a resize and a crop make of one side of an image.

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
        """Any place of the crop in the resized side, or of that in a longer crop, is as likely; a draw is in [0, 1)."""
        size = max(1, round(length * factor))
        shift = int(draw * (abs(size - crop) + 1))
        return Span(size, shift, crop, 0) if size >= crop else Span(size, 0, size, shift)

    @property
    def source(self) -> slice:
        """The kept pixels of the resized side."""
        return slice(self.start, self.start + self.kept)

    def margins(self, crop: int) -> tuple[int, int]:
        """How much of a crop of this length is padding, before and behind them."""
        return self.offset, crop - self.offset - self.kept

    def nearest(self, length: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The pixels of the side before its resize whose centres are nearest to those of the kept ones."""
        kept = np.arange(self.start, self.start + self.kept)
        return (2 * kept + 1) * length // (2 * self.size)

    def seen(self, length: int) -> tuple[slice, Span]:
        """The pixels of the side before its resize that the kept ones show, and how the kept ones are made of these."""
        first, behind = self.start * length // self.size, (self.start + self.kept) * length
        return slice(first, -(-behind // self.size)), Span(self.kept, 0, self.kept, self.offset)


class TrainingTransform:
    """Random scale, crop, flips, turns and photometric jitter; padding keeps its grey.

    Args:
        settings: the ranges.
        ignore_index: what the mask is padded with where the image is smaller than the crop.
    """

    def __init__(self, settings: AugmentationConfig, ignore_index: int) -> None:
        self.settings, self.crop, self.ignore_index = settings, settings.crop, ignore_index

    def __call__(self, sample: Sample | LargeSample) -> Sample:
        """(C, H, W) and (H, W) of any size in, the crop's size out; dtypes stay, and of a large mask it is int64."""
        (low, high), jitter = self.settings.scale, self.settings.jitter
        scale, top, left, flip, *strengths = torch.rand(7).tolist()
        order = torch.randperm(3).tolist()
        upside_down, turn = torch.rand(2).tolist()
        height, width = sample.mask.shape
        factor = low + (high - low) * scale
        rows = Span.place(height, factor, self.crop[0], top)
        columns = Span.place(width, factor, self.crop[1], left)
        if isinstance(sample, LargeSample):
            (seen_rows, rows), (seen_columns, columns) = rows.seen(height), columns.seen(width)
            sample = sample.part(seen_rows, seen_columns)
        image, mask = resized_part(sample.image, rows, columns), nearest_part(sample.mask, rows, columns)
        if jitter:
            image = color_jitter(image, [1 + jitter * (2 * strength - 1) for strength in strengths], order)
        grey = 0.5 if image.is_floating_point() else (int(_brightest(image)) + 1) // 2
        margins = [*columns.margins(self.crop[1]), *rows.margins(self.crop[0])]
        if any(margins):
            image, mask = pad(image, margins, value=grey), pad(mask, margins, value=self.ignore_index)
        axes = [-1] * (flip < self.settings.hflip) + [-2] * (upside_down < self.settings.vflip)
        quarters = int(4 * turn) if self.settings.turns else 0
        image, mask = (_turned(each, axes, quarters) for each in (image, mask))
        return Sample(image, mask, sample.name)


def _turned(values: Tensor, axes: list[int], quarters: int) -> Tensor:
    """(…, H, W), flipped along axes and turned by quarters."""
    # PyTorch 2.11 flips no 16 bits without a sign; what they mean does not matter here.
    bits = values.view(torch.int16) if values.dtype == torch.uint16 else values
    return bits.flip(axes).rot90(quarters, (-2, -1)).view(values.dtype)


def resized_part(image: Tensor, rows: Span, columns: Span) -> Tensor:
    """The kept part of an image (C, H, W) resized bilinearly, with antialiasing, as (C, h, w).

    PyTorch is three times as fast on the whole image, pixel by pixel in memory, as Pillow, which can leave the rest
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
        image: (C, H, W); where C is not 3, the grey of a pixel is the mean of its channels.
        strengths: factors of brightness, contrast and saturation.
        order: which of the three comes first, second and third.
    """
    values = image.to(torch.float32, memory_format=torch.contiguous_format)
    weights = GREY if len(image) == 3 else torch.full((len(image),), 1 / len(image))
    for change in order:
        # Away from black, from the mean grey or from each pixel's own.
        grey = torch.zeros(()) if change == 0 else torch.tensordot(weights, values, dims=1)
        values.lerp_(grey.mean() if change == 1 else grey, 1 - strengths[change]).clamp_(0, _brightest(image))
    if image.is_floating_point():
        return values.to(image.dtype)
    return values.round_().to(torch.int16 if image.dtype == torch.uint8 else torch.int32).to(image.dtype)  # int16: fast


def _brightest(image: Tensor) -> float:
    """The largest value that an image may have: of integers with more than 8 bits the largest it has."""
    if image.is_floating_point():
        return 1.0
    return 255 if image.dtype == torch.uint8 else float(image.to(torch.int64).max())


class TorchvisionTransform:
    """A transform of torchvision's v2 as one of samples: image and mask move alike.

    A mask is always resized by the nearest neighbour, and what a transform fills it with becomes the ignore value.

    Raises:
        UsageError: it normalises, or changes types; the network does both by itself.
    """

    LEAST = 2**20  # classes are shifted up by that, so that no fill is one; exact in float32, which torchvision uses

    def __init__(self, transform: v2.Transform, ignore_index: int) -> None:
        for part in transform, *getattr(transform, "transforms", []):
            if isinstance(part, (v2.Normalize, v2.ToDtype)):
                raise UsageError(f"transforms: {type(part).__name__} is not needed: the network normalises by itself")
        self.transform, self.ignore_index = transform, ignore_index

    def __call__(self, sample: Sample) -> Sample:
        """Any sample."""
        shifted = torch.where(sample.mask != self.ignore_index, sample.mask + self.LEAST, 0)
        moved = self.transform(tv_tensors.Image(sample.image), tv_tensors.Mask(shifted))
        image, mask = (torch.as_tensor(tensor).as_subclass(Tensor) for tensor in moved)
        return Sample(image, torch.where(mask >= self.LEAST, mask - self.LEAST, self.ignore_index), sample.name)


class Augmentation:
    """``TrainingTransform``, and after it the transforms of the settings, which are references or the transforms.

    Raises:
        UsageError: an unknown transform, or options that it does not have.
    """

    def __init__(self, settings: AugmentationConfig, transforms: Sequence[Any], ignore_index: int) -> None:
        self.first = TrainingTransform(settings, ignore_index)
        built = [TRANSFORMS.build(entry) for entry in transforms]
        self.others: list[Callable[[Sample], Sample]] = [
            TorchvisionTransform(made, ignore_index) if isinstance(made, v2.Transform) else made for made in built
        ]

    def __call__(self, sample: Sample | LargeSample) -> Sample:
        """An augmented sample; the mask keeps its type.

        Raises:
            UsageError: a transform that returns no sample of the same kind.
        """
        sample = self.first(sample)
        kind = sample.mask.dtype
        for transform in self.others:
            changed = transform(sample._replace(mask=sample.mask.long()))
            require_alike(transform, sample, changed)
            sample = changed._replace(mask=changed.mask.to(kind))
        return sample


def require_alike(transform: Any, before: Sample | Batch, after: Any) -> None:
    """Raise a UsageError where a transform does not return what it got: the same types, image and mask of one size."""
    image, mask = before.image, before.mask
    if not (
        isinstance(after, type(before))
        and after.image.shape[:-2] == image.shape[:-2]
        and after.image.dtype == image.dtype
        and after.mask.shape == (*mask.shape[:-2], *after.image.shape[-2:])
    ):
        found = f"{tuple(after.image.shape)} {after.image.dtype}" if isinstance(after, type(before)) else type(after)
        raise UsageError(
            f"{name_of(getattr(transform, 'transform', transform))}: a {type(before).__name__} with an image "
            f"{tuple(image.shape)} {image.dtype} has become {found}; a transform keeps type and channels, and gives "
            "the mask the size of the image"
        )


@contextmanager
def seeded(*key: int, device: torch.device | None = None) -> Iterator[None]:
    """Let random numbers of torch, NumPy and ``random``, and of a GPU if one is given, follow from a key.

    Afterwards they go on as before.
    """
    seeds = [int(state) for state in np.random.SeedSequence(key).generate_state(2, np.uint64)]
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[] if device is None or device.type != "cuda" else [device]):
        (torch.default_generator.manual_seed if device is None else torch.manual_seed)(seeds[0] >> 1)
        random.seed(seeds[1])
        np.random.seed(seeds[1] >> 32)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
