"""What runs with several seeds say together, what chance leaves of a difference, and what follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from statistics import fmean, stdev
from typing import NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sanet.evaluation.confusion import iou_of

RESAMPLES = 2000
# With two, one difference in five between equal networks would be taken for one that is there.
RUNS_TO_JUDGE = 3
# How often the interval holds the true difference where seeds alone differ, in per cent by the runs of each network:
# docs/results/coverage.csv, by benchmarks/coverage.py.
COVERAGE = {3: 86, 5: 91, 10: 93}


class Spread(NamedTuple):
    """Mean of a score over the seeds, and its sample standard deviation, which is NaN for one run."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Mean and deviation of one value or more; NaN where one of them is."""
        mean = fmean(values)
        return cls(mean, stdev(values) if len(values) > 1 and isfinite(mean) else nan)


class Difference(NamedTuple):
    """Of a score of two networks, the first minus the second, with the ends of the middle 95 % of the resamples."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same images, the first minus the second.

    Attributes:
        first: label of the one.
        second: label of the other.
        difference: of their mIoU, in shares of one, with its interval.
        runs: runs of the one that has fewer.
        published: published difference in points; None where there is none.
    """

    first: str
    second: str
    difference: Difference
    runs: int
    published: float | None = None

    @property
    def judged(self) -> bool:
        """Whether there are enough runs, and something to score."""
        return self.runs >= RUNS_TO_JUDGE and isfinite(self.difference.low)

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        if not all(map(isfinite, self.difference)):
            return "nothing to score"
        if not self.judged:
            return f"fewer than {RUNS_TO_JUDGE} runs"
        if self.difference.low > 0:
            return "higher"
        return "lower" if self.difference.high < 0 else "not significant"


# (R, rows, K) sums of R draws, and the (K,) true pixels of the whole set, to (R, M) scores.
Score = Callable[[Tensor, Tensor], Tensor]
Sums = NDArray[np.int64] | NDArray[np.float64]  # (S, N, rows, K), see ``bootstrap``


def _miou(draws: Tensor, truth: Tensor) -> Tensor:
    """A true class of the set that a draw does not hold is in no mean of that draw, whoever predicts a pixel of it."""
    return iou_of(draws).masked_fill((draws[:, 1] == 0) & (truth > 0), nan).nanmean(dim=1, keepdim=True)


def _pixel_accuracy(draws: Tensor, truth: Tensor) -> Tensor:
    return (draws[:, 0].sum(dim=1) / draws[:, 1].sum(dim=1))[:, None]


# What differences are judged in.
SCORES: Mapping[str, Score] = {"miou": _miou, "pixel_accuracy": _pixel_accuracy}


def paired_bootstrap(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    score: str = "miou",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """How much of a difference is left with other images of the same kind, and with other seeds; see ``bootstrap``.

    Args:
        first: (S, N, 3, K) pixels found, true and predicted of each class, in N images, by S runs of a network.
        second: (S', N, 3, K), of the other network on the same images.
        score: a name of ``SCORES``.
        resamples: draws.
        seed: of the draws.

    Raises:
        ValueError: other images or classes.
    """
    found = bootstrap((first, second), SCORES[score], None, resamples, seed)
    return Difference(*(part.item() for part in found))


def bootstrap(
    networks: Sequence[Sums],
    score: Score,
    groups: NDArray[np.int64] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Scores of one network, or the differences of two, and what is left of them with other images and seeds.

    Images are drawn with replacement, the same ones for every run of both networks; the score of each draw follows
    from the sums of its pixels, as that of the whole set does (Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993). Of the S runs of a network S - 1 are drawn, which gives their mean the variance that it has
    (Rao and Wu, "Resampling Inference with Complex Survey Data", 1988); one run alone is taken as it is.

    Args:
        networks: of one network or two the counts (S, N, rows, K) of S runs on the same N images.
        score: the M scores of draws.
        groups: (N,) the group of each image, which are drawn whole; None: each image is one.
        resamples: draws; without any there is no interval.
        seed: of the draws.

    Returns:
        (M,) each: the scores or differences, and the ends of the middle 95 % of the draws that have them.

    Raises:
        ValueError: other images or classes.
    """
    shapes = [runs.shape[1:] for runs in networks]
    if len({*shapes}) > 1:
        raise ValueError(f"{shapes[0]} against {shapes[1]}: these are not the same images and classes")
    images = shapes[0][0]
    random = np.random.default_rng(seed)
    _, group_of = np.unique(np.arange(images) if groups is None else groups, return_inverse=True)
    count = group_of.max() + 1
    draws = random.multinomial(count, np.full(count, 1 / count), size=resamples)[:, group_of]
    whole = np.ones((1, images), dtype=np.int64)
    values, drawn = [], []
    for runs in networks:
        values.append(_scores(score, runs, whole).mean(axis=(0, 1)))
        drawn.append((_shares(len(runs), resamples, random)[..., None] * _scores(score, runs, draws)).sum(axis=1))
    value, found = (values[0], drawn[0]) if len(networks) == 1 else (values[0] - values[1], drawn[0] - drawn[1])
    with catch_warnings():  # of scores that no draw has, as without a labelled pixel, the ends are NaN
        simplefilter("ignore", RuntimeWarning)
        low, high = np.nanpercentile(found, [2.5, 97.5], axis=0) if resamples else np.full((2, *value.shape), nan)
    return value, low, high


def _shares(runs: int, resamples: int, random: np.random.Generator) -> NDArray[np.float64]:
    """(R, S): how much each run counts in each draw."""
    drawn = max(1, runs - 1)
    return random.multinomial(drawn, np.full(runs, 1 / runs), size=resamples) / drawn if runs > 1 else np.ones((1, 1))


def _scores(score: Score, sums: Sums, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R, S, M): the scores of every run on images that each of the draws (R, N) counts so many times."""
    # As floats, which are exact below 2^53 pixels and which matrix products are fast for.
    weights, found = torch.from_numpy(draws).double(), []
    for run in sums:
        drawn = (weights @ torch.from_numpy(run).double().flatten(1)).view(-1, *run.shape[1:])
        found.append(score(drawn, torch.from_numpy(run[:, 1].sum(axis=0))))
    return torch.stack(found, dim=1).numpy()
