"""What a format of annotations is: how it is recognised, read and written; and reading that no file makes endless."""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from sanet.data.decoding import FORMATS, IMAGE_SUFFIXES, UNREADABLE, DataError, require_file
from sanet.data.formats.regions import FARTHEST, LONGEST, MOST_PIXELS, MOST_POINTS, Annotation, Ring
from sanet.data.layout import IMAGES, SPLITS
from sanet.structures import LabelSet, SanetError

MOST_MEMORY = 2**30  # bytes that a file may take once it is read
HEAD, TRIED, DEEPEST = 2**16, 20, 6  # bytes, files and folders that are looked at to recognise a format
MASKS = re.compile(r"mask|label|annot|segment|ground.?truth|^gt", re.I)  # in the names of folders
SIDEWAYS = 5  # EXIF orientations from here on exchange width and height


class Format(ABC):
    """A format of annotations; the object reads, or writes, one export.

    Attributes:
        findings: what was odd, as (file, what), so that nothing is dropped unseen.
    """

    def __init__(self) -> None:
        self.findings: list[tuple[Path, str]] = []

    @abstractmethod
    def recognises(self, root: Path) -> str:
        """Why a folder looks like an export in this format; empty if it does not."""

    @abstractmethod
    def read(self, root: Path) -> list[Annotation]:
        """All images of an export with their regions.

        Raises:
            DataError: a file cannot be used as it is.
        """

    @abstractmethod
    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Write annotations into a folder that is empty; images come to ``image_place``."""

    def image_place(self, annotation: Annotation) -> PurePath:
        """Where ``read`` looks for an image in a folder that ``write`` made."""
        return PurePath(annotation.split or "", annotation.name)

    def note(self, path: Path, what: str) -> None:
        """Keep what is odd about a file."""
        self.findings.append((path, what))

    def contents(
        self, files: Files, kind: type | tuple[type, ...], ending: str = ".json"
    ) -> Iterator[tuple[Path, Any]]:
        """What JSON files hold; those that are empty, or hold something else, are noted.

        Raises:
            DataError: one cannot be read.
        """
        for path in files.named(ending):
            content = read_json(path) if path.stat().st_size else None
            if not isinstance(content, kind):
                self.note(path, f"empty, or no file of {type(self).__name__}: not used")
                continue
            yield path, content


@contextmanager
def understood(path: Path, tool: str) -> Iterator[None]:
    """Say of a file which tool it is not from, where something in it is missing or of another type."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, SanetError):
            raise
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} is not as {tool} exports it ({what}); export it again") from error


class Files:
    """The files of an export.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def named(self, *endings: str) -> Iterator[Path]:
        """Those with one of these endings, in order."""
        return (path for path in self.all if path.name.lower().endswith(endings))

    @cached_property
    def all(self) -> list[Path]:
        """All of them but those of folders that begin with a dot, or are nested deeper than exports are."""
        found = []
        for place, folders, names in os.walk(self.root):
            depth = len(Path(place).relative_to(self.root).parts)
            folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < DEEPEST else []
            found += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
        return found

    @cached_property
    def images(self) -> dict[str, list[Path]]:
        """The images by name, whatever its case."""
        found: dict[str, list[Path]] = {}
        for path in self.named(*IMAGE_SUFFIXES):
            found.setdefault(path.name.lower(), []).append(path)
        return found

    def below(self, folder: Path) -> list[Path]:
        """The images that lie in one folder."""
        return self._by_folder.get(folder, [])

    @cached_property
    def _by_folder(self) -> dict[Path, list[Path]]:
        found: dict[Path, list[Path]] = {}
        for path in self.named(*IMAGE_SUFFIXES):
            found.setdefault(path.parent, []).append(path)
        return found

    def image(self, given: str, beside: Path) -> Path | None:
        """The image that a file names: below its folder, else the only one of that name in the export's other folders.

        No name leads out of the export, such as one of another computer or with ``..`` in it; its last part counts.
        Folders of masks hold files of the same names, and are left out.
        """
        parts = PureWindowsPath(given).parts  # splits at / and at \\
        inside = not PureWindowsPath(given).drive and not given.startswith(("/", "\\")) and ".." not in parts
        if not parts:
            return None
        same = self.images.get(parts[-1].lower(), [])
        wanted = [beside.joinpath(*parts)] if inside else []
        near = [*wanted, beside / parts[-1], beside / "images" / parts[-1]]
        far = [path for path in same if not any(map(MASKS.search, path.parent.relative_to(self.root).parts))]
        near += [path for path in same if path.parent == beside] + (far if len(far) == 1 else [])
        return next((path for path in near if path in same), None)

    def name(self, image: Path) -> str:
        """Its name, or where others of its split have that, its path below the folders of the split and of images."""
        same = [path for path in self.images[image.name.lower()] if not MASKS.search(path.parent.name)]
        if sum(self.split(path.parent) == self.split(image.parent) for path in same) < 2:
            return image.name
        folders = image.relative_to(self.root).parts[:-1]
        parts = [part for part in folders if part.lower() not in SPLITS and not IMAGES.fullmatch(part.lower())]
        return "/".join([*parts, image.name])

    def split(self, path: Path) -> str | None:
        """The split that a file's place and name below the root speak of, such as val/ or instances_val2017.json."""
        words = [word for part in path.relative_to(self.root).parts for word in re.split(r"[^a-z]+", part.lower())]
        return next((SPLITS[word] for word in words if word in SPLITS), None)


def head(path: Path) -> str:
    """The beginning and the end of a file as text; empty where it cannot be read."""
    try:
        require_file(path)
        with path.open("rb") as file:
            start = file.read(HEAD)
            file.seek(max(HEAD, path.stat().st_size - HEAD))
            return (start + file.read(HEAD)).decode(errors="replace")
    except (OSError, DataError):
        return ""


def first_with(root: Path, ending: str, *texts: str) -> Path | None:
    """The first file of an ending, below the root, whose head has all of some texts; few files are looked at."""
    tried = list(Files(root).named(ending))[:TRIED]
    found = next((path for path in tried if all(text in head(path) for text in texts)), None)
    return found and found.relative_to(root)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it is no JSON, nests too deep, or would take more than ``MOST_MEMORY``.
    """
    content = _content(path, {b",": 40, b"[": 100, b"{": 300})
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        what = "nests too deep" if isinstance(error, RecursionError) else f"is no JSON ({error})"
        raise DataError(f"{path} {what}; export it again, or remove it") from error


class _NoTypes(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Entities come with it, of which a few lines can be endless."""
        raise ValueError(f"a document type {name!r}, which no export has")


def read_xml(path: Path) -> ElementTree.Element:
    """The root element of an XML file.

    Raises:
        DataError: it is no XML, has a document type, or would take more than ``MOST_MEMORY``.
    """
    content = _content(path, {b"<": 250, b"=": 150})
    try:
        return ElementTree.fromstring(content, ElementTree.XMLParser(target=_NoTypes()))
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: an unknown encoding
        raise DataError(f"{path} cannot be read as XML ({error}); export it again, or remove it") from error


def _content(path: Path, costs: dict[bytes, int]) -> bytes:
    require_file(path)
    with path.open("rb") as file:
        content = file.read(MOST_MEMORY // 2)
    needed = 2 * path.stat().st_size + sum(content.count(sign) * cost for sign, cost in costs.items())
    if needed > MOST_MEMORY:
        raise DataError(f"{path} would take some {needed >> 20} MB of memory, of which {MOST_MEMORY >> 20} are used at "
                        "most; export it in parts")  # fmt: skip
    if not content.strip():
        raise DataError(f"{path} is empty; export it again, or remove it")
    return content.removeprefix(b"\xef\xbb\xbf")


def checked_ring(path: Path, points: Any) -> Ring:
    """Points (N, 2) of an outline.

    Raises:
        DataError: they are no such numbers, too many, or far away from every image.
    """
    try:
        count = len(points)
        ring = np.asarray(points, np.float64) if count <= MOST_POINTS else np.zeros(0)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: an outline is no list of points ({error}); export it again") from error
    if count == 0:
        return np.zeros((0, 2))
    fits = ring.shape == (count, 2) and np.abs(ring).max() <= FARTHEST  # nor if one is no number
    if not fits or np.abs(np.diff(ring[:, 1])).sum() > LONGEST:
        raise DataError(f"{path}: an outline of {count} points; there are {MOST_POINTS} at most, of two numbers each "
                        f"that are not beyond {FARTHEST:g}: draw it again")  # fmt: skip
    return ring


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image, upright, without decoding it.

    Raises:
        DataError: it cannot be read.
    """
    require_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(0x0112, 1) >= SIDEWAYS else (width, height)
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as an image ({error}); replace it or remove it") from error


def checked_size(path: Path, width: Any, height: Any, image: Path | None) -> tuple[int, int]:
    """Width and height that a file gives; where it gives none, those of the image.

    Raises:
        DataError: there are none, or no image can have them.
    """
    if width is None or height is None:
        if image is None:
            raise DataError(f"{path} neither says how large its image is, nor is the image there; put it beside")
        return image_size(image)
    try:
        size = (int(width), int(height))
    except (TypeError, ValueError, OverflowError):
        size = (0, 0)
    if not (size[0] > 0 and size[1] > 0 and size[0] * size[1] <= MOST_PIXELS):
        raise DataError(f"{path}: an image of {width!r} by {height!r} pixels; there are 1 to {MOST_PIXELS}")
    return size


def posix(path: PurePath | str) -> str:
    """A path as exports write it."""
    return PurePosixPath(*PurePath(path).parts).as_posix()
