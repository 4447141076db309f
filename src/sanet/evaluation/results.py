"""The outcome of an evaluation, as data, and the files that keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from html import escape
from math import isfinite, nan
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from sanet.evaluation.calibration import calibration_error
from sanet.evaluation.confusion import Scores, scores_of, sums_of
from sanet.evaluation.measures import Interval, Table, table_of
from sanet.evaluation.protocol import Protocol
from sanet.files import written
from sanet.structures import LabelSet, SanetError

SCORES, COUNTS = "scores.json", "image_counts.npz"
TRAINED = "trained"  # in the facts of an evaluation: a sentence about what was trained, on what, for how long
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
        image_shapes: (N, 10, K) int64, what ``measures.py`` counts of boundaries and regions; likewise.
        groups: (N,) int64, the group of each image; None where every image is its own.
        reliability: (3, B) float64, pixels, sum of their confidence and correct ones, by confidence; None without one.
        typical: the image in the middle by its mIoU, to begin a report with; where ``worst`` is known.
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
    image_shapes: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    reliability: NDArray[np.float64] | None = None
    typical: Example | None = None

    @property
    def image_counts(self) -> NDArray[np.int64]:
        """(N, 13, K) where all is known, (N, 3, K) of pixels alone, and (1, 3, K) where only their sum is."""
        if self.image_sums is None:
            return sums_of(torch.from_numpy(self.confusion))[None].numpy()
        return np.concatenate([self.image_sums, *([] if self.image_shapes is None else [self.image_shapes])], axis=1)

    @cached_property
    def table(self) -> Table:
        """All scores by class and as means, with their intervals."""
        return table_of([self.image_counts], self.labels, self.groups)

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error, from 0 to 1; None where confidence is not known."""
        return None if self.reliability is None else calibration_error(self.reliability)

    def __repr__(self) -> str:
        what = f"{self.protocol.data} {self.protocol.split}, {len(self.image_miou)} images"
        return f"Evaluation({what}: mean IoU {self.table.means['miou'].text()} %)"

    def _repr_html_(self) -> str:
        """The IoU of each class as a table, for a notebook."""
        named = zip([*self.labels.names, "mean"], self.table.classes["iou"], strict=True)
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{iou.text()}</td></tr>" for name, iou in named)
        return f"<p>{escape(repr(self))}</p><table><tr><th>class</th><th>IoU, 95 % interval</th></tr>{rows}</table>"


def write_scores(path: Path, evaluation: Evaluation) -> None:
    """Write all but the images; NaN is null. The sums of the images go into ``image_counts.npz`` beside the file."""
    counts = {"sums": evaluation.image_sums, "shapes": evaluation.image_shapes, "groups": evaluation.groups}
    known: dict[str, Any] = {name: array for name, array in counts.items() if array is not None}
    if evaluation.image_sums is not None:
        with written(path.with_name(COUNTS)) as aside, aside.open("wb") as file:
            np.savez_compressed(file, **known)
    names, table = [*evaluation.labels.names], evaluation.table
    content = {
        "format": FORMAT,
        "protocol": asdict(evaluation.protocol),
        "facts": evaluation.facts,
        "scores": asdict(evaluation.scores),
        "intervals": {
            "columns": Interval._fields,
            "means": table.means,
            "classes": {name: dict(zip(names, found, strict=False)) for name, found in table.classes.items()},
            "class_means": {name: found[-1] for name, found in table.classes.items()},
        },
        "metrics": evaluation.metrics,
        "labels": asdict(evaluation.labels),
        "confusion": evaluation.confusion.tolist(),
        "image_miou": evaluation.image_miou,
        "reliability": None if evaluation.reliability is None else evaluation.reliability.tolist(),
        "calibration_error": evaluation.calibration_error,
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
        sums, shapes, groups = _image_counts(file.with_name(COUNTS), confusion, len(miou))
        protocol, metrics = Protocol.read(content["protocol"]), _numbers(content["metrics"])
        trust = content.get("reliability")
        trust = None if trust is None else np.array(trust, np.float64).reshape(3, -1)
        counts = sums, metrics, shapes, groups, trust
        return Evaluation(labels, confusion, scores, miou, [], protocol, dict(content["facts"]), *counts)
    except OSError as error:
        raise SanetError(f"{file} cannot be read ({error.strerror}); `sanet evaluate` writes such files") from error
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError, BadZipFile) as error:
        raise SanetError(f"{file} cannot be read as scores of `sanet evaluate` ({error!r}); evaluate again") from error


def trained_in(run: Path) -> dict[str, Any]:
    """What a run's own scores say was trained, for others of its model; nothing where it has none."""
    with suppress(SanetError):
        return {name: value for name, value in read_scores(run).facts.items() if name == TRAINED}
    return {}


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: nan if value is None else float(value) for name, value in values.items()}


def _image_counts(path: Path, confusion: NDArray[np.int64], images: int) -> list[NDArray[np.int64] | None]:
    """The sums, shapes and groups beside a ``scores.json``, as far as they exist; older versions wrote sums alone."""
    if not path.is_file():
        return [None, None, None]
    with np.load(path) as file:
        sums, shapes, groups = (file.get(name) for name in ("sums", "shapes", "groups"))
    fits = len(sums) == images and np.array_equal(sums.sum(axis=0), sums_of(torch.from_numpy(confusion)).numpy())
    if not fits or any(other is not None and len(other) != images for other in (shapes, groups)):
        raise SanetError(f"{path} does not belong to the {SCORES} beside it; evaluate again")
    return [sums, shapes, groups]


def _jsonable(value: Any) -> Any:
    """Numbers that are none as None, all the way down; what JSON has no word for, such as a path, as text."""
    if isinstance(value, dict):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int)) else str(value)
