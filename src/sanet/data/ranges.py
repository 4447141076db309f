"""How the images of a dataset ask to be read, and the range of values of each channel, measured over a split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sanet.data.decoding import DataError
from sanet.data.images import head_of, stored_values
from sanet.data.source import Record, Source, records_of
from sanet.reading import ImageReading

LOW, HIGH = 0.001, 0.999
FAR = 10  # times the spread of all other values that one has to be away from them to mean that nothing was measured
PEEKED = 20  # images or masks that are looked at for how all of them are stored
MOST = 2**24  # pixels that are kept of all images together, and a thousand of each at least


def some_of(records: Mapping[str, Sequence[Record]]) -> list[Record]:
    """Records with masks of all splits that stand for all of them."""
    masked = [record for found in records.values() for record in found if record.mask]
    return masked[:: max(1, len(masked) // PEEKED)]


def asked(records: Mapping[str, Sequence[Record]], given: ImageReading) -> tuple[ImageReading, tuple[str, ...]]:
    """How images are read, and what is to be said of it: as ``given``, or as all that are looked at ask for.

    It is RGB of 8 bits where they differ, as for those that are not looked at.
    """
    found = set()
    for record in () if given.of_values else some_of(records):
        with suppress(DataError):  # the check lists it
            head = head_of(record.files[0])
            found.add(None if head.eight else head.channels)
    channels = found.pop() if len(found) == 1 else None
    if channels is None:
        return given, ()
    return replace(given, channels=channels), (f"images have {channels} channels of more than 8 bits",)


def with_range(source: Source, progress: bool = True, outlying: list[str] | None = None) -> ImageReading:
    """How a source reads its images, with the range of "train" where none is given.

    ``outlying`` gets a text for each channel of which one value far from all others is an end of the range.

    Raises:
        DataError: an image cannot be read.
    """
    images = source.images
    if not images.of_values or images.low or "train" not in source.splits:
        return images
    files = dict.fromkeys(record.image for record in records_of(source, "train") if record.image)
    if not files:
        return images
    low, high = measured_range([*files], images, progress, outlying)
    return replace(images, low=low, high=high)


def measured_range(
    files: Sequence[Path], images: ImageReading, progress: bool = True, outlying: list[str] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each channel the values that 0.1 % and 99.9 % of the pixels do not exceed.

    Of images that have more pixels than are kept, pixels drawn at random stand for all, always the same ones. Where
    both are one value, the smallest and the largest that there are; the range of a channel of one value is 1.

    Raises:
        DataError: an image cannot be read.
    """
    most, drawn, kept = max(1000, MOST // max(1, len(files))), np.random.default_rng(0), []
    for path in tqdm(files, "measure range", unit=" images", delay=2, disable=not progress):
        values = stored_values(path, images)
        pixels = values.reshape(-1, values.shape[2])
        some = pixels if len(pixels) <= most else pixels[np.sort(drawn.integers(0, len(pixels), most))]
        kept.append(some.astype(np.float32))
    lows, highs = [], []
    for channel in range(images.channels or 0):
        values = np.concatenate([pixels[:, channel] for pixels in kept])
        least, low, high, most_of_all = np.quantile(values, [0, LOW, HIGH, 1], method="inverted_cdf").tolist()
        low, high = (low, high) if low < high else (least, most_of_all)
        lows.append(low)
        highs.append(high if low < high else low + max(1.0, abs(low)))
        if outlying is not None:
            outlying += _outlying(values, {low, high} & {least, most_of_all}, f"channel {channel}")
    return tuple(lows), tuple(highs)


def _outlying(values: NDArray[np.float32], ends: set[float], name: str) -> Iterator[str]:
    for end in ends:
        others = values[values != end]
        spread = np.ptp(others) if others.size else 0
        if spread and np.abs(others - end).min() > FAR * spread:
            share = f"{1 - others.size / values.size:.1%} of the pixels"
            yield f"{name}: {end:g} on {share}, all others {others.min():g} to {others.max():g}"
