"""What the numbers and colours in a mask file mean.

A colour is one number here, ``red << 16 | green << 8 | blue``, so that masks of either kind are arrays of numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sanet.config import MaskFormat
from sanet.structures import Color, LabelSet

Values = NDArray[np.signedinteger]


@dataclass(frozen=True)
class MaskCoding:
    """How the numbers of a mask file become class indices.

    Args:
        format: "index", the stored number is the class (greyscale, or a palette PNG whatever its colours), or
            "color", the RGB colour is one of ``labels.colors``.
        ignore_color: with "color", the colour that stands for the ignore index.
        variable: of masks in .mat files, the name of the variable, then those of the fields that lead to the mask.
        colors_named: whether ``labels.colors`` were named for these masks; a palette must not contradict them then.
    """

    format: MaskFormat = "index"
    ignore_color: Color | None = None
    variable: tuple[str, ...] = ()
    colors_named: bool = False


def meanings(labels: LabelSet, coding: MaskCoding) -> dict[int, int]:
    """Every number that may stand in a mask file, with its class index or the ignore index."""
    if coding.format == "index":
        return {value: value for value in (*range(len(labels)), labels.ignore_index)}
    colors = [*labels.colors, *filter(None, [coding.ignore_color])]
    numbers = packed_pixels(np.array(colors, np.uint8)).tolist()
    return dict(zip(numbers, [*range(len(labels)), labels.ignore_index], strict=False))


def classes_of(stored: Values, labels: LabelSet, coding: MaskCoding) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Class indices (H, W) from stored numbers (H, W), and where these mean one; elsewhere the indices mean nothing."""
    if coding.format == "index":
        known = ((stored >= 0) & (stored < len(labels))) | (stored == labels.ignore_index)
        return stored.astype(np.int64, copy=False), known
    colors = meanings(labels, coding)
    # Zeros take no memory until they are written, so that a place for every colour costs next to nothing.
    table = np.zeros(2**24, np.uint16)
    table[list(colors)] = np.arange(1, len(colors) + 1)
    places = table.take(stored)
    return np.array([0, *colors.values()], np.int64).take(places), places > 0


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


def unpacked(value: int) -> Color:
    """The colour of a number."""
    return value >> 16, value >> 8 & 255, value & 255
