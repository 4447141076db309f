"""All scores of an evaluation, by class and as means, each with an interval over the images.

What an image adds is (13, K) whole numbers: of each class the pixels found, true and predicted, the same of the
boundary regions, the four numbers of the outlines, and the regions matched, true and predicted. All scores follow from
the sums over the images, so the bootstrap is exact for every one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import isfinite, nan
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sanet.evaluation.confusion import iou_of, means_of, sums_of
from sanet.evaluation.outlines import F1_RATIO, IOU_RATIO, distance_of, outline_counts, region_counts
from sanet.evaluation.regions import matched_regions
from sanet.evaluation.repeated import RESAMPLES, bootstrap
from sanet.structures import LabelSet
from sanet.tables import percent


def _dice(sums: Tensor) -> Tensor:
    hits, truth, prediction = sums.unbind(dim=-2)
    return 2 * hits / (truth + prediction)


def _precision(sums: Tensor) -> Tensor:
    return sums[..., 0, :] / sums[..., 2, :]


def _recall(sums: Tensor) -> Tensor:
    return sums[..., 0, :] / sums[..., 1, :]


def _boundary_f1(sums: Tensor) -> Tensor:
    """0 where one of the two has no outline, NaN where both have none."""
    found, predicted, reached, true = sums.unbind(dim=-2)
    precision, recall = found / predicted.clamp(min=1), reached / true.clamp(min=1)
    f1 = 2 * precision * recall / (precision + recall)
    return f1.nan_to_num().masked_fill(predicted + true == 0, nan)


class Measure(NamedTuple):
    """A score of every class: what it is called, the rows of the counts that it needs, and how it follows from them."""

    title: str
    rows: slice
    of: Callable[[Tensor], Tensor]


PIXELS, NEAR_OUTLINES, OUTLINES, REGIONS = slice(0, 3), slice(3, 6), slice(6, 10), slice(10, 13)
ROWS = REGIONS.stop
BOUNDARIES = "boundaries"  # in the facts of an evaluation: ``rule_of``
MEASURES = {
    "iou": Measure("IoU", PIXELS, iou_of),
    "dice": Measure("Dice", PIXELS, _dice),
    "precision": Measure("precision", PIXELS, _precision),
    "recall": Measure("recall", PIXELS, _recall),
    "boundary_iou": Measure("boundary IoU", NEAR_OUTLINES, iou_of),
    "boundary_f1": Measure("boundary F1", OUTLINES, _boundary_f1),
    "region_precision": Measure("region precision", REGIONS, _precision),
    "region_recall": Measure("region recall", REGIONS, _recall),
}


class Interval(NamedTuple):
    """A score, or a difference of two, with the ends of the middle 95 % of the resamples; NaN where there is none."""

    value: float
    low: float
    high: float

    def text(self, sign: str = "") -> str:
        """In per cent, such as "61.3 58.0–64.2"; with the sign "+" every number has its own."""
        ends = f" {100 * self.low:{sign}.1f}–{100 * self.high:{sign}.1f}" if isfinite(self.low) else ""
        return f"{100 * self.value:{sign}.1f}{ends}" if isfinite(self.value) else percent(nan)


class Table(NamedTuple):
    """All scores.

    Attributes:
        classes: of every measure the K classes in their order, and behind them their mean.
        means: the scores of ``SCORE_NAMES`` that there are.
    """

    classes: dict[str, list[Interval]]
    means: dict[str, Interval]


def image_counts(prediction: Tensor, mask: Tensor, confusion: Tensor, labels: LabelSet) -> Tensor:
    """(13, K) int64 of an image: predicted and true labels (H, W) int64 on the CPU, and its (K, K) confusion matrix."""
    found, true = prediction.numpy(), mask.numpy()
    labelled, classes = true != labels.ignore_index, len(labels)
    parts = (
        region_counts(found, true, labelled, classes, IOU_RATIO),
        outline_counts(found, true, labelled, classes),
        matched_regions(found, true, labelled, classes),
    )
    return torch.cat([sums_of(confusion), *map(torch.from_numpy, parts)])


def rule_of(shapes: Iterable[tuple[int, ...]]) -> str:
    """The distances that were meant in images of these sizes, in words."""
    shapes = sorted(set(shapes))
    words = []
    for ratio in (IOU_RATIO, F1_RATIO):
        pixels = sorted({distance_of(ratio, shape) for shape in shapes})
        text = f"{pixels[0]} to {pixels[-1]}" if len(pixels) > 1 else str(pixels[0])
        words.append(f"{text} pixel{'s' * (pixels[-1] > 1)} ({100 * ratio:g} % of the diagonal)")
    return f"Boundary IoU: within {words[0]} of an outline; boundary F1: within {words[1]}"


def table_of(counts: Sequence[NDArray[np.int64]], labels: LabelSet, groups: NDArray[np.int64] | None = None) -> Table:
    """All scores of one evaluation, or the differences of the first of two from the second.

    Args:
        counts: (N, 13, K) of the same images by one or two models; (N, 3, K) has the scores of pixels alone.
        labels: the classes.
        groups: (N,) the group of each image, which are drawn whole; None: each image is one.
    """
    rows = min(part.shape[1] for part in counts)
    names: list[tuple[str, int]] = []

    def score(sums: Tensor, truth: Tensor) -> Tensor:
        missing = (sums[:, 1] == 0) & (truth > 0)  # a true class that a draw does not hold is in none of its means
        parts = {}
        for name, measure in MEASURES.items():
            if measure.rows.stop <= rows:
                of_classes = measure.of(sums[:, measure.rows]).masked_fill(missing, nan)
                parts[name] = torch.cat([of_classes, of_classes.nanmean(dim=1, keepdim=True)], dim=1)
        parts |= {name: mean[:, None] for name, mean in means_of(sums[:, PIXELS], labels, missing).items()}
        names[:] = [(name, part.shape[1]) for name, part in parts.items()]
        return torch.cat([*parts.values()], dim=1)

    units = len(counts[0]) if groups is None else len(np.unique(groups))
    runs = [part[None, :, :rows] for part in counts]
    found = bootstrap(runs, score, groups, RESAMPLES if units > 1 else 0)
    intervals = [Interval(*triple) for triple in zip(*(part.tolist() for part in found), strict=True)]
    table = Table({}, {})
    for name, width in names:
        part, intervals = intervals[:width], intervals[width:]
        if name in MEASURES:
            table.classes[name] = part
        else:
            table.means[name] = part[0]
    return table
