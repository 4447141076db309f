"""The outcome of an evaluation, as data, and the files that keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from sanet.evaluation.confusion import Scores, scores_of, sums_of
from sanet.evaluation.protocol import Protocol
from sanet.files import written
from sanet.structures import LabelSet, SanetError

SCORES, COUNTS = "scores.json", "image_counts.npz"
FORMAT = 2


class Example(NamedTuple):
    """An image (H, W, 3) uint8, its ground truth and what was predicted, (H, W) int64, and its mIoU alone."""

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]
    miou: float


@dataclass(frozen=True)
class Evaluation:
    """The outcome of ``evaluate``.

    Attributes:
        labels: the classes.
        confusion: (K, K) int64, rows are the ground truth.
        scores: what follows from ``confusion``.
        image_miou: mIoU of every image by itself, by name; NaN where an image has no labelled pixel.
        worst: the images with the lowest mIoU, worst first; of processes that share a job, in the first one only.
        protocol: what was evaluated and how.
        facts: what else is worth keeping, such as which model it was.
        image_sums: (N, 3, K) int64, pixels found, true and predicted of each class in every image, in the order of
            ``image_miou``; None where they were not kept.
        metrics: values of further metrics, by name.
    """

    labels: LabelSet
    confusion: NDArray[np.int64]
    scores: Scores
    image_miou: dict[str, float]
    worst: list[Example]
    protocol: Protocol
    facts: dict[str, Any] = field(default_factory=dict)
    image_sums: NDArray[np.int64] | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def write_scores(path: Path, evaluation: Evaluation) -> None:
    """Write all but the images; NaN is null. The sums of the images go into ``image_counts.npz`` beside the file."""
    if evaluation.image_sums is not None:
        with written(path.with_name(COUNTS)) as aside, aside.open("wb") as file:
            np.savez_compressed(file, sums=evaluation.image_sums)
    content = {
        "format": FORMAT,
        "protocol": asdict(evaluation.protocol),
        "facts": evaluation.facts,
        "scores": asdict(evaluation.scores),
        "metrics": evaluation.metrics,
        "labels": asdict(evaluation.labels),
        "confusion": evaluation.confusion.tolist(),
        "image_miou": evaluation.image_miou,
    }
    with written(path) as aside:
        text = json.dumps(_jsonable(content), indent=1, ensure_ascii=False, allow_nan=False)
        aside.write_text(text + "\n", encoding="utf-8")


def read_scores(path: str | Path) -> Evaluation:
    """Read a ``scores.json``, or the one of a folder; the scores are computed again from the confusion matrix.

    Raises:
        SanetError: there is no such file, or it cannot be read as scores.
    """
    file = Path(path) / SCORES if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise SanetError(f"{file} is of another version of sanet, or no scores at all; evaluate again")
        labels, confusion = LabelSet(**content["labels"]), np.array(content["confusion"], np.int64)
        scores, miou = scores_of(torch.from_numpy(confusion), labels), _numbers(content["image_miou"])
        sums = _image_sums(file.with_name(COUNTS), confusion, len(miou))
        protocol, facts, metrics = Protocol.read(content["protocol"]), content["facts"], _numbers(content["metrics"])
        return Evaluation(labels, confusion, scores, miou, [], protocol, facts, sums, metrics)
    except OSError as error:
        raise SanetError(f"{file} cannot be read ({error.strerror}); `sanet evaluate` writes such files") from error
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, BadZipFile) as error:
        raise SanetError(f"{file} cannot be read as scores of `sanet evaluate` ({error!r}); evaluate again") from error


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: nan if value is None else float(value) for name, value in values.items()}


def _image_sums(path: Path, confusion: NDArray[np.int64], images: int) -> NDArray[np.int64] | None:
    """Those beside a ``scores.json``, if they exist."""
    if not path.is_file():
        return None
    with np.load(path) as file:
        sums: NDArray[np.int64] = file["sums"]
    if len(sums) != images or not np.array_equal(sums.sum(axis=0), sums_of(torch.from_numpy(confusion)).numpy()):
        raise SanetError(f"{path} does not belong to the {SCORES} beside it; evaluate again")
    return sums


def _jsonable(value: Any) -> Any:
    """Numbers that are none as None, all the way down; what JSON has no word for, such as a path, as text."""
    if isinstance(value, dict):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int)) else str(value)
