"""An experiment from its rows to its scores: what is finished is kept, what fails does not take the others with it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanet import processes
from sanet.config import MODEL
from sanet.data.catalog import data_source
from sanet.data.files import DataError
from sanet.evaluation.evaluate import evaluate
from sanet.evaluation.protocol import Protocol
from sanet.evaluation.results import SCORES, Evaluation, read_scores
from sanet.experiments.config import EXPERIMENTS, ExperimentConfig
from sanet.experiments.runs import completed
from sanet.experiments.statistics import Spread
from sanet.experiments.tables import Row, claims_of, rows_of
from sanet.structures import Interrupted, SanetError, UsageError, first_line
from sanet.training.metrics import read_metrics

RUNS = "runs"


class FinishedRun(NamedTuple):
    """A run that was trained and scored.

    Attributes:
        seed: its seed.
        directory: holds what ``train`` writes, and the scores in a folder of the split's name.
        evaluation: its scores, with the sums of every picture.
    """

    seed: int
    directory: Path
    evaluation: Evaluation


@dataclass(frozen=True)
class RowResult:
    """What became of a row.

    Attributes:
        row: the row.
        runs: those that were finished, by seed.
        failures: what became of the others, a line each.
    """

    row: Row
    runs: list[FinishedRun] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def spread(self, score: str) -> Spread:
        """Of a score such as "miou", in per cent, over the seeds."""
        return Spread.of([100 * float(getattr(run.evaluation.scores, score)) for run in self.runs])

    def picture_sums(self) -> NDArray[np.int64]:
        """(S, N, 3, K), for the bootstrap."""
        sums = [run.evaluation.picture_sums for run in self.runs]
        assert all(entry is not None for entry in sums)  # or the run would have been scored again
        return np.array(sums)


@dataclass(frozen=True)
class Result:
    """An experiment, as far as it got.

    Attributes:
        name: of the experiment.
        config: what was asked for.
        split: on which the rows were scored.
        rows: in the order of the table.
    """

    name: str
    config: ExperimentConfig
    split: str
    rows: list[RowResult]

    @property
    def title(self) -> str:
        """Heading of its page."""
        return EXPERIMENTS[self.name].title

    def finished(self) -> list[RowResult]:
        """The rows that have a score."""
        return [row for row in self.rows if row.runs]

    def failures(self) -> list[str]:
        """What did not come to an end, and why, a line each."""
        return [f"{row.row.label}, {failure}" for row in self.rows for failure in row.failures]

    def claims(self) -> Iterator[tuple[RowResult, RowResult]]:
        """The pairs of finished rows that the experiment is about."""
        found = {result.row.name: result for result in self.finished()}
        for better, worse in claims_of(self.name, [result.row for result in found.values()]):
            yield found[better.name], found[worse.name]


def rounds(name: str, config: ExperimentConfig) -> Iterator[Result]:
    """Train and score every row with the first seed, then with the next; what there is so far after each of them.

    Processes that share a job share every run. Arguments and errors are those of ``experiment``.
    """
    results = [RowResult(row) for row in rows_of(name, config)]
    split = _split(results, config)
    dataset = data_source(config.data).open(split)
    total = len(results) * config.seeds
    for seed in range(config.seeds):
        for index, result in enumerate(results):
            row = result.row
            directory = Path(config.output) / RUNS / f"{row.key}-seed{seed}"
            title = f"[{seed * len(results) + index + 1}/{total}] {row.label}, seed {seed}"
            protocol = Protocol.of(config.data, split, dataset.names, dataset.labels, row.views)
            try:
                evaluation = _scored(row, directory, protocol, seed, title)
                result.runs.append(FinishedRun(seed, directory, evaluation))
                _failure_of(directory).unlink(missing_ok=True)
            except (Interrupted, DataError):
                raise
            except Exception as error:  # whatever it is, the other rows need not suffer
                if processes.together() and not isinstance(error, UsageError):
                    raise  # the other processes may wait for this one, and have to end with it
                result.failures.append(f"seed {seed}: {first_line(error)}")
                _keep_failure(directory, title, error)
        yield Result(name, config, split, results)


def _split(results: Sequence[RowResult], config: ExperimentConfig) -> str:
    """Where the paper's figures were taken; on other data the test split, or val where that has none."""
    recipe = results[0].row.recipe
    if config.data.name == recipe.config.data.name:
        return recipe.split
    return "test" if "test" in data_source(config.data).splits else "val"


def _kept(directory: Path, protocol: Protocol) -> Evaluation | None:
    """The scores of a run that is finished, if they are of this protocol and whole."""
    folder = directory / protocol.split
    if not ((folder / SCORES).is_file() and (directory / MODEL).is_dir()):
        return None
    try:
        evaluation = read_scores(folder)
    except SanetError as error:
        print(f"scored again: {error}", flush=True)
        return None
    return evaluation if evaluation.protocol == protocol and evaluation.picture_sums is not None else None


def _scored(row: Row, directory: Path, protocol: Protocol, seed: int, title: str) -> Evaluation:
    """The scores of a run: kept, or taken once it is trained to its end."""
    kept = processes.from_first(partial(_kept, directory, protocol))
    trained = processes.from_first((directory / MODEL).is_dir)
    if processes.first():
        what = "finished already," if kept else "scoring" if trained else "training"
        print(f"{title}: {what} {directory}", flush=True)
    if kept is not None:
        return kept
    completed(replace(row.config, output=str(directory), seed=seed))
    return evaluate(
        directory / MODEL,
        row.config.data,
        protocol.split,
        directory / protocol.split,
        row.views,
        device="cpu" if row.config.accelerator == "cpu" else None,
        history=read_metrics(directory),
        progress=processes.first(),
    )


def _keep_failure(directory: Path, title: str, error: Exception) -> None:
    """Tell, and keep the traceback."""
    if processes.first():
        directory.parent.mkdir(parents=True, exist_ok=True)
        _failure_of(directory).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        print(f"{title}: not finished. {error}", flush=True)


def _failure_of(directory: Path) -> Path:
    """Where it is kept how a run failed: beside its folder, which a new run insists to find empty."""
    return directory.with_name(f"{directory.name}.failed.txt")
