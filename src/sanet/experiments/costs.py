"""What the rows of an experiment cost, measured side by side."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sanet.config import MODEL
from sanet.data.catalog import data_source
from sanet.deploy.profile import count_macs
from sanet.deploy.timing import Machine, Timing, in_turn, machine_of, time_pass
from sanet.experiments.runner import Result
from sanet.files import written
from sanet.inference.exported import choose_device
from sanet.inference.predictor import Predictor
from sanet.models.networks import load_model

REPEATS = 30


@dataclass(frozen=True)
class RowCost:
    """Of one network.

    Attributes:
        parameters: their number.
        macs: multiply-accumulates of one picture.
        timing: of one picture, uint8 to logits of its size.
    """

    parameters: int
    macs: int
    timing: Timing


@dataclass(frozen=True)
class Costs:
    """Of all rows, measured in one go.

    Attributes:
        height: of the picture, in pixels; the first of the split.
        width: of the picture, in pixels.
        machine: where times were taken.
        runs: the runs that were measured, by row.
        rows: by name; a row that could not be measured is missing.
    """

    height: int
    width: int
    machine: Machine
    runs: dict[str, str]
    rows: dict[str, RowCost]


def measured_costs(result: Result, kept: Path) -> Costs:
    """Count and time one network of every finished row, or read what was measured before.

    Args:
        result: of the experiment.
        kept: the file that keeps them; of other runs, pictures or another machine or of fewer rows, they are
            measured anew.
    """
    height, width = data_source(result.config.data).open(result.split)[0].image.shape[-2:]
    device = choose_device("cpu" if result.config.accelerator == "cpu" else None)
    wanted = Costs(height, width, machine_of(device), _runs(result), {})
    found = _read(kept)
    if found and replace(found, rows={}) == wanted and found.rows.keys() == wanted.runs.keys():
        return found
    picture = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, device=device)
    costs = replace(wanted, rows=_measure(result, picture))
    with written(kept) as aside:
        aside.write_text(json.dumps(asdict(costs), indent=1) + "\n", encoding="utf-8")
    return costs


def known_costs(result: Result, kept: Path) -> Costs:
    """Those that were measured before, of the rows whose run is still the same; nothing is measured."""
    found, runs = _read(kept), _runs(result)
    if not found:
        return Costs(0, 0, Machine("", 0, ""), runs, {})
    same = {name: cost for name, cost in found.rows.items() if runs.get(name, "") == found.runs.get(name)}
    return replace(found, runs=runs, rows=same)


def _runs(result: Result) -> dict[str, str]:
    return {row.row.name: row.row.key for row in result.finished()}


def _measure(result: Result, picture: Tensor) -> dict[str, RowCost]:
    networks = {row.row.name: load_model(row.runs[0].directory / MODEL) for row in result.finished()}
    for network in networks.values():
        Predictor(network, str(picture.device))  # puts the network itself where it runs, and how
    timings, _ = in_turn({name: partial(time_pass, network, picture) for name, network in networks.items()}, REPEATS)
    return {
        name: RowCost(
            parameters=sum(tensor.numel() for tensor in network.parameters()),
            macs=count_macs(network, picture),
            timing=timings[name],
        )
        for name, network in networks.items()
        if name in timings
    }


def _read(kept: Path) -> Costs | None:
    """What the file keeps; None where there is none, or it is cut, old or another's."""
    try:
        content = json.loads(kept.read_text(encoding="utf-8"))
        rows = {
            str(name): RowCost(int(row["parameters"]), int(row["macs"]), _timing(*row["timing"]))
            for name, row in content["rows"].items()
        }
        machine = Machine(*content["machine"])
        return Costs(int(content["height"]), int(content["width"]), machine, dict(content["runs"]), rows)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _timing(median: float, low: float, high: float, repeats: int) -> Timing:
    return Timing(float(median), float(low), float(high), int(repeats))
