"""What the numbers and colours in a mask file mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanet.config import MaskFormat
from sanet.structures import Color, LabelSet

StoredValue = int | Color


@dataclass(frozen=True)
class MaskCoding:
    """How the numbers of a mask file become class indices.

    Args:
        format: "index", the stored number is the class (greyscale, or a palette PNG whatever its colours), or
            "color", the RGB colour is one of ``labels.colors``.
        ignore_color: with "color", the colour that stands for the ignore index.
        table: with "index", the class index or ignore index that each stored number from 0 on stands for; where left
            empty, a number stands for itself.
        variable: of masks in .mat files, the name of the variable, then those of the fields that lead to the mask.
        colors_named: whether ``labels.colors`` were named for these masks; a palette must not contradict them then.
    """

    format: MaskFormat = "index"
    ignore_color: Color | None = None
    table: tuple[int, ...] = ()
    variable: tuple[str, ...] = ()
    colors_named: bool = False


def meanings(labels: LabelSet, coding: MaskCoding) -> dict[StoredValue, int]:
    """Every number or colour that may stand in a mask file, with its class index or the ignore index."""
    if coding.table:
        return dict(enumerate(coding.table))
    if coding.format == "index":
        return {value: value for value in (*range(len(labels)), labels.ignore_index)}
    table: dict[StoredValue, int] = {color: index for index, color in enumerate(labels.colors)}
    if coding.ignore_color is not None:
        red, green, blue = coding.ignore_color  # a list, too
        table[red, green, blue] = labels.ignore_index
    return table


def value_counts(stored: NDArray[np.int64], coding: MaskCoding) -> dict[StoredValue, int]:
    """The numbers or colours stored in a mask, each with its number of pixels, most frequent first."""
    values, counts = np.unique(stored if coding.format == "index" else packed(stored), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    pairs = zip(values[order].tolist(), counts[order].tolist(), strict=True)
    return {value if coding.format == "index" else unpacked(value): count for value, count in pairs}


def unknown_values(stored: NDArray[np.int64], labels: LabelSet, coding: MaskCoding) -> dict[StoredValue, int]:
    """Those of ``value_counts`` that mean nothing."""
    known = meanings(labels, coding)
    return {value: count for value, count in value_counts(stored, coding).items() if value not in known}


def values_text(counts: dict[StoredValue, int]) -> str:
    """The most frequent values with their numbers of pixels, and how much there is besides."""
    text = ", ".join(f"{value} on {count} pixels" for value, count in list(counts.items())[:6])
    rest = list(counts.values())[6:]
    return text + (f", {len(rest)} other values on {sum(rest)} pixels" if rest else "")


def packed(colors: NDArray[np.int64]) -> NDArray[np.int64]:
    """Colours (H, W, 3) as one number each."""
    return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]


def unpacked(color: int) -> Color:
    """The colour that ``packed`` made this number of."""
    return color >> 16, color >> 8 & 255, color & 255
