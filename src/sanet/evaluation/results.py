"""The outcome of an evaluation, as data, and the file that keeps it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from sanet.evaluation.confusion import Scores, scores_of, sums_of
from sanet.evaluation.protocol import Protocol, digest_of
from sanet.files import written
from sanet.structures import LabelSet, SanetError

SCORES, PICTURES = "scores.json", "pictures.npz"


@dataclass(frozen=True)
class Example:
    """A picture, its truth and what was predicted.

    Attributes:
        name: of the picture.
        image: (H, W, 3) uint8.
        truth: (H, W) int64, class indices or the ignore index.
        prediction: (H, W) int64.
        miou: over the classes of this picture alone.
    """

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
        confusion: (K, K) int64, rows are the truth.
        scores: what follows from ``confusion``.
        picture_miou: mIoU of every picture by itself, by name; NaN where a picture has no labelled pixel.
        worst: the pictures with the lowest mIoU, worst first; of processes that share a job, in the first one only.
        protocol: what was evaluated and how.
        facts: what else is worth keeping, such as which model it was.
        picture_sums: (N, 3, K) int64, pixels found, true and predicted of each class in every picture, in the order of
            ``picture_miou``; None where that was not kept.
    """

    labels: LabelSet
    confusion: NDArray[np.int64]
    scores: Scores
    picture_miou: dict[str, float]
    worst: list[Example]
    protocol: Protocol
    facts: dict[str, Any] = field(default_factory=dict)
    picture_sums: NDArray[np.int64] | None = None


def write_scores(path: Path, evaluation: Evaluation) -> None:
    """Write protocol, scores, label set, confusion matrix (rows are the truth) and mIoU by picture; NaN is null.

    The file ends with the SHA-256 of what it holds, by which ``read_scores`` knows that nobody has changed it. The
    sums of the pictures go into ``pictures.npz`` beside it.
    """
    if evaluation.picture_sums is not None:
        with written(path.with_name(PICTURES)) as aside, aside.open("wb") as file:
            np.savez_compressed(file, sums=evaluation.picture_sums)
    content = _jsonable(
        {
            "protocol": asdict(evaluation.protocol),
            "facts": evaluation.facts,
            "scores": asdict(evaluation.scores),
            "labels": asdict(evaluation.labels),
            "confusion": evaluation.confusion.tolist(),
            "picture_miou": evaluation.picture_miou,
        }
    )
    text = json.dumps(content | {"sha256": digest_of(content)}, indent=1, ensure_ascii=False, allow_nan=False)
    with written(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def read_scores(path: str | Path) -> Evaluation:
    """Read a ``scores.json`` back, all but the pictures; the scores follow anew from the confusion matrix.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        SanetError: there is no such file, it cannot be read, or it is not as `sanet evaluate` wrote it.
    """
    file = scores_file(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        intact = content.pop("sha256") == digest_of(content)
        protocol = Protocol.read(content["protocol"])
        if not intact:
            raise SanetError(f"{file} was changed after it was written: its SHA-256 is another one; evaluate again")
        confusion = np.array(content["confusion"], np.int64)
        labels = LabelSet(**content["labels"])
        scores = scores_of(torch.from_numpy(confusion), labels)
        miou = {name: nan if value is None else float(value) for name, value in content["picture_miou"].items()}
        sums = _picture_sums(file.with_name(PICTURES), confusion, len(miou))
        return Evaluation(labels, confusion, scores, miou, [], protocol, content["facts"], sums)
    except OSError as error:
        raise SanetError(f"{file} cannot be read: {error}") from error
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise SanetError(
            f"{file} cannot be read as scores that this version of `sanet evaluate` wrote ({error!r}); evaluate again"
        ) from error


def _picture_sums(path: Path, confusion: NDArray[np.int64], pictures: int) -> NDArray[np.int64] | None:
    """Those beside a ``scores.json``, if they are there.

    Raises:
        SanetError: they are not of these scores.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path) as file:
            sums: NDArray[np.int64] = file["sums"]
        fit = sums.dtype == np.int64 and len(sums) == pictures
    except (OSError, LookupError, ValueError, BadZipFile) as error:
        raise SanetError(f"{path} cannot be read ({error}); evaluate again") from error
    if not fit or not np.array_equal(sums.sum(axis=0), sums_of(torch.from_numpy(confusion)).numpy()):
        raise SanetError(f"{path} does not belong to the {SCORES} beside it; evaluate again")
    return sums


def scores_file(path: str | Path) -> Path:
    """The file itself, or the one in a folder.

    Raises:
        SanetError: there is none.
    """
    given = Path(path)
    file = given / SCORES if given.is_dir() else given
    if file.is_file():
        return file
    inside = sorted(str(found.parent) for found in given.glob(f"*/{SCORES}")) if given.is_dir() else []
    hint = f"there is one in {', '.join(inside)}" if inside else "`sanet evaluate` writes one"
    raise SanetError(f"there is no {file}; {hint}")


def _jsonable(value: Any) -> Any:
    """Numbers that are none as None, all the way down; what JSON has no word for, such as a path, as text."""
    if isinstance(value, dict):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int)) else str(value)
