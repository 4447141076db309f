"""The range of values of each channel, measured over all images of a split, in memory that does not grow with them.

Percentiles are exact. Numbers become integers of 32 bits in the same order: their upper halves are counted, which says
in which bins the percentiles are, and then, of images of more than 16 bits read once more, the lower halves in these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sanet.data.images import stored_values
from sanet.data.source import Source, records_of
from sanet.reading import ImageReading

LOW, HIGH = 0.001, 0.999
HALF = 2**16
PART = 2**22  # pixels that are counted at once
# All that integers of up to 16 bits can be.
SMALL = np.arange(-(2**15), 2**16, dtype=np.float32)


def with_range(source: Source, progress: bool = True) -> ImageReading:
    """How a source reads its images, with the range of "train" where none is given.

    Raises:
        DataError: an image cannot be read.
    """
    images = source.images
    if not images.of_values or images.low or "train" not in source.splits:
        return images
    files = dict.fromkeys(record.image for record in records_of(source, "train") if record.image)
    low, high = measured_range([*files], images, progress)
    return replace(images, low=low, high=high)


def measured_range(
    files: Sequence[Path], images: ImageReading, progress: bool = True
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each channel the values that 0.1 % and 99.9 % of the pixels do not exceed.

    Where these are one value, the smallest and the largest that there are; the range of a channel of one value is 1.

    Raises:
        DataError: an image cannot be read.
    """
    channels = images.channels or 0
    small, uppers = np.zeros((channels, len(SMALL)), np.int64), np.zeros((channels, HALF), np.int64)
    large: dict[Path, None] = {}
    for path, planes in _planes(files, images, progress):
        if planes.dtype.kind in "ui" and planes.dtype.itemsize <= 2:
            for counts, plane in zip(small, planes, strict=True):
                counts += np.bincount(plane.astype(np.int64) + 2**15, minlength=len(SMALL))
        else:
            large[path] = None
            for counts, plane in zip(uppers, planes, strict=True):
                counts += np.bincount(_keys(plane) >> 16, minlength=HALF)
    places = _keys(SMALL)
    uppers += np.stack([np.bincount(places >> 16, counts, HALF).astype(np.int64) for counts in small])
    searches = [_Search(counts) for counts in uppers]
    for search, counts in zip(searches, small, strict=True):
        search.add(places, counts)
    for _, planes in _planes(large, images, progress):
        for search, plane in zip(searches, planes, strict=True):
            search.add(_keys(plane))
    ends = [search.ends() for search in searches]
    return tuple(low for low, _ in ends), tuple(high for _, high in ends)


class _Search:
    """The smallest, the low, the high and the largest value of a channel; from the counts (65536,) of upper halves."""

    def __init__(self, counts: NDArray[np.int64]) -> None:
        below, total = np.cumsum(counts), int(counts.sum())
        ranks = [min(max(0, ceil(share * total) - 1), total - 1) for share in (0, LOW, HIGH, 1)]
        self.bins = [int(np.searchsorted(below, rank, side="right")) for rank in ranks]
        self.rests = [rank - int(below[place] - counts[place]) for rank, place in zip(ranks, self.bins, strict=True)]
        self.lowers = {place: np.zeros(HALF, np.int64) for place in self.bins}

    def add(self, keys: NDArray[np.uint32], weights: NDArray[np.int64] | None = None) -> None:
        """Count the lower halves of keys, each as often as its weight says."""
        for place, counts in self.lowers.items():
            inside = keys >> 16 == place
            given = None if weights is None else weights[inside]
            counts += np.bincount(keys[inside] & (HALF - 1), given, HALF).astype(np.int64)

    def ends(self) -> tuple[float, float]:
        """Of the range."""
        least, low, high, most = (
            _value(place << 16 | int(np.searchsorted(np.cumsum(self.lowers[place]), rest, side="right")))
            for place, rest in zip(self.bins, self.rests, strict=True)
        )
        low, high = (low, high) if low < high else (least, most)
        return low, high if low < high else low + max(1.0, abs(low))


def _planes(files: Iterable[Path], images: ImageReading, progress: bool) -> Iterable[tuple[Path, NDArray[Any]]]:
    """(C, pixels) of every file, in parts that take little memory."""
    for path in tqdm(files, "measure range", unit=" images", delay=2, disable=not progress):
        values = stored_values(path, images)
        pixels = values.reshape(-1, values.shape[2])
        for start in range(0, len(pixels), PART):
            yield path, pixels[start : start + PART].T


def _keys(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Integers of 32 bits in the order of these numbers as float32."""
    bits = (np.ravel(values).astype(np.float32) + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(2**31))


def _value(key: int) -> float:
    """The float32 of a key."""
    bits = key ^ 2**31 if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))
