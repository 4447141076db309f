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
    return torch.cat([band.max(dim=1).indices for band in score_bands(logits_of, image[None], settings)], dim=1)[0]


def score_bands(logits_of: LogitsFunction, images: Tensor, settings: InferenceConfig) -> Iterator[Tensor]:
    """What decides about every pixel of images of one size, (B, C, H, W): its class has the largest score.

    Yields:
        (B, K, rows, W) bands of rows from top to bottom: logits of one view, or probabilities of several.
    """
    if settings.several:
        yield class_probabilities(logits_of, images, settings)
        return
    height, width = images.shape[-2:]
    seen, first = grown(images), 0
    (factor,) = settings.factors(*seen.shape[-2:])
    for band in _view(logits_of, seen, factor, settings.window):
        if first < height:
            yield band[..., : height - first, :width]
        first += band.shape[-2]


def probabilities_of(scores: Tensor, settings: InferenceConfig, temperature: float) -> Tensor:
    """(B, K, rows, W) of ``score_bands`` -> calibrated probabilities, float32.

    Logits are divided by the temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017); of
    several views the logarithms of the mean probabilities are, so that it changes no label.
    """
    scores = scores.float()
    if settings.several and temperature == 1:
        return scores
    return ((scores.log() if settings.several else scores) / temperature).softmax(dim=1)


def class_probabilities(
    logits_of: LogitsFunction, images: Tensor, settings: InferenceConfig = InferenceConfig()
) -> Tensor:
    """The mean of the class probabilities of all views, of images of one size, (B, C, H, W).

    Memory: the sum over the views is kept whole, in ``4 B K H W`` bytes, beside the resized images. The logits of a
    view are not, where it goes through windows: they are resized and added in bands of rows as the windows finish.

    Each view is an image of ``max(32, round(factor * side))`` pixels a side, whole or in windows.

    Returns:
        (B, K, H, W) float32; every pixel's add up to 1.
    """
    height, width = images.shape[-2:]
    sums: Tensor | None = None
    for factor in settings.factors(*grown(images).shape[-2:]):
        for flipped in (False, True) if settings.flip else (False,):
            seen, first = grown(images.flip(-1) if flipped else images), 0
            for logits in _view(logits_of, seen, factor, settings.window):
                rows = min(logits.shape[-2], height - first)
                found = logits[..., :rows, :width].softmax(dim=1)
                if sums is None:
                    sums = found.new_zeros(*found.shape[:2], height, width)
                sums[..., first : first + rows, :] += found.flip(-1) if flipped else found
                first += rows
    assert sums is not None
    return sums.div_(len(settings.scales) * (1 + settings.flip))


def _view(logits_of: LogitsFunction, images: Tensor, factor: float, window: int) -> Iterator[Tensor]:
    """Logits (B, K, rows, W) from top to bottom, of the images' size, from another one: whole, or in windows."""
    seen = resized(images, factor)
    bands = blended_bands(logits_of, seen, window)
    return bands if seen.shape == images.shape else resized_bands(bands, seen.shape[-2], images.shape[-2:])


def blended_bands(logits_of: LogitsFunction, images: Tensor, window: int) -> Iterator[Tensor]:
    """Logits of images of one size, whole or, of more than ``window ** 2`` pixels, from overlapping windows.

    Every window counts most at its middle and least at its rim. Only the rows that further windows still touch are
    kept, so that the memory needed grows with the image's width and not with its height.

    A side of the images (B, C, H, W) that is shorter than ``window`` is taken whole.

    Yields:
        (B, K, rows, W) bands of finished rows, from top to bottom.
    """
    height, width = images.shape[-2:]
    if height * width <= window**2:
        yield logits_of(images)
        return
    tall, wide = min(window, height), min(window, width)
    tops, lefts = window_starts(height, tall), window_starts(width, wide)
    weight = torch.outer(_tent(tall), _tent(wide)).to(images.device)
    sums: Tensor | None = None
    weights = weight.new_zeros(tall, width)
    for top, next_top in zip(tops, [*tops[1:], height], strict=True):
        for left in lefts:
            logits = logits_of(images[..., top : top + tall, left : left + wide]).float()
            if sums is None:
                sums = logits.new_zeros(*logits.shape[:2], tall, width)
            sums[..., left : left + wide] += logits * weight
            weights[:, left : left + wide] += weight
        assert sums is not None
        finished = next_top - top
        yield sums[..., :finished, :] / weights[:finished]
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


def grown(images: Tensor) -> Tensor:
    """Repeat the last row and column until both sides have the 32 pixels that the networks need."""
    for dim in (-2, -1):
        side = images.shape[dim]
        if side < SMALLEST_SIDE:
            images = images.index_select(dim, torch.arange(SMALLEST_SIDE, device=images.device).clamp(max=side - 1))
    return images


def resized(images: Tensor, scale: float) -> Tensor:
    """(B, C, H, W) in another size and the same dtype; integers are rounded: exported networks take nothing else."""
    sides = tuple(max(SMALLEST_SIDE, round(scale * side)) for side in images.shape[-2:])
    if sides == tuple(images.shape[-2:]):
        return images
    planes, exact = [], images.is_floating_point()
    for plane in images.flatten(0, 1):  # one after the other, since large images in float32 take more than their logits
        pixels = plane[None, None] if exact else plane[None, None].float()
        found = F.interpolate(pixels, sides, mode="bilinear", align_corners=False, antialias=True)[0, 0]
        planes.append(found if exact else found.round_().to(images.dtype))
    return torch.stack(planes).view(*images.shape[:2], *sides)


def resized_bands(bands: Iterable[Tensor], height: int, size: Sequence[int]) -> Iterator[Tensor]:
    """Logits (B, K, height, w) in bands of rows from top to bottom, in another size, bilinearly and as bands again."""
    rows, columns = size
    # The centres of the new rows among the old ones, in float64: a row more or less shows in thousands of them.
    centres = ((torch.arange(rows, dtype=torch.float64) + 0.5) * height / rows - 0.5).clamp(0, height - 1)
    above = centres.long()
    below = (above + 1).clamp(max=height - 1)
    held, first, done = None, 0, 0
    for band in bands:
        held = band.float() if held is None else torch.cat([held, band.float()], dim=-2)
        ready = int((below < first + held.shape[-2]).sum())
        if ready > done:
            upper, lower = (held[..., (place[done:ready] - first).to(held.device), :] for place in (above, below))
            share = (centres - above)[done:ready, None].to(held)
            rows_of_band = torch.lerp(upper, lower, share)
            yield F.interpolate(rows_of_band, (ready - done, columns), mode="bilinear", align_corners=False)
            done = ready
        if done < rows:
            kept_from = min(int(above[done]), first + held.shape[-2])
            held, first = held[..., kept_from - first :, :], kept_from
