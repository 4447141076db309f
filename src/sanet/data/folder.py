"""Your own images and masks in a folder: which classes there are, and how the masks hold them.

Where the files are is for ``layout.py``; what is not said is looked for in files of names, then in the masks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from sanet.config import DataConfig
from sanet.data.decoding import DataError, load_mask, stored_in_color
from sanet.data.facts import STRAY_SHARE, STRAY_VALUES, Facts, read_facts
from sanet.data.layout import find_layout, masks_alone
from sanet.data.listing import existing_root
from sanet.data.names import find_names
from sanet.data.ranges import asked, some_of
from sanet.data.source import Record, Source, labels_in
from sanet.data.splits import divided
from sanet.data.stacks import unstacked
from sanet.data.values import IGNORE, MaskCoding, ValueMap, hex_of, packed, unpacked, value_counts
from sanet.structures import LabelSet, Sample, UsageError

MOST_CLASSES = 64  # that are made out from the masks alone
NAME_NUMBERS = 'say what ranges mean, as --data.values "{background: [0-127], leaf: [128-255]}"'


class Folder(Source):
    """The images and masks in a folder, of the classes that the settings, a file of names or the masks themselves say.

    Args:
        settings: see ``DataConfig``.

    Attributes:
        settings: with everything that was found out.

    Raises:
        DataError: no such folder, images without masks, two kinds of masks that could be meant, a list that is no
            text, or masks that do not say what their values mean.
        UsageError: classes, colours and values do not fit together.
    """

    root: Path
    find = staticmethod(find_layout)

    def __init__(self, settings: DataConfig) -> None:
        if settings.root is None:
            raise UsageError("data.root must name the folder for the dataset 'folder': --data.root …")
        self.root = root = existing_root(settings.root)
        layout = self.find(root, settings.masks)
        self.complete = () if layout.listed else layout.folders
        if settings.images.pages == "images":
            layout.records = {split: unstacked(found) for split, found in layout.records.items()}
        self.listed, decided = divided(layout.records, settings, layout.listed)
        self.spare = sum(map(len, layout.records.values())) - sum(map(len, self.listed.values()))
        self.splits = tuple(split for split in ("train", "val", "test") if split in self.listed)
        self.images, of_images = asked(self.listed, settings.images)
        self.notes = (*layout.notes, *decided, *of_images)
        in_color = self._in_color(settings)
        stored: Literal["index", "color", "pages"] = "color" if in_color else "index"
        self.coding = MaskCoding("pages" if settings.mask_format == "pages" else stored)
        self.labels, coding = self._classes(settings, in_color)
        # What looks like numbers has colours after all where a map or a file of names has.
        self.coding = coding if settings.mask_format == "auto" else replace(coding, format=self.coding.format)
        self.settings = replace(
            settings,
            name="folder",
            classes=self.labels.names,
            colors=self.labels.colors,
            values=dict(self.labels.values),
            mask_format=self.coding.format,
            ignore_index=self.labels.ignore_index,
            ignore_color=None,
            images=self.images,
        )

    def records(self, split: str) -> list[Record]:
        """The images of one split, in the order of its list or by name."""
        return self.listed[split]

    def _in_color(self, settings: DataConfig) -> bool:
        if settings.mask_format != "auto":
            return settings.mask_format == "color"
        shown = [record.mask for record in some_of(self.listed) if record.mask]
        in_color = 2 * sum(map(stored_in_color, shown)) > len(shown)
        return in_color and (bool(settings.colors) or not all(map(_has_numbers, shown)))

    def _black_and_white(self) -> bool:
        """Whether masks that nothing changed have 0 and 255 alone."""
        values: set[int] = set()
        for record in some_of(self.listed):
            with suppress(DataError):  # the check lists it
                stored = self.stored_mask(record)
                values.update([-1] * stored.lossy, value_counts(stored.values))
        return values == {0, 255}

    def _classes(self, settings: DataConfig, in_color: bool) -> tuple[LabelSet, MaskCoding]:
        """The label set, and how the numbers of the masks become its indices."""
        names, colors, ignored = settings.classes, settings.colors, settings.ignore_index
        background = settings.background
        if len(names) == 2 and not settings.values and not in_color and self._black_and_white():
            self.notes += (f"the masks have the values 0 and 255: read as {names[0]} and {names[1]}",)
            settings = replace(settings, values={0: names[0], 255: names[1]})
        if names and not settings.values and not in_color:
            index = None if background is None else names.index(background)
            return LabelSet(names, colors, ignored, index), MaskCoding(colors_named=bool(colors))
        known, in_color = self._known(settings, in_color)
        found = ValueMap(settings.values, known, in_color)
        if in_color and not found.in_color:
            raise UsageError(
                "data.values: numbers and ranges are for masks of numbers, and these have colours: name those, such as "
                "'#ff0000', or save the masks as greyscale PNG"
            )
        if names and not {*found.names} <= {*names}:
            raise UsageError(f"data.classes lacks {', '.join(sorted({*found.names} - {*names}))} of data.values")
        names = names or found.names
        if not names:
            raise UsageError("data.values: no class is left")
        if found.in_color and not colors:
            first = {name: number for number, name in reversed(found.numbers.items())}
            colors = tuple(unpacked(first[name]) for name in names)
        ignored = ignored if not 0 <= ignored < len(names) else 255 if len(names) < 256 else 65535
        index = None if background is None else names.index(background)
        labels = LabelSet(names, colors, ignored, index, values=found.pairs())
        return labels, MaskCoding("color" if found.in_color else "index", found.table(names, ignored))

    def _known(self, settings: DataConfig, in_color: bool) -> tuple[Mapping[int, str], bool]:
        """Names of numbers or colours beside those that the settings have, and whether they are colours."""
        if settings.classes and in_color:
            if not settings.colors and not settings.values:
                raise UsageError("the masks have colours: name them in data.colors, one RGB colour per class")
            colors = [*settings.colors, *filter(None, [settings.ignore_color])]
            return dict(zip(map(packed, colors), [*settings.classes, IGNORE], strict=False)), True
        if settings.classes:
            mapped = {str(key) for key in settings.values} | {str(value) for value in settings.values.values()}
            rest = {index: name for index, name in enumerate(settings.classes) if name not in mapped}
            return rest, False
        folders = sorted({path.parent for found in self.listed.values() for record in found for path in record.paths})
        if names := find_names(self.root, folders):
            self.notes += (f"the classes are those of {names.path.name}",)
            return names.known, names.in_color
        if settings.values:
            return {}, in_color
        return self._seen(settings, in_color), in_color

    def _seen(self, settings: DataConfig, in_color: bool) -> dict[int, str]:
        """Names for the values that the masks have, where it is clear that each is a class."""
        self.named = False
        records = [record for found in self.listed.values() for record in found]
        contents = read_facts(self, records)
        counts: Counter[int] = Counter()
        for facts in contents:
            counts.update(facts.values)
        if not counts:
            masks = sum(record.mask is not None for record in records)
            none = f"no pixel of its {masks} masks is valid" if masks else "none of its images has a mask"
            if why := next((facts.mask_error for facts in contents if facts.mask_error), ""):
                none = f"none of its {masks} masks can be read; the first one {why}"
            raise DataError(f"{self.root}: {none}; `sanet check-data` lists the files once data.classes are named")
        values = sorted(counts)
        total = sum(counts.values()) or 1
        shares = {value: f"{hex_of(value) if in_color else value} ({counts[value] / total:.1%})" for value in values}
        listed = ", ".join([*shares.values()][:12]) + f" and {len(values) - 12} more" * (len(values) > 12)
        _require_clean(
            self.root, records, contents, f"{listed}; {'save them as PNG, unsmoothed' if in_color else NAME_NUMBERS}"
        )
        if in_color and 2 <= len(values) <= MOST_CLASSES:
            self.notes += (f"the masks have the colours {listed}: each is a class; name them with data.values",)
            return {value: hex_of(value) for value in values}
        if (len(values) == 2 and values[0] == 0 and values[1] != settings.ignore_index) or values == [0, 255]:
            self.notes += (f"the masks have the values {listed}: read as background and foreground",)
            return {0: "background", values[1]: "foreground"}
        classes = [value for value in values if value != settings.ignore_index]
        whole = classes and classes[0] in (0, 1) and len(classes) > max(1, classes[-1] // 2) and classes[-1] < 255
        if whole and not in_color and len(classes) <= MOST_CLASSES:
            but = f", but {settings.ignore_index}, which is ignored" * (settings.ignore_index in counts)
            self.notes += (f"the masks have the values {listed}: each is a class{but}; name them with data.classes",)
            return {value: f"class {value}" for value in range(classes[0], classes[-1] + 1)}
        what = f"{len(values)} {'colours' if in_color else 'values'}, {listed or 'none'}"
        keys = [hex_of(value) if in_color else value for value in values]
        example = ", ".join(f"{key!r}: {name}" for key, name in zip(keys, "abcd", strict=False))
        if len(values) > MOST_CLASSES and not in_color:
            example = "background: [0-127], foreground: [128-255]"
        remedy = f'say what they mean, as --data.values "{{{example}}}"'
        raise DataError(f"{self.root}: the masks have {what}; no file names them: {remedy}")


class MasksAlone(Folder):
    """The masks in a folder where no images are, which then have no channel: (0, H, W)."""

    find = staticmethod(masks_alone)

    def read(self, record: Record) -> Sample:
        """The mask of a record."""
        mask = torch.from_numpy(labels_in(self, record))
        return Sample(torch.empty((0, *mask.shape), dtype=torch.uint8), mask, record.name)


def _has_numbers(path: Path) -> bool:
    """Whether a mask can be read as numbers; one of colours can, if all of its pixels are grey."""
    try:
        load_mask(path, MaskCoding())
    except DataError:
        return False
    return True


def _require_clean(root: Path, records: Sequence[Record], contents: Sequence[Facts], remedy: str) -> None:
    """Raise a DataError where masks have values that a lossy format or smoothing made, which are no classes."""
    lossy = [record.mask for record, facts in zip(records, contents, strict=True) if facts.lossy]
    if lossy:
        raise DataError(
            f"{root}: {len(lossy)} masks are in a lossy format, which changes values, such as {lossy[0]}: {remedy}"
        )
    most: dict[int, float] = {}
    for facts in contents:
        for value, count in facts.values.items():
            most[value] = max(most.get(value, 0), count / sum(facts.values.values()))
    faint = sum(share <= STRAY_SHARE for share in most.values())
    if faint >= STRAY_VALUES:
        raise DataError(
            f"{root}: of {len(most)} values of the masks, {faint} are on {STRAY_SHARE:.0%} of the pixels of a mask at "
            f"most, as from smoothing: {remedy}; where each is a class, name all with data.values"
        )
