"""An experiment from its name to its files: run, measured, written."""

from __future__ import annotations

from pathlib import Path

from sanet import processes
from sanet.experiments.config import ExperimentConfig
from sanet.experiments.costs import measured_costs
from sanet.experiments.page import write_page
from sanet.experiments.runner import Result, run_experiment
from sanet.experiments.summary import claims, markdown, write_runs
from sanet.structures import SanetError

TABLE, RUNS_TABLE, PAGE, COSTS = "table.md", "runs.csv", "index.html", "costs.json"


def experiment(name: str, config: ExperimentConfig) -> Result:
    """Run a table of the paper, or a part of it that is not there yet, and write its files.

    They are ``table.md``, ``runs.csv``, ``index.html`` and ``costs.json``, in a folder of the experiment's name in
    ``config.output``; the runs lie in ``runs`` beside it. Called again, it keeps what is finished.

    Args:
        name: of ``EXPERIMENTS``.
        config: on what data, with how many seeds.

    Raises:
        UsageError: there is no such experiment or data set.
        DataError: the data set cannot be read.
        Interrupted: SIGTERM or Ctrl-C; what is finished is kept, and the same call goes on.
        SanetError: not one run came to an end.
    """
    result = run_experiment(name, config)
    if not result.finished():
        raise SanetError("\n".join(["not one run came to an end:", *result.failures()]))
    if processes.first():
        folder = Path(config.output) / name
        folder.mkdir(parents=True, exist_ok=True)
        costs = measured_costs(result, folder / COSTS)
        found = claims(result)
        (folder / TABLE).write_text(markdown(result, costs, found), encoding="utf-8")
        write_runs(folder / RUNS_TABLE, result, costs)
        write_page(folder / PAGE, result, costs, found)
    return result
