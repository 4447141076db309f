"""How unlike the training images an image is, by the features that a network makes of it.

Its distance from them is that of Mahalanobis with a diagonal covariance (as in Lee et al., "A simple unified framework
for detecting out-of-distribution samples and adversarial attacks", NeurIPS 2018, without classes). The logarithms of
held-out images' distances are taken as normal, of unknown mean and deviation, so that few of them make none seem far.
"""

from __future__ import annotations

from math import log, sqrt
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
        start = cls(training.mean(axis=0), std.clip(LEAST * std.mean()), 0.0, 1.0, len(held_out))
        start = cls.read(start.plain(), len(std))  # with the digits that are kept
        distances = [start.distance(features) for features in held_out]
        spread = max(float(np.std(distances, ddof=1)), LEAST_SPREAD)
        return start._replace(center=float(np.mean(distances)), spread=spread)

    def distance(self, features: NDArray[np.float32]) -> float:
        """Logarithm of the root mean square of features (C,), each from its mean in standard deviations."""
        return log(max(float(np.sqrt((((features - self.mean) / self.std) ** 2).mean(dtype=np.float64))), 1e-12))

    def unlike(self, features: NDArray[np.float32]) -> float:
        """The share in [0, 1] of images such as the held-out ones that are nearer to the training images."""
        scale = self.spread * sqrt(1 + 1 / self.held_out)
        return float(stdtr(self.held_out - 1, (self.distance(features) - self.center) / scale))

    def plain(self) -> dict[str, Any]:
        """As JSON keeps it: a channel after the other in one text."""
        texts = {name: " ".join(f"{each:.4g}" for each in getattr(self, name)) for name in ("mean", "std")}
        return self._asdict() | texts

    @classmethod
    def read(cls, content: dict[str, Any], channels: int) -> Self:
        """Of what ``plain`` gave, for a network with C channels; an error where it is none."""
        mean, std = (np.array(content[name].split(), np.float32) for name in ("mean", "std"))
        center, spread, count = float(content["center"]), float(content["spread"]), content["held_out"]
        fits = mean.shape == std.shape == (channels,) and type(count) is int and count > 1
        if not fits or not np.isfinite([*mean, *std, center, spread]).all() or min(*std, spread) <= 0:
            raise UsageError(f"features: not the statistics of a network with {channels} channels")
        return cls(mean, std, center, spread, count)
