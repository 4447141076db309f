"""What runs with several seeds say together, and what chance leaves of a difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import fmean, stdev

import numpy as np
import torch
from numpy.typing import NDArray

from sanet.evaluation.confusion import iou_of

RESAMPLES = 2000


@dataclass(frozen=True)
class Spread:
    """Of one score over the seeds.

    Attributes:
        mean: of the runs.
        deviation: sample standard deviation; NaN for one run.
        runs: their number.
    """

    mean: float
    deviation: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Mean and deviation of one value or more."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else nan, len(values))

    def apart(self, other: Spread) -> bool:
        """Whether mean ± deviation of the two do not touch; one run alone has no interval and is never apart."""
        if isnan(self.deviation) or isnan(other.deviation):
            return False
        return abs(self.mean - other.mean) > self.deviation + other.deviation


@dataclass(frozen=True)
class Difference:
    """Of the mIoU of two networks on the same pictures, each the mean over its seeds.

    Attributes:
        mean: the first minus the second.
        low: where 95 % of the resamples begin.
        high: where they end.
        chance: share of the resamples in which the first is not better.
    """

    mean: float
    low: float
    high: float
    chance: float


def paired_bootstrap(
    first: NDArray[np.int64], second: NDArray[np.int64], resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """How much of a difference is left when other pictures of the same kind are scored.

    Pictures are drawn with replacement, the same ones for every run of both networks; the mIoU of each draw follows
    from the sums of its pixels, as that of the whole set does (Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993). Chance of the training is not in it: that is what the deviation over seeds is for.

    Args:
        first: (S, N, 3, K) pixels found, true and predicted of each class, in N pictures, by S runs of a network.
        second: (S', N, 3, K), of the other network on the same pictures.
        resamples: draws.
        seed: of the draws.

    Raises:
        ValueError: other pictures or classes.
    """
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(f"{first.shape[1:]} against {second.shape[1:]}: these are not the same pictures and classes")
    pictures = first.shape[1]
    draws = np.random.default_rng(seed).multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples)
    differences = _miou(first, draws) - _miou(second, draws)
    differences = differences[np.isfinite(differences)]  # a draw may have no labelled pixel
    whole = np.ones((1, pictures), dtype=np.int64)
    low, high = np.percentile(differences, [2.5, 97.5]).tolist()
    mean = float((_miou(first, whole) - _miou(second, whole))[0])
    return Difference(mean, low, high, float((differences <= 0).mean()))


def _miou(sums: NDArray[np.int64], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """(R,) mIoU, the mean over runs, of pictures that each of the draws (R, N) counts so many times."""
    # As floats, which are exact below 2^53 pixels and which matrix products are fast for.
    weights = torch.from_numpy(draws).double()
    of_runs = [
        iou_of((weights @ torch.from_numpy(run).double().flatten(1)).view(-1, *run.shape[1:])).nanmean(dim=1)
        for run in sums
    ]
    found: NDArray[np.float64] = torch.stack(of_runs).mean(dim=0).numpy()
    return found
