"""Where a model is wrong, and where its labels may be wrong instead, in one pass over the images of a split."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from tqdm import tqdm

from sanet.config import OWN, DataConfig, InferenceConfig
from sanet.data.formats.regions import Annotation, trace
from sanet.data.source import SegmentationDataset
from sanet.evaluation.confusion import ConfusionMatrix, iou_of, sums_of
from sanet.evaluation.evaluate import Labeller, dataset_for
from sanet.evaluation.page import thumbnail
from sanet.evaluation.protocol import Protocol
from sanet.evaluation.regions import EIGHT
from sanet.evaluation.results import Example
from sanet.files import require_own, require_writable
from sanet.inference.predictor import Predictor
from sanet.inference.prelabels import prelabels_in, write_annotations
from sanet.insight.error_counts import Confusion, ErrorRates, Errors, costs_of
from sanet.insight.error_page import write_page
from sanet.insight.suspects import Suspect, doubts_in, judged, write_suspects
from sanet.models.networks import SegmentationModel
from sanet.models.store import BUNDLED
from sanet.structures import UsageError, is_live

PAGE, SUSPECTS = "errors.html", "suspects.csv"
SHOWN, CONFUSIONS = 4, 8  # images of a kind, and confusions, on the page
WIDTH = 480  # of images that are kept for it, in pixels
MARGIN = 40  # pixels around a confusion
TOLERANCE = 0.5  # pixels, of outlines for a tool


def errors(
    model: str | Path | SegmentationModel,
    data: DataConfig,
    split: str = "test",
    output: str | Path | None = None,
    inference: InferenceConfig = InferenceConfig(),
    device: str | None = None,
    format: Any = "csv",
    suspects: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> Errors:
    """Find out where a model is wrong on one split of a dataset, and which of its labels are probably wrong.

    Args:
        model: a model directory, an exported file that gives logits, or a model.
        data: the dataset.
        split: the split; wrong labels that a model was trained on, it may have learnt.
        output: folder for ``errors.html`` and ``suspects.csv``; nothing is written without it.
        inference: sliding window, multi-scale and flip.
        device: name of the device; by default the best there is.
        format: "csv", or a format of annotations for the predictions of the suspects, which get a folder of its name.
        suspects: how many are on the page, and in that folder.
        seed: of the random images.
        progress: show a progress bar in a terminal.

    Raises:
        SanetError: the model's classes are not those of the dataset, in the same order.
        DataError: the dataset cannot be read.
        UsageError: no such split, device or format, or a file in ``output`` is not ours.

    Example:
        >>> import sanet
        >>> model, data = sanet.create_model("fcn", num_classes=2), sanet.DataConfig(root="photos")
        >>> len(sanet.errors(model, data, "val").image_miou)
        3
    """
    folder = None
    if output is not None:
        require_own(Path(output, PAGE), Path(output, SUSPECTS))
        folder = None if format == "csv" else prelabels_in(output, format)
    predictor = Predictor(model, device, inference)
    dataset, data = dataset_for(predictor, data, split)
    if folder and (not dataset.source.reads_files or predictor.images.pages == "images"):
        raise UsageError("format: annotations are of images in files of one page; leave it out")
    if output is not None:
        require_writable(Path(output))
    protocol = Protocol.of(data, split, dataset.names, dataset.labels, predictor.inference)
    over = _Pass(Labeller(predictor, dataset), dataset, suspects, seed, folder is not None)
    found = over.over_all(protocol, progress)
    if output is not None:
        name = "in memory" if isinstance(model, SegmentationModel) else str(model)
        facts = {"model": OWN if name == str(BUNDLED[OWN]) else name, "seed": seed}
        write_page(Path(output, PAGE), found, dataset.labels, facts)
        write_suspects(Path(output, SUSPECTS), found.suspects)
    if folder:
        annotations = [each.annotation for each in found.suspects if each.annotation]
        write_annotations(annotations, folder, dataset.labels, format)
    return found


class _Top:
    """The few images with the highest keys; what is shown of an image is made for those alone."""

    def __init__(self, count: int) -> None:
        self.count, self.held = count, list[tuple[float, int, Any]]()

    def offer(self, key: float, index: int, make: Callable[[], Any]) -> None:
        """An image, which takes the place of a lower one."""
        if isfinite(key) and (len(self.held) < self.count or (self.held and -key < self.held[-1][0])):
            self.held = sorted([*self.held, (-key, index, make())], key=lambda entry: entry[:2])[: self.count]

    @property
    def shown(self) -> list[Any]:
        """What was made, by falling keys."""
        return [made for *_, made in self.held]


class _Pass:
    """One pass over the images, which keeps numbers of all and pictures of a few."""

    def __init__(self, label: Labeller, dataset: SegmentationDataset, count: int, seed: int, annotate: bool) -> None:
        self.label, self.dataset, self.labels, self.annotate = label, dataset, dataset.labels, annotate
        self.confusion, self.rates = ConfusionMatrix(self.labels), ErrorRates()
        self.kinds = {"worst": _Top(SHOWN), "random": _Top(SHOWN), "best": _Top(SHOWN)}
        self.doubted, self.drawn = _Top(count), np.random.default_rng(seed).permutation(len(dataset)).tolist()
        self.crops: dict[tuple[int, int], tuple[int, Example | None]] = {}

    def over_all(self, protocol: Protocol, progress: bool) -> Errors:
        """Look at all images."""
        miou, suspects = dict[str, float](), list[Suspect]()
        hidden = not (progress and is_live())
        for index in tqdm(range(len(self.dataset)), "errors", unit=" images", disable=hidden):
            suspect, miou[suspect.image] = self._look_at(index)
            suspects.append(suspect)
        self.label.warn()
        counts, names = self.confusion.counts.numpy(), self.labels.names
        pictured = {suspect.image: suspect for suspect in self.doubted.shown}
        ranked = sorted(suspects, key=lambda suspect: -suspect.score)
        confusions = [
            Confusion(names[pair[0]], names[pair[1]], int(counts[pair]), cost, self.crops[pair][1])
            for pair, cost in self._dearest(CONFUSIONS)
        ]
        all_suspects = [pictured.get(suspect.image, suspect) for suspect in ranked]
        examples = {kind: top.shown for kind, top in self.kinds.items()}
        return Errors(protocol, counts, miou, self.rates, confusions, all_suspects, examples)

    def _look_at(self, index: int) -> tuple[Suspect, float]:
        """Count an image, and keep what is shown of it, if it is one of those."""
        sample = self.dataset[index]
        image, truth = self.label.seen(sample), sample.mask.numpy()
        prediction, *certainty = judged(self.label.predictor, image, sample.mask)
        counts = self.confusion.update(sample.mask, torch.from_numpy(prediction))
        self.rates.add(truth, prediction, self.labels)
        score, regions, marks = doubts_in(self.labels, truth, prediction, *certainty)
        suspect, miou = Suspect(sample.name, score, regions), float(iou_of(sums_of(counts)).nanmean())
        whole = Example(sample.name, self.label.predictor.shown(image.cpu()), truth, prediction, miou)
        for kind, key in {"worst": -miou, "random": float(self.drawn[index]), "best": miou}.items():
            self.kinds[kind].offer(key, index, lambda: _part(whole))
        if regions:
            self.doubted.offer(score, index, lambda: self._pictured(suspect, index, whole, marks))
        kept = {}
        for pair, _ in self._dearest(3 * CONFUSIONS):  # more than are shown, since what costs most changes
            most, crop = self.crops.get(pair, (0, None))
            kept[pair] = (int(counts[pair]), _crop(whole, *pair)) if counts[pair] > most else (most, crop)
        self.crops = kept
        return suspect, miou

    def _dearest(self, count: int) -> list[tuple[tuple[int, int], float]]:
        """The confusions that cost most so far, as truth and prediction, and what they cost."""
        costs = costs_of(self.confusion.counts.numpy())
        places = np.argsort(-costs, axis=None, kind="stable")[:count].tolist()
        return [(pair, float(costs[pair])) for pair in (divmod(at, len(costs)) for at in places) if costs[pair] > 0]

    def _pictured(self, suspect: Suspect, index: int, whole: Example, marks: NDArray[np.int64]) -> Suspect:
        """With what is shown of it, and what a tool shows."""
        suspect = suspect._replace(example=_part(whole), marks=thumbnail(marks, WIDTH))
        record, size = self.dataset.records[index], whole.prediction.shape[::-1]
        if not self.annotate or record.image is None:
            return suspect
        names = {number: name for number, name in enumerate(self.labels.names) if number != self.labels.background}
        inside = [part for part in PurePosixPath(record.name).parts if part not in ("/", "..")]
        regions = trace(whole.prediction, names, TOLERANCE)
        named = f"{'/'.join(inside)}{record.image.suffix}"
        return suspect._replace(annotation=Annotation(named, record.image, size, regions, None, record.image))


def _part(whole: Example, *place: slice) -> Example:
    """A part of an image, or all of it, no wider than it is shown."""
    _, image, truth, prediction, _ = whole
    image, truth, prediction = (thumbnail(array[place], WIDTH) for array in (image, truth, prediction))
    return whole._replace(image=image, truth=truth, prediction=prediction)


def _crop(whole: Example, true: int, predicted: int) -> Example:
    """A square around the largest connected region of a confusion, as far as the image goes."""
    numbers, _ = label((whole.truth == true) & (whole.prediction == predicted), EIGHT)
    box = find_objects(numbers)[np.bincount(numbers.ravel())[1:].argmax()]
    side = max(part.stop - part.start for part in box) + 2 * MARGIN
    middles = ((part.start + part.stop) // 2 for part in box)
    starts = (max(0, min(at - side // 2, end - side)) for at, end in zip(middles, numbers.shape, strict=True))
    return _part(whole, *(slice(start, start + side) for start in starts))
