"""The names of classes as tools leave them beside masks."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sanet.data.decoding import DataError, require_file
from sanet.data.values import hex_of

FILES = (
    "_classes.csv",
    "labelmap.txt",
    "class_names.txt",
    "classes.txt",
    "labels.txt",
    "codes.txt",
    "label_colors.txt",
    "dataset.json",
)
# "3, road" of Roboflow, "3: road", "3 road"; "road:128,64,128::" of CVAT, "128 64 128 road" of CamVid.
NUMBERED = re.compile(r"(\d{1,5})\s*[,:;\t ]\s*(\S.*)")
COLORED = re.compile(r"(.+?):(\d{1,3}),(\d{1,3}),(\d{1,3})(?::.*)?")
COLOR_FIRST = re.compile(r"(\d{1,3})[ ,\t]+(\d{1,3})[ ,\t]+(\d{1,3})[ ,\t]+(\S.*)")
IGNORED = ("__ignore__",)  # of labelme, whose masks have it nowhere
SIZE = 2**20


class Names(NamedTuple):
    """What a file of names says."""

    path: Path
    known: dict[int, str]  # a name for every number, or packed colour
    in_color: bool


def find_names(root: Path, folders: Sequence[Path] = ()) -> Names | None:
    """The names in a file in one of some folders; None where there is none.

    Args:
        root: folder of the dataset.
        folders: further ones in which the file may be, such as those of the masks.

    Raises:
        DataError: a file cannot be read or names something twice, or two files differ.
    """
    places = dict.fromkeys(place / name for place in (root, *folders) for name in FILES)
    found = [names for path in places if path.is_file() and (names := _read(path))]
    for other in found[1:]:
        if other.in_color == found[0].in_color and other.known != found[0].known:
            raise DataError(f"{found[0].path} and {other.path} name other classes; make them alike, or remove one")
    return next(iter(found), None)


def _read(path: Path) -> Names | None:
    require_file(path)
    if path.stat().st_size > SIZE:
        raise DataError(f"{path} has more than {SIZE} bytes, too many for names of classes; remove it")
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if path.suffix == ".json":
        return _of_nnunet(path, text)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise DataError(f"{path} names no class; write their names into it, or remove it")
    if path.suffix.lower() == ".csv" and lines and not lines[0][0].isdigit():
        lines = lines[1:]
    colored = [COLORED.fullmatch(line) for line in lines]
    if lines and all(colored):
        return _names(path, [(_packed(m[2], m[3], m[4]), m[1]) for m in colored if m], True)
    first = [COLOR_FIRST.fullmatch(line) for line in lines]
    if lines and all(first):
        return _names(path, [(_packed(m[1], m[2], m[3]), m[4]) for m in first if m], True)
    numbered = [NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        return _names(path, [(int(m[1]), m[2]) for m in numbered if m], False)
    return _names(path, [*enumerate(line for line in lines if line not in IGNORED)], False)


def _of_nnunet(path: Path, text: str) -> Names | None:
    """Its dataset.json, {"labels": {"background": 0, …}}; None of another file of that name."""
    try:
        return _names(path, [(int(value), str(name)) for name, value in json.loads(text)["labels"].items()], False)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _names(path: Path, pairs: Sequence[tuple[int, str]], in_color: bool) -> Names:
    for column in zip(*pairs, strict=True):
        value, count = Counter(column).most_common(1)[0]
        if count > 1:
            shown = hex_of(value) if in_color and isinstance(value, int) else value
            raise DataError(f"{path} has {shown!r} {count} times; keep one, or merge classes with data.values")
    return Names(path, dict(pairs), in_color)


def _packed(*parts: str) -> int:
    red, green, blue = (min(int(part), 255) for part in parts)
    return red << 16 | green << 8 | blue
