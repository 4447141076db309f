"""A dataset whose masks are drawn from annotations as images are read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sanet.config import DataConfig
from sanet.data.decoding import DataError, StoredMask
from sanet.data.formats.catalog import annotation_format
from sanet.data.formats.format import Files
from sanet.data.formats.regions import Annotation, rasterise
from sanet.data.listing import existing_root
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
        reader = annotation_format(settings.name)
        read = reader.read(self.root)
        odd = [*reader.findings]
        if not read:
            what = "; ".join(f"{path}: {what}" for path, what in odd[:6])
            raise DataError(f"{self.root} has no image with annotations. {what}")
        odd += [(each.source, f"{each.name}: {what}") for each in read for what in _odd(each)]
        used = {each.image for each in read}
        images = (path for same in Files(self.root).images.values() for path in same)
        odd += [(path, "no annotation: not used") for path in images if path not in used]
        self.odd = tuple(odd)
        self._by_name = {(each.source, _name(each)): each for each in read}
        self.names, self._unlabelled = self._found(read)
        self.labels, self.coding = self._classes(settings)
        self.drawn = json.dumps([type(reader).__name__, [*self.names.values()], self._unlabelled])
        records: dict[str, list[Record]] = {}
        for each in read:
            records.setdefault(each.split or "", []).append(Record(_name(each), each.image, each.source))
        self.listed, decided = divided(records, settings, told=False)
        self.splits = tuple(split for split in ("train", "val", "test") if split in self.listed)
        self.notes = (
            f"annotations in the format {type(reader).__name__}, {len(read)} images",
            *decided,
            *self._notes(),
        )
        self.settings = replace(settings, classes=self.labels.names, values=dict(self.labels.values))

    def records(self, split: str) -> list[Record]:
        """The images of one split, in the order of the export; the mask is the file of the annotations."""
        return self.listed[split]

    def annotation_of(self, record: Record) -> Annotation:
        """The regions of a record as they are in its file.

        Raises:
            DataError: there are none; the file has changed.
        """
        annotation = None if record.mask is None else self._by_name.get((record.mask, record.name))
        if annotation is None:
            raise DataError(f"{record.mask} has no annotation of {record.name}; the dataset has changed: begin again")
        return annotation

    def stored_mask(self, record: Record) -> StoredMask:
        """The numbers of ``names``, drawn from the regions of a record."""
        annotation = self.annotation_of(record)
        numbers: dict[str | None, int] = {name: number for number, name in self.names.items()}
        return StoredMask(rasterise(annotation, numbers | {None: numbers.get(UNNAMED, 0)}, self._unlabelled), {})

    def _found(self, read: Sequence[Annotation]) -> tuple[dict[int, str], int]:
        """The names that occur by their numbers, and the number of what is in no region."""
        found = dict.fromkeys(region.label or UNNAMED for each in read for region in each.regions)
        background = next((name for name in found if name in BACKGROUND), None)
        if background is None and not all(_covered(each) for each in read):
            background = BACKGROUND[0]
        names = [*([background] if background else []), *(name for name in found if name != background)]
        return dict(enumerate(names)), 0 if background else len(names)

    def _classes(self, settings: DataConfig) -> tuple[LabelSet, MaskCoding]:
        known = {number: name if name != UNNAMED else IGNORE for number, name in self.names.items()}
        given = dict(settings.values)
        if UNNAMED in self.names.values():
            number = next(number for number, name in self.names.items() if name == UNNAMED)
            given = {number if key == UNNAMED else key: _numbered(value, number) for key, value in given.items()}
        if settings.classes:  # of a model, or of a run: a map may name what this export does not have
            given = {key: value for key, value in given.items() if key in (*known, *known.values())} or given
        found = ValueMap(given, known)
        names = settings.classes or found.names
        if not {*found.names} <= {*names}:
            raise UsageError(
                f"data.classes lacks {names_text(sorted({*found.names} - {*names}))}, which the export has"
            )
        if not names or not {*found.names} - {*BACKGROUND}:
            raise DataError(
                f"{self.root}: no region has a class; name the one that all have: --data.values \"{{'': name}}\""
            )
        ignored = 255 if len(names) < 256 else 2**16 - 1
        values = tuple((self.names[number], name) for number, name in found.numbers.items())
        background = next((names.index(name) for name in names if name in BACKGROUND), None)
        labels = LabelSet(names, settings.colors, ignored, background, values=values)
        return labels, MaskCoding(table=found.table(names, ignored))

    def _notes(self) -> list[str]:
        shown = self.names.get(self._unlabelled, "ignored")
        notes = [f"the classes are {names_text(self.labels.names)}; what is in no region is {shown}"]
        alike: dict[str, list[str]] = {}
        for name in self.labels.names:
            if match := NUMBERED.fullmatch(name):
                alike.setdefault(match[1], []).append(name)
        for base, names in alike.items():
            if len(names) > 1:
                option = f'--data.values "{{{base}: [{", ".join(names)}]}}"'
                notes.append(f"{names_text(names)} look like regions of one class with a number each; if so: {option}")
        return notes


def _numbered(value: Any, number: int) -> Any:
    """A value of a map with the number of regions without a class in place of their name."""
    if isinstance(value, (list, tuple)):
        return [number if one == UNNAMED else one for one in value]
    return value


def _name(annotation: Annotation) -> str:
    return annotation.name.rpartition(".")[0] or annotation.name


def _covered(annotation: Annotation) -> bool:
    numbers = {region.label: 1 for region in annotation.regions}
    return bool(rasterise(annotation, numbers, 0).all())


def _odd(annotation: Annotation) -> list[str]:
    """What is odd about the regions of an image, in words."""
    found = []
    unnamed = sum(region.label is None for region in annotation.regions)
    if unnamed:
        found.append(f"{unnamed} regions without a class, ignored unless data.values names them: {{'': name}}")
    reaches = [region.reach(annotation.size) for region in annotation.regions]
    if far := [reach for reach in reaches if reach > NEAR]:
        found.append(f"{len(far)} regions reach up to {max(far):.0f} pixels out of it: cut there")
    if not annotation.regions:
        found.append("no region: all of it is unlabelled")
    return found
