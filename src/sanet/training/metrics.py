"""The metrics that a run logs: one row for every epoch."""

from __future__ import annotations

import csv
from pathlib import Path

from sanet.config import METRICS as FILE
from sanet.evaluation.confusion import Scores
from sanet.files import replaced

Row = dict[str, float]


def score_values(scores: Scores) -> Row:
    """What validation logs of the confusion matrix."""
    values = {
        "val/miou": scores.miou,
        "val/pixel_accuracy": scores.pixel_accuracy,
        "val/mean_accuracy": scores.mean_accuracy,
        "val/frequency_weighted_iou": scores.frequency_weighted_iou,
        **{f"val/iou/{name}": value for name, value in scores.class_iou.items()},
    }
    for name in ("miou_without_background", "miou_with_background"):
        if getattr(scores, name) is not None:
            values[f"val/{name}"] = getattr(scores, name)
    return values


def write_metrics(directory: Path, rows: list[Row]) -> None:
    """Write a run's metrics.csv anew; where a row has no value its cell is empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    with replaced(directory / FILE) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, tuple(names))
        writer.writeheader()
        writer.writerows(rows)


def read_metrics(directory: Path) -> list[Row]:
    """Rows of a run's metrics.csv, without their empty cells; none where there is no file."""
    path = directory / FILE
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
