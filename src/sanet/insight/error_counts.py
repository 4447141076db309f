"""What is wrong, counted: by place and size, and by pairs of classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanet.evaluation.protocol import Protocol
from sanet.evaluation.regions import connected_regions
from sanet.evaluation.results import Example
from sanet.insight.suspects import Suspect, steps_to_outline
from sanet.structures import LabelSet

# Quantities by title, and where their ranges begin.
RANGES: dict[str, tuple[float, ...]] = {
    "Pixels to a true boundary": (0, 1, 2, 4, 8, 16, 32),
    "Size of the true region, % of image": (0, 0.1, 0.3, 1, 3, 10, 30),
    "Mean width of the true region, pixels": (0, 2, 4, 8, 16, 32, 64),
}


class ErrorRates:
    """How many pixels are wrong, by ranges of these quantities.

    Attributes:
        counts: (3, 2, 7) int64, pixels and wrong ones.
    """

    def __init__(self) -> None:
        self.counts = np.zeros((3, 2, 7), np.int64)

    def add(self, truth: NDArray[np.int64], prediction: NDArray[np.int64], labels: LabelSet) -> None:
        """Count an image (H, W)."""
        labelled = truth != labels.ignore_index
        wrong = labelled & (truth != prediction)
        numbers, kinds = connected_regions(truth, labelled, len(labels))
        regions = [np.bincount(numbers[part], minlength=len(kinds))[1:] for part in (labelled, wrong)]
        steps = np.minimum(steps_to_outline(truth), 32)
        by_step = [np.bincount(steps[part], minlength=33) for part in (labelled, wrong)]
        values = np.arange(33), 100 * regions[0] / truth.size, 2 * regions[0] / _sides(numbers, len(kinds))[1:]
        for place, (starts, value) in enumerate(zip(RANGES.values(), values, strict=True)):
            ranges = np.searchsorted(starts, value, side="right") - 1
            for row, pixels in zip(self.counts[place], by_step if place == 0 else regions, strict=True):
                np.add.at(row, ranges, pixels)

    def tables(self) -> dict[str, list[tuple[str, float, float]]]:
        """By title the ranges with any pixels: name, share of all pixels, and the share of these that is wrong."""
        found = {}
        for (title, starts), (pixels, wrong) in zip(RANGES.items(), self.counts.tolist(), strict=True):
            names = [*(f"< {end:g}" for end in starts[1:]), f"from {starts[-1]:g}"]
            rows = zip(names, pixels, wrong, strict=True)
            found[title] = [(name, count / sum(pixels), bad / count) for name, count, bad in rows if count]
        return found


def _sides(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(R + 1,): how many sides of its pixels each region has to something else, the outside of the image included."""
    padded, sides = np.pad(numbers, 1), np.zeros(count, np.int64)
    for one, other in ((padded[1:], padded[:-1]), (padded[:, 1:], padded[:, :-1])):
        for inside in (one, other):
            sides += np.bincount(inside[one != other], minlength=count)
    return sides


class Confusion(NamedTuple):
    """Pixels of a class that were predicted as another, what mIoU they cost, and a part of an image with them."""

    label: str
    predicted: str
    pixels: int
    cost: float
    example: Example | None


def costs_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K, K): by how much mIoU would rise if the pixels of a confusion were right, over the same classes."""
    hits = counts.diagonal()
    union = counts.sum(axis=1) + counts.sum(axis=0) - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        gains = np.nan_to_num(counts / union[:, None])
        gains += np.nan_to_num(hits / (union - counts)) - np.nan_to_num(hits / union)
    np.fill_diagonal(gains, 0)
    costs: NDArray[np.float64] = gains / max(1, np.count_nonzero(union))
    return costs


@dataclass(frozen=True)
class Errors:
    """The outcome of ``errors``.

    Attributes:
        protocol: what was looked at and how.
        confusion: (K, K) int64, rows are the ground truth.
        image_miou: mIoU of every image by itself, by name; NaN where it has no labelled pixel.
        rates: error rates by distance from a true boundary, and by size and mean width of the true connected region.
        confusions: those that cost most, the most expensive first.
        suspects: all images, those whose labels are most probably wrong first.
        examples: some images by what they are: worst, random, best.
    """

    protocol: Protocol
    confusion: NDArray[np.int64]
    image_miou: dict[str, float]
    rates: ErrorRates = field(repr=False)
    confusions: list[Confusion] = field(repr=False)
    suspects: list[Suspect] = field(repr=False)
    examples: dict[str, list[Example]] = field(repr=False)
