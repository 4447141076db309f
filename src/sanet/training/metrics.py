"""The metrics that a run has logged: one row for every epoch."""

from __future__ import annotations

import csv
from pathlib import Path

from sanet.config import METRICS
from sanet.files import replaced

Row = dict[str, float]


def write_metrics(directory: Path, rows: list[Row]) -> None:
    """Write a run's metrics.csv anew; where a row has no value its cell is empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    with replaced(directory / METRICS) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, tuple(names))
        writer.writeheader()
        writer.writerows(rows)


def read_metrics(directory: Path) -> list[Row]:
    """Rows of a run's metrics.csv, without their empty cells; none where there is no file."""
    path = directory / METRICS
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
