"""Which images to label next: those that a model is unsure of, and that are unlike each other and those labelled."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sanet.config import InferenceConfig
from sanet.data.decoding import DataError
from sanet.data.formats.regions import Annotation
from sanet.files import require_own, require_writable, written
from sanet.inference.inputs import find_images, is_film
from sanet.inference.predictor import Predictor
from sanet.inference.prelabels import prelabels_in, write_annotations
from sanet.models.networks import SegmentationModel
from sanet.structures import UsageError, is_live, say

LIST = "next.csv"


class Choice(NamedTuple):
    """An image to label.

    Attributes:
        image: its file.
        uncertainty: mean entropy of its pixels in nats, from 0 to ln K.
        nearest: the image most like it among those labelled and those chosen before it; None of the very first.
        distance: from that one, between their features.
    """

    image: Path
    uncertainty: float
    nearest: Path | None
    distance: float


def next_to_label(
    pool: str | Sequence[str],
    model: str | Path | SegmentationModel,
    count: int = 20,
    labelled: str | Sequence[str] = (),
    output: str | Path | None = None,
    format: Any = "csv",
    inference: InferenceConfig = InferenceConfig(),
    device: str | None = None,
) -> list[Choice]:
    """Choose the images of a pool whose labels should help a model most; see ``ranked``.

    Args:
        pool: files, folders and globs; what is labelled among them is left out.
        model: a model directory, or a model.
        count: how many images.
        labelled: images that have labels already, likewise.
        output: folder for ``next.csv``; nothing is written without it.
        format: "csv", or a format of annotations for the predictions of these images, which get a folder of its name.
        inference: sliding window, multi-scale and flip.
        device: name of the device; by default the best there is.

    Raises:
        SanetError: the model cannot be read, or is an exported file.
        UsageError: no images, or films among them, no such format, or a file in ``output`` is not ours.

    Example:
        >>> import sanet
        >>> len(sanet.next_to_label("photos/train/images", sanet.create_model("fcn", num_classes=2), count=2))
        2
    """
    folder, place = None, Path(output or LIST)
    if output is not None:
        require_own(place / LIST)
        folder = None if format == "csv" else prelabels_in(output, format)
    predictor = Predictor(model, device, inference)
    if predictor.network is None:
        raise UsageError(f"{model}: an exported file gives no features to compare images by; give the model itself")
    known, images = (find_images([given] if isinstance(given, str) else given, place) for given in (labelled, pool))
    if any(map(is_film, (*known, *images))):
        raise UsageError("there is a film among the images; save its frames as files")
    done = {path.resolve() for path in known}
    if output is not None:
        require_writable(place)
    old, _, features = _seen(predictor, known)
    new, uncertainty, others = _seen(predictor, [path for path in images if path.resolve() not in done])
    if not new:
        raise UsageError("no image that could be read is left to label; name others")
    taken, paths = ranked(uncertainty, others, features, count), [*old, *new]
    choices = [Choice(new[at], uncertainty[at], None if near is None else paths[near], far) for at, near, far in taken]
    if output is not None:
        with written(place / LIST) as aside, aside.open("w", -1, "utf-8", "surrogateescape", "") as file:
            table = csv.writer(file)
            table.writerow(["rank", *Choice._fields])
            table.writerows([rank, *choice] for rank, choice in enumerate(choices, 1))
    if folder:
        annotations = [_annotation(predictor, path, images[path]) for path, *_ in choices]
        write_annotations(annotations, folder, predictor.labels, format)
    return choices


def _annotation(predictor: Predictor, path: Path, place: Path) -> Annotation:
    found = predictor(path)
    size = found.mask.shape[::-1]
    return Annotation(f"{place.as_posix()}{path.suffix}", path, size, found.polygons(), None, path)


def ranked(
    uncertainty: Sequence[float], features: NDArray[np.floating], labelled: NDArray[np.floating], count: int
) -> list[tuple[int, int | None, float]]:
    """The images to take, in this order, by uncertainty times distance from the nearest one that is taken or labelled.

    Distances are Euclidean, every feature divided by its standard deviation over all images. This is the greedy
    k-centre choice (Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR
    2018), weighted by uncertainty. Features are (N, C) and (M, C); where M is 0, the most uncertain image is first.

    Returns:
        Number of the image; of the nearest one, among the M and then the N, or None; and the distance.
    """
    both = np.concatenate([labelled.reshape(-1, features.shape[1]), features]).astype(np.float64)
    both /= both.std(axis=0).clip(1e-12)
    first, new, taken = len(labelled), both[len(labelled) :], list[tuple[int, int | None, float]]()
    distances, nearest, left = np.full(len(new), np.inf), np.zeros(len(new), np.int64), np.ones(len(new), np.bool_)
    for step in range(first + min(count, len(new))):
        number = step
        if step >= first:
            alone = step == 0
            gain = np.asarray(uncertainty) * (1.0 if alone else distances)
            at = int(np.where(left, gain, -np.inf).argmax())
            taken.append((at, None if alone else int(nearest[at]), float(distances[at])))
            left[at], number = False, first + at
        apart = np.linalg.norm(new - both[number], axis=1)
        nearest[apart < distances] = number
        np.minimum(distances, apart, out=distances)
    return taken


def _seen(predictor: Predictor, paths: Iterable[Path]) -> tuple[list[Path], list[float], NDArray[np.float32]]:
    """Images that can be read, their uncertainty and their features (N, C); of others it says so."""
    read = list[Path]()

    def images() -> Iterator[NDArray[Any]]:
        for path in tqdm([*paths], "look at images", unit=" images", disable=not is_live()):
            try:
                image = predictor.read(path)
            except DataError as error:
                say(f"left out: {error}", error=True)
                continue
            read.append(path)
            yield image

    found = [(float(each.entropy.mean()), each.features) for each in predictor(images(), detail="confidence")]
    return read, [entropy for entropy, _ in found], np.array([features for _, features in found], np.float32)
