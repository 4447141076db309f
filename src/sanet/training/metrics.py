"""The metrics that a run has logged."""

from __future__ import annotations

import csv
from pathlib import Path

from sanet.config import METRICS


def read_metrics(directory: Path) -> list[dict[str, float]]:
    """Rows of a run's metrics.csv, without their empty cells; none where there is no file."""
    path = directory / METRICS
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
