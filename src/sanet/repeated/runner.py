"""Repeated runs from their rows to their scores."""

from __future__ import annotations

import traceback
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from sanet import distributed
from sanet.config import CHECKPOINTS, MODEL, TrainConfig, plain
from sanet.data.catalog import data_source
from sanet.data.decoding import DataError
from sanet.data.fingerprint import fingerprint
from sanet.evaluation.evaluate import evaluate
from sanet.evaluation.protocol import digest_of
from sanet.evaluation.results import SCORES, Evaluation, read_scores
from sanet.files import written
from sanet.models.networks import create_model
from sanet.repeated.config import RepeatConfig
from sanet.repeated.costs import measured_costs
from sanet.repeated.key import differences, key_of_runs
from sanet.repeated.page import write_page
from sanet.repeated.result import Repeated, Row, rows_of
from sanet.repeated.table import write_markdown, write_runs
from sanet.structures import Interrupted, LabelSet, SanetError, UsageError, first_line, say
from sanet.tables import duration
from sanet.training.checkpoints import CheckpointFolder
from sanet.training.fit import require_names, train
from sanet.training.metrics import read_metrics
from sanet.training.optimization import create_optimizer
from sanet.training.run import locked_run
from sanet.training.saving import stoppable
from sanet.training.task import SegmentationTask, with_monitor_mode

RUNS = "runs"
STOPPED = "what is finished is kept, and the same command resumes"


def repeat(config: RepeatConfig) -> Repeated:
    """Train and score every row with each seed, or what of it is not there yet, and write the table after every seed.

    In ``config.output``: ``NAME.md``, ``NAME.csv``, ``NAME.html``, and a folder for each run in ``runs``. A row that
    fails does not stop the others. Processes that share a job share every run.

    Args:
        config: rows, data and seeds.

    Raises:
        UsageError: a row has a setting, a name or an option that does not exist, or there is no such dataset or split;
            nothing was trained.
        DataError: the dataset cannot be read.
        Interrupted: SIGTERM or Ctrl-C; what is finished is kept, and the same call resumes.
        SanetError: not one run finished.
    """
    with locked_run(Path(config.output)), stoppable(lambda: STOPPED):
        found = _begun(config)
        try:
            count, longest = config.seeds * len(found.rows), 0.0
            for seed in range(config.seeds):
                for index, row in enumerate(found.rows, seed * len(found.rows) + 1):
                    left = longest * (count + 1 - index)  # at most, and nothing while all were finished already
                    title = f"[{index}/{count}] {row.label}, seed {seed}"
                    began = monotonic()
                    _add(row, found, seed, f"{title}, about {duration(left)} left in all" if left > 1 else title)
                    longest = max(longest, monotonic() - began)
                _write(found)
        except (Exception, KeyboardInterrupt):
            _write(replace(found, stopped=True))
            raise
    if not found.finished():
        raise SanetError("\n".join(["no run finished:", *found.failures()]))
    return found


def _begun(config: RepeatConfig) -> Repeated:
    """A table before its first run, once every row is known to name what exists."""
    rows, source = [], data_source(config.data)
    config = replace(config, data=source.settings or config.data)
    for row in rows_of(config):
        try:
            require_names(row.config, source.labels)
            _require_options(row.config, source.labels)
            rows.append(replace(row, config=with_monitor_mode(row.config)))
        except UsageError as error:
            raise UsageError(f"rows.{row.name}: {error}") from error
    split = config.split or ("test" if "test" in source.splits else "val")
    splits = {"train", "val", split} & {*source.splits}
    images = distributed.broadcast_from_main(lambda: {name: fingerprint(source, name) for name in splits})
    runs = Path(config.output) / RUNS
    return Repeated(
        config, split, images, [replace(row, runs_in=runs / key_of_runs(row.config, images)) for row in rows]
    )


def _require_options(config: TrainConfig, labels: LabelSet) -> None:
    """Raise a UsageError for a backbone or an option that does not exist; nothing is computed."""
    settings = config.model
    try:
        with torch.device("meta"):
            model = create_model(
                settings.name, settings.backbone, None, labels, settings.output_stride, **settings.options
            )
            create_optimizer(SegmentationTask(model, config, None).model, config.optimizer)
    except UsageError:
        raise
    except Exception:  # of somebody's own code, which ends its own runs alone
        return


def _add(row: Row, whole: Repeated, seed: int, title: str) -> None:
    config = replace(row.config, output=str(row.directory_of(seed)), seed=seed)
    try:
        row.runs[seed] = _scored(whole, config, title)
    except (DataError, Interrupted):
        raise
    except Exception as error:  # whatever it is, the other rows need not suffer
        if distributed.is_distributed():
            raise  # the other processes may wait for this one, and have to end with it
        if not isinstance(error, SanetError):
            traceback.print_exc()
        row.failures[seed] = first_line(error)
        say(f"{title}: not finished. {error}", error=True)


def _scored(whole: Repeated, config: TrainConfig, title: str) -> Evaluation:
    """The scores of a run: kept, or taken once it is trained to its end."""
    directory = Path(config.output)
    what = [plain(whole.config.inference), whole.images[whole.split]]
    place = directory / f"{whole.split}-{digest_of(what)[:8]}"
    kept = distributed.broadcast_from_main(lambda: _kept(place, config))
    trained = distributed.broadcast_from_main(lambda: kept is not None or (directory / MODEL).is_dir())
    begun = distributed.broadcast_from_main(lambda: bool(CheckpointFolder(directory / CHECKPOINTS).listed()))
    if distributed.is_main_process():
        say(f"{title}: {'finished already,' if kept else 'scoring' if trained else 'training'} {directory}")
        others = [row.directory_of(config.seed) for row in whole.rows]
        if not trained and not begun and (other := differences(config, whole.images, others)):
            say(f"  not taken over: {other}")
    if kept is not None:
        return kept
    if not trained:
        train(config, resume=begun)
    return evaluate(
        directory / MODEL,
        config.data,
        whole.split,
        place,
        whole.config.inference,
        device="cpu" if config.accelerator == "cpu" else None,
        metrics=config.metrics,
        history=read_metrics(directory),
        progress=distributed.is_main_process(),
        num_workers=config.num_workers,
    )


def _kept(place: Path, config: TrainConfig) -> Evaluation | None:
    if not (place / SCORES).is_file():
        return None
    try:
        evaluation = read_scores(place)
    except SanetError as error:
        say(f"scored again: {error}")
        return None
    return evaluation if evaluation.image_sums is not None and {*config.metrics} <= {*evaluation.metrics} else None


def _write(result: Repeated) -> None:
    """All files; at once, without measuring anything, where something has stopped the table."""
    if not result.finished() or not distributed.is_main_process():
        return
    last = all(len(row.runs) + len(row.failures) == result.config.seeds for row in result.rows)
    costs = measured_costs(result) if result.config.costs and last and not result.stopped else None
    writers: dict[str, Any] = {"md": write_markdown, "csv": write_runs, "html": write_page}
    for ending, write in writers.items():
        path = Path(result.config.output) / f"{result.config.name}.{ending}"
        with suppress(SanetError) if result.stopped else nullcontext(), written(path) as file:
            write(file, result, costs)
