"""The grouping score: whether the attention channel of a head, or the features of a network, group a class's pixels.

For a point, pixels are ranked by the distance of their vectors from the point's; the area under the ROC curve
of that ranking is the probability that a pixel of the point's own class is nearer than one of another class. 1 is a
perfect group, 0.5 is chance.

The reach says where the group lies: the mean distance in the image from the point to the tenth of the pixels whose
vectors are nearest, over that to all pixels. 1 is everywhere alike, near 0 is around the point. The paper says that the
attention of low heads is broad and that of high heads stays near (section 4.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sanet.data.source import SegmentationDataset
from sanet.insight.groups import Explainer
from sanet.structures import LabelSet, UsageError
from sanet.tables import percent, text_table


@dataclass(frozen=True)
class GroupingScores:
    """Scores of a network on a dataset.

    Attributes:
        labels: the classes.
        names: of what groups them, such as "head 1" and "level 4".
        scores: (S, K) mean area under the ROC curve by head and class; NaN where no point was scored.
        points: (K,) points that were scored of each class.
        reach: (S,) mean distance in the image of the nearest tenth of the pixels from the point, over that of all.
    """

    labels: LabelSet
    names: tuple[str, ...]
    scores: NDArray[np.float64]
    points: NDArray[np.int64]
    reach: NDArray[np.float64]

    def table(self) -> str:
        """Plain text for a terminal: a row for each class, a column for each head, in per cent."""
        means = [np.nanmean(row).item() if np.isfinite(row).any() else nan for row in self.scores]
        names = [*self.labels.names, "mean over classes"]
        columns = [[percent(score) for score in (*row, mean)] for row, mean in zip(self.scores, means, strict=True)]
        points = [str(count) for count in (*self.points, self.points.sum())]
        rows = [*zip(names, *columns, points, strict=True)]
        rows.append(("reach, 1 is everywhere", *(f"{share:.2f}" for share in self.reach), ""))
        return text_table(["ROC area in per cent", *self.names, "points"], rows)


def grouping_scores(
    explainer: Explainer,
    dataset: SegmentationDataset,
    points: int = 3,
    pixels: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> GroupingScores:
    """Score every head, or level of the backbone, for every class.

    Args:
        explainer: of the network.
        dataset: images and their masks.
        points: number drawn of each class in each image that has it.
        pixels: number drawn of each image, to be ranked; those without a label are never drawn.
        seed: seed of the random generator; the same points are drawn for every network.
        progress: show a bar.

    Raises:
        UsageError: points or pixels below 1.
    """
    if points < 1 or pixels < 1:
        raise UsageError(f"points {points} and pixels {pixels}: 1 or more")
    labels, random, names = dataset.labels, np.random.default_rng(seed), explainer.names
    sums, reach = np.zeros((len(names), len(labels))), np.zeros(len(names))
    counts = np.zeros(len(labels), np.int64)
    for index in tqdm(range(len(dataset)), "group", unit=" images", disable=not progress):
        sample = dataset[index]
        mask = sample.mask.numpy()
        drawn = _draw(mask, labels, points, pixels, random)
        if drawn is None:
            continue
        chosen, ranked = drawn
        classes = mask[ranked[:, 0], ranked[:, 1]]
        encoding = explainer.encode(sample.image)
        for place in chosen:
            category = mask[tuple(place)]
            counts[category] += 1
            away = np.linalg.norm(ranked - place, axis=1)
            for head, group in enumerate(encoding.groups(int(place[1]), int(place[0]))):
                cells = ranked * group.distance.shape // encoding.size
                distances = group.distance[cells[:, 0], cells[:, 1]]
                sums[head, category] += roc_area(-distances, classes == category)
                nearest = distances.argsort(stable=True)[: max(1, len(ranked) // 10)].numpy()
                reach[head] += away[nearest].mean() / away.mean()
    with np.errstate(invalid="ignore"):
        return GroupingScores(labels, names, sums / counts, counts, reach / counts.sum())


def _draw(
    mask: NDArray[np.int64], labels: LabelSet, points: int, pixels: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """(P, 2) points and (Q, 2) pixels to be ranked, as rows and columns; None where only one class was drawn."""
    labelled = np.argwhere(mask != labels.ignore_index)
    ranked = labelled[random.choice(len(labelled), min(pixels, len(labelled)), replace=False)]
    classes = np.unique(mask[ranked[:, 0], ranked[:, 1]])
    if len(classes) < 2:
        return None
    # Points of classes among the ranked, so that there is something to find.
    of_classes = [np.argwhere(mask == index) for index in classes]
    chosen = [places[random.choice(len(places), min(points, len(places)), replace=False)] for places in of_classes]
    return np.concatenate(chosen), ranked


def roc_area(scores: Tensor, positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the probability that a positive scores higher than a negative; ties count half.

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
