"""A dataset whose masks are drawn from annotations as images are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sanet.config import DataConfig
from sanet.data.decoding import IMAGE_SUFFIXES, DataError, StoredMask
from sanet.data.formats.catalog import annotation_format
from sanet.data.formats.files import Files
from sanet.data.formats.regions import Annotation, rasterise
from sanet.data.listing import existing_root
from sanet.data.ranges import asked
from sanet.data.source import Record, Source, names_text
from sanet.data.splits import divided
from sanet.data.values import IGNORE, MaskCoding, ValueMap
from sanet.structures import LabelSet, UsageError

BACKGROUND = ("background", "_background_")
UNNAMED = ""  # stands in value maps for regions that have no class
NEAR = 1.0  # pixels that an outline may reach out of its image unmentioned: tools differ in where a pixel is
NUMBERED = re.compile(r"(.*[^\d\s_-])[\s_-]*\d+")


class Annotated(Source):
    """The export of a tool that draws annotations; of regions that overlap, the last in the file lies on top.

    Args:
        settings: see ``DataConfig``; its name is that of the format. Without classes and values, the classes are
            those that are found, in the order of their first appearance, behind a background where pixels are in no
            region. Regions that have no class are "" in its values, and ignored without it.

    Attributes:
        names: of the numbers that ``stored_mask`` gives.

    Raises:
        DataError: a file cannot be used, or no region has a class.
        UsageError: an unknown format, or classes and values do not fit together.
    """

    def __init__(self, settings: DataConfig) -> None:
        if settings.root is None:
            raise UsageError("data.root must name the folder of the export: --data.root …")
        self.root = existing_root(settings.root)
        if settings.images.pages == "images":
            raise UsageError("data.images.pages images: annotations are of files of one page; save the pages as files")
        reader = annotation_format(settings.name)
        read = reader.read(self.root)
        found = "; ".join(f"{path}: {what}" for path, what in reader.findings[:6])
        if not any(each.regions for each in read):
            raise DataError(
                f"{self.root} has no image with annotations, or no outlines in them ({found}); export it with polygons "
                "or masks"
            )
        used = {each.image for each in read}
        unused = (path for path in Files(self.root).named(*IMAGE_SUFFIXES) if path not in used)
        self._known = {(each.source, each.image, _name(each)): each for each in read}
        self.names, self._unlabelled = _names(read)
        rest = self.names.get(self._unlabelled, "ignored")
        odd = ((each.source, f"{each.name}: {what}") for each in read for what in _odd(each, rest))
        self.odd = (*reader.findings, *odd, *((path, "no annotation: not used") for path in unused))
        self.labels, self.coding = self._classes(settings, found)
        self.drawn = json.dumps([type(reader).__name__, [*self.names.values()], self._unlabelled])
        records: dict[str, list[Record]] = {}
        for each in read:
            records.setdefault(each.split or "", []).append(Record(_name(each), each.image, each.source))
        self.listed, decided = divided(records, settings, told=False)
        self.splits = tuple(split for split in ("train", "val", "test") if split in self.listed)
        self.spare = len(read) - sum(map(len, self.listed.values()))
        self.images, of_images = asked(self.listed, settings.images)
        self.notes = (
            f"annotations in the format {type(reader).__name__}, {len(read)} images",
            *decided,
            *of_images,
            f"the classes are {names_text(self.labels.names)}; what is in no region is {rest}",
            *_numbered(self.labels.names),
        )
        self.settings = replace(
            settings, classes=self.labels.names, values=dict(self.labels.values), images=self.images
        )

    def records(self, split: str) -> list[Record]:
        """The images of one split, in the order of the export; the mask is the file of the annotations."""
        return self.listed[split]

    def annotation_of(self, record: Record) -> Annotation:
        """The regions of a record as they are in its file.

        Raises:
            DataError: there are none; the file has changed.
        """
        # Every split may have an image of one name.
        annotation = self._known.get((record.mask, record.image, record.name)) if record.mask else None
        if annotation is None:
            raise DataError(f"{record.mask} has no annotation of {record.name}; the dataset has changed: begin again")
        return annotation

    def stored_mask(self, record: Record) -> StoredMask:
        """The numbers of ``names``, drawn from the regions of a record."""
        numbers: dict[str | None, int] = {name: number for number, name in self.names.items()}
        numbers[None] = numbers.get(UNNAMED, 0)
        return StoredMask(rasterise(self.annotation_of(record), numbers, self._unlabelled), {})

    def _classes(self, settings: DataConfig, odd: str) -> tuple[LabelSet, MaskCoding]:
        given = dict(settings.values)
        if settings.classes:  # of a model, or of a run: a map may name what this export does not have
            known = (*self.names, *self.names.values())
            given = {key: value for key, value in given.items() if key in known} or given
        found = ValueMap(given, self.names)
        if UNNAMED in found.names:
            found = ValueMap({**given, UNNAMED: IGNORE}, self.names)
        names = settings.classes or found.names
        if missing := {*found.names} - {*names}:
            raise UsageError(f"data.classes lacks {names_text(sorted(missing))}, which the export has")
        if not {*found.names} - {*BACKGROUND}:
            raise DataError(
                f"{self.root}: no region has a class{odd and f' ({odd})'}; name the one that all have: "
                "--data.values \"{'': name}\""
            )
        ignored = 255 if len(names) < 256 else 2**16 - 1
        values = tuple((self.names[number], name) for number, name in found.numbers.items())
        background = next((names.index(name) for name in names if name in BACKGROUND), None)
        labels = LabelSet(names, settings.colors, ignored, background, values=values)
        return labels, MaskCoding(table=found.table(names, ignored))


def _names(read: Sequence[Annotation]) -> tuple[dict[int, str], int]:
    """The names that occur by their numbers, and the number of what is in no region."""
    found = dict.fromkeys(region.label or UNNAMED for each in read for region in each.regions)
    background = next((name for name in found if name in BACKGROUND), None)
    covering = {name or None: 1 for name in found}
    if background is None and not all(rasterise(each, covering, 0).all() for each in read):
        background = BACKGROUND[0]
    names = [*([background] if background else []), *(name for name in found if name != background)]
    return dict(enumerate(names)), 0 if background else len(names)


def _numbered(names: Sequence[str]) -> Iterator[str]:
    """Names that may be of one class, and the map that makes them one."""
    alike: dict[str, list[str]] = {}
    for name in names:
        if match := NUMBERED.fullmatch(name):
            alike.setdefault(match[1], []).append(name)
    for base, same in alike.items():
        if len(same) > 1:
            option = f'--data.values "{{{base}: [{", ".join(same)}]}}"'
            yield f"{names_text(same)} look like regions of one class with a number each; if so: {option}"


def _name(annotation: Annotation) -> str:
    return annotation.name.rpartition(".")[0] or annotation.name


def _odd(annotation: Annotation, rest: str) -> Iterator[str]:
    """What is odd about the regions of an image."""
    unnamed = sum(region.label is None for region in annotation.regions)
    if unnamed:
        yield f"{unnamed} regions without a class, ignored unless data.values names them: {{'': name}}"
    if far := [reach for region in annotation.regions if (reach := region.reach(annotation.size)) > NEAR]:
        yield f"{len(far)} regions reach up to {max(far):.0f} pixels out of it: cut there"
    if not annotation.regions:
        yield f"no region: all of it is {rest}"
