"""The grouping score: whether the attention channel of a head puts pixels of one class together.

For a point, pixels are ranked by the distance of their attention vectors from the point's; the area under the ROC curve
of that ranking is the chance that a pixel of the point's own class is nearer than one of another class. 1 is a perfect
group, 0.5 is none.

The reach says where the group lies: how far from the point, on the picture, the tenth of the pixels is whose vectors
are nearest, beside all pixels. 1 is everywhere alike, near 0 is around the point. The paper says that the attention of
low heads is broad and that of high heads stays near (section 4.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sanet.data.source import SegmentationDataset
from sanet.insight.groups import Encoding, Explainer, HeadMaps
from sanet.structures import LabelSet, UsageError


@dataclass(frozen=True)
class GroupingScores:
    """Of a network over a data set.

    Attributes:
        labels: the classes.
        stages: of the heads.
        scores: (S, K) mean area under the ROC curve by head and class; NaN where no point was scored.
        points: (K,) points that were scored of each class.
        reach: (S,) mean distance on the picture of the nearest tenth of the pixels from the point, over that of all.
    """

    labels: LabelSet
    stages: tuple[int, ...]
    scores: NDArray[np.float64]
    points: NDArray[np.int64]
    reach: NDArray[np.float64]

    def table(self) -> str:
        """Plain text for a terminal: a row for each class, a column for each head, in per cent."""
        width = max(map(len, [*self.labels.names, "reach, 1 is everywhere"]))
        heading = f"{'ROC area in per cent':{width}} " + "".join(f"{f'head {stage}':>8}" for stage in self.stages)
        rule = "-" * (len(heading) + 8)
        means = [np.nanmean(row).item() if np.isfinite(row).any() else nan for row in self.scores]
        rows = [
            f"{name:{width}} " + "".join(f"{_number(score):>8}" for score in column) + f"{count:>8}"
            for name, column, count in zip(self.labels.names, self.scores.T, self.points, strict=True)
        ]
        total = f"{'mean over classes':{width}} " + "".join(f"{_number(mean):>8}" for mean in means)
        reach = f"{'reach, 1 is everywhere':{width}} " + "".join(f"{share:8.2f}" for share in self.reach)
        return "\n".join([f"{heading}{'points':>8}", rule, *rows, rule, f"{total}{self.points.sum():>8}", reach])


def grouping_scores(
    explainer: Explainer,
    dataset: SegmentationDataset,
    points: int = 3,
    pixels: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> GroupingScores:
    """Score every head for every class.

    Args:
        explainer: of the network.
        dataset: pictures and their truth.
        points: drawn of each class in each picture that has it.
        pixels: drawn of each picture, to be ranked; those without a label are never drawn.
        seed: of the draws, which are the same for every network.
        progress: show a bar.

    Raises:
        UsageError: the network has no squeeze-and-attention heads, or no points or pixels are asked for.
    """
    if points < 1 or pixels < 1:
        raise UsageError(f"points {points} and pixels {pixels}: 1 or more")
    explainer.require_heads()
    labels, random, stages = dataset.labels, np.random.default_rng(seed), explainer.stages
    sums = {stage: np.zeros(len(labels)) for stage in stages}
    reach = dict.fromkeys(stages, 0.0)
    counts = np.zeros(len(labels), np.int64)
    for index in tqdm(range(len(dataset)), "group", unit=" pictures", disable=not progress):
        sample = dataset[index]
        truth = sample.mask.numpy()
        drawn = _draw(truth, labels, points, pixels, random)
        if drawn is None:
            continue
        chosen, ranked = drawn
        encoding = explainer.encode(sample.image)
        for place in chosen:
            own = truth[ranked[:, 0], ranked[:, 1]] == truth[tuple(place)]
            away = np.linalg.norm(ranked - place, axis=1)
            counts[truth[tuple(place)]] += 1
            for maps in encoding.heads:
                distances = _distances(maps, encoding, place, ranked)
                sums[maps.stage][truth[tuple(place)]] += roc_area(-distances, own)
                nearest = distances.argsort(stable=True)[: max(1, len(ranked) // 10)].numpy()
                reach[maps.stage] += away[nearest].mean() / away.mean()
    with np.errstate(invalid="ignore"):
        scores = np.array([sums[stage] / counts for stage in stages])
        reaches = np.array([reach[stage] for stage in stages]) / counts.sum()
    return GroupingScores(labels, stages, scores, counts, reaches)


def _draw(
    truth: NDArray[np.int64], labels: LabelSet, points: int, pixels: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """(P, 2) points and (Q, 2) pixels to be ranked, as rows and columns; None where only one class was drawn."""
    labelled = np.argwhere(truth != labels.ignore_index)
    if not len(labelled):
        return None
    ranked = labelled[random.choice(len(labelled), min(pixels, len(labelled)), replace=False)]
    classes = np.unique(truth[ranked[:, 0], ranked[:, 1]])
    if len(classes) < 2:
        return None
    # Points of classes among the ranked, so that there is something to find.
    of_classes = [np.argwhere(truth == index) for index in classes]
    chosen = [places[random.choice(len(places), min(points, len(places)), replace=False)] for places in of_classes]
    return np.concatenate(chosen), ranked


def _distances(maps: HeadMaps, encoding: Encoding, place: NDArray[np.int64], ranked: NDArray[np.int64]) -> Tensor:
    """(Q,) distances of pixels from a point, both as rows and columns."""
    height, width = encoding.size
    rows, columns = maps.attention.shape[-2:]
    cells = torch.from_numpy(ranked[:, 0] * rows // height), torch.from_numpy(ranked[:, 1] * columns // width)
    row, column = maps.cell(int(place[1]), int(place[0]), encoding.size)
    distances: Tensor = (maps.attention[:, cells[0], cells[1]] - maps.attention[:, row, column, None]).norm(dim=0)
    return distances


def roc_area(scores: Tensor, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the chance that a positive has a higher score than a negative; ties count half.

    Args:
        scores: (N,) float.
        positive: (N,) which of them should be high; some are and some are not.
    """
    _, which, sizes = torch.unique(scores, return_inverse=True, return_counts=True)
    # The mean rank of each group of equals, from 1 (Mann and Whitney, 1947).
    ranks = (sizes.cumsum(0).double() - (sizes - 1) / 2)[which]
    marked = torch.from_numpy(positive)
    found = int(marked.sum())
    return float((ranks[marked].sum() - found * (found + 1) / 2) / (found * (len(marked) - found)))


def _number(share: float) -> str:
    return f"{100 * share:.1f}" if isfinite(share) else "—"
