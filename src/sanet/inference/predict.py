"""Prediction for files: masks, overlays, and one JSON line for each picture.

``predictions.jsonl`` is the memory of a collection. While pictures are labelled, a line is added for each of them; a
process that is killed leaves what it did, and the same call goes on from there. Masks and overlays are written aside,
and renamed once their line says what is in them: one that exists is whole, and one that no line knows, or that has been
changed since, is somebody's own and never replaced. Who labels is an ``Engine``: this process, or ``ray_engine.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image
from tqdm import tqdm

from sanet.config import InferenceConfig
from sanet.data.decoding import DataError, read_image
from sanet.files import aside_of, beside, discard, in_the_way, locked, refuse, settle
from sanet.inference.exported import is_exported
from sanet.inference.inputs import find_pictures
from sanet.inference.memory import Job, Line, Memory, version
from sanet.inference.pictures import LONGEST_JPEG, overlay, palette_image, shares, with_legend
from sanet.inference.predictor import Predictor
from sanet.models.store import saved_files
from sanet.structures import LabelSet, UsageError


class Outcome(NamedTuple):
    """What became of a collection.

    Attributes:
        labelled: pictures that were labelled now.
        kept: pictures whose results were there already.
        failures: what went wrong, one message for each picture that could not be read or written.
    """

    labelled: int
    kept: int
    failures: list[str]


class Engine(Protocol):
    """Who labels the pictures, and with what.

    Attributes:
        labels: the classes.
        fingerprint: the same for the same model and settings; None where that is not known, and then nothing that is
            there already counts.
    """

    labels: LabelSet
    fingerprint: str | None

    def results(self, jobs: Sequence[Job]) -> Iterator[Line]:
        """What ``label_file`` says of every job, in any order, as soon as it is known."""
        ...


@dataclass(frozen=True)
class PredictorSettings:
    """What a predictor is opened from; unlike the predictor, it can be sent to other machines.

    Args:
        model: the directory of a saved model, one of the Hugging Face hub as ``hf:OWNER/NAME``, or an exported file.
        device: such as "cpu" or "cuda"; by default a GPU where there is one.
        views: how to look at a picture.
    """

    model: str
    device: str | None = None
    views: InferenceConfig = field(default_factory=InferenceConfig)

    def open(self) -> Predictor:
        """Read the model; see ``Predictor`` for what it raises."""
        return Predictor(self.model, self.device, self.views)

    def fingerprint(self) -> str:
        """Hash of the contents of the model's files, its classes among them, and of the views; not of the device."""
        files = (Path(self.model),) if is_exported(self.model) else saved_files(self.model)
        # What is None is left out, so that a setting that is added later does not label everything again.
        views = {name: value for name, value in asdict(self.views).items() if value is not None}
        digest = hashlib.sha256(json.dumps(views, sort_keys=True).encode())
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]


class LocalEngine:
    """Labels in this process, one picture after the other.

    Args:
        predictor: the model.
        fingerprint: see ``Engine``; that of the settings the predictor was opened from.
    """

    def __init__(self, predictor: Predictor, fingerprint: str | None = None) -> None:
        self.predictor, self.labels, self.fingerprint = predictor, predictor.labels, fingerprint

    @classmethod
    def of(cls, settings: PredictorSettings) -> LocalEngine:
        """The engine of a model, which knows what is done already."""
        predictor = settings.open()
        return cls(predictor, replace(settings, views=predictor.views).fingerprint())

    def results(self, jobs: Sequence[Job]) -> Iterator[Line]:
        """See ``Engine``; in the order of the jobs."""
        return (label_file(self.predictor, job) for job in jobs)


def predict_files(predictor: Predictor, inputs: Sequence[str], output: str | Path, progress: bool = True) -> list[str]:
    """Label pictures in this process, all of them, and write what was found below ``output``.

    A predictor does not say which file it comes from, so that its results of earlier calls are replaced; give
    ``predict_collection`` an engine with a fingerprint to go on from them.

    Args:
        predictor: the model.
        inputs: files, folders and globs.
        output: the folder; see ``predict_collection`` for what is in it.
        progress: show a progress bar.

    Returns:
        What went wrong, one message for each picture that could not be read; the others are done.

    Raises:
        UsageError: see ``predict_collection``.
    """
    return predict_collection(LocalEngine(predictor), inputs, output, progress).failures


def planned(inputs: Sequence[str], output: str | Path) -> list[Job]:
    """The jobs of a call, if none of them would replace a file that no call has written.

    Raises:
        UsageError: see ``find_pictures``; or a file is in the way.
    """
    folder = Path(output)
    jobs = [
        Job(str(path), str(folder / "masks" / f"{place}.png"), str(folder / "overlays" / f"{place}.jpg"))
        for path, place in find_pictures(inputs, folder).items()
    ]
    images = {os.path.realpath(job.image) for job in jobs}
    memory = Memory(folder)
    for target in (Path(path) for job in jobs for path in (job.mask, job.overlay)):
        found = in_the_way(target)
        if found and os.path.realpath(found) in images:
            raise UsageError(f"--output: {found} is one of the pictures to label; choose another --output")
        if found and not (found == target and memory.sums[memory.name(str(target))]):
            raise refuse(found)
    return jobs


def predict_collection(engine: Engine, inputs: Sequence[str], output: str | Path, progress: bool = True) -> Outcome:
    """Label pictures and write what was found below ``output``; what is there already is kept, of other pictures too.

    For each picture: ``masks/NAME.png`` (palette PNG of class indices, at the picture's size),
    ``overlays/NAME.jpg`` (with a legend), and a line of ``predictions.jsonl`` with each class's share of the pixels.
    At the end, the lines stand in the order of the pictures, whatever the engine, behind those of other pictures.
    Paths in them start at ``output``.

    A picture is done when its line says that this model, with these settings, has labelled it, when it still has the
    size and the time of modification that the line says, and when its mask and overlay exist. Pictures that failed
    are tried again. A mask or overlay that would have to be made again, but was changed by somebody, is not replaced.

    Args:
        engine: who labels them, and with what.
        inputs: files, folders and globs.
        output: the folder.
        progress: show a progress bar.

    Raises:
        UsageError: see ``planned``; or more classes than a palette PNG holds, or nothing can be written there.
        SanetError: another call is writing there, or the engine cannot go on, or the disk is full; what is done is
            kept.
    """
    if len(engine.labels) > 256:
        raise UsageError(f"a palette PNG holds 256 classes, the model has {len(engine.labels)}; use sanet.Predictor")
    jobs = planned(inputs, output)
    with locked(Path(output)):
        return _predicted(engine, jobs, Memory(Path(output)), progress)


def _predicted(engine: Engine, jobs: Sequence[Job], memory: Memory, progress: bool) -> Outcome:
    done = memory.done(jobs, engine.fingerprint)
    left = {job.image: job for job in jobs if job.image not in done}
    memory.require_untouched(left.values())
    memory.write(memory.texts)  # whole lines only, and a disk that takes them
    lines, failures = dict(done), {}
    try:
        with (
            closing(line for line in (engine.results(list(left.values())) if left else ())) as results,
            tqdm(desc="predict", unit=" pictures", total=len(jobs), initial=len(done), disable=not progress) as bar,
        ):
            for line in results:
                job = left[line["image"]]
                if "error" in line:
                    failures[job.image] = line["error"]
                elif engine.fingerprint is not None:
                    line["fingerprint"] = engine.fingerprint
                lines[job.image] = memory.add(line, job)
                if "error" not in line:
                    settle(Path(job.mask))
                    settle(Path(job.overlay))
                bar.update()
    finally:
        for path in (path for job in left.values() for path in (job.mask, job.overlay)):
            discard(aside_of(Path(path)))
    memory.write([*memory.others(jobs), *(lines[job.image] for job in jobs)])
    messages = [failures[image] for image in left if image in failures]
    return Outcome(len(left) - len(messages), len(done), messages)


def label_file(predictor: Predictor, job: Job) -> Line:
    """Label one picture, and write its mask and its overlay beside their places.

    Returns:
        What ``predictions.jsonl`` says of it: the files, their SHA-256, the shares, and which version of the picture it
        was; or the error.

    Raises:
        SanetError: they cannot be written, which is no picture's fault.
    """
    try:
        picture = version(job.image)
        image = read_image(Path(job.image))
    except DataError as error:
        return {"image": job.image, "error": str(error)}
    except OSError as error:
        return {"image": job.image, "error": f"{job.image}: {error}"}
    mask = predictor(image)
    found = shares(mask, predictor.labels)
    blended = with_legend(overlay(image, mask, predictor.labels), predictor.labels, found)
    blended.thumbnail((LONGEST_JPEG, LONGEST_JPEG))  # smaller pictures stay as they are
    sums = {
        "mask_sha256": _save(palette_image(mask, predictor.labels), Path(job.mask), "PNG"),
        "overlay_sha256": _save(blended, Path(job.overlay), "JPEG", quality=92),
    }
    return {"image": job.image, "mask": job.mask, "overlay": job.overlay, "shares": found, **picture, **sums}


def _save(image: Image.Image, path: Path, format: str, **options: Any) -> str:
    """Write a picture beside its place; its SHA-256."""
    stream = BytesIO()
    image.save(stream, format, **options)
    with beside(path) as aside:
        aside.write_bytes(stream.getvalue())
    return hashlib.sha256(stream.getvalue()).hexdigest()
