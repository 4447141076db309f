"""What the networks of a table cost, measured side by side."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from sanet.config import MODEL
from sanet.data.catalog import data_source
from sanet.deploy.profile import Machine, Timing, count_macs, in_turn, machine_of, time_pass
from sanet.inference.device import choose_device
from sanet.inference.predictor import Predictor
from sanet.models.networks import load_model
from sanet.repeated.result import Repeated

REPEATS = 30


class RowCost(NamedTuple):
    """Of one network: its parameters, the multiply-accumulates of one image, and the time of it."""

    parameters: int
    macs: int
    timing: Timing


@dataclass(frozen=True)
class Costs:
    """Of all rows, by name, for one image of this size in pixels, the first of the split."""

    height: int
    width: int
    machine: Machine
    rows: dict[str, RowCost]


def measured_costs(result: Repeated) -> Costs:
    """Count and time one network of every finished row, in turn."""
    image = data_source(result.config.data).open(result.split)[0].image[None]
    cpu = any(row.row.config.accelerator == "cpu" for row in result.rows)
    device = choose_device("cpu" if cpu else None)
    image = torch.randint_like(image, 0, 256).to(device)
    networks = {row.row.name: load_model(row.directory / MODEL) for row in result.finished()}
    for network in networks.values():
        Predictor(network, str(device))  # puts the network itself where it runs, and how
    timings, _ = in_turn({name: partial(time_pass, network, image) for name, network in networks.items()}, REPEATS)
    rows = {
        name: RowCost(sum(part.numel() for part in network.parameters()), count_macs(network, image), timings[name])
        for name, network in networks.items()
        if name in timings
    }
    return Costs(image.shape[-2], image.shape[-1], machine_of(device), rows)
