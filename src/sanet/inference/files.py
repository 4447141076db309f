"""Prediction for files: masks, overlays, and one JSON line for each picture.

``predictions.jsonl`` is the memory of a collection. While pictures are labelled, a line is added for each of them; a
process that is killed leaves what it did, and the same call goes on from there. Masks and overlays are written aside
and renamed, so that one that exists is whole. Who labels is an ``Engine``: this process, or ``ray_engine.py``.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image
from tqdm import tqdm

from sanet.config import ViewsConfig
from sanet.data.decoding import IMAGE_SUFFIXES, DataError, read_image
from sanet.folders import held
from sanet.inference.exported import is_exported
from sanet.inference.pictures import LONGEST_JPEG, overlay, palette_image, shares, with_legend
from sanet.inference.predictor import Predictor
from sanet.models.store import saved_files
from sanet.structures import LabelSet, UsageError

RESULTS = "predictions.jsonl"

Line = dict[str, Any]


class Job(NamedTuple):
    """A picture, and the files that are written for it."""

    image: str
    mask: str
    overlay: str


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
    views: ViewsConfig = field(default_factory=ViewsConfig)

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

    def results(self, jobs: Sequence[Job]) -> Iterator[Line]:
        """See ``Engine``; in the order of the jobs."""
        return (label_file(self.predictor, job) for job in jobs)


def find_pictures(inputs: Sequence[str], output: Path) -> dict[Path, Path]:
    """The pictures that files, folders and globs name; in a folder, what lies below ``output`` is left out.

    Returns:
        Picture -> its place below the output folder, without suffix: its path below the folder given, or its name.

    Raises:
        UsageError: an input that names no picture, or two pictures that would write the same result.
    """
    found: dict[Path, Path] = {}
    for given in inputs:
        # A name that exists is meant as it is, also with brackets in it.
        exists = Path(given).exists()
        paths = [Path(given)] if exists else [Path(path) for path in sorted(glob.glob(given, recursive=True))]
        matches: dict[Path, Path] = {}
        for path in paths:
            if path.is_dir():
                inside = [file for file in _pictures_below(path) if output.resolve() not in file.resolve().parents]
                matches |= {file: file.relative_to(path).with_suffix("") for file in inside}
            else:
                matches[path] = Path(path.stem)
        found |= matches
        if not matches:
            raise UsageError(
                f"{given} names no picture outside the output {output} (known types: {', '.join(IMAGE_SUFFIXES)})"
            )
    places: dict[Path, Path] = {}
    for path, place in found.items():
        if place in places:
            raise UsageError(
                f"{path} and {places[place]} would both be written to {place}.png; predict them into two outputs"
            )
        places[place] = path
    return found


def _pictures_below(folder: Path) -> list[Path]:
    """The pictures of a folder and its subfolders, in order; linked folders too, but each once."""
    found: list[Path] = []
    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        whole = Path(place).resolve()
        if whole in seen:
            folders.clear()
            continue
        seen.add(whole)
        found += [Path(place, name) for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    return sorted(found)


def predict_files(predictor: Predictor, inputs: Sequence[str], output: str | Path, progress: bool = True) -> list[str]:
    """Label pictures in this process, all of them, and write what was found below ``output``.

    A predictor does not say which file it comes from, so that results that are there already are replaced; give
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


def predict_collection(engine: Engine, inputs: Sequence[str], output: str | Path, progress: bool = True) -> Outcome:
    """Label pictures and write what was found below ``output``; what is there already is kept, of other pictures too.

    For each picture: ``masks/NAME.png`` (palette PNG of class indices, at the picture's size),
    ``overlays/NAME.jpg`` (with a legend), and a line of ``predictions.jsonl`` with each class's share of the pixels.
    At the end, the lines stand in the order of the pictures, whatever the engine, behind those of other pictures.

    A picture is done when its line says that this model, with these settings, has labelled it, when it still has the
    size and the time of modification that the line says, and when its mask and overlay exist. Pictures that failed
    are tried again.

    Args:
        engine: who labels them, and with what.
        inputs: files, folders and globs.
        output: the folder.
        progress: show a progress bar.

    Raises:
        UsageError: see ``find_pictures``; or more classes than a palette PNG holds, or nothing can be written there.
        SanetError: another call is writing there, or the engine cannot go on; what is done is kept.
    """
    if len(engine.labels) > 256:
        raise UsageError(f"a palette PNG holds 256 classes, the model has {len(engine.labels)}; use sanet.Predictor")
    folder = Path(output)
    jobs = [
        Job(str(path), str(folder / "masks" / f"{place}.png"), str(folder / "overlays" / f"{place}.jpg"))
        for path, place in find_pictures(inputs, folder).items()
    ]
    with held(folder):
        return _predicted(engine, jobs, folder / RESULTS, progress)


def _predicted(engine: Engine, jobs: Sequence[Job], results: Path, progress: bool) -> Outcome:
    others, lines = _earlier(results, jobs, engine.fingerprint)
    left = [job for job in jobs if job.image not in lines]
    kept = len(lines)
    # First of all, forget what is about to be replaced: a line never speaks of a mask that another model wrote.
    _replace(results, [*others, *lines.values()])
    failures = {}
    with (
        results.open("a", encoding="utf-8") as file,
        tqdm(desc="predict", unit=" pictures", total=len(jobs), initial=kept, disable=not progress) as bar,
    ):
        for line in engine.results(left) if left else ():
            if "error" in line:
                failures[line["image"]] = line["error"]
            elif engine.fingerprint is not None:
                line["fingerprint"] = engine.fingerprint
            lines[line["image"]] = json.dumps(line)
            file.write(lines[line["image"]] + "\n")
            file.flush()
            bar.update()
    _replace(results, [*others, *(lines[job.image] for job in jobs)])
    messages = [failures[job.image] for job in left if job.image in failures]
    return Outcome(len(left) - len(messages), kept, messages)


def label_file(predictor: Predictor, job: Job) -> Line:
    """Label one picture and write its mask and its overlay.

    Returns:
        Its line of ``predictions.jsonl``: the files, the shares, and which version of the picture it was; or the error.
    """
    try:
        picture = _version(job.image)
        image = read_image(Path(job.image))
        mask = predictor(image)
        found = shares(mask, predictor.labels)
        _save(palette_image(mask, predictor.labels), Path(job.mask), "PNG")
        blended = with_legend(overlay(image, mask, predictor.labels), predictor.labels, found)
        blended.thumbnail((LONGEST_JPEG, LONGEST_JPEG))  # smaller pictures stay as they are
        _save(blended, Path(job.overlay), "JPEG", quality=92)
    except DataError as error:
        return {"image": job.image, "error": str(error)}
    except OSError as error:
        return {"image": job.image, "error": f"{job.image}: {error}"}
    return {"image": job.image, "mask": job.mask, "overlay": job.overlay, "shares": found, **picture}


def _version(picture: str) -> Line:
    """What a change of the picture changes."""
    status = os.stat(picture)
    return {"bytes": status.st_size, "modified": status.st_mtime_ns}


def _save(image: Image.Image, path: Path, format: str, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")  # no longer than the name it gets, and no result has this suffix
    image.save(aside, format, **options)
    aside.replace(path)


def _replace(path: Path, lines: Iterable[str]) -> None:
    aside = path.with_suffix(".new")
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
    aside.replace(path)


def _earlier(path: Path, jobs: Sequence[Job], fingerprint: str | None) -> tuple[list[str], dict[str, str]]:
    """The lines of earlier calls that still hold: of pictures that are none of these jobs, and by picture of those."""
    others: dict[str, str] = {}
    found: dict[str, str] = {}
    wanted = {job.image: job for job in jobs}
    written = {os.path.abspath(job.mask) for job in jobs}
    for line, text in _lines(path):
        mask = os.path.abspath(str(line.get("mask", "")))  # of a failure the working directory
        job = wanted.get(str(line.get("image")))
        if job is None and mask not in written and os.path.isfile(mask):
            others[mask] = text
        elif job is not None and fingerprint is not None and _holds(line, job, fingerprint):
            found[job.image] = text
    return list(others.values()), {job.image: found[job.image] for job in jobs if job.image in found}


def _lines(path: Path) -> Iterator[tuple[Line, str]]:
    """What is written of every picture, as it is and as text."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            with suppress(json.JSONDecodeError):  # torn: the process was killed while it wrote
                line = json.loads(text)
                if isinstance(line, dict):
                    yield line, text.rstrip("\n")


def _holds(line: Mapping[str, Any], job: Job, fingerprint: str) -> bool:
    try:
        wanted = {"fingerprint": fingerprint, "mask": job.mask, "overlay": job.overlay, **_version(job.image)}
    except OSError:
        return False
    same = all(line.get(key) == value for key, value in wanted.items())
    return same and os.path.exists(job.mask) and os.path.exists(job.overlay)
