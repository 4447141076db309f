"""An evaluation for people and programs: a self-contained HTML page, a JSON file, a table for the terminal."""

from __future__ import annotations

from math import isfinite, nan
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from sanet.evaluation.page import data_url, environment, number, smaller_mask, smaller_picture, ticks
from sanet.evaluation.results import Evaluation, Example
from sanet.files import written
from sanet.inference.pictures import IGNORED, WRONG, colorize, error_map
from sanet.structures import Color, LabelSet

SCORE_NAMES = {
    "miou": "mean IoU",
    "miou_without_background": "mean IoU without background",
    "miou_with_background": "mean IoU with background (as IoU 0)",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
}
ABSENT_RULE = "A class that is neither true nor predicted anywhere is absent: it has no score and is in no mean."
PICTURE_WIDTH = 640
NUMBERED_CLASSES = 21
# Left, right, top and bottom of a chart's axes in its view box of 460 x 250.
AXES = (44.0, 448.0, 10.0, 222.0)


class _Class(NamedTuple):
    name: str
    color: Color
    iou: float
    accuracy: float


class _Cell(NamedTuple):
    predicted: str
    share: float
    tint: float
    correct: bool


class _Curve(NamedTuple):
    name: str
    points: list[tuple[float, float]]
    mark: tuple[float, float]
    text: str


class _Chart(NamedTuple):
    title: str
    curves: list[_Curve]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


class _Panel(NamedTuple):
    caption: str
    url: str
    enlarged: bool


def write_report(path: Path, evaluation: Evaluation, history: list[dict[str, float]], title: str) -> None:
    """Write one HTML file that needs no other file, no script and no network.

    Args:
        path: of the file.
        evaluation: what to show.
        history: rows of Lightning's metrics: "epoch" and any of "train/…" and the scores "val/miou" and
            so on; values may be missing or NaN. The learning curves are left out where there is nothing to draw.
        title: heading of the page.
    """
    labels, scores = evaluation.labels, evaluation.scores
    masks = [mask for example in evaluation.worst for mask in (example.truth, example.prediction)]
    shown = set().union(*(np.unique(mask).tolist() for mask in masks))
    means = {name: getattr(scores, key) for key, name in SCORE_NAMES.items()}
    page = environment().get_template("report.html.jinja")
    text = page.render(
        title=title,
        means={name: value for name, value in means.items() if value is not None},
        pixels=scores.pixels,
        classes=sorted(_classes(evaluation), key=lambda row: -row.iou if isfinite(row.iou) else 1),
        protocol=evaluation.protocol.shown() | evaluation.facts,
        charts=_charts(history),
        matrix=_matrix(evaluation),
        numbered=len(labels) <= NUMBERED_CLASSES,
        examples=[(example, _panels(example, labels)) for example in evaluation.worst],
        shown=[pair for index, pair in enumerate(zip(labels.names, labels.colors, strict=True)) if index in shown],
        pictures=len(evaluation.picture_miou),
        median_miou=median([miou for miou in evaluation.picture_miou.values() if isfinite(miou)] or [nan]),
        absent_rule=ABSENT_RULE,
        axes=AXES,
        wrong=WRONG,
        ignored=IGNORED,
    )
    with written(path) as aside:
        aside.write_text(text, encoding="utf-8")


def score_table(evaluation: Evaluation) -> str:
    """Plain text for a terminal: IoU and accuracy by class, then the means, all in per cent."""
    width = max(len(name) for name in [*evaluation.labels.names, *SCORE_NAMES.values()])
    rule = "-" * (width + 20)
    lines = [f"{'per cent':{width}}  {'IoU':>8}  {'accuracy':>8}", rule]
    for row in _classes(evaluation):
        iou = number(row.iou) if isfinite(row.iou) else "absent"
        lines.append(f"{row.name:{width}}  {iou:>8}  {number(row.accuracy):>8}")
    lines.append(rule)
    for key, name in SCORE_NAMES.items():
        value = getattr(evaluation.scores, key)
        if value is not None:
            lines.append(f"{name:{width}}  {number(value):>8}")
    return "\n".join([*lines, ABSENT_RULE])


def _classes(evaluation: Evaluation) -> list[_Class]:
    labels, scores = evaluation.labels, evaluation.scores
    return [
        _Class(name, color, scores.class_iou[name], scores.class_accuracy[name])
        for name, color in zip(labels.names, labels.colors, strict=True)
    ]


def _matrix(evaluation: Evaluation) -> list[tuple[str, Color, list[_Cell | None]]]:
    """Name, colour and cells of each true class; a share that rounds to 0% is None, a class never true has no cells."""
    labels = evaluation.labels
    rows = []
    for index, counts in enumerate(evaluation.confusion):
        cells: list[_Cell | None] = []
        for other, share in enumerate((counts / counts.sum()).tolist() if counts.sum() else []):
            # The square root lifts confusions of a few per cent into sight.
            tint = share if other == index else share**0.5
            cells.append(_Cell(labels.names[other], share, tint, other == index) if share >= 0.005 else None)
        rows.append((labels.names[index], labels.colors[index], cells))
    return rows


def _charts(history: list[dict[str, float]]) -> list[_Chart]:
    """Losses and validation scores over the epochs, those of them that have values."""
    values: dict[str, dict[float, float]] = {}
    for row in history:
        for key, value in row.items():
            if isfinite(value) and isfinite(row.get("epoch", nan)):
                values.setdefault(key, {})[row["epoch"] + 1] = value
    total_first = sorted(values, key=lambda key: (not key.endswith("/loss"), key))
    losses = {key: values[key] for key in total_first if key.startswith("train/")}
    scores = {name: values[f"val/{key}"] for key, name in SCORE_NAMES.items() if f"val/{key}" in values}
    charts = [_chart("Losses", losses, share=False), _chart("Scores on the validation split", scores, share=True)]
    return [chart for chart in charts if chart.curves]


def _chart(title: str, series: dict[str, dict[float, float]], share: bool) -> _Chart:
    """One curve for each series of value by epoch; marked is the best value of a share, the last of a loss."""
    left, right, top, bottom = AXES
    epochs = max((epoch for values in series.values() for epoch in values), default=1)
    y_values = ticks(0, max((value for values in series.values() for value in values.values()), default=1))

    def place(epoch: float, value: float) -> tuple[float, float]:
        return left + (right - left) * epoch / epochs, bottom - (bottom - top) * value / y_values[-1]

    curves = []
    for name, values in series.items():
        marked = max(values, key=lambda epoch: values[epoch]) if share else max(values)
        text = f"best {values[marked]:.1%}, epoch {marked:g}" if share else f"{values[marked]:.3g}"
        points = [place(epoch, values[epoch]) for epoch in sorted(values)]
        curves.append(_Curve(name, points, place(marked, values[marked]), text))
    x_values = [epoch for epoch in ticks(0, epochs) if epoch <= epochs and epoch == int(epoch)]
    x_ticks = [(place(epoch, 0)[0], f"{epoch:g}") for epoch in x_values]
    y_ticks = [(place(0, value)[1], f"{100 * value:g}%" if share else f"{value:g}") for value in y_values]
    return _Chart(title, curves, x_ticks, y_ticks)


def _panels(example: Example, labels: LabelSet) -> list[_Panel]:
    """Picture, truth, prediction and errors, no wider than ``PICTURE_WIDTH``."""
    width = example.truth.shape[1]
    image = smaller_picture(example.image, PICTURE_WIDTH)
    truth, prediction = (smaller_mask(mask, PICTURE_WIDTH) for mask in (example.truth, example.prediction))
    panels = {
        "picture": data_url(image, "JPEG"),
        "truth": data_url(colorize(truth, labels), "PNG"),
        "prediction": data_url(colorize(prediction, labels), "PNG"),
        "errors": data_url(error_map(image, truth, prediction, labels), "JPEG"),
    }
    return [_Panel(caption, url, enlarged=width < 256) for caption, url in panels.items()]
