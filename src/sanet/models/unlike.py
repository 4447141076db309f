"""How unlike the training images an image is, by the features that a network makes of it.

The distance from the training images is that of Mahalanobis with a diagonal covariance (as in Lee et al., "A simple
unified framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS 2018, without classes).
What is far is what few held-out images are as far as: their distances' logarithms are taken as normal, of unknown mean
and deviation, so that few of them make no image seem far.
"""

from __future__ import annotations

from math import isfinite, log, sqrt
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from sanet.structures import UsageError

UNLIKE = 0.995  # from here on an image is far out
LEAST = 0.1  # of the mean deviation: no channel counts with a smaller one
# Deviation of the logarithms that is believed at least: held-out images are often of the same places as the training's.
LEAST_SPREAD = 0.15


class FeatureStatistics(NamedTuple):
    """What is kept of the training images and the held-out ones.

    Attributes:
        mean: (C,) float32, of the features of the training images.
        std: (C,) float32, their standard deviation.
        center: mean logarithm of the distance of the held-out images.
        spread: its standard deviation, ``LEAST_SPREAD`` at least.
        held_out: how many of these there were.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    center: float
    spread: float
    held_out: int

    @classmethod
    def of(cls, training: NDArray[np.float32], held_out: NDArray[np.float32]) -> Self | None:
        """From features (N, C) and (M, C); None where there are fewer than two of either, or they do not differ."""
        if min(len(training), len(held_out)) < 2 or not np.ptp(training, axis=0).any():
            return None
        std = training.std(axis=0)
        start = cls(_rounded(training.mean(axis=0)), _rounded(std.clip(LEAST * std.mean())), 0.0, 1.0, len(held_out))
        distances = [start.distance(features) for features in held_out]
        return start._replace(
            center=float(np.mean(distances)), spread=max(float(np.std(distances, ddof=1)), LEAST_SPREAD)
        )

    def distance(self, features: NDArray[np.float32]) -> float:
        """Logarithm of the root mean square of features (C,), each from its mean in standard deviations."""
        return log(max(float(np.sqrt((((features - self.mean) / self.std) ** 2).mean(dtype=np.float64))), 1e-12))

    def unlike(self, features: NDArray[np.float32]) -> float:
        """The share in [0, 1] of images such as the held-out ones that are nearer to the training images."""
        scale = self.spread * sqrt(1 + 1 / self.held_out)
        return float(stdtr(self.held_out - 1, (self.distance(features) - self.center) / scale))

    def plain(self) -> dict[str, Any]:
        """As JSON keeps it: a channel after the other in one text."""
        return self._asdict() | {name: " ".join(f"{each:.4g}" for each in getattr(self, name)) for name in TEXTS}

    @classmethod
    def read(cls, content: dict[str, Any], channels: int) -> Self:
        """Of what ``plain`` gave; a UsageError or another ValueError where it is none of a network with C channels."""
        mean, std = (np.array(content[name].split(), np.float32) for name in TEXTS)
        center, spread, count = content["center"], content["spread"], content["held_out"]
        fits = mean.shape == std.shape == (channels,) and np.isfinite(mean).all() and np.isfinite(std).all()
        if not (
            fits and (std > 0).all() and isfinite(center) and 0 < spread < np.inf and type(count) is int and count > 1
        ):
            raise UsageError(f"features: not the statistics of a network with {channels} channels")
        return cls(mean, std, float(center), float(spread), count)


TEXTS = ("mean", "std")


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """To the digits that are kept, so that a stored model gives the same."""
    return np.array([f"{value:.4g}" for value in values], np.float32)
