"""What the numbers and colours in a mask file mean.

A colour is one number here, ``red << 16 | green << 8 | blue``, so that masks of either kind are arrays of numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sanet.structures import Color, LabelSet, UsageError, nearest

Values = NDArray[np.signedinteger]

IGNORE = "ignore"  # what stands for the ignore value in a value map
LARGEST = 2**24  # that a number can be, and a colour
LONGEST = 2**16  # range
NUMBER, RANGE, HEX = re.compile(r"-?\d{1,8}"), re.compile(r"(\d{1,8})-(\d{1,8})"), re.compile(r"#([0-9a-fA-F]{6})")


@dataclass(frozen=True)
class MaskCoding:
    """How the numbers of a mask file become class indices.

    Args:
        format: "index", numbers as they are stored (greyscale, or a palette PNG whatever its colours), "color", the
            exact RGB colours, or "pages", the last page of a file that is not 0 in a pixel, from 0; -1 where all are.
        table: pairs of a stored number and its class index or the ignore index; without any, a number is its class.
        variable: of masks in .mat files, the name of the variable, then those of the fields that lead to the mask.
        colors_named: whether ``labels.colors`` were named for these masks; a palette must not contradict them then.
    """

    format: Literal["index", "color", "pages"] = "index"
    table: tuple[tuple[int, int], ...] = ()
    variable: tuple[str, ...] = ()
    colors_named: bool = False


def color_coding(labels: LabelSet, ignore_color: Color | None = None) -> MaskCoding:
    """Of masks in the colours of a label set, and in the one that is ignored."""
    colors = [*labels.colors, *([ignore_color] if ignore_color else [])]
    numbers = packed_pixels(np.array(colors, np.uint8)).tolist()
    return MaskCoding("color", tuple(zip(numbers, [*range(len(labels)), labels.ignore_index], strict=False)))


def coding_of(labels: LabelSet) -> MaskCoding:
    """How the masks were stored that a label set was made for; without its values, a number is its class."""
    if not labels.values or not all(_numbers(value)[0] for value, _ in labels.values):
        return MaskCoding()
    found = ValueMap(dict(labels.values), {})
    return MaskCoding("color" if found.in_color else "index", found.table(labels.names, labels.ignore_index))


def meanings(labels: LabelSet, coding: MaskCoding) -> dict[int, int]:
    """Every number that may stand in a mask file, with its class index or the ignore index."""
    return dict(coding.table) or {value: value for value in (*range(len(labels)), labels.ignore_index)}


def classes_of(stored: Values, labels: LabelSet, coding: MaskCoding) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Class indices (H, W) from stored numbers (H, W), and where these mean one; elsewhere the indices mean nothing."""
    if not coding.table:
        known = ((stored >= 0) & (stored < len(labels))) | (stored == labels.ignore_index)
        return stored.astype(np.int64, copy=False), known
    numbers = dict(coding.table)
    low, high = min(numbers), max(numbers)
    # Zeros take no memory until they are written, so that a place for every colour costs next to nothing.
    table = np.zeros(high - low + 3, np.uint16)
    table[np.array([*numbers]) - low + 1] = np.arange(1, len(numbers) + 1)
    places = table.take(np.clip(stored, low - 1, high + 1) - (low - 1))
    return np.array([0, *numbers.values()], np.int64).take(places), places > 0


class ValueMap:
    """Which class stands for every number, colour or name in masks.

    Args:
        given: ``{value: class}`` and ``{class: [values]}``, mixed as one likes. A value is a number, a range of them
            such as "1-9", a colour such as "#ff0000", in lists also [255, 0, 0], or a name in ``known``. The class
            "ignore" is none.
        known: the names of numbers or colours that are known beside the map, and stay where it does not name them.
        in_color: whether the numbers in ``known`` are colours.

    Attributes:
        names: of the classes: those of ``known`` in its order, then those that only the map has, in its order.
        numbers: stored numbers, or packed colours, with their class; ``IGNORE`` for those to ignore.
        in_color: whether the masks are read by colour.

    Raises:
        UsageError: a value that is none of these, that has two classes, numbers beside colours, or a bare yes or no.
    """

    def __init__(self, given: Mapping[Any, Any], known: Mapping[int, str], in_color: bool = False) -> None:
        named: dict[str, list[int]] = {}
        for number, name in known.items():
            named.setdefault(name, []).append(number)
        entries: dict[int, str] = {}
        colors: set[bool] = {in_color} if known else set()
        for value, target in _pairs(given, named):
            numbers, is_color = (named[value], in_color) if value in named else _numbers(value)
            if not numbers:
                names = f"; names here: {', '.join(named)}" if named else ""
                raise UsageError(
                    f"data.values: {value!r} is no number, range such as 1-9, colour such as '#ff0000', or name that "
                    f"is known; {nearest(str(value), named)}write {{value: class}} or {{class: [values]}}{names}"
                )
            colors.add(is_color)
            for number in numbers:
                if entries.setdefault(number, target) != target:
                    raise UsageError(f"data.values: {value!r} is both {entries[number]!r} and {target!r}")
        if len(colors) > 1:
            raise UsageError("data.values: numbers and colours; a mask is read by one of the two")
        self.in_color = colors == {True}
        self.numbers = {**known, **entries}
        order = dict.fromkeys([*(self.numbers[number] for number in known), *entries.values()])
        self.names = tuple(name for name in order if name != IGNORE)

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Values and their classes as texts, numbers that follow each other as a range."""
        found: list[tuple[int, int, str]] = []
        for number, name in self.numbers.items():
            first, last, of = found[-1] if found else (0, 0, "")
            follows = not self.in_color and name == of and number == last + 1 and first >= 0
            found[-1 if follows else len(found) :] = [(first if follows else number, number, name)]
        texts = [
            hex_of(first) if self.in_color else f"{first}-{last}" if last > first else str(first)
            for first, last, _ in found
        ]
        return tuple(zip(texts, [name for *_, name in found], strict=True))

    def table(self, names: Sequence[str], ignore_index: int) -> tuple[tuple[int, int], ...]:
        """For ``MaskCoding``, with the classes in the order of ``names``."""
        places = {name: index for index, name in enumerate(names)} | {IGNORE: ignore_index}
        table = {number: places[name] for number, name in self.numbers.items()}
        return tuple((table if self.in_color else {ignore_index: ignore_index} | table).items())


def _pairs(given: Mapping[Any, Any], named: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """Values with their classes, whichever of the two is written first."""
    for key, value in given.items():
        for one in (key, *value) if isinstance(value, (list, tuple)) else (key, value):
            if isinstance(one, bool):
                words = "yes, on or true" if one else "no, off or false"
                raise UsageError(f"data.values: YAML reads {words} as {one}; write the word that is meant in quotes")
        if isinstance(value, (list, tuple)):
            yield from ((tuple(one) if isinstance(one, list) else one, str(key)) for one in value)
        elif isinstance(value, str) and (key in named or _numbers(key)[0]):
            yield key, value
        elif isinstance(value, str) and re.match(r"[-#\d]", str(key)) and value not in named and not _numbers(value)[0]:
            yield key, value  # the one that looks like a value is wrong
        else:
            yield value, str(key)


def _numbers(value: Any) -> tuple[Sequence[int], bool]:
    """The numbers that a value of a map stands for, none where it is none; and whether they are colours."""
    if isinstance(value, tuple) and len(value) == 3 and all(type(part) is int and 0 <= part < 256 for part in value):
        return [packed(value)], True
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if found := HEX.fullmatch(text):
        return [int(found[1], 16)], True
    if NUMBER.fullmatch(text):
        return [int(text)] if abs(int(text)) < LARGEST else (), False
    if found := RANGE.fullmatch(text):
        if int(found[2]) - int(found[1]) >= LONGEST:
            raise UsageError(f"data.values: {text!r} has more than {LONGEST} numbers; name those that masks have")
        return range(int(found[1]), min(int(found[2]) + 1, LARGEST)), False
    return (), False


def value_counts(stored: Values) -> dict[int, int]:
    """The numbers stored in a mask, each with its number of pixels, most frequent first."""
    values, counts = np.unique(stored, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return dict(zip(values[order].tolist(), counts[order].tolist(), strict=True))


def values_text(counts: dict[int, int], coding: MaskCoding) -> str:
    """The most frequent values with their numbers of pixels, and how much there is besides."""
    shown = unpacked if coding.format == "color" else int
    text = ", ".join(f"{shown(value)} on {count} pixels" for value, count in list(counts.items())[:6])
    rest = list(counts.values())[6:]
    return text + (f", {len(rest)} other values on {sum(rest)} pixels" if rest else "")


def packed_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colours (..., 3) as numbers (...)."""
    wide = pixels.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def packed(color: Color) -> int:
    """A colour as a number."""
    return color[0] << 16 | color[1] << 8 | color[2]


def unpacked(value: int) -> Color:
    """The colour of a number."""
    return value >> 16, value >> 8 & 255, value & 255


def hex_of(value: int) -> str:
    """The colour of a number as "#rrggbb"."""
    return f"#{value:06x}"
