"""The metrics that a run logs: one row for every epoch; and metrics of one's own."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchmetrics import Metric

from sanet.config import METRICS as FILE
from sanet.evaluation.confusion import ConfusionMatrix, Scores
from sanet.files import replaced
from sanet.references import Kind
from sanet.structures import LabelSet, UsageError

Row = dict[str, float]

# Called as update(prediction, mask) with labels (H, W) int64 of an image; ignored pixels are in the mask.
METRICS = Kind(
    "metrics",
    {},
    {f"torchmetrics.{package}": "torchmetrics:Metric" for package in ("classification", "segmentation")},
)


def create_metrics(settings: Mapping[str, Any], labels: LabelSet) -> dict[str, Metric]:
    """Metrics by the names under which they are logged, as "val/boundary".

    Raises:
        UsageError: an unknown metric, options that it does not have, or a name that is taken.
    """
    metrics = {}
    taken = score_values(ConfusionMatrix(labels).scores())
    for name, reference in settings.items():
        metrics[f"val/{name}"] = METRICS.build(reference)
        if not isinstance(metrics[f"val/{name}"], Metric):
            raise UsageError(f"metrics.{name}: {reference!r} is no torchmetrics.Metric")
        if f"val/{name}" in taken:
            raise UsageError(f"metrics.{name}: val/{name} is logged already; choose another name")
    return metrics


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
