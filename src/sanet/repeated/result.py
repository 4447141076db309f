"""The rows of a table of repeated runs, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import nan
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanet.config import MODEL, TrainConfig
from sanet.evaluation.repeated import Comparison, Spread, paired_bootstrap
from sanet.evaluation.results import Evaluation
from sanet.repeated.config import RepeatConfig, figures_of
from sanet.settings import settings_of
from sanet.structures import UsageError


@dataclass(frozen=True)
class Row:
    """One row, and what became of it.

    Attributes:
        name: its key in ``RepeatConfig.rows``.
        config: its runs, but for seed and output.
        label: what a reader is shown.
        published: scores in per cent that somebody has published of it, by name.
        runs_in: folder and name of its runs, a digest of what decides how they come out.
        runs: scores of those that are finished, by seed.
        failures: what became of the others, by seed, a line each.
    """

    name: str
    config: TrainConfig
    label: str
    published: Mapping[str, float]
    runs_in: Path = Path()
    runs: dict[int, Evaluation] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def directory_of(self, seed: int) -> Path:
        """Run directory of a seed."""
        return self.runs_in.with_name(f"{self.runs_in.name}-seed{seed}")

    @property
    def model(self) -> tuple[int, Path] | None:
        """The first seed whose model is there, and the model; None where scores are all that is left."""
        models = ((seed, self.directory_of(seed) / MODEL) for seed in sorted(self.runs))
        return next(((seed, model) for seed, model in models if model.is_dir()), None)

    def spread(self, score: str) -> Spread:
        """Mean and deviation over the seeds: of a score such as "miou", in per cent, or of a chosen metric as it is.

        NaN where no run has it.
        """
        if score in self.config.metrics:
            return Spread.of([run.metrics.get(score, nan) for run in self.runs.values()] or [nan])
        shares = [getattr(run.scores, score, None) for run in self.runs.values()]
        return Spread.of([nan if share is None else 100 * share for share in shares] or [nan])

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
    rows: list[Row]
    stopped: bool = False

    def finished(self) -> list[Row]:
        """The rows that have a score."""
        return [row for row in self.rows if row.runs]

    def published(self) -> list[tuple[str, Mapping[str, float]]]:
        """Labels, and what was published: of the rows, and then of those that are only quoted."""
        quoted = [(f"{label} (quoted)", figures) for label, figures in self.config.quoted.items()]
        return [(row.label, row.published) for row in self.rows] + quoted

    def metrics(self) -> list[str]:
        """Names of the metrics that rows choose beside the usual scores."""
        return list(dict.fromkeys(name for row in self.rows for name in row.config.metrics))

    def failures(self) -> list[str]:
        """What did not finish, and why, a line each."""
        return [f"{row.label}, seed {seed}: {why}" for row in self.rows for seed, why in row.failures.items()]

    def comparisons(self) -> list[Comparison]:
        """The pairs of finished rows that the table compares, by mIoU."""
        rows = {row.name: row for row in self.finished()}
        pairs = [(rows[one], rows[two]) for one, two in self.config.comparisons if one in rows and two in rows]
        return [
            Comparison(
                one.label,
                two.label,
                paired_bootstrap(one.image_sums(), two.image_sums()),
                min(len(one.runs), len(two.runs)),
                _difference(one.published, two.published),
            )
            for one, two in pairs
        ]


def _difference(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """Of two published mIoUs, in points."""
    return first["miou"] - second["miou"] if "miou" in first and "miou" in second else None


def rows_of(table: RepeatConfig) -> list[Row]:
    """The rows of a table.

    Raises:
        UsageError: there are none, or one has a setting that does not exist.
    """
    if not table.rows:
        raise UsageError("rows: name at least one, such as {fcn: {model: {name: fcn}}, sanet: {}}")
    rows = []
    for name, given in table.rows.items():
        if not isinstance(given, (Mapping, NoneType)):
            raise UsageError(f"rows.{name} {given!r}: give settings, such as {{model: {{name: fcn}}}}")
        settings = _merged(table.base, given or {})
        label = str(settings.pop("label", name))
        published = figures_of(f"rows.{name}.published", settings.pop("published", {}))
        for key in ("data", "seed", "output"):
            if key in settings:
                raise UsageError(f"rows.{name}: {key} is the table's, the same for every row")
        try:
            config = settings_of(TrainConfig, settings)
        except UsageError as error:
            raise UsageError(f"rows.{name}: {error}") from error
        rows.append(Row(name, replace(config, data=table.data), label, published))
    return rows


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``own`` over ``base``, section by section; terms and options replace as a whole."""
    merged = {**base, **own}
    for name in base.keys() & own.keys() - {"terms", "options"}:
        if isinstance(base[name], Mapping) and isinstance(own[name], Mapping):
            merged[name] = _merged(base[name], own[name])
    return merged
