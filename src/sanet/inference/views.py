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
from itertools import groupby
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from sanet.config import InferenceConfig

# (B, C, H, W) integers or float in [0, 1] -> (B, K, H, W) logits
LogitsFunction = Callable[[Tensor], Tensor]
Block = tuple[slice, slice, Tensor]  # rows and columns of an image, and (B, K, rows, columns) of them

SMALLEST_SIDE = 32
OVERLAP = 1 / 3
PART = 2**21  # pixels of resized logits at once


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
    """``score_blocks``, joined to bands (B, K, rows, W) of whole rows."""
    return _bands(score_blocks(logits_of, images, settings))


def score_blocks(logits_of: LogitsFunction, images: Tensor, settings: InferenceConfig) -> Iterator[Block]:
    """What decides about every pixel of images of one size, (B, C, H, W): its class has the largest score.

    Yields:
        rows, columns and scores of blocks, from top to bottom and left to right: logits of one view, or probabilities
        of several. Each pixel is in one block, and blocks of a row have the same rows.
    """
    height, width = images.shape[-2:]
    if settings.several:
        yield slice(0, height), slice(0, width), class_probabilities(logits_of, images, settings)
        return
    seen = grown(images)
    (factor,) = settings.factors(*seen.shape[-2:])
    for rows, columns, scores in _view(logits_of, seen, factor, settings.window):
        if rows.start < height:
            inside = scores[..., : height - rows.start, : width - columns.start]
            yield slice(rows.start, min(rows.stop, height)), slice(columns.start, min(columns.stop, width)), inside


def _bands(blocks: Iterable[Block]) -> Iterator[Tensor]:
    for _, row in groupby(blocks, lambda block: block[0].start):
        yield torch.cat([scores for *_, scores in row], dim=-1)


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
            for logits in _bands(_view(logits_of, seen, factor, settings.window)):
                rows = min(logits.shape[-2], height - first)
                found = logits[..., :rows, :width].softmax(dim=1)
                if sums is None:
                    sums = found.new_zeros(*found.shape[:2], height, width)
                sums[..., first : first + rows, :] += found.flip(-1) if flipped else found
                first += rows
    assert sums is not None
    return sums.div_(len(settings.scales) * (1 + settings.flip))


def _view(logits_of: LogitsFunction, images: Tensor, factor: float, window: int) -> Iterator[Block]:
    """Logits of the images' size, from another one: whole, or in windows."""
    seen, first, size = resized(images, factor), 0, images.shape[-2:]
    if seen.shape == images.shape:
        yield from blended_blocks(logits_of, seen, window)
        return
    for band in resized_bands(blended_bands(logits_of, seen, window), seen.shape[-2], size):
        yield slice(first, first + band.shape[-2]), slice(0, size[1]), band
        first += band.shape[-2]


def blended_bands(logits_of: LogitsFunction, images: Tensor, window: int) -> Iterator[Tensor]:
    """``blended_blocks``, joined to bands (B, K, rows, W) of whole rows."""
    return _bands(blended_blocks(logits_of, images, window))


def blended_blocks(logits_of: LogitsFunction, images: Tensor, window: int) -> Iterator[Block]:
    """Logits of images of one size, whole or, of more than ``window ** 2`` pixels, from overlapping windows.

    Every window counts most at its middle and least at its rim. Of its logits only what further windows still touch is
    kept, about a third of a window's rows, so that the memory needed grows with the image's width and not with its
    height.

    A side of the images (B, C, H, W) that is shorter than ``window`` is taken whole.

    Yields:
        See ``score_blocks``.
    """
    height, width = images.shape[-2:]
    if height * width <= window**2:
        yield slice(0, height), slice(0, width), logits_of(images)
        return
    tall, wide = min(window, height), min(window, width)
    tops, lefts = window_starts(height, tall), window_starts(width, wide)
    row_shares, column_shares = _shares(tops, tall, height), _shares(lefts, wide, width)
    bottoms, above = [*tops[1:], height], None
    most = max(top + tall - bottom for top, bottom in zip(tops, bottoms, strict=True))
    for top, bottom, of_rows in zip(tops, bottoms, row_shares, strict=True):
        before = None
        for left, right, of_columns in zip(lefts, [*lefts[1:], width], column_shares, strict=True):
            weights = torch.outer(of_rows, of_columns).to(images.device)
            found = logits_of(images[..., top : top + tall, left : left + wide]).float() * weights
            if above is None:  # in one piece, since many small ones leave gaps in memory
                above = found.new_zeros(*found.shape[:2], most, width)
            if before is not None:
                found[..., : before.shape[-1]] += before
            found, before = found[..., : right - left], found[..., right - left :]
            found[..., :most, :] += above[..., left:right]
            left_over = top + tall - bottom
            above[..., :left_over, left:right] = found[..., bottom - top :, :]
            above[..., left_over:, left:right] = 0
            yield slice(top, bottom), slice(left, right), found[..., : bottom - top, :]


def _shares(starts: Sequence[int], window: int, length: int) -> list[Tensor]:
    """For each window its share in every pixel of a side: 1, 2, 3 … 3, 2, 1, over the sum of all windows there."""
    rising = torch.arange(1, window + 1, dtype=torch.float32)
    tent, sums = torch.minimum(rising, rising.flip(0)), torch.zeros(length)
    for start in starts:
        sums[start : start + window] += tent
    return [tent / sums[start : start + window] for start in starts]


def window_starts(length: int, window: int) -> list[int]:
    """Evenly spaced starts of windows that cover ``length`` and overlap by at least a third."""
    if length <= window:
        return [0]
    steps = ceil((length - window) / max(1, int(window * (1 - OVERLAP))))
    return [round(step * (length - window) / steps) for step in range(steps + 1)]


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
        while ready > done:  # of the largest images a part of what is ready: all of it can be gigabytes
            part = slice(done, min(ready, done + max(1, PART // columns)))
            upper, lower = (held[..., (place[part] - first).to(held.device), :] for place in (above, below))
            rows_of_band = torch.lerp(upper, lower, (centres - above)[part, None].to(held))
            done = part.stop
            yield F.interpolate(rows_of_band, (done - part.start, columns), mode="bilinear", align_corners=False)
        if done < rows:
            kept_from = min(int(above[done]), first + held.shape[-2])
            held, first = held[..., kept_from - first :, :], kept_from
