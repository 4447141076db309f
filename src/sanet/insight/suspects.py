"""Labels that are probably wrong: where a model is sure of another class than the one in the ground truth.

A pixel is in doubt as far as the logarithm of p / q goes beyond that of ``ODDS``, with p the calibrated probability of
the predicted class and q that of the label. At an outline, true or predicted, where annotators and networks differ by
a pixel, it counts less. An image's score is the mean over its labelled pixels.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from math import log
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt, find_objects
from torch import Tensor

from sanet.data.formats.regions import Annotation
from sanet.evaluation.outlines import distance_of, outline_of
from sanet.evaluation.regions import connected_regions
from sanet.evaluation.results import Example
from sanet.files import written
from sanet.inference.predictor import Predictor
from sanet.inference.views import probabilities_of, score_bands
from sanet.structures import LabelSet

ODDS, LEAST = 50, 1e-6  # no probability counts as less than LEAST
NEAR = 1 / 300  # of the diagonal: how far from an outline a pixel counts in full
KEPT = 5  # regions of an image
FAR = 2**30  # pixels, to an outline where there is none


class Doubt(NamedTuple):
    """A connected region with one label and one prediction, of which a model is sure.

    Attributes:
        box: first column and row, and those behind the last.
        label: its class in the ground truth.
        predicted: the predicted class.
        confidence: mean calibrated probability of the predicted class.
        pixels: how many there are.
    """

    box: tuple[int, int, int, int]
    label: str
    predicted: str
    confidence: float
    pixels: int


class Suspect(NamedTuple):
    """An image, how suspect its labels are, from 0, and the regions with the largest parts in that.

    Of the first ones also what is shown: the image, small; the numbers of its regions from 1, (h, w); its prediction.
    """

    image: str
    score: float
    regions: list[Doubt]
    example: Example | None = None
    marks: NDArray[np.int64] | None = None
    annotation: Annotation | None = None


@torch.inference_mode()
def judged(
    predictor: Predictor, image: Tensor, truth: Tensor
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """What a model says of an image (C, H, W), as ``Predictor.seen`` gives it, and of its labels (H, W) int64.

    Returns:
        (H, W) predicted classes; their calibrated probabilities; and the logarithms of these over the probabilities of
        the labels, which mean nothing where there is no label.
    """
    parts, first = [], 0
    for band in score_bands(predictor.logits_of, image[None], predictor.inference):
        shares = probabilities_of(band, predictor.inference, predictor.temperature)[0].clamp(min=LEAST)
        given = truth[first : first + shares.shape[1]].to(shares.device).clamp(0, len(shares) - 1)
        confidence = shares.amax(dim=0)
        parts.append((band[0].max(dim=0).indices, confidence, (confidence / shares.gather(0, given[None])[0]).log()))
        first += len(given)
    labels, trust, odds = (torch.cat(bands).cpu().numpy() for bands in zip(*parts, strict=True))
    return labels, trust, odds


def steps_to_outline(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(H, W): steps to one of eight neighbours until a pixel beside another label; what is ignored is a label, too."""
    outline = outline_of(labels, np.ones(labels.shape, np.bool_))
    steps = distance_transform_cdt(~outline, "chessboard") if outline.any() else np.full(labels.shape, FAR)
    return np.asarray(steps, np.int64)


def doubts_in(
    labels: LabelSet,
    truth: NDArray[np.int64],
    prediction: NDArray[np.int64],
    confidence: NDArray[np.float32],
    odds: NDArray[np.float32],
) -> tuple[float, list[Doubt], NDArray[np.int64]]:
    """The score of an image, from what ``judged`` gives; its regions; and their numbers from 1, (H, W)."""
    labelled = truth != labels.ignore_index
    beyond = np.where(labelled, np.maximum(odds - log(ODDS), 0), 0)
    steps = np.minimum(steps_to_outline(truth), steps_to_outline(prediction))
    parts = beyond * np.minimum(steps / distance_of(NEAR, truth.shape), 1) / max(1, np.count_nonzero(labelled))
    sure, pairs = beyond > 0, np.zeros_like(truth)
    kinds, which = np.unique(np.stack([truth[sure], prediction[sure]]), axis=1, return_inverse=True)
    pairs[sure] = which.ravel()  # NumPy 2.0 gives it a second axis
    numbers, kind_of = connected_regions(pairs, sure, kinds.shape[1])
    areas, sums, trust = (np.bincount(numbers.ravel(), each) for each in (None, parts.ravel(), confidence.ravel()))
    boxes, doubts, marks = find_objects(numbers), list[Doubt](), np.zeros_like(truth)
    order = 1 + np.argsort(-sums[1:], kind="stable")[:KEPT]
    for number in order[sums[order] > 0].tolist():
        rows, columns = place = boxes[number - 1]
        box = columns.start, rows.start, columns.stop, rows.stop
        label, predicted = (labels.names[kind] for kind in kinds[:, kind_of[number]])
        doubts.append(Doubt(box, label, predicted, float(trust[number] / areas[number]), int(areas[number])))
        marks[place][numbers[place] == number] = len(doubts)
    return float(parts.sum()), doubts, marks


def write_suspects(path: Path, suspects: Iterable[Suspect]) -> None:
    """A line for every region, image by image; one for an image without any."""
    with written(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["rank", "image", "score", "left", "top", "right", "bottom", *Doubt._fields[1:]])
        for rank, suspect in enumerate(suspects, 1):
            regions = [[*box, *others] for box, *others in suspect.regions] or [[None] * 8]
            table.writerows([rank, suspect.image, suspect.score, *region] for region in regions)
