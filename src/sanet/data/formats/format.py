"""What a format of annotations is; and how the files of a tool are found, read, and never obeyed where they are odd."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, ClassVar, NamedTuple
from xml.etree import ElementTree

from PIL import Image

from sanet.data.decoding import FORMATS, UNREADABLE, DataError, require_file
from sanet.data.formats.files import Files
from sanet.data.formats.regions import MOST_PIXELS, Annotation, Region, checked_ring, line
from sanet.structures import LabelSet, SanetError

MOST_MEMORY = 2**30  # bytes that a file may take once it is read
# Bytes of memory that a sign in a file brings, at most.
JSON = {b",": 40, b"[": 100, b"{": 300}
COSTS = {".json": JSON, ".geojson": JSON, ".xml": {b"<": 250, b"=": 150}, ".txt": {b" ": 60}}
HEAD, TRIED = 2**16, 20  # bytes and files that are looked at to recognise a format
SIDEWAYS = 5  # EXIF orientations from here on exchange width and height


class Format(ABC):
    """A format of annotations; the object reads, or writes, one export.

    Attributes:
        findings: what was odd, as (file, what), so that nothing is dropped unseen.
        truth: what is written is ground truth, and not what a model found; for formats that tell them apart.
    """

    truth = False

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


class Entry(NamedTuple):
    """What a file says of an image."""

    given: str  # how the file calls the image
    image: Path | None  # None where it is missing
    shapes: Sequence[Any]  # as the tool has them
    size: tuple[Any, Any] = (None, None)  # width and height, where the file has them
    split: str | None = None  # where the file, or the image's place, says it


class ToolFormat(Format):
    """A format of files that are read one by one.

    A tool's class says what is in its files, and what its shapes are; texts among these are what is odd. Whatever
    error a file causes meanwhile becomes a ``DataError`` that names it.

    Attributes:
        files: those of the export.
        ending: that of its files.
        kind: what its files hold at the top.
        signs: regular expressions; a file with all of them is of the tool.
    """

    files: Files
    ending: ClassVar[str] = ".json"
    kind: ClassVar[type | tuple[type, ...]] = dict
    signs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def _entries(self, path: Path, content: Any) -> Iterator[Entry | str]:
        """The images of a file."""

    @abstractmethod
    def _regions(self, shape: Any, size: tuple[int, int]) -> Iterator[Region | str]:
        """What a shape in an image of this width and height covers."""

    def recognises(self, root: Path) -> str:
        """A file has all signs; see ``Format``."""
        path, found = signed(Files(root), self.ending, self.signs)
        return f"{path.relative_to(root)} has {' and '.join(found)}" if path else ""

    def read(self, root: Path) -> list[Annotation]:
        """One annotation an image of each file; see ``Format``."""
        self.files, found = Files(root), []
        for path in self.files.named(self.ending):
            try:
                content = _content(path)
                if not isinstance(content, self.kind):
                    self.note(path, f"empty, or no file of {type(self).__name__}: not used")
                    continue
                for entry in self._entries(path, content):
                    if isinstance(entry, str):
                        self.note(path, entry)
                    elif annotation := self._annotation(path, entry):
                        found.append(annotation)
            except SanetError:
                raise
            except (*UNREADABLE, RecursionError) as error:
                what = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
                raise DataError(
                    f"{path} is not as {type(self).__name__} exports it ({what}); export it again, or remove it"
                ) from error
        return found

    def _annotation(self, path: Path, entry: Entry) -> Annotation | None:
        unsized = None in entry.size
        if entry.image is None:
            why = ": not used, since its size is not known" if unsized else ""
            self.note(path, f"the image {entry.given} is missing{why}")
            if unsized:
                return None
        size = _image_size(entry.image) if entry.image and unsized else _checked_size(*entry.size)
        regions = []
        for region in (region for shape in entry.shapes for region in self._regions(shape, size)):
            if isinstance(region, Region):
                regions.append(region)
            else:
                self.note(path, f"{entry.given}: {region}")
        name = PureWindowsPath(entry.given).name  # whose parts end at / and at \
        if entry.image and entry.image.is_relative_to(self.files.root):
            name = self.files.name(entry.image)
        # The name of a file that is of one image says what that shows.
        alone = path.stem in {PureWindowsPath(entry.given).stem, entry.image and entry.image.stem}
        split = entry.split or self.files.split(path.parent if alone else path)
        return Annotation(name, entry.image, size, tuple(regions), split, path)


def outline(
    label: str | None, kind: str, points: Any, width: int = 0, size: tuple[int, int] = (0, 0)
) -> Iterator[Region | str]:
    """The region within points (N, 2), or of a line through them in an image of a size, if they are enough."""
    ring = checked_ring(points)
    if len(ring) < (2 if width else 3):
        yield f"a {kind} of {len(ring)} points, labelled {label}: not drawn"
    elif width:
        yield f"a {kind}, labelled {label}: drawn {width} pixel{'s' if width > 1 else ''} wide"
        yield line(label, ring, width, size)
    else:
        yield Region(label, (ring,))


def write_text(path: Path, content: Any) -> None:
    """Write a text, or anything else as JSON, into a file, whose folders need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def signed(files: Files, ending: str, signs: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The first of some files that has all signs, and what they are in it."""
    for path in list(files.named(ending))[:TRIED]:
        text = _head(path)
        found = [match[0].strip() for sign in signs if (match := re.search(sign, text))]
        if len(found) == len(signs):
            return path, found
    return None, []


def _head(path: Path) -> str:
    """The beginning and the end of a file as text; empty where it cannot be read."""
    try:
        require_file(path)
        with path.open("rb") as file:
            start = file.read(HEAD)
            file.seek(max(HEAD, path.stat().st_size - HEAD))
            return (start + file.read(HEAD)).decode(errors="replace")
    except (OSError, DataError):
        return ""


class _NoTypes(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Entities come with it, of which a few lines can be endless."""
        raise ValueError(f"a document type {name!r}, which no export has")


def _content(path: Path) -> Any:
    """What a file holds, by its ending: JSON, the root element of XML, or a text; None of one that is empty."""
    require_file(path)
    ending = path.suffix.lower()
    with path.open("rb") as file:
        content = file.read(MOST_MEMORY // 2)
    needed = 2 * path.stat().st_size + sum(content.count(sign) * cost for sign, cost in COSTS[ending].items())
    if needed > MOST_MEMORY:
        raise DataError(f"{path} would take some {needed >> 20} MB of memory, of which {MOST_MEMORY >> 20} are used at "
                        "most; export it in parts")  # fmt: skip
    if ending == ".txt":
        return content.decode(errors="replace")
    if not content.strip():
        return None
    if ending == ".xml":
        return ElementTree.fromstring(content, ElementTree.XMLParser(target=_NoTypes()))
    return json.loads(content)


def _image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image, upright, without decoding it."""
    require_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(0x0112, 1) >= SIDEWAYS else (width, height)
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as an image ({error}); replace it or remove it") from error


def _checked_size(width: Any, height: Any) -> tuple[int, int]:
    size = (int(width), int(height))
    if not (min(size) > 0 and size[0] * size[1] <= MOST_PIXELS):
        raise ValueError(f"an image of {width!r} by {height!r} pixels; there are 1 to {MOST_PIXELS}")
    return size
