"""An evaluation for people: a self-contained HTML page, and a table for the terminal."""

from __future__ import annotations

from math import isfinite, nan
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from sanet.config import CROPS
from sanet.evaluation.calibration import RISK_AREA, TEMPERATURE
from sanet.evaluation.confusion import SCORE_NAMES
from sanet.evaluation.curves import learning_curves, reliability_diagram
from sanet.evaluation.measures import BOUNDARIES, MEASURES, Interval
from sanet.evaluation.page import data_url, environment, thumbnail
from sanet.evaluation.repeated import RESAMPLES
from sanet.evaluation.results import TRAINED, Evaluation, Example
from sanet.files import written
from sanet.inference.drawing import IGNORED, WRONG, colorize, error_map
from sanet.structures import LabelSet
from sanet.tables import percent, text_table

ABSENT_RULE = "A class that is neither true nor predicted anywhere is absent: it has no score and is in no mean."
REGION_RULE = (
    "A region is what of a class hangs together over eight neighbours; it is found where one of the same class has an "
    "IoU above 0.5 with it."
)
ABSENT = "absent"
TOLD = {BOUNDARIES, TRAINED, TEMPERATURE, RISK_AREA}  # facts that stand elsewhere than in the protocol
COLUMNS = 4  # of scores side by side in a terminal
IMAGE_WIDTH = 640
NUMBERED_CLASSES = 21


def write_report(path: Path, evaluation: Evaluation, history: list[dict[str, float]], title: str) -> None:
    """Write one HTML file that needs no other file, script or network; for ``history`` see ``learning_curves``."""
    labels, iou, confusion = evaluation.labels, evaluation.scores.class_iou, evaluation.confusion
    crops = path.with_name(CROPS)  # of a run, whose training they show
    masks = [mask for example in evaluation.worst for mask in (example.truth, example.prediction)]
    shown = set().union(*(np.unique(mask).tolist() for mask in masks))
    text = (
        environment()
        .get_template("report.html.jinja")
        .render(
            title=title,
            evaluation=evaluation,
            means=_means(evaluation),
            colors=dict(zip(labels.names, labels.colors, strict=True)),
            classes=sorted(labels.names, key=lambda name: -iou[name] if isfinite(iou[name]) else 1),
            protocol=evaluation.protocol.shown() | {k: v for k, v in evaluation.facts.items() if k not in TOLD},
            trained=evaluation.facts.get(TRAINED),
            opening=panels_of(evaluation.typical, labels) if evaluation.typical else {},
            trust=None if evaluation.reliability is None else reliability_diagram(evaluation.reliability),
            calibration=_calibration(evaluation),
            curves=learning_curves(history, SCORE_NAMES),
            shares=(confusion / confusion.sum(axis=1, keepdims=True).clip(min=1)).tolist(),
            numbered=len(labels) <= NUMBERED_CLASSES,
            examples=[(example, panels_of(example, labels)) for example in evaluation.worst],
            shown=[name for index, name in enumerate(labels.names) if index in shown],
            median_miou=median([miou for miou in evaluation.image_miou.values() if isfinite(miou)] or [nan]),
            crops=data_url(np.array(Image.open(crops)), "JPEG") if crops.is_file() else None,
            columns=_columns(evaluation),
            rules=[*_rules(evaluation), ABSENT_RULE],
            absent_rule=ABSENT_RULE,
            wrong=WRONG,
            ignored=IGNORED,
        )
    )
    with written(path) as aside:
        aside.write_text(text, encoding="utf-8")


def score_table(evaluation: Evaluation) -> str:
    """Plain text for a terminal: the scores of the classes, then the means, all in per cent; then further metrics."""
    columns, names = _columns(evaluation), [*evaluation.labels.names, "mean"]
    tables = []
    for start in range(0, len(columns), COLUMNS):
        titles = [*columns][start : start + COLUMNS]
        rows = [*zip(names, *(columns[title] for title in titles), strict=True)]
        tables += [text_table(("per cent", *titles), rows), ""]
    means = text_table(("means", "per cent"), [(name, mean.text()) for name, mean in _means(evaluation).items()])
    further = [f"{name}: {value:.4g}" for name, value in evaluation.metrics.items()]
    calibration = _calibration(evaluation)
    notes = [*_rules(evaluation), ABSENT_RULE, *([calibration] if calibration else [])]
    return "\n".join([*tables, means, *further, *notes])


def _columns(evaluation: Evaluation) -> dict[str, list[str]]:
    """By title of a measure the scores of the classes, and their mean, as texts."""
    absent = [not isfinite(iou) for iou in evaluation.scores.class_iou.values()]
    found = {MEASURES[key].title: [one.text() for one in all] for key, all in evaluation.table.classes.items()}
    found["IoU"][:-1] = [ABSENT if gone else text for gone, text in zip(absent, found["IoU"][:-1], strict=True)]
    return found


def _rules(evaluation: Evaluation) -> list[str]:
    """How what is shown came about, where it is."""
    table, count = evaluation.table, len(evaluation.image_miou)
    groups = None if evaluation.groups is None else len(np.unique(evaluation.groups))
    drawn = f"{count} images" if groups is None else f"{groups} groups of {count} images"
    lines = []
    if isfinite(table.means["miou"].low):
        lines.append(f"Behind a score: its 95 % interval, from {RESAMPLES} resamples of the {drawn}.")
    if "region_recall" in table.classes:
        lines += [f"{evaluation.facts[BOUNDARIES]}.", REGION_RULE]
    return lines


def _calibration(evaluation: Evaluation) -> str | None:
    """How far confidence can be believed, in a sentence; None where there is none."""
    error, temperature = evaluation.calibration_error, evaluation.facts.get(TEMPERATURE, 1.0)
    if evaluation.reliability is None or error is None:
        return None
    how = "not calibrated" if temperature == 1 else f"logits are divided by {temperature:.3g}, fitted on val"
    area = evaluation.facts.get(RISK_AREA)
    risk = "" if area is None else f" Area under the risk-coverage curve: {100 * area:.2f} points."
    over = f"over {evaluation.reliability.shape[1]} bins"
    return f"Expected calibration error: {percent(error)} points, {over}; {how}.{risk}"


def iou_text(iou: float) -> str:
    """The IoU of a class in per cent."""
    return percent(iou) if isfinite(iou) else ABSENT


def _means(evaluation: Evaluation) -> dict[str, Interval]:
    return {name: evaluation.table.means[key] for key, name in SCORE_NAMES.items() if key in evaluation.table.means}


def panels_of(example: Example, labels: LabelSet) -> dict[str, str]:
    """Four images, no wider than ``IMAGE_WIDTH``, as data URLs; three where no image is beside the masks."""
    truth, prediction = (thumbnail(array, IMAGE_WIDTH) for array in (example.truth, example.prediction))
    panels = {
        "ground truth": data_url(colorize(truth, labels), "PNG"),
        "prediction": data_url(colorize(prediction, labels), "PNG"),
    }
    image = np.full((*truth.shape, 3), 255, np.uint8)
    if example.image.size:
        image = thumbnail(example.image, IMAGE_WIDTH)
        panels = {"image": data_url(image, "JPEG"), **panels}
    return {**panels, "errors": data_url(error_map(image, truth, prediction, labels), "JPEG")}
