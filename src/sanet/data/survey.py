"""What the images of a training split are like: how large, how thin what is labelled is, and whether it has a top."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, nan, sqrt

import numpy as np
from numpy.typing import NDArray

from sanet.data.source import Source, read_sample, records_of

IMAGES, PIXELS = 200, 2048**2  # that are looked at, evenly spaced; of an image with more of them every second, third …
# A mean is one where it is so many standard errors from nothing.
ERRORS = 4.0
# Beyond those an image has a top, or sides that cannot be exchanged: of a class the share of its pixels that lies
# in one half, less a half; of the brightness the difference of the halves.
TOP, SIDE, LIGHT = 0.15, 0.4, 0.08


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        images: number of them.
        size: height and width, the median of each.
        widths: of each class how wide its regions are, 2 x area / outline, in pixels; NaN where it is not seen.
        top: why the images have a top, in words; "" where they have none.
        side: the same of left and right.
    """

    images: int
    size: tuple[int, int]
    widths: tuple[float, ...]
    top: str
    side: str


def survey(source: Source) -> Survey:
    """Look at the training images. Raises a DataError for one that cannot be read."""
    records, names = records_of(source, "train"), source.labels.names
    sizes, halves, light = [], [], []
    areas, outlines = np.zeros(len(names)), np.zeros(len(names))
    for index in np.unique(np.linspace(0, len(records) - 1, min(IMAGES, len(records))).round().astype(int)).tolist():
        sample = read_sample(source, records[index])
        mask, bright = sample.mask.numpy().astype(np.int64), sample.image.float().mean(dim=0).numpy()
        sizes.append(mask.shape)
        step = ceil(sqrt(mask.size / PIXELS))
        mask, bright = mask[::step, ::step], bright[::step, ::step]
        areas += _counts(mask, len(names)) * step**2
        outlines += _crossings(mask, len(names)) * step
        halves.append([_share_before(mask, len(names)), _share_before(mask.T, len(names))])
        light.append([_step(bright), _step(bright.T)])
    height, width = (int(np.median(side)) for side in zip(*sizes, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        widths = np.where(outlines > 0, 2 * areas / outlines, nan)
    shares, steps = np.array(halves), np.array(light)
    top = _one_sided(shares[:, 0], steps[:, 0], names, TOP, ("upper", "lower"))
    side = _one_sided(shares[:, 1], steps[:, 1], names, SIDE, ("left", "right"))
    return Survey(len(records), (height, width), tuple(widths.tolist()), top, side)


def _counts(mask: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    return np.bincount(mask[(mask >= 0) & (mask < classes)], minlength=classes)


def _crossings(mask: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """How often the outline of each class is crossed from a pixel to the one below, or to the one beside it."""
    found = np.zeros(classes, np.int64)
    for here, there in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
        differ = (here != there) & (here < classes) & (there < classes)
        found += _counts(here[differ], classes) + _counts(there[differ], classes)
    return found


def _share_before(mask: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Of each class the share of its pixels in the first half of the rows; NaN where there are few."""
    middle = len(mask) // 2
    first, last = _counts(mask[:middle], classes), _counts(mask[len(mask) - middle :], classes)
    total = first + last
    return np.where(total >= mask.size / 1000, first / np.maximum(total, 1), nan)


def _step(bright: NDArray[np.float32]) -> float:
    """How much brighter the first half of the rows is, over the range of the image."""
    middle, span = len(bright) // 2, float(np.ptp(bright))
    return float(bright[:middle].mean() - bright[-middle:].mean()) / span if span and middle else 0.0


def _mean(values: NDArray[np.float64]) -> tuple[float, bool]:
    """The mean of what is known, and whether it is surely not 0."""
    known = values[np.isfinite(values)]
    if len(known) < 5:
        return 0.0, False
    mean = float(known.mean())
    return mean, abs(mean) > ERRORS * float(known.std(ddof=1)) / sqrt(len(known))


def _one_sided(
    shares: NDArray[np.float64],
    steps: NDArray[np.float64],
    names: tuple[str, ...],
    limit: float,
    halves: tuple[str, str],
) -> str:
    """The class that lies most in one half, or else the light, in words."""
    found = []
    for index, name in enumerate(names):
        mean, sure = _mean(shares[:, index] - 0.5)
        if sure and abs(mean) > limit:
            found.append((abs(mean), f"{0.5 + abs(mean):.0%} of {name} lies in the {halves[mean < 0]} half"))
    mean, sure = _mean(steps)
    if not found and sure and abs(mean) > LIGHT:
        return f"the {halves[mean < 0]} half is {abs(mean):.0%} brighter"
    return max(found)[1] if found else ""
