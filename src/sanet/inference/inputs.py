"""The images and films that a command line means: files, folders, globs, without the masks that may lie beside them."""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sanet.data.decoding import IMAGE_SUFFIXES
from sanet.data.layout import MASK_ENDING
from sanet.data.listing import files_below
from sanet.structures import UsageError

FILM_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")
SUFFIXES = (*IMAGE_SUFFIXES, *FILM_SUFFIXES)
# What folders of masks are called: masks, trainannot, SegmentationClass, ground_truth, gtFine …
MASKS = re.compile(
    r"(mask|label|annot|annotation)s?([^a-z]|$)|^segmentation|ground.?truth|^gt(fine|coarse|[^a-z]|$)", re.I
)


def is_film(path: str | Path) -> bool:
    """Whether a file is a film; the suffix tells."""
    return Path(path).suffix.lower() in FILM_SUFFIXES


def find_images(inputs: Sequence[str], output: Path) -> dict[Path, Path]:
    """The images and films that files, folders and globs name; in a folder, what lies below ``output`` is left out.

    Returns:
        Image -> its place below the output folder, without suffix: its path below the folder given, or its name.

    Raises:
        UsageError: an input that names no image, masks beside the images, or two images that would write the same
            result.
    """
    found: dict[Path, Path] = {}
    files: list[Path] = []
    masks: set[Path] = set()
    for given in inputs:
        # A name that exists is meant as it is, also with brackets in it.
        exists = bool(given) and Path(given).exists()  # Path("") is the working directory
        paths = [Path(given)] if exists else [Path(path) for path in sorted(glob.glob(given, recursive=True))]
        if not paths:
            name = given or "an empty name"
            raise UsageError(f"{name} matches no file" if glob.has_magic(given) else f"{name} does not exist")
        matches: dict[Path, Path] = {}
        for path in paths:
            below = sorted(files_below(path, output.resolve())) if path.is_dir() else []
            # No pipe and no device, which may never end.
            inside = [file for file in below if file.suffix.lower() in SUFFIXES and file.is_file()]
            matches |= {file: file.relative_to(path).with_suffix("") for file in inside}
            stems = {(file.parent, file.stem.casefold()) for file in inside}
            for file in inside:
                ending = MASK_ENDING.fullmatch(file.stem.casefold())
                if ending and (file.parent, ending[1]) in stems:
                    raise UsageError(
                        f"{file} is a mask, going by its name, and would be labelled as well; name the images by a "
                        f"pattern, such as '{path}/*.jpg', or {file} by itself if that is meant"
                    )
            if not path.is_dir():
                matches[path] = Path(path.stem)
        if not matches:
            raise UsageError(f"{given} holds no image outside {output} (known types: {', '.join(SUFFIXES)})")
        if exists and Path(given).is_dir():
            masks |= {folder for file in matches for folder in file.parents if Path(given) in folder.parents}
        else:
            files += matches
        found |= matches
    counts = Counter(parent for file in files for parent in file.parents)
    masks |= {folder for folder in counts if counts[folder.parent] > counts[folder]}
    for folder in sorted(masks, key=lambda folder: (len(folder.parts), folder)):
        if MASKS.search(folder.name):
            raise UsageError(
                f"{folder} holds masks, going by its name, and they would be labelled as well; name the folders or "
                f"files beside it instead, or {folder} by itself if that is meant"
            )
    places: dict[Path, Path] = {}
    for path, place in found.items():
        target = place.with_name(f"{place.name}{'.mp4' if is_film(path) else '.png'}")
        if (other := places.setdefault(target, path)) != path:
            raise UsageError(f"{path} and {other} would both be written to {target}; predict them into two outputs")
    return found
