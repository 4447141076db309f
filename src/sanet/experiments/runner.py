"""An experiment from its rows to its scores: what is finished is kept, what fails does not take the others with it."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanet import distributed
from sanet.config import MODEL
from sanet.data.catalog import data_source
from sanet.data.decoding import DataError
from sanet.evaluation.evaluate import evaluate
from sanet.evaluation.protocol import Protocol, digest_of
from sanet.evaluation.results import SCORES, Evaluation, read_scores
from sanet.experiments import fingerprint
from sanet.experiments.config import EXPERIMENTS, ExperimentConfig
from sanet.experiments.runs import completed
from sanet.evaluation.repeated import Spread
from sanet.experiments.tables import Row, claims_of, rows_of
from sanet.files import require_own, require_writable, written
from sanet.models.networks import load_model
from sanet.structures import Interrupted, SanetError, UsageError, first_line, say
from sanet.training.metrics import read_metrics

RUNS = "runs"
TABLE, RUNS_TABLE, PAGE, COSTS = "table.md", "runs.csv", "index.html", "costs.json"


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
        pictures: digests of the splits that are trained on and scored, by name.
        rows: in the order of the table.
        stopped: whether something ended it before its rounds were over.
    """

    name: str
    config: ExperimentConfig
    split: str
    pictures: Mapping[str, str]
    rows: list[RowResult]
    stopped: bool = False

    @property
    def title(self) -> str:
        """Heading of its page."""
        return EXPERIMENTS[self.name].title

    @property
    def folder(self) -> str:
        """Name of its folder, which holds one table: of these rows, so many seeds, these pictures, looked at so."""
        rows = [[row.row.key, asdict(row.row.views)] for row in self.rows]
        digest = digest_of([rows, self.config.seeds, self.split, dict(self.pictures)])
        return f"{self.name}-{self.config.data.name}-{digest[:8]}"

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

    What ends all of it is raised after what there is then. Processes that share a job share every run. Arguments and
    errors are those of ``experiment``.
    """
    results = [RowResult(row) for row in rows_of(name, config)]
    split = _split(results, config)
    dataset = data_source(config.data).open(split)
    distributed.broadcast_from_main(partial(require_writable, Path(config.output) / RUNS))
    pictures = distributed.broadcast_from_main(partial(fingerprint.digests_of, config.data, split))
    found = Result(name, config, split, pictures, results)
    files = [Path(config.output) / found.folder / file for file in (TABLE, RUNS_TABLE, PAGE, COSTS)]
    distributed.broadcast_from_main(partial(require_own, *files))
    for seed in range(config.seeds):
        try:
            for index, result in enumerate(results):
                number, total = seed * len(results) + index + 1, len(results) * config.seeds
                title = f"[{number}/{total}] {result.row.label}, seed {seed}"
                protocol = Protocol.of(config.data, split, dataset.names, dataset.labels, result.row.views)
                _add_run(result, found, protocol, seed, title)
        except (Exception, KeyboardInterrupt):
            yield replace(found, stopped=True)
            raise
        yield found


def _add_run(result: RowResult, whole: Result, protocol: Protocol, seed: int, title: str) -> None:
    """The run of a row with a seed, or what became of it.

    Raises:
        Interrupted, DataError: which end the whole experiment.
        Exception: of processes that share a job, any other one too.
    """
    directory = Path(whole.config.output) / RUNS / f"{result.row.key}-seed{seed}"
    try:
        evaluation = _scored(result.row, directory, protocol, seed, title, whole.pictures)
        result.runs.append(FinishedRun(seed, directory, evaluation))
        _failure_of(directory).unlink(missing_ok=True)
    except (Interrupted, DataError):
        raise
    except Exception as error:  # whatever it is, the other rows need not suffer
        if distributed.is_distributed() and not isinstance(error, UsageError):
            raise  # the other processes may wait for this one, and have to end with it
        result.failures.append(f"seed {seed}: {first_line(error)}")
        _keep_failure(directory, title, error)


def _split(results: Sequence[RowResult], config: ExperimentConfig) -> str:
    """Where the paper's figures were taken; on other data the test split, or val where that has none."""
    recipe = results[0].row.recipe
    if config.data.name == recipe.config.data.name:
        return recipe.split
    return "test" if "test" in data_source(config.data).splits else "val"


def _trained(directory: Path, digest: str) -> bool:
    """Whether a run is trained to its end; of one that is, or that was begun, that it is of these pictures.

    Raises:
        SanetError: it was trained on others, it does not say on which, or its model is damaged.
    """
    finished = (directory / MODEL).is_dir()
    kept = [file for file in (directory / fingerprint.KEPT, _begun_on(directory)) if file.is_file()]
    file = (kept or [directory / fingerprint.KEPT])[0]
    found = fingerprint.read(file).get(fingerprint.TRAINED)
    remedy = f"choose another --output, or delete {directory} and it is trained again"
    if finished and found is None:
        raise SanetError(f"{file} does not say on which pictures {directory.name} was trained; {remedy}")
    if found not in (None, digest) and directory.is_dir():
        raise SanetError(
            f"{file}: trained on pictures and masks with the digest {found[:12]}, but those of {fingerprint.TRAINED} "
            f"have {digest[:12]} now; {remedy}"
        )
    if finished:
        try:
            load_model(directory / MODEL)
        except SanetError as error:
            raise SanetError(f"{first_line(error)}; delete {directory} and it is trained again") from error
    return finished


def _kept(directory: Path, protocol: Protocol, digest: str) -> Evaluation | None:
    """The scores of a trained run, if they are of this protocol, of these pictures, and whole."""
    folder = directory / protocol.split
    if not (folder / SCORES).is_file():
        return None
    if fingerprint.read(directory / fingerprint.KEPT).get(protocol.split) != digest:
        say(f"scored again: {folder} is not known to be of the pictures and masks of now")
        return None
    try:
        evaluation = read_scores(folder)
    except SanetError as error:
        say(f"scored again: {error}")
        return None
    same = evaluation.protocol.without_contents() == protocol
    return evaluation if same and evaluation.picture_sums is not None else None


def _scored(
    row: Row, directory: Path, protocol: Protocol, seed: int, title: str, pictures: Mapping[str, str]
) -> Evaluation:
    """The scores of a run: kept, or taken once it is trained to its end."""
    trained = distributed.broadcast_from_main(partial(_trained, directory, pictures[fingerprint.TRAINED]))
    kept = (
        distributed.broadcast_from_main(partial(_kept, directory, protocol, pictures[protocol.split]))
        if trained
        else None
    )
    if distributed.is_main_process():
        what = "finished already," if kept else "scoring" if trained else "training"
        say(f"{title}: {what} {directory}")
    if kept is not None:
        return kept
    if not trained:
        on = {fingerprint.TRAINED: pictures[fingerprint.TRAINED]}
        distributed.broadcast_from_main(partial(fingerprint.write, _begun_on(directory), on))
        completed(replace(row.config, output=str(directory), seed=seed))
    evaluation = evaluate(
        directory / MODEL,
        row.config.data,
        protocol.split,
        directory / protocol.split,
        row.views,
        device="cpu" if row.config.accelerator == "cpu" else None,
        history=read_metrics(directory),
        progress=distributed.is_main_process(),
    )
    distributed.broadcast_from_main(partial(_keep_fingerprint, directory, pictures))
    return evaluation


def _keep_fingerprint(directory: Path, pictures: Mapping[str, str]) -> None:
    """On which pictures a run was trained and scored, in its folder from now on."""
    fingerprint.write(directory / fingerprint.KEPT, pictures)
    _begun_on(directory).unlink(missing_ok=True)


def _begun_on(directory: Path) -> Path:
    """Where a run that is not finished keeps its fingerprint: beside its folder, which has to be empty at first."""
    return directory.with_name(f"{directory.name}.{fingerprint.KEPT}")


def _keep_failure(directory: Path, title: str, error: Exception) -> None:
    """Tell, and keep the traceback."""
    if distributed.is_main_process():
        with written(_failure_of(directory)) as aside:
            aside.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        say(f"{title}: not finished. {error}")


def _failure_of(directory: Path) -> Path:
    """Where it is kept how a run failed: beside its folder, which a new run insists to find empty."""
    return directory.with_name(f"{directory.name}.failed.txt")
