"""An experiment from its name to its files: run, measured, written."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sanet import processes
from sanet.experiments.claims import claims
from sanet.experiments.config import ExperimentConfig
from sanet.experiments.costs import measured_costs
from sanet.experiments.page import write_page
from sanet.experiments.runner import Result, rounds
from sanet.experiments.summary import markdown, write_runs
from sanet.structures import SanetError
from sanet.training.saving import stoppable

TABLE, RUNS_TABLE, PAGE, COSTS = "table.md", "runs.csv", "index.html", "costs.json"


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

    They lie in ``config.output``, in a folder named after the experiment and the data, and the runs in ``runs`` beside
    it. Called again, it keeps what is finished.

    Args:
        name: of ``EXPERIMENTS``.
        config: on what data, with how many seeds.

    Raises:
        UsageError: there is no such experiment or data set.
        DataError: the data set cannot be read.
        Interrupted: SIGTERM or Ctrl-C; what is finished is kept, and the same call goes on.
        SanetError: not one run came to an end.
    """
    folder = Path(config.output) / f"{name}-{config.data.name}"
    with stoppable(lambda: "what is finished is kept"):
        for result in rounds(name, config):
            if result.finished() and processes.first():
                _write(result, folder)
    if not result.finished():
        raise SanetError("\n".join(["not one run came to an end:", *result.failures()]))
    return Written(result, folder)


def _write(result: Result, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    costs = measured_costs(result, folder / COSTS)
    found = claims(result)
    (folder / TABLE).write_text(markdown(result, costs, found), encoding="utf-8")
    write_runs(folder / RUNS_TABLE, result, costs)
    write_page(folder / PAGE, result, costs, found)
