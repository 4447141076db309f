"""How fast the readings of the paper's head learn: trainings of several lengths, on the two datasets of ``small``."""

from __future__ import annotations

from itertools import product
from typing import Any

import sanet
from reproduce.opening import boundary
from sanet import DataConfig, RepeatConfig

SETS = {"animals": ("reproduce.small:Animals", 7), "cracks": ("reproduce.small:Cracks", 2)}
READINGS: dict[str, dict[str, Any]] = {
    "A": {"name": "sanet"},
    "A64": {"name": "sanet_variant", "options": {"reading": "A"}},
    "C": {"name": "sanet_variant", "options": {"least": 1}},
    "C64": {"name": "sanet_variant"},
}
WINDOWS, RATES = (2, 8), (0.001, 0.0003)


def readings(data: str, root: str, epochs: int, output: str, seeds: int = 2) -> RepeatConfig:
    """A table: every reading with both windows and learning rates, and FCN with both rates.

    Args:
        data: of ``SETS``.
        root: its folder.
        epochs: the length; 3, 11 and 37 of animals, and 15, 60 and 200 of cracks are 150, 600 and 2,000 steps.
        output: folder of the runs.
        seeds: runs of each row.
    """
    source, classes = SETS[data]
    rows: dict[str, Any] = {}
    for rate in RATES:
        rows[f"fcn-{rate}"] = {"label": f"FCN, {rate}", "model": {"name": "fcn"}, "optimizer": _rate(rate)}
    for (name, model), window, rate in product(READINGS.items(), WINDOWS, RATES):
        options = {**model.get("options", {}), "downsample": window}
        rows[f"{name}-w{window}-{rate}"] = {
            "label": f"{name}, window {window}, {rate}",
            "model": {"name": model["name"], "options": options},
            "optimizer": _rate(rate),
        }
    base = {
        "augmentation": {"crop": [192, 192], "scale": [0.5, 2.0]},
        "model": {"backbone": "tf_efficientnet_lite0", "output_stride": 16},
        "optimizer": {"name": "adamw", "weight_decay": 0.01},
        "epochs": epochs,
        "batch_size": 8,
        "validate_every": epochs,
        "metrics": boundary(classes),
    }
    return RepeatConfig(
        rows=rows,
        base=base,
        title=f"How fast the readings learn: {data}, {epochs} epochs",
        data=DataConfig(source, root),
        split="val",
        seeds=seeds,
        costs=False,
        output=output,
        name=f"{data}-{epochs}",
    )


def _rate(rate: float) -> dict[str, float]:
    return {"learning_rate": rate, "head_lr_multiplier": 3.0}


def run(data: str, root: str, epochs: int, output: str, seeds: int) -> None:
    """Train and score what is not there yet."""
    sanet.repeat(readings(data, root, epochs, output, seeds))
