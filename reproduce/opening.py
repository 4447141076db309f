"""The one way in which a recipe's models see the test split, with a log of every time they did."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

import sanet
from sanet import DataConfig, RepeatConfig

COLUMNS = ("time", "recipe", "row", "seed", "run", "weights", "miou", "pixel_accuracy", "boundary")


def boundary(classes: int, ignored: int = 255) -> dict[str, Any]:
    """The metric of the log's last column, as ``TrainConfig.metrics`` takes it."""
    options = {"num_classes": classes, "ignore_index": ignored}
    return {"boundary": {"name": "sanet.evaluation.boundary:BoundaryIoU", "options": options}}


def open_test(recipe: Path, root: str, output: str, seeds: int, log: Path) -> None:
    """Score the finished runs of a recipe on the test split, and write a line for each that was scored.

    Args:
        recipe: YAML file of ``sanet repeat``, whose rows have all been trained with these seeds.
        root: folder of the dataset.
        output: folder of the runs, as of ``sanet repeat``.
        seeds: number of seeds.
        log: CSV file to add to; a run that it names is not scored again.
    """
    settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    data = DataConfig(**settings.pop("data") | {"root": root})
    config = replace(RepeatConfig(data=data, **settings), output=output, seeds=seeds, split="test")
    known = set()
    if log.is_file():
        with log.open(encoding="utf-8", newline="") as file:
            known = {row["weights"] for row in csv.DictReader(file)}
    found = sanet.repeat(config)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if not known:
            writer.writerow(COLUMNS)
        for row in found.rows:
            for seed, evaluation in row.runs.items():
                run = row.directory_of(seed)
                weights = sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()[:16]
                if weights in known:
                    continue
                scores = [evaluation.scores.miou, evaluation.scores.pixel_accuracy, *evaluation.metrics.values()]
                now = datetime.now(UTC).isoformat(timespec="seconds")
                figures = [f"{score:.4f}" for score in scores]
                writer.writerow([now, recipe.name, row.name, seed, run.name, weights, *figures])
