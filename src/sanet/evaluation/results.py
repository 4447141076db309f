"""The outcome of an evaluation, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanet.evaluation.confusion import Scores
from sanet.structures import LabelSet


@dataclass(frozen=True)
class Example:
    """A picture, its truth and what was predicted.

    Attributes:
        name: of the picture.
        image: (H, W, 3) uint8.
        truth: (H, W) int64, class indices or the ignore index.
        prediction: (H, W) int64.
        miou: over the classes of this picture alone.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]
    miou: float


@dataclass(frozen=True)
class Evaluation:
    """The outcome of ``evaluate``.

    Attributes:
        labels: the classes.
        confusion: (K, K) int64, rows are the truth.
        scores: what follows from ``confusion``.
        picture_miou: mIoU of every picture by itself, by name; NaN where a picture has no labelled pixel.
        worst: the pictures with the lowest mIoU, worst first.
        protocol: what was evaluated and how; goes into every file.
    """

    labels: LabelSet
    confusion: NDArray[np.int64]
    scores: Scores
    picture_miou: dict[str, float]
    worst: list[Example]
    protocol: dict[str, Any] = field(default_factory=dict)
