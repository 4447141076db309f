"""What the networks of a table cost, measured side by side."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch

from sanet.data.catalog import data_source
from sanet.deploy.profile import Machine, count_macs, in_turn, machine_of, time_pass
from sanet.inference.device import choose_device, prepared
from sanet.repeated.result import Repeated

REPEATS = 30


class Costs(NamedTuple):
    """Of one image, the first of the split.

    Attributes:
        size: its height and width in pixels, as "720x960".
        machine: where times were taken.
        rows: parameters, multiply-accumulates and seconds by the name of the row.
    """

    size: str
    machine: Machine
    rows: dict[str, tuple[int, int, float]]


def measured_costs(result: Repeated) -> Costs:
    """Count and time one network of every row that has a model, in turn."""
    image = data_source(result.config.data).open(result.split)[0].image[None]
    device = choose_device("cpu" if any(row.config.accelerator == "cpu" for row in result.rows) else None)
    image = torch.randint_like(image, 0, 256).to(device)
    networks = {row.name: prepared(row.model[1], device) for row in result.finished() if row.model}
    timings, _ = in_turn({name: partial(time_pass, network, image) for name, network in networks.items()}, REPEATS)
    rows = {}
    for name, timing in timings.items():
        parameters = sum(part.numel() for part in networks[name].parameters())
        rows[name] = parameters, count_macs(networks[name], image), timing.median
    return Costs(f"{image.shape[-2]}x{image.shape[-1]}", machine_of(device), rows)
