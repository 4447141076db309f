"""Repeated runs from their rows to their scores."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sanet import distributed, references
from sanet.config import CHECKPOINTS, MODEL, TrainConfig, plain
from sanet.data.catalog import data_source
from sanet.data.decoding import DataError
from sanet.data.fingerprint import fingerprint
from sanet.data.source import Source
from sanet.evaluation.evaluate import evaluate
from sanet.evaluation.protocol import digest_of
from sanet.evaluation.results import SCORES, Evaluation, read_scores
from sanet.files import written
from sanet.repeated.config import RepeatConfig, Row, rows_of
from sanet.repeated.costs import measured_costs
from sanet.repeated.page import write_page
from sanet.repeated.result import Repeated, RowResult
from sanet.repeated.table import write_markdown, write_runs
from sanet.structures import Interrupted, SanetError, first_line, say
from sanet.training.checkpoints import CheckpointFolder
from sanet.training.fit import train
from sanet.training.metrics import read_metrics
from sanet.training.run import locked_run
from sanet.training.saving import stoppable

RUNS = "runs"
# What does not decide how a run comes out; its seed is part of its name.
INCIDENTAL = ("output", "num_workers", "accelerator", "checkpoint_minutes", "seed", "data", "loggers")
STOPPED = "what is finished is kept, and the same command resumes"


def repeat(config: RepeatConfig) -> Repeated:
    """Train and score every row with each seed, or what of it is not there yet, and write the table after every seed.

    In ``config.output``: ``NAME.md``, ``NAME.csv``, ``NAME.html``, and a folder for each run in ``runs``. A row that
    fails does not stop the others. Processes that share a job share every run.

    Args:
        config: rows, data and seeds.

    Raises:
        UsageError: a row has a setting that does not exist, or there is no such dataset or split.
        DataError: the dataset cannot be read.
        Interrupted: SIGTERM or Ctrl-C; what is finished is kept, and the same call resumes.
        SanetError: not one run finished.
    """
    output = Path(config.output)
    with locked_run(output), stoppable(lambda: STOPPED):
        for result in _rounds(config):
            if result.finished() and distributed.is_main_process():
                _write(result, output)
    if not result.finished():
        raise SanetError("\n".join(["no run finished:", *result.failures()]))
    return result


def _rounds(config: RepeatConfig) -> Iterator[Repeated]:
    """What there is after each seed; what ends all of it is raised after what there is then."""
    source = data_source(config.data)
    split = config.split or ("test" if "test" in source.splits else "val")
    images = distributed.broadcast_from_main(lambda: _fingerprints(source, split))
    rows = [RowResult(row, Path(config.output) / RUNS / _key(row, images)) for row in rows_of(config)]
    found = Repeated(config, split, images, rows)
    for seed in range(config.seeds):
        try:
            for index, result in enumerate(rows):
                title = f"[{seed * len(rows) + index + 1}/{len(rows) * config.seeds}] {result.row.label}, seed {seed}"
                _add(result, found, seed, title)
        except (Exception, KeyboardInterrupt):
            yield replace(found, stopped=True)
            raise
        yield found


def _fingerprints(source: Source, split: str) -> dict[str, Any]:
    return {name: fingerprint(source, name) for name in {"train", "val", split} if name in source.splits}


def _key(row: Row, images: Mapping[str, Any]) -> str:
    """Runs of one key come out alike: the settings that decide, the opened code, and the images and masks.

    Tables in one folder share them.
    """
    settings = {name: value for name, value in plain(row.config).items() if name not in INCIDENTAL}
    digest = digest_of([settings, references.digests(), [images.get(name) for name in ("train", "val")]])
    return f"{settings['model']['name']}-{settings['model']['backbone']}-{digest[:8]}".replace(":", ".")


def _add(result: RowResult, whole: Repeated, seed: int, title: str) -> None:
    config = replace(result.row.config, output=str(result.directory_of(seed)), seed=seed)
    try:
        result.runs[seed] = _scored(whole, config, title)
    except (DataError, Interrupted):
        raise
    except Exception as error:  # whatever it is, the other rows need not suffer
        if distributed.is_distributed():
            raise  # the other processes may wait for this one, and have to end with it
        if not isinstance(error, SanetError):
            traceback.print_exc()
        result.failures[seed] = first_line(error)
        say(f"{title}: not finished. {error}", error=True)


def _scored(whole: Repeated, config: TrainConfig, title: str) -> Evaluation:
    """The scores of a run: kept, or taken once it is trained to its end."""
    directory = Path(config.output)
    trained = distributed.broadcast_from_main((directory / MODEL).is_dir)
    what = [plain(whole.config.inference), whole.images[whole.split]]
    place = directory / f"{whole.split}-{digest_of(what)[:8]}"
    kept = distributed.broadcast_from_main(lambda: _kept(place)) if trained else None
    if distributed.is_main_process():
        say(f"{title}: {'finished already,' if kept else 'scoring' if trained else 'training'} {directory}")
    if kept is not None:
        return kept
    if not trained:
        begun = distributed.broadcast_from_main(lambda: bool(CheckpointFolder(directory / CHECKPOINTS).listed()))
        train(config, resume=begun)
    return evaluate(
        directory / MODEL,
        config.data,
        whole.split,
        place,
        whole.config.inference,
        device="cpu" if config.accelerator == "cpu" else None,
        history=read_metrics(directory),
        progress=distributed.is_main_process(),
        num_workers=config.num_workers,
    )


def _kept(place: Path) -> Evaluation | None:
    if not (place / SCORES).is_file():
        return None
    try:
        evaluation = read_scores(place)
    except SanetError as error:
        say(f"scored again: {error}")
        return None
    return evaluation if evaluation.image_sums is not None else None


def _write(result: Repeated, output: Path) -> None:
    """All files; at once, without measuring anything, where something has stopped the table."""
    last = all(len(row.runs) + len(row.failures) == result.config.seeds for row in result.rows)
    costs = measured_costs(result) if result.config.costs and last and not result.stopped else None
    writers: dict[str, Any] = {"md": write_markdown, "csv": write_runs, "html": write_page}
    for ending, write in writers.items():
        path = output / f"{result.config.name}.{ending}"
        with suppress(SanetError) if result.stopped else nullcontext(), written(path) as file:
            write(file, result, costs)
