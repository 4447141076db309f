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
from sanet.evaluation.results import PICTURES, SCORES, Evaluation, read_scores
from sanet.experiments.config import EXPERIMENTS, ExperimentConfig
from sanet.experiments.runs import completed
from sanet.experiments.statistics import Spread
from sanet.experiments.tables import Row, claims_of, rows_of
from sanet.structures import Interrupted
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
        return np.stack([entry for entry in sums if entry is not None])


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
        return [f"{row.row.recipe.label}, {failure}" for row in self.rows for failure in row.failures]

    def claims(self) -> Iterator[tuple[RowResult, RowResult]]:
        """The pairs of finished rows that the experiment is about."""
        found = {result.row.name: result for result in self.finished()}
        for better, worse in claims_of(self.name, [result.row for result in found.values()]):
            yield found[better.name], found[worse.name]


def run_experiment(name: str, config: ExperimentConfig) -> Result:
    """Train and score every row with every seed.

    The rows come one after the other with the first seed, then with the next, so that there is a whole table early.
    Processes that share a job share every run.

    Args:
        name: of ``EXPERIMENTS``.
        config: on what data, with how many seeds.

    Raises:
        UsageError: there is no such experiment or data set.
        DataError: the data set cannot be read.
        Interrupted: SIGTERM or Ctrl-C; what is finished is kept, and the same call goes on.
    """
    results = [RowResult(row) for row in rows_of(name, config)]
    split = _split(results, config)
    total = len(results) * config.seeds
    for number in range(total):
        seed, index = divmod(number, len(results))
        row, runs, failures = results[index].row, results[index].runs, results[index].failures
        directory = Path(config.output) / RUNS / f"{row.key}-seed{seed}"
        title = f"[{number + 1}/{total}] {row.recipe.label} over {row.config.model.backbone}, seed {seed}"
        try:
            evaluation = processes.from_first(partial(_kept, row, directory, split))
            if processes.first():
                print(f"{title}: {'training' if evaluation is None else 'finished already,'} {directory}", flush=True)
            if evaluation is None:
                evaluation = _trained(row, directory, split, seed)
            runs.append(FinishedRun(seed, directory, evaluation))
            _failure_of(directory).unlink(missing_ok=True)
        except (Interrupted, DataError):
            raise
        except Exception as error:  # whatever it is, the other rows need not suffer
            failures.append(f"seed {seed}: {error or type(error).__name__}")
            if processes.first():
                directory.parent.mkdir(parents=True, exist_ok=True)
                _failure_of(directory).write_text(traceback.format_exc(), encoding="utf-8")
                print(f"{title}: failed. {error}", flush=True)
    return Result(name, config, split, results)


def _split(results: Sequence[RowResult], config: ExperimentConfig) -> str:
    """Where the paper's figures were taken; on other data the test split, or val where that has none."""
    row = results[0].row
    if not row.moved():
        return row.recipe.split
    return "test" if "test" in data_source(config.data).splits else "val"


def _kept(row: Row, directory: Path, split: str) -> Evaluation | None:
    """The scores of a run that is finished, if it is."""
    folder = directory / split
    if not ((folder / SCORES).is_file() and (folder / PICTURES).is_file() and (directory / MODEL).is_dir()):
        return None
    evaluation = read_scores(folder)
    protocol = evaluation.protocol
    same = (protocol.scales, protocol.mirror) == (row.views.scales, row.views.mirror)
    return evaluation if same else None


def _trained(row: Row, directory: Path, split: str, seed: int) -> Evaluation:
    completed(replace(row.config, output=str(directory), seed=seed))
    return evaluate(
        directory / MODEL,
        row.config.data,
        split,
        directory / split,
        row.views,
        device="cpu" if row.config.accelerator == "cpu" else None,
        history=read_metrics(directory),
        progress=processes.first(),
    )


def _failure_of(directory: Path) -> Path:
    """Where it is kept how a run failed: beside its folder, which a new run insists to find empty."""
    return directory.with_name(f"{directory.name}.failed.txt")
