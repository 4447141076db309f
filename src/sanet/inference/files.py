"""Prediction for files: masks, overlays, and one JSON line for each picture."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from sanet.data.files import IMAGE_SUFFIXES, DataError, read_image
from sanet.inference.pictures import overlay, palette_image, shares, with_legend
from sanet.inference.predictor import Predictor
from sanet.structures import UsageError

RESULTS = "predictions.jsonl"


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
                inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
                inside = [file for file in inside if output.resolve() not in file.resolve().parents]
                matches |= {file: file.relative_to(path).with_suffix("") for file in inside}
            else:
                matches[path] = Path(path.stem)
        found |= matches
        if not matches:
            raise UsageError(f"{given} names no picture (known types: {', '.join(IMAGE_SUFFIXES)})")
    places: dict[Path, Path] = {}
    for path, place in found.items():
        if place in places:
            raise UsageError(
                f"{path} and {places[place]} would both be written to {place}.png; predict them into two outputs"
            )
        places[place] = path
    return found


def predict_files(predictor: Predictor, inputs: Sequence[str], output: str | Path, progress: bool = True) -> list[str]:
    """Label pictures and write what was found below ``output``.

    For each picture: ``masks/NAME.png`` (palette PNG of class indices, at the picture's size),
    ``overlays/NAME.jpg`` (with a legend), and a line of ``predictions.jsonl`` with each class's share of the pixels.

    Args:
        predictor: the model.
        inputs: files, folders and globs.
        output: the folder; results of the same name in it are replaced.
        progress: show a progress bar.

    Returns:
        What went wrong, one message for each picture that could not be read; the others are done.

    Raises:
        UsageError: see ``find_pictures``; or more classes than a palette PNG holds.
    """
    if len(predictor.labels) > 256:
        raise UsageError(f"a palette PNG holds 256 classes, the model has {len(predictor.labels)}; use sanet.Predictor")
    folder = Path(output)
    pictures = find_pictures(inputs, folder)
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    with (folder / RESULTS).open("w", encoding="utf-8") as lines:
        for path, place in tqdm(pictures.items(), "predict", unit=" pictures", disable=not progress):
            try:
                line = _predict_file(predictor, path, folder, place)
            except (DataError, OSError) as error:
                failures.append(f"{path}: {error}" if isinstance(error, OSError) else str(error))
                line = {"image": str(path), "error": str(error)}
            lines.write(json.dumps(line) + "\n")
            lines.flush()
    return failures


def _predict_file(predictor: Predictor, path: Path, folder: Path, place: Path) -> dict[str, object]:
    image = read_image(path)
    mask = predictor(image)
    found = shares(mask, predictor.labels)
    mask_path = folder / "masks" / f"{place}.png"
    overlay_path = folder / "overlays" / f"{place}.jpg"
    mask_path.parent.mkdir(parents=True, exist_ok=True)
    overlay_path.parent.mkdir(parents=True, exist_ok=True)
    palette_image(mask, predictor.labels).save(mask_path)
    blended = overlay(image, mask, predictor.labels)
    with_legend(blended, predictor.labels, found).save(overlay_path, quality=92)
    return {"image": str(path), "mask": str(mask_path), "overlay": str(overlay_path), "shares": found}
