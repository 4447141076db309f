"""Prediction for files: masks, overlays, and one JSON line for each image.

While images are labelled, a line of ``predictions.jsonl`` is added for each of them; a process that is killed leaves
what it did, and the same call resumes from there. Masks and overlays are written as all files of this package are: see
``files.py``. Who labels is an ``Engine``: this process, or ``ray_engine.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from sanet.config import InferenceConfig
from sanet.data.decoding import DataError
from sanet.data.images import tensor_of
from sanet.data.stacks import paged
from sanet.files import accept, aside_of, beside, discard, locked, require_own, sum_of
from sanet.inference.drawing import LONGEST_JPEG, overlay, palette_image, shares, with_legend
from sanet.inference.exported import is_exported
from sanet.inference.georeference import geotiff, placed
from sanet.inference.inputs import find_images
from sanet.inference.journal import Job, Journal, Line, version
from sanet.inference.predictor import Predictor
from sanet.models.store import saved_files
from sanet.reading import FAR_OUTSIDE, OUTSIDE_TEXT
from sanet.structures import UsageError, say


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

    Attributes:
        predictor: the opened model.
        fingerprint: the same for the same model and settings, whatever the device.
    """

    def __init__(self, model: str, device: str | None = None, inference: InferenceConfig = InferenceConfig()) -> None:
        self.predictor = Predictor(model, device, inference)
        self.fingerprint = fingerprint_of(model, self.predictor.inference)

    def results(self, jobs: Sequence[Job]) -> Iterator[Line]:
        """What ``label_file`` says of every job, in any order, as soon as it is known."""
        return (label_file(self.predictor, job) for job in jobs)


def fingerprint_of(model: str, inference: InferenceConfig) -> str:
    """Hash of the contents of the model's files, its classes among them, and of the settings."""
    files = (Path(model),) if is_exported(model) else saved_files(model)
    # What is None is left out, so that a setting that is added later does not label everything again.
    settings = {name: value for name, value in asdict(inference).items() if value is not None}
    return sha256(json.dumps([settings, *map(sum_of, files)], sort_keys=True).encode()).hexdigest()[:16]


def predict_collection(engine: Engine, inputs: Sequence[str], output: str | Path, progress: bool = True) -> Outcome:
    """Label images and write what was found below ``output``; what exists already is kept, of other images too.

    For each image: ``masks/NAME.png`` (palette PNG of class indices, at the image's size; ``NAME.tif`` of a GeoTIFF,
    with its transform and coordinate system, where rasterio is installed), ``overlays/NAME.jpg`` (with a legend), and a
    line of ``predictions.jsonl`` with each class's share of the pixels. At the end, the lines stand in the order of the
    images, whatever the engine, behind those of other images. Paths in them start at ``output``.

    An image is done when its line says that this model, with these settings, has labelled it, when it still has the
    size and the time of modification that the line says, and when its mask and overlay exist. Images that failed
    are tried again. A mask or overlay that would have to be made again, but was changed by somebody, is not replaced.

    ``inputs`` are files, folders and globs.

    Raises:
        UsageError: see ``find_images``; more classes than a palette PNG holds; or a file is in the way.
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
    jobs = [
        Job(
            str(path),
            str(folder / "masks" / f"{place}{'.tif' if path in geotiffs else '.png'}"),
            str(folder / "overlays" / f"{place}.jpg"),
        )
        for path, place in images.items()
    ]
    with locked(folder):
        journal = Journal(folder)
        left = [job for job in jobs if not journal.is_done(job, engine.fingerprint)]
        targets = (path for job in left for path in job.outputs)
        require_own(*targets, root=folder, inputs=[job.image for job in jobs])
        journal.write()  # complete lines only, and a disk that takes them
        kept = len(jobs) - len(left)
        with tqdm(desc="predict", unit=" images", total=len(jobs), initial=kept, disable=not progress) as bar:
            failures = _label_all(engine, left, journal, bar)
        journal.finish(jobs)
    for line in (journal.lines[journal.name(job.mask)] for job in left if job.image not in failures):
        if "outside" in line:
            say(f"warning: {line['image']}: {line['outside']:.1%} of a channel's pixels {OUTSIDE_TEXT}", error=True)
    return Outcome(len(left) - len(failures), kept, [failures[job.image] for job in left if job.image in failures])


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
                    accept(Path(job.mask), journal.folder)
                    journal.add({**line, "fingerprint": engine.fingerprint}, job)
                    accept(Path(job.overlay), journal.folder)
                bar.update()
    finally:
        for path in (path for job in begun.values() for path in job.outputs):
            discard(aside_of(path))
    return failures


def label_file(predictor: Predictor, job: Job) -> Line:
    """Label one image, and write its mask and its overlay beside their places; what ``predictions.jsonl`` says of it.

    Raises:
        SanetError: they cannot be written, which is no image's fault.
    """
    try:
        read = version(job.image)
        stored = predictor.read(Path(job.image))
    except DataError as error:
        return {"image": job.image, "error": str(error)}
    except OSError as error:
        return {"image": job.image, "error": f"{job.image}: {error}"}
    mask = predictor(stored)
    image, reading = predictor.shown(stored), predictor.images
    outside = round(reading.outside(tensor_of(stored)), 6) if reading.of_values else 0.0
    found = shares(mask, predictor.labels)
    blended = with_legend(overlay(image, mask, predictor.labels), predictor.labels, found)
    blended.thumbnail((LONGEST_JPEG, LONGEST_JPEG))  # smaller images stay as they are
    if Path(job.mask).suffix == ".png":
        _save(_encoded(palette_image(mask, predictor.labels), "PNG"), Path(job.mask))
    else:
        _save(geotiff(mask, predictor.labels, Path(job.image)), Path(job.mask))
    _save(_encoded(blended, "JPEG", quality=92), Path(job.overlay))
    return {**job._asdict(), "shares": found, **read, **({"outside": outside} if outside > FAR_OUTSIDE else {})}


def _encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = BytesIO()  # Pillow does not say what is wrong with a disk
    image.save(stream, format, **options)
    return stream.getvalue()


def _save(content: bytes, path: Path) -> None:
    """Write a file beside its place."""
    with beside(path) as aside:
        aside.write_bytes(content)
