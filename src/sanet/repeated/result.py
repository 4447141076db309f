"""What became of a table of repeated runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanet.evaluation.repeated import Comparison, Spread
from sanet.evaluation.results import Evaluation
from sanet.repeated.config import RepeatConfig, Row


@dataclass(frozen=True)
class RowResult:
    """What became of a row.

    Attributes:
        row: the row.
        runs_in: folder and name of its runs, a digest of what decides how they come out.
        runs: scores of those that are finished, by seed.
        failures: what became of the others, by seed, a line each.
    """

    row: Row
    runs_in: Path
    runs: dict[int, Evaluation] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def directory_of(self, seed: int) -> Path:
        """Run directory of a seed."""
        return self.runs_in.with_name(f"{self.runs_in.name}-seed{seed}")

    @property
    def directory(self) -> Path:
        """Run directory of the first seed that is finished."""
        return self.directory_of(min(self.runs))

    def spread(self, score: str) -> Spread:
        """Mean and deviation of a score such as "miou", in per cent, over the seeds."""
        return _spread([100 * float(getattr(run.scores, score)) for run in self.runs.values()])

    def metric(self, name: str) -> Spread:
        """Mean and deviation of a chosen metric over the seeds; NaN where the row does not choose it."""
        return _spread([run.metrics[name] for run in self.runs.values() if name in run.metrics])

    def image_sums(self) -> NDArray[np.int64]:
        """(S, N, 3, K): for every run and image the pixels of each class that were found, are true, were predicted."""
        return np.array([run.image_sums for run in self.runs.values()])


@dataclass(frozen=True)
class Repeated:
    """A table as far as it got.

    Attributes:
        config: what was asked for.
        split: the split that was scored.
        images: digests of the splits, by name.
        rows: in the order of the table.
        stopped: something ended it before all runs were made.
    """

    config: RepeatConfig
    split: str
    images: Mapping[str, Any]
    rows: list[RowResult]
    stopped: bool = False

    def finished(self) -> list[RowResult]:
        """The rows that have a score."""
        return [row for row in self.rows if row.runs]

    def metrics(self) -> list[str]:
        """Names of the metrics that rows choose beside the usual scores."""
        return list(dict.fromkeys(name for row in self.rows for name in row.row.config.metrics))

    def failures(self) -> list[str]:
        """What did not finish, and why, a line each."""
        return [f"{row.row.label}, seed {seed}: {why}" for row in self.rows for seed, why in row.failures.items()]

    def comparisons(self) -> list[Comparison]:
        """The pairs of finished rows that the table compares, by mIoU."""
        found = {result.row.name: result for result in self.finished()}
        return [
            Comparison.of(
                found[first].row.label,
                found[second].row.label,
                found[first].image_sums(),
                found[second].image_sums(),
                published=_difference(found[first].row.published, found[second].row.published),
            )
            for first, second in self.config.comparisons
            if first in found and second in found
        ]


def _spread(values: list[float]) -> Spread:
    return Spread.of(values) if values else Spread(nan, nan)


def _difference(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """Of two published mIoUs, in points."""
    return first["miou"] - second["miou"] if "miou" in first and "miou" in second else None
