"""Labels for an image of any size, from any callable that maps images to logits.

Validation, evaluation and prediction all go through ``label_image``.

An image can be seen in several sizes, and flipped, as scores in papers often are: EncNet (Zhang et al., CVPR
2018) and PSPNet (Zhao et al., CVPR 2017) take the scales 0.5, 0.75, 1, 1.25, 1.5 and 1.75 each with its flip. What is
averaged here are the class probabilities of every view, at the size of the image, all with the same weight. One
convention holds for every resize: bilinear between the centres of the pixels (``align_corners=False``); images with
an antialias, as torchvision and Pillow resize, and logits, which are smooth, without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from sanet.config import InferenceConfig

# (B, C, H, W) integers or float in [0, 1] -> (B, K, H, W) logits
LogitsFunction = Callable[[Tensor], Tensor]

SMALLEST_SIDE = 32
OVERLAP = 1 / 3


def label_image(logits_of: LogitsFunction, image: Tensor, settings: InferenceConfig = InferenceConfig()) -> Tensor:
    """The most likely class of every pixel.

    Args:
        logits_of: the network.
        image: (C, H, W), integers or float in [0, 1], of any size, on the network's device.
        settings: sliding window, multi-scale and flip. With one view its logits decide; else the mean of the class
            probabilities of all views.

    Returns:
        (H, W) int64 class indices.
    """
    if len(settings.scales) > 1 or settings.flip:
        return class_probabilities(logits_of, image, settings).argmax(dim=0)
    height, width = image.shape[-2:]
    seen = grown(image)
    (factor,) = settings.factors(*seen.shape[-2:])
    bands = _view(logits_of, seen, factor, settings.window)
    return torch.cat([band.argmax(dim=0) for band in bands])[:height, :width]


def class_probabilities(
    logits_of: LogitsFunction, image: Tensor, settings: InferenceConfig = InferenceConfig()
) -> Tensor:
    """The mean of the class probabilities of all views.

    Memory: the sum over the views is kept whole, in ``4 K H W`` bytes, beside one resized image. The logits of a view
    are not, where it goes through windows: they are resized and added in bands of rows, as the windows finish them.

    Each view is an image of ``max(32, round(factor * side))`` pixels a side, whole or in windows.

    Returns:
        (K, H, W) float32; every pixel's add up to 1.
    """
    height, width = image.shape[-2:]
    sums: Tensor | None = None
    for factor in settings.factors(*grown(image).shape[-2:]):
        for flipped in (False, True) if settings.flip else (False,):
            seen, first = grown(image.flip(-1) if flipped else image), 0
            for logits in _view(logits_of, seen, factor, settings.window):
                rows = min(len(logits[0]), height - first)
                found = logits[:, :rows, :width].softmax(dim=0)
                if sums is None:
                    sums = found.new_zeros(len(found), height, width)
                sums[:, first : first + rows] += found.flip(-1) if flipped else found
                first += rows
    assert sums is not None
    return sums.div_(len(settings.scales) * (1 + settings.flip))


def _view(logits_of: LogitsFunction, image: Tensor, factor: float, window: int) -> Iterator[Tensor]:
    """Logits (K, rows, W) from top to bottom, of the image's size, from it in another one: whole, or in windows."""
    seen = resized(image, factor)
    bands = blended_bands(logits_of, seen, window)
    return bands if seen.shape == image.shape else resized_bands(bands, seen.shape[-2], image.shape[-2:])


def blended_bands(logits_of: LogitsFunction, image: Tensor, window: int) -> Iterator[Tensor]:
    """Logits of an image, whole or, of more than ``window ** 2`` pixels, from overlapping windows.

    Every window counts most at its middle and least at its rim. Only the rows that further windows still touch are
    kept, so that the memory needed grows with the image's width and not with its height.

    A side of the image (C, H, W) that is shorter than ``window`` is taken whole.

    Yields:
        (K, rows, W) bands of finished rows, from top to bottom.
    """
    height, width = image.shape[-2:]
    if height * width <= window**2:
        yield logits_of(image[None])[0]
        return
    tall, wide = min(window, height), min(window, width)
    tops, lefts = window_starts(height, tall), window_starts(width, wide)
    weight = torch.outer(_tent(tall), _tent(wide)).to(image.device)
    sums: Tensor | None = None
    weights = weight.new_zeros(tall, width)
    for top, next_top in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            logits = logits_of(image[None, :, top : top + tall, left : left + wide])[0].float()
            if sums is None:
                sums = logits.new_zeros(len(logits), tall, width)
            sums[:, :, left : left + wide] += logits * weight
            weights[:, left : left + wide] += weight
        assert sums is not None
        finished = next_top - top
        yield sums[:, :finished] / weights[:finished]
        sums, weights = (F.pad(rows[..., finished:, :], (0, 0, 0, finished)) for rows in (sums, weights))


def window_starts(length: int, window: int) -> list[int]:
    """Evenly spaced starts of windows that cover ``length`` and overlap by at least a third."""
    if length <= window:
        return [0]
    steps = ceil((length - window) / max(1, int(window * (1 - OVERLAP))))
    return [round(step * (length - window) / steps) for step in range(steps + 1)]


def _tent(length: int) -> Tensor:
    """Positive weights that rise linearly to the middle: 1, 2, 3 … 3, 2, 1, scaled to at most 1."""
    rising = torch.arange(1, length + 1, dtype=torch.float32)
    tent = torch.minimum(rising, rising.flip(0))
    return tent / tent.max()


def grown(image: Tensor) -> Tensor:
    """Repeat the last row and column until both sides have the 32 pixels that the networks need."""
    for dim in (1, 2):
        side = image.shape[dim]
        if side < SMALLEST_SIDE:
            image = image.index_select(dim, torch.arange(SMALLEST_SIDE, device=image.device).clamp(max=side - 1))
    return image


def resized(image: Tensor, scale: float) -> Tensor:
    """(C, H, W) in another size and the same dtype; integers are rounded, since exported networks take nothing else."""
    sides = tuple(max(SMALLEST_SIDE, round(scale * side)) for side in image.shape[-2:])
    if sides == tuple(image.shape[-2:]):
        return image
    planes, exact = [], image.is_floating_point()
    for plane in image:  # one after the other, since a large image in float32 takes more than its logits
        pixels = plane[None, None] if exact else plane[None, None].float()
        found = F.interpolate(pixels, sides, mode="bilinear", align_corners=False, antialias=True)[0]
        planes.append(found if exact else found.round_().to(image.dtype))
    return torch.cat(planes)


def resized_bands(bands: Iterable[Tensor], height: int, size: Sequence[int]) -> Iterator[Tensor]:
    """Logits (K, height, w) in bands of rows from top to bottom, in another size, bilinearly and as bands again."""
    rows, columns = size
    # The centres of the new rows among the old ones, in float64: a row more or less shows in thousands of them.
    centres = ((torch.arange(rows, dtype=torch.float64) + 0.5) * height / rows - 0.5).clamp(0, height - 1)
    above = centres.long()
    below = (above + 1).clamp(max=height - 1)
    held, first, done = None, 0, 0
    for band in bands:
        held = band.float() if held is None else torch.cat([held, band.float()], dim=1)
        ready = int((below < first + held.shape[1]).sum())
        if ready > done:
            upper, lower = (held[:, (place[done:ready] - first).to(held.device)] for place in (above, below))
            share = (centres - above)[done:ready, None].to(held)
            rows_of_band = torch.lerp(upper, lower, share)[None]
            yield F.interpolate(rows_of_band, (ready - done, columns), mode="bilinear", align_corners=False)[0]
            done = ready
        if done < rows:
            kept_from = min(int(above[done]), first + held.shape[1])
            held, first = held[:, kept_from - first :], kept_from
