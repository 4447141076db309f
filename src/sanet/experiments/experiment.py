"""An experiment from its name to its files: run, measured, written."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sanet import distributed
from sanet.experiments.claims import claims
from sanet.experiments.config import ExperimentConfig
from sanet.experiments.costs import known_costs, measured_costs
from sanet.experiments.page import write_page
from sanet.experiments.runner import COSTS, PAGE, RUNS_TABLE, TABLE, Result, rounds
from sanet.experiments.summary import markdown, write_runs
from sanet.files import written
from sanet.structures import Interrupted, SanetError
from sanet.training.saving import stoppable


class Written(NamedTuple):
    """An experiment that has been run.

    Attributes:
        result: its scores, and what failed.
        folder: holds ``table.md``, ``runs.csv``, ``index.html`` and ``costs.json``.
    """

    result: Result
    folder: Path


def experiment(name: str, config: ExperimentConfig) -> Written:
    """Run a table of the paper, or what of it is not there yet, and write its files after every seed.

    They lie in ``config.output``, in a folder of this very table (``Result.folder``), and the runs in ``runs`` beside
    it. Called again, it keeps what is finished.

    Args:
        name: of ``EXPERIMENTS``.
        config: on what data, with how many seeds.

    Raises:
        UsageError: there is no such experiment or data set, or ``config.output`` cannot be written.
        DataError: the data set cannot be read; what is finished is kept and written.
        Interrupted: SIGTERM or Ctrl-C; what is finished is kept and written, and the same call goes on.
        SanetError: not one run came to an end.
    """
    with stoppable(lambda: "what is finished is kept"):
        for result in rounds(name, config):
            if result.finished() and distributed.is_main_process():
                try:
                    _write(result, _folder(result))
                except (Interrupted, KeyboardInterrupt):
                    if not result.stopped:  # whoever asks a second time does not wait for files
                        _write(replace(result, stopped=True), _folder(result))
                    raise
    if not result.finished():
        raise SanetError("\n".join(["not one run came to an end:", *result.failures()]))
    return Written(result, _folder(result))


def _folder(result: Result) -> Path:
    return Path(result.config.output) / result.folder


def _write(result: Result, folder: Path) -> None:
    """All files; where something has ended the experiment, at once, and without what that may have damaged."""
    costs = known_costs(result, folder / COSTS) if result.stopped else measured_costs(result, folder / COSTS)
    found = claims(result)
    with written(folder / TABLE) as file:
        file.write_text(markdown(result, costs, found), encoding="utf-8")
    with written(folder / RUNS_TABLE) as file:
        write_runs(file, result, costs)
    with suppress(SanetError) if result.stopped else nullcontext(), written(folder / PAGE) as file:
        write_page(file, result, costs, found)
