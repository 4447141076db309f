"""Which images to label next: those that a model is unsure of, and that are unlike each other and those labelled."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
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
TOLERANCE = 0.5  # pixels, of outlines for a tool


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
    progress: bool = True,
) -> list[Choice]:
    """Choose the images of a pool whose labels should help a model most.

    One after the other, the image is taken whose uncertainty times its distance from the nearest image that is labelled
    or was taken is largest; see ``ranked``.

    Args:
        pool: files, folders and globs; what is labelled among them is left out.
        model: a model directory, or a model.
        count: how many images.
        labelled: images that have labels already, likewise.
        output: folder for ``next.csv``; nothing is written without it.
        format: "csv", or a format of annotations for the predictions of these images, which get a folder of its name.
        inference: sliding window, multi-scale and flip.
        device: name of the device; by default the best there is.
        progress: show a progress bar in a terminal.

    Raises:
        SanetError: the model cannot be read.
        UsageError: no images, or films among them, no such format, a model in an exported file, or a file in ``output``
            is not ours.

    Example:
        >>> import sanet
        >>> model = sanet.create_model("fcn", num_classes=2)
        >>> [choice.image.name for choice in sanet.next_to_label("photos/images", model, count=2)]  # doctest: +SKIP
        ['4.png', '0.png']
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
    images = {path: name for path, name in images.items() if path.resolve() not in done}
    if output is not None:
        require_writable(place)
    old, new = (_look_at(predictor, [*paths], progress) for paths in (known, images))
    if not new.paths:
        raise UsageError("no image that could be read is left to label; name others")
    chosen = ranked(new.uncertainty, new.features, old.features, count)
    others = [*old.paths, *new.paths]
    choices = [
        Choice(new.paths[at], new.uncertainty[at], None if near is None else others[near], distance)
        for at, near, distance in chosen
    ]
    if output is not None:
        write_choices(place / LIST, choices)
    if folder:
        write_annotations([*_annotations(predictor, choices, images)], folder, predictor.labels, format)
    return choices


def ranked(
    uncertainty: Sequence[float], features: NDArray[np.floating], labelled: NDArray[np.floating], count: int
) -> list[tuple[int, int | None, float]]:
    """The images to take, in this order, by uncertainty times distance from the nearest one that is taken or labelled.

    Distances are Euclidean, every feature divided by its standard deviation over all images. This is the greedy
    k-centre choice (Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR
    2018), weighted by uncertainty.

    Args:
        uncertainty: of N images.
        features: (N, C) of these.
        labelled: (M, C) of those that are labelled; M may be 0, and the most uncertain image is first then.
        count: how many to take, of N at most.

    Returns:
        Number of the image; of the nearest one, among the M and then the N, or None; and the distance.
    """
    both = np.concatenate([labelled.reshape(-1, features.shape[1]), features]).astype(np.float64)
    both /= both.std(axis=0).clip(1e-12)
    old, new = both[: len(labelled)], both[len(labelled) :]
    distances = np.full(len(new), np.inf)
    nearest = np.zeros(len(new), np.int64)

    def closer(number: int) -> None:
        apart = np.linalg.norm(new - both[number], axis=1)
        nearest[apart < distances] = number
        np.minimum(distances, apart, out=distances)

    for number in range(len(old)):
        closer(number)
    left, taken = np.ones(len(new), np.bool_), list[tuple[int, int | None, float]]()
    for _ in range(min(count, len(new))):
        first = not np.isfinite(distances).all()
        gain = np.asarray(uncertainty) * (1.0 if first else distances)
        at = int(np.where(left, gain, -np.inf).argmax())
        taken.append((at, None if first else int(nearest[at]), float(distances[at])))
        left[at] = False
        closer(len(old) + at)
    return taken


class _Seen(NamedTuple):
    """What was found out about images that could be read."""

    paths: list[Path]
    uncertainty: list[float]
    features: NDArray[np.float32]


def _look_at(predictor: Predictor, paths: Sequence[Path], progress: bool) -> _Seen:
    """Look at images; of those that cannot be read, say so."""
    read = list[Path]()

    def images() -> Iterator[NDArray[Any]]:
        for path in tqdm(paths, "look at images", unit=" images", disable=not (progress and is_live())):
            try:
                image = predictor.read(path)
            except DataError as error:
                say(f"left out: {error}", error=True)
                continue
            read.append(path)
            yield image

    found = [(float(each.entropy.mean()), each.features) for each in predictor(images(), detail="confidence")]
    return _Seen(read, [entropy for entropy, _ in found], np.array([features for _, features in found], np.float32))


def write_choices(path: Path, choices: Sequence[Choice]) -> None:
    """A line for every image, in the order in which they are to be labelled."""
    with written(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["rank", *Choice._fields])
        for rank, (image, uncertainty, nearest, distance) in enumerate(choices, 1):
            table.writerow([rank, image, f"{uncertainty:.5g}", nearest, "" if nearest is None else f"{distance:.5g}"])


def _annotations(predictor: Predictor, choices: Sequence[Choice], images: dict[Path, Path]) -> Iterator[Annotation]:
    """The predictions of the images, each by its place in the pool."""
    for choice in choices:
        path, prediction = choice.image, predictor(choice.image)
        name = f"{images[path].as_posix()}{path.suffix}"
        yield Annotation(name, path, prediction.mask.shape[::-1], prediction.polygons(TOLERANCE), None, path)
