"""An evaluation for people: a self-contained HTML page, and a table for the terminal."""

from __future__ import annotations

from math import isfinite, nan
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from sanet.config import CROPS
from sanet.evaluation.confusion import SCORE_NAMES
from sanet.evaluation.curves import learning_curves
from sanet.evaluation.page import data_url, environment, thumbnail
from sanet.evaluation.results import Evaluation, Example
from sanet.files import written
from sanet.inference.drawing import IGNORED, WRONG, colorize, error_map
from sanet.structures import LabelSet
from sanet.tables import percent, text_table

ABSENT_RULE = "A class that is neither true nor predicted anywhere is absent: it has no score and is in no mean."
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
            protocol=evaluation.protocol.shown() | evaluation.facts,
            curves=learning_curves(history, SCORE_NAMES),
            shares=(confusion / confusion.sum(axis=1, keepdims=True).clip(min=1)).tolist(),
            numbered=len(labels) <= NUMBERED_CLASSES,
            examples=[(example, _panels(example, labels)) for example in evaluation.worst],
            shown=[name for index, name in enumerate(labels.names) if index in shown],
            median_miou=median([miou for miou in evaluation.image_miou.values() if isfinite(miou)] or [nan]),
            crops=data_url(np.array(Image.open(crops)), "JPEG") if crops.is_file() else None,
            absent_rule=ABSENT_RULE,
            wrong=WRONG,
            ignored=IGNORED,
        )
    )
    with written(path) as aside:
        aside.write_text(text, encoding="utf-8")


def score_table(evaluation: Evaluation) -> str:
    """Plain text for a terminal: IoU and accuracy by class, then the means, all in per cent; then further metrics."""
    scores = evaluation.scores
    rows = [(name, iou_text(iou), percent(scores.class_accuracy[name])) for name, iou in scores.class_iou.items()]
    rows += [(name, percent(value), "") for name, value in _means(evaluation).items()]
    further = [f"{name}: {value:.4g}" for name, value in evaluation.metrics.items()]
    return "\n".join([text_table(("per cent", "IoU", "accuracy"), rows), *further, ABSENT_RULE])


def iou_text(iou: float) -> str:
    """The IoU of a class in per cent."""
    return percent(iou) if isfinite(iou) else "absent"


def _means(evaluation: Evaluation) -> dict[str, float]:
    values = {name: getattr(evaluation.scores, key) for key, name in SCORE_NAMES.items()}
    return {name: value for name, value in values.items() if value is not None}


def _panels(example: Example, labels: LabelSet) -> dict[str, str]:
    """Four images, no wider than ``IMAGE_WIDTH``, as data URLs."""
    image, truth, prediction = (
        thumbnail(array, IMAGE_WIDTH) for array in (example.image, example.truth, example.prediction)
    )
    return {
        "image": data_url(image, "JPEG"),
        "ground truth": data_url(colorize(truth, labels), "PNG"),
        "prediction": data_url(colorize(prediction, labels), "PNG"),
        "errors": data_url(error_map(image, truth, prediction, labels), "JPEG"),
    }
