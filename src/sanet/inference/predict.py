"""Prediction for files: masks, overlays, and one JSON line for each image and each film.

While images are labelled, a line of ``predictions.jsonl`` is added for each of them; a process that is killed leaves
what it did, and the same call resumes from there. Masks and overlays are written as all files of this package are: see
``files.py``. Who labels is an ``Engine``: this process, or ``ray_engine.py``.
"""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, cast

from tqdm import tqdm

from sanet.config import InferenceConfig, OutputConfig
from sanet.data.decoding import DataError
from sanet.data.source import names_text
from sanet.data.stacks import paged
from sanet.files import accept, aside_of, beside, discard, locked, require_own, sum_of, written
from sanet.inference.drawing import shares
from sanet.inference.exported import is_exported, parts_of
from sanet.inference.films import label_film
from sanet.inference.georeference import geotiff, placed
from sanet.inference.inputs import find_images, is_film
from sanet.inference.journal import RESULTS, FileKind, Job, Journal, Line, version
from sanet.inference.large import LARGE, is_large, label_large
from sanet.inference.prediction import FoundRegion, Kind, Prediction
from sanet.inference.predictor import Detail, Predictor
from sanet.models.store import saved_files
from sanet.models.unlike import UNLIKE
from sanet.reading import FAR_OUTSIDE, OUTSIDE_TEXT
from sanet.structures import UsageError, say

# By what a file is: the folder and the ending of its name; what is not always written is named as in
# ``OutputConfig``.
FOLDERS: dict[FileKind, str] = {
    "frames": "frames",
    "mask": "masks",
    "overlay": "overlays",
    "confidence": "confidence",
    "probabilities": "probabilities",
}
ENDINGS: dict[FileKind, str] = {"mask": ".png", "overlay": ".jpg", "confidence": ".png", "probabilities": ".npy"}
ENDINGS_OF_GEOTIFFS: dict[FileKind, str] = {"mask": ".tif", "confidence": ".tif", "probabilities": ".tif"}
ENDINGS_OF_FILMS: dict[FileKind, str] = {"frames": ".csv", "overlay": ".mp4", "mask": ".zip"}
REGIONS = "regions.csv"


class Outcome(NamedTuple):
    """Images that were labelled now, images whose results existed already, and a message for each unreadable one."""

    labelled: int
    kept: int
    failures: list[str]


class Engine:
    """Labels images, one after the other in this process.

    Args:
        model: directory of a saved model, one of the Hugging Face hub as ``hf:OWNER/NAME``, or an exported file.
        device: name of the device; by default the best there is.
        inference: sliding window, multi-scale and flip.
        outputs: what is written of each image.
        batch: most images that go through the network together, as of ``Predictor``.
        graph: what is opened in the model's place: an exported file that labels as it does.

    Attributes:
        predictor: the opened model.
        fingerprint: the same for the same model and settings, whatever the device.
        progress: show how far a film is.
    """

    progress = False

    def __init__(
        self,
        model: str,
        device: str | None = None,
        inference: InferenceConfig = InferenceConfig(),
        outputs: OutputConfig = OutputConfig(),
        batch: int = 8,
        graph: str | None = None,
    ) -> None:
        self.predictor, self.outputs = Predictor(graph or model, device, inference, batch), outputs
        self.fingerprint = fingerprint_of(model, self.predictor.inference, outputs)

    def results(self, jobs: Sequence[Job]) -> Iterator[Line]:
        """What ``label_files`` says of every job, in any order, as soon as it is known."""
        return label_files(self.predictor, jobs, self.outputs, self.progress)


def fingerprint_of(model: str, inference: InferenceConfig, outputs: OutputConfig) -> str:
    """Hash of the contents of the model's files, its classes among them, and of what decides about mask and line."""
    files = parts_of(Path(model)) if is_exported(model) else saved_files(model)
    # What is None is left out, so that a setting that is added later does not label everything again.
    settings = {name: value for name, value in asdict(inference).items() if value is not None}
    deciding = {"threshold": outputs.threshold, "regions": outputs.regions or None}
    settings |= {name: value for name, value in deciding.items() if value is not None}
    return sha256(json.dumps([settings, *map(sum_of, files)], sort_keys=True).encode()).hexdigest()[:16]


def predict_collection(engine: Engine, inputs: Sequence[str], output: str | Path, progress: bool = True) -> Outcome:
    """Label images and write what was found below ``output``; what exists already is kept, of other images too.

    For each image: ``masks/NAME.png`` (palette PNG of class indices, at the image's size), the other files of
    ``OutputConfig``, each in a folder of its kind, and a line of ``predictions.jsonl`` with each class's share of the
    pixels. Of a GeoTIFF, where rasterio is installed, all but the overlay are ``NAME.tif``, with its transform and
    coordinate system. For each film: ``overlays/NAME.mp4``, ``frames/NAME.csv`` with the shares in every frame, and a
    line. At the end, the lines stand in the order of the images, whatever the engine, behind those of other images.
    Paths in them start at ``output``.

    An image is done when its line says that this model, with these settings, has labelled it, when it still has the
    size and the time of modification that the line says, and when its files exist. Images that failed are tried again.
    A file that would have to be made again, but was changed by somebody, is not replaced.

    ``inputs`` are files, folders and globs.

    Raises:
        UsageError: see ``find_images``; more classes than a palette PNG holds; a film, and what is not written of one;
            or a file is in the way.
        SanetError: another call is writing there, the engine cannot continue, or the disk is full.
    """
    classes, folder = len(engine.predictor.labels), Path(output)
    if classes > 256:
        raise UsageError(f"a palette PNG holds 256 classes, the model has {classes}; use sanet.Predictor")
    images = find_images(inputs, folder)
    if engine.predictor.images.pages == "images":
        images = paged(images)
    geotiffs, unplaced = placed(images)
    if unplaced:
        say(unplaced, error=True)
    large = {path for path in images if not is_film(path) and is_large(path, engine.predictor)}
    jobs = [
        _job(path, folder, place, engine.outputs, path in geotiffs | large, path in large)
        for path, place in images.items()
    ]
    engine.progress = progress
    with locked(folder):
        journal = Journal(folder)
        left = [job for job in jobs if not journal.is_done(job, engine.fingerprint)]
        targets = (path for job in left for path in job.outputs)
        require_own(*targets, root=folder, inputs=[job.image for job in jobs])
        if engine.outputs.regions:
            require_own(folder / REGIONS)
        journal.write()  # complete lines only, and a disk that takes them
        kept = len(jobs) - len(left)
        with tqdm(desc="predict", unit=" images", total=len(jobs), initial=kept, disable=not progress) as bar:
            failures = _label_all(engine, left, journal, bar)
        journal.finish(jobs)
        if engine.outputs.regions:
            _write_regions(folder, journal.lines.values(), engine.outputs.pixel_size)
    lines = [journal.lines[journal.name(job.main)] for job in left if job.image not in failures]
    far = [line["image"] for line in lines if line.get("unlike", 0) >= UNLIKE]
    if far:
        say(f"warning: unlike the training images ({RESULTS} says how much): {names_text(far)}", error=True)
    for line in lines:
        if "outside" in line:
            say(f"warning: {line['image']}: {line['outside']:.1%} of a channel's pixels {OUTSIDE_TEXT}", error=True)
        if "warning" in line:
            say(f"warning: {line['warning']}", error=True)
    return Outcome(len(left) - len(failures), kept, [failures[job.image] for job in left if job.image in failures])


def _job(image: Path, folder: Path, place: Path, outputs: OutputConfig, geotiff: bool, large: bool) -> Job:
    """What is written of an image or a film below the output folder, at a place there."""
    endings, wanted = ENDINGS | (ENDINGS_OF_GEOTIFFS if geotiff else {}), {"masks": True, **asdict(outputs)}
    if is_film(image) or large:
        what = f"has more than {LARGE} pixels" if large else "is a film"
        for name in ("probabilities", "confidence", "regions"):
            if wanted[name]:
                raise UsageError(f"{image} {what}, of which no {name} are written; leave them out, or the file")
    if is_film(image):
        endings, wanted = ENDINGS_OF_FILMS, {"frames": True, "overlays": outputs.overlays, "masks": outputs.film_masks}
    places = {kind: (FOLDERS[kind], ending) for kind, ending in endings.items() if wanted[FOLDERS[kind]]}
    files = {kind: str(folder / name / f"{place}{ending}") for kind, (name, ending) in places.items()}
    return Job(str(image), files, large)


def _label_all(engine: Engine, jobs: Sequence[Job], journal: Journal, bar: tqdm[Any]) -> dict[str, str]:
    """Label these images; what went wrong, by image."""
    failures, begun = {}, {job.image: job for job in jobs}
    try:
        with closing(line for line in (engine.results(jobs) if jobs else ())) as results:
            for line in results:
                job = begun[line["image"]]
                if "error" in line:
                    failures[job.image] = line["error"]
                    journal.add(line, job)
                else:
                    del begun[job.image]  # what lies beside its place now says that no line counts, until it has it
                    accept(Path(job.main), journal.folder)
                    journal.add({**line, "fingerprint": engine.fingerprint}, job)
                    for path in job.outputs[1:]:
                        accept(path, journal.folder)
                bar.update()
    finally:
        for path in (path for job in begun.values() for path in job.outputs):
            discard(aside_of(path))
    return failures


def label_files(
    predictor: Predictor, jobs: Sequence[Job], outputs: OutputConfig, progress: bool = False
) -> Iterator[Line]:
    """Label images, then large ones and films, and write their files beside their places; what the line of each says.

    Raises:
        SanetError: they cannot be written, which is no image's fault.
    """
    yield from _label_images(predictor, (job for job in jobs if not job.large and not is_film(job.image)), outputs)
    for job in jobs:
        if job.large:
            yield label_large(predictor, job, outputs)
        elif is_film(job.image):
            yield label_film(predictor, job, outputs, progress)


def _label_images(predictor: Predictor, jobs: Iterable[Job], outputs: OutputConfig) -> Iterator[Line]:
    """Read the next image and write the last one, in threads of their own, while one is labelled."""
    read, failed = deque[tuple[Job, Line]](), deque[Line]()  # what is not labelled yet, and what cannot be

    def stored() -> Iterator[Any]:
        for job in jobs:
            try:
                line = version(job.image)
                image = predictor.pixels(job.image)  # and no longer as it was read, which takes as much again
            except (DataError, OSError) as error:
                text = str(error) if isinstance(error, DataError) else f"{job.image}: {error}"
                failed.append({"image": job.image, "error": text})
                continue
            outside = round(predictor.images.outside(image), 6) if predictor.images.of_values else 0.0
            read.append((job, {**line, **({"outside": outside} if outside > FAR_OUTSIDE else {})}))
            yield image

    certain = outputs.confidence or outputs.regions
    detail: Detail = "probabilities" if outputs.probabilities else "confidence" if certain else "mask"

    def finished(prediction: Prediction, job: Job, line: Line) -> Line:
        _write(prediction, job)
        line |= {"image": job.image, "shares": shares(prediction.mask, prediction.labels)}
        line |= {} if prediction.unlike is None else {"unlike": round(prediction.unlike, 4)}
        return line | ({"regions": [_row(region) for region in prediction.regions]} if outputs.regions else {})

    with ThreadPoolExecutor(2) as pool:
        writing = deque[Future[Line]]()
        for prediction in predictor(_ahead(stored(), pool), threshold=outputs.threshold, detail=detail):
            writing.append(pool.submit(finished, prediction, *read.popleft()))
            while failed:
                yield failed.popleft()
            if len(writing) > 1:
                yield writing.popleft().result()
        yield from (each.result() for each in writing)
    yield from failed


def _ahead(values: Iterator[Any], pool: Executor) -> Iterator[Any]:
    """The same values; each is made while the one before it is used."""
    end = object()
    following = pool.submit(next, values, end)
    while (value := following.result()) is not end:
        following = pool.submit(next, values, end)
        yield value


def _row(region: FoundRegion) -> list[Any]:
    """As a line of ``predictions.jsonl`` has it, with places in tenths of a pixel."""
    return [
        region.name,
        region.area,
        *region.box,
        *(round(place, 1) for place in region.center),
        round(region.confidence, 4),
    ]


def _write(prediction: Prediction, job: Job) -> None:
    """All files of a job, beside their places."""
    for kind, file in job.files.items():
        place, kind = Path(file), cast(Kind, kind)
        content = geotiff(prediction, kind, Path(job.image)) if place.suffix == ".tif" else prediction.encoded(kind)
        with beside(place) as aside:
            aside.write_bytes(content)


def _write_regions(folder: Path, lines: Iterable[Line], pixel_size: float | None) -> None:
    """``regions.csv``: the regions of all images, in pixels or in a unit of the user's."""
    side, unit = pixel_size or 1.0, "" if pixel_size else " (pixels)"
    lengths = [f"{name}{unit}" for name in ("left", "top", "right", "bottom", "x", "y")]
    with written(folder / REGIONS) as aside, aside.open("w", -1, "utf-8", "surrogateescape", "") as file:
        table = csv.writer(file)
        table.writerow(["image", "class", f"area{unit}", *lengths, "confidence"])
        for line in lines:
            for name, area, *places, confidence in line.get("regions", ()):
                scaled = [f"{side * place:.12g}" for place in places]
                table.writerow([line["image"], name, f"{side * side * area:.12g}", *scaled, f"{confidence:.4f}"])
