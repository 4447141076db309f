"""Labels for a picture of any size, from any callable that maps pictures to logits.

Validation, evaluation and prediction all go through ``label_picture``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

# (B, 3, H, W) uint8 or float in [0, 1] -> (B, K, H, W) logits
LogitsFunction = Callable[[Tensor], Tensor]

SMALLEST_SIDE = 32
OVERLAP = 1 / 3


def label_picture(logits_of: LogitsFunction, image: Tensor, window: int) -> Tensor:
    """The most likely class of every pixel.

    Args:
        logits_of: the network.
        image: (3, H, W), uint8 or float in [0, 1], of any size, on the network's device.
        window: side in pixels. A picture of no more than ``window ** 2`` pixels is labelled whole; a larger one
            through overlapping windows of this size, whose logits are blended at the seams.

    Returns:
        (H, W) int64 class indices.
    """
    height, width = image.shape[-2:]
    image = _grown_to_smallest_side(image)
    if image.shape[-2] * image.shape[-1] <= window**2:
        labels = logits_of(image[None]).argmax(dim=1)[0]
    else:
        labels = torch.cat([band.argmax(dim=0) for band in blended_bands(logits_of, image, window)])
    return labels[:height, :width]


def blended_bands(logits_of: LogitsFunction, image: Tensor, window: int) -> Iterator[Tensor]:
    """Logits of a picture from overlapping windows, as bands of finished rows.

    Every window counts most at its middle and least at its rim. Only the rows that further windows still touch are
    kept, so that the memory needed grows with the picture's width and not with its height.

    Args:
        logits_of: the network.
        image: (3, H, W).
        window: side of the windows in pixels; a shorter side of the picture is taken whole.

    Yields:
        (K, rows, W) float32, from top to bottom; the rows of all bands together are H.
    """
    height, width = image.shape[-2:]
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
        sums, weights = _scrolled(sums, finished), _scrolled(weights, finished)


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


def _scrolled(rows: Tensor, count: int) -> Tensor:
    """Drop the first ``count`` rows of (…, rows, W) and add as many of zeros."""
    return F.pad(rows[..., count:, :], (0, 0, 0, count))


def _grown_to_smallest_side(image: Tensor) -> Tensor:
    """Repeat the last row and column until both sides have the 32 pixels that the networks need."""
    height, width = image.shape[-2:]
    rows = torch.arange(max(height, SMALLEST_SIDE), device=image.device).clamp(max=height - 1)
    columns = torch.arange(max(width, SMALLEST_SIDE), device=image.device).clamp(max=width - 1)
    if len(rows) == height and len(columns) == width:
        return image
    return image[:, rows][:, :, columns]
