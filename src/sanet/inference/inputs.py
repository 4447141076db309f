"""The pictures that a command line means: files, folders and globs, without the masks that may lie beside them."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from sanet.data.decoding import IMAGE_SUFFIXES
from sanet.data.folder import MASKS
from sanet.structures import UsageError

# What a folder of masks has in its name: one of these words, or one of these ends or beginnings.
WORDS = {*MASKS, "annotation", "annot", "gt", "truth"}
ENDS = ("mask", "masks", "labels", "annot", "annotations", "groundtruth")
BEGINNINGS = ("segmentation", "groundtruth", "gtfine", "gtcoarse")
NAMED = 3


def find_pictures(inputs: Sequence[str], output: Path) -> dict[Path, Path]:
    """The pictures that files, folders and globs name; in a folder, what lies below ``output`` is left out.

    Returns:
        Picture -> its place below the output folder, without suffix: its path below the folder given, or its name.

    Raises:
        UsageError: an input that names no picture, masks beside the pictures, or two pictures that would write the
            same result.
    """
    found: dict[Path, Path] = {}
    loose: list[Path] = []
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
        if not matches:
            raise UsageError(
                f"{given} names no picture outside the output {output} (known types: {', '.join(IMAGE_SUFFIXES)})"
            )
        if exists and Path(given).is_dir():
            masks = {folder for file in matches for folder in _below(file, Path(given)) if holds_masks(folder.name)}
            _refuse_masks(masks, matches)
        else:
            loose += matches
        found |= matches
    _refuse_masks(_masks_beside(loose), loose)
    places: dict[Path, Path] = {}
    for path, place in found.items():
        if place in places:
            raise UsageError(
                f"{path} and {places[place]} would both be written to {place}.png; predict them into two outputs"
            )
        places[place] = path
    return found


def holds_masks(name: str) -> bool:
    """Whether a folder is called as those are that hold masks."""
    words = {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)}
    joined = re.sub("[^a-z]", "", name.lower())
    return bool(words & WORDS) or joined.endswith(ENDS) or joined.startswith(BEGINNINGS)


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
        files = [Path(place, name) for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        found += [file for file in files if file.is_file()]  # no pipe and no device, which may never end
    return sorted(found)


def _below(file: Path, folder: Path) -> list[Path]:
    """The folders between a file and one above it."""
    return [parent for parent in file.parents if folder in parent.parents]


def _masks_beside(files: Iterable[Path]) -> set[Path]:
    """The folders of masks that have others of the files beside them."""
    counts = Counter(parent for file in files for parent in file.parents)
    return {folder for folder in counts if holds_masks(folder.name) and counts[folder.parent] > counts[folder]}


def _refuse_masks(masks: set[Path], files: Iterable[Path]) -> None:
    if not masks:
        return
    pictures = [file for file in files if masks.isdisjoint(file.parents)]
    first = min(masks, key=lambda folder: (len(folder.parts), folder))
    tops = {_top(file, folder.parent) for file in pictures for folder in masks if folder.parent in file.parents}
    instead = sorted(tops)[:NAMED] + (["…"] if len(tops) > NAMED else [])
    remedy = f"name {' '.join(instead)} instead" if instead else "name the folder with the pictures"
    raise UsageError(
        f"{first} holds masks, going by its name, and they would be labelled as well; {remedy}, or {first} by itself "
        "if that is meant"
    )


def _top(file: Path, folder: Path) -> str:
    """What to name so that a file is meant: its folder in the one above, or all that lie there."""
    first, *rest = file.relative_to(folder).parts
    return str(folder / (first if rest else f"*{file.suffix}"))
