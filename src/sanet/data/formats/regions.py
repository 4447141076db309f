"""What every annotation format holds: regions of an image, drawn one over the other; and masks made of them and back.

Coordinates are pixels from the upper left corner of the image: pixel (x, y) covers [x, x + 1) by [y, y + 1). Every
pixel that an outline touches belongs to its region, as labelme draws polygons with Pillow, and what is inside an odd
number of outlines. What comes later in a file, or higher in its z-order, lies on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contourpy import FillType, contour_generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Ring = NDArray[np.float64]  # (N, 2) columns and rows, not closed
Bits = NDArray[np.bool_]

# Of an outline: points, pixels from the image's corner, and pixels up and down in all. More is a damaged file, and
# takes Pillow minutes to fill.
MOST_POINTS, FARTHEST, LONGEST = 100_000, 1e6, 2e6
MOST_PIXELS = 178_956_970  # Pillow opens no larger image
# Outlines are drawn this far inside their pixels, so that both who asks which pixel a corner is in and who asks what
# is inside get the region back, also from coordinates that a tool rounds to two decimals.
INSET = 0.01


class Bitmap(NamedTuple):
    """The pixels of a region, within a box."""

    left: int
    top: int
    size: tuple[int, int]  # width and height
    runs: NDArray[np.int64]  # lengths of runs of pixels row by row, outside and inside in turn, outside first

    @classmethod
    def of(cls, bits: Bits, left: int = 0, top: int = 0) -> Bitmap:
        """From pixels (H, W), of which the rows and columns around the region are left out."""
        rows, columns = np.flatnonzero(bits.any(1)), np.flatnonzero(bits.any(0))
        if not len(rows):
            return cls(left, top, (0, 0), np.zeros(0, np.int64))
        inner = bits[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return cls(left + int(columns[0]), top + int(rows[0]), inner.shape[::-1], runs_of(inner.ravel()))

    def bits(self) -> Bits:
        """The pixels of the box (H, W)."""
        inside: Bits = np.repeat(np.arange(len(self.runs)) % 2 == 1, self.runs)
        return inside.reshape(self.size[::-1])


def runs_of(bits: Bits) -> NDArray[np.int64]:
    """Lengths of the runs of pixels (N,) outside and inside in turn, outside first."""
    changes = np.flatnonzero(np.diff(bits, prepend=False))
    ends = np.concatenate([[0], changes, [len(bits)]]).astype(np.int64)
    return ends[1:] - ends[:-1]


def run_lengths(box: Sequence[Any], runs: Any, limit: tuple[int, int]) -> Bitmap:
    """From run lengths that a file gives for a box (left, top, width, height) of an image of size ``limit``.

    Raises:
        ValueError: they do not fit each other, or the image; nothing is allocated then.
    """
    left, top, width, height = map(int, box)
    lengths = np.asarray(runs, np.int64)
    fits = lengths.ndim == 1 and not (lengths < 0).any() and int(lengths.sum()) == width * height
    fits &= 0 <= width <= limit[0] and 0 <= height <= limit[1] and int(lengths.max(initial=0)) <= MOST_PIXELS
    if not fits:
        raise ValueError(f"a mask's run lengths do not fill its box in an image of {limit[0]}x{limit[1]}")
    return Bitmap(left, top, (width, height), lengths)


def checked_ring(points: Any) -> Ring:
    """Points (N, 2) of an outline.

    Raises:
        ValueError: they are no such numbers, too many, or far away from every image.
    """
    count = len(points)
    if count > MOST_POINTS:
        raise ValueError(f"an outline of {count} points; there are {MOST_POINTS} at most")
    ring = np.asarray(points, np.float64) if count else np.zeros((0, 2))
    if ring.shape != (count, 2):
        raise ValueError(f"an outline with the point {points[0]!r}; a point is two numbers, x and y")
    if not np.isfinite(ring).all():
        raise ValueError("an outline with a coordinate that is no number")
    if (farthest := np.abs(ring).max(initial=0)) > FARTHEST:
        raise ValueError(f"an outline with the coordinate {farthest:.12g}; pixels are not beyond {FARTHEST:g}")
    if (length := np.abs(np.diff(ring[:, 1])).sum()) > LONGEST:
        raise ValueError(f"an outline that leads {length:.12g} pixels up and down; there are {LONGEST:g} at most")
    return ring


@dataclass(frozen=True, eq=False)
class Region:
    """Part of an image.

    Args:
        label: its class; None where it has none.
        rings: outlines (N, 2), of which an inner one is a hole.
        bitmap: its pixels, of one that is no outline.
    """

    label: str | None
    rings: tuple[Ring, ...] = ()
    bitmap: Bitmap | None = None

    def drawn(self, size: tuple[int, int]) -> tuple[int, int, Bits]:
        """Column, row and pixels (h, w) of the part that lies in an image of this width and height."""
        if self.bitmap:
            left, top, bits = max(self.bitmap.left, 0), max(self.bitmap.top, 0), self.bitmap.bits()
            shown = bits[top - self.bitmap.top :, left - self.bitmap.left :]
            return left, top, shown[: max(size[1] - top, 0), : max(size[0] - left, 0)]
        corners = [np.trunc(ring).astype(np.int64) for ring in self.rings]
        if len(corners) == 1:
            return _filled(corners[0], size, outline=1)
        left, top, right, bottom = _box(np.concatenate(corners), size)
        inside, outline = np.zeros((2, bottom - top, right - left), np.bool_)
        for ring in corners:
            x, y, inner = _filled(ring, size, outline=0)
            part = np.s_[y - top : y - top + inner.shape[0], x - left : x - left + inner.shape[1]]
            inside[part] ^= inner
            outline[part] |= _filled(ring, size, outline=1)[2] & ~inner
        return left, top, inside | outline

    def reach(self, size: tuple[int, int]) -> float:
        """How many pixels it reaches out of an image of this width and height; 0 if it does not."""
        if self.bitmap:
            ends = np.array([[self.bitmap.left, self.bitmap.top], np.add(self.bitmap[:2], self.bitmap.size)])
        else:
            ends = np.concatenate(self.rings)
        return max(0.0, float(-ends.min()), float((ends.max(0) - size).max()))


def _box(corners: NDArray[np.int64], size: tuple[int, int]) -> list[int]:
    """First column and row, and those behind the last, of the part of an image of this size that an outline covers."""
    box: list[int] = np.clip([corners.min(0), corners.max(0) + 1], 0, size).ravel().tolist()
    return box


def _filled(corners: NDArray[np.int64], size: tuple[int, int], outline: int) -> tuple[int, int, Bits]:
    """Column, row and pixels of that part: those within an outline; with ``outline`` 1 those on it, too."""
    left, top, right, bottom = _box(corners, size)
    canvas = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
    ImageDraw.Draw(canvas).polygon((corners - (left, top)).ravel().tolist(), fill=1, outline=outline)
    return left, top, np.array(canvas, np.bool_)[: bottom - top, : right - left]


def line(label: str | None, points: Ring, width: int, size: tuple[int, int]) -> Region:
    """A line that is so many pixels wide, as labelme draws it."""
    left, top = np.maximum(np.trunc(points.min(0)).astype(int) - width, 0).tolist()
    right, bottom = np.minimum(np.trunc(points.max(0)).astype(int) + width + 1, size).tolist()
    canvas = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
    ImageDraw.Draw(canvas).line((points - (left, top)).ravel().tolist(), fill=1, width=width)
    return Region(label, bitmap=Bitmap.of(np.array(canvas, np.bool_), left, top))


def box_ring(box: Sequence[float], degrees: float = 0, about: Any = None) -> Ring:
    """The outline of a box (left, top, right, bottom), turned clockwise about its middle or another point."""
    left, top, right, bottom = box
    ring = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)
    return _turned(ring, degrees, ring.mean(0) if about is None else np.asarray(about))


def ellipse_ring(middle: Sequence[float], radii: Sequence[float], degrees: float = 0) -> Ring:
    """The outline of an ellipse about a point, from its two radii, turned clockwise."""
    (x, y), (across, down) = middle, radii
    angles = np.linspace(0, 2 * np.pi, max(16, int(min(720, 4 * max(abs(across), abs(down))))), endpoint=False)
    ring = np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], 1)
    return _turned(ring, degrees, np.array([x, y]))


def _turned(ring: Ring, degrees: float, about: NDArray[np.float64]) -> Ring:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned: Ring = (ring - about) @ np.array([[cos, sin], [-sin, cos]]) + about
    return turned


@dataclass(frozen=True, eq=False)
class Annotation:
    """The regions of one image.

    Args:
        name: the image's file below the folder of its split, such as "105.jpg".
        image: the file; None where there is none.
        size: width and height of the image in pixels, upright.
        regions: in drawing order, the last on top.
        split: "train", "val" or "test" where the export says so.
        source: the file that it was read from.
    """

    name: str
    image: Path | None
    size: tuple[int, int]
    regions: tuple[Region, ...]
    split: str | None
    source: Path


def rasterise(annotation: Annotation, numbers: Mapping[str | None, int], unlabelled: int) -> NDArray[np.int32]:
    """(H, W): for every pixel the number of the label that lies on top, or ``unlabelled``."""
    values = np.full(annotation.size[::-1], unlabelled, np.int32)
    for region in annotation.regions:
        left, top, bits = region.drawn(annotation.size)
        values[top : top + bits.shape[0], left : left + bits.shape[1]][bits] = numbers[region.label]
    return values


def trace(mask: NDArray[np.integer[Any]], names: Mapping[int, str], tolerance: float) -> tuple[Region, ...]:
    """The regions of a mask (H, W): for each number with a name its connected parts, with their holes.

    Args:
        mask: numbers of classes.
        names: the numbers that become regions, such as all but the background.
        tolerance: pixels that an outline may move where it gets simpler; with 0 ``rasterise`` gives the mask back.
    """
    found = []
    for number, name in names.items():
        mark = Bitmap.of(mask == number)
        if mark.size[0]:
            found += [Region(name, rings) for rings in outlines(mark.left, mark.top, mark.bits(), tolerance)]
    return tuple(found)


def without_holes(region: Region, size: tuple[int, int]) -> list[Ring]:
    """The outlines of parts that make up a region, which is cut through its holes, for formats that have none."""
    if len(region.rings) == 1:
        return [*region.rings]
    found = []
    for rings in outlines(*region.drawn(size)):
        if len(rings) == 1:
            found.append(rings[0])
            continue
        # Through the middle hole, so that as many remain on either side.
        middles = sorted(float(hole[:, 0].mean()) for hole in rings[1:])
        left, top, bits = Region(None, rings).drawn(size)
        column = min(max(round(middles[len(middles) // 2]) - left, 1), bits.shape[1] - 1)
        for half in (Bitmap.of(bits[:, :column], left, top), Bitmap.of(bits[:, column:], left + column, top)):
            found += without_holes(Region(None, bitmap=half), size)
    return found


def outlines(left: int, top: int, bits: Bits, tolerance: float = 0) -> Iterator[tuple[Ring, ...]]:
    """Of every connected part of pixels that begin at a column and row its outline, then those of its holes."""
    generator = contour_generator(z=np.pad(bits, 1).astype(np.float64), fill_type=FillType.OuterOffset)
    parts, offsets = generator.filled(0.5 + INSET, 2.0)[:2]
    for points, ends in zip(parts, offsets, strict=True):
        moved = np.asarray(points, np.float64) + np.array((left - 0.5, top - 0.5))
        rings = np.split(moved, np.asarray(ends, np.int64)[1:-1])
        yield tuple(_simplified(ring[:-1], tolerance) for ring in rings)


def _simplified(ring: Ring, tolerance: float) -> Ring:
    """Fewer points, from which the others are no farther away than ``tolerance`` (Douglas and Peucker)."""
    ring = _bends(_cornered(_bends(ring)))
    if tolerance <= 0 or len(ring) <= 4:
        return ring
    far = int(((ring - ring[0]) ** 2).sum(1).argmax())
    closed, spans, kept = np.vstack([ring, ring[:1]]), [(0, far), (far, len(ring))], {0, far}
    while spans:
        start, end = spans.pop()
        along, points = closed[end] - closed[start], closed[start : end + 1] - closed[start]
        share = np.clip(points @ along / max(float(along @ along), 1e-12), 0, 1)
        distances = ((points - share[:, None] * along) ** 2).sum(1)
        worst = start + int(distances.argmax())
        if distances.max() > tolerance**2:
            kept.add(worst)
            spans += [(start, worst), (worst, end)]
    return ring[sorted(kept)] if len(kept) > 2 else ring


def _bends(ring: Ring) -> Ring:
    """The points of an outline at which it changes its direction."""
    before, after = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0) - ring
    bends: Ring = ring[np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9]
    return bends


def _cornered(ring: Ring) -> Ring:
    """With the corners that contours cut off, where they lie between two straight edges; steps of a slope stay cut."""
    before, following = ring - np.roll(ring, 1, 0), np.roll(ring, -1, 0)
    after = following - ring
    longer, shorter = np.abs(after).max(1), np.abs(after).min(1)
    straight = (longer > 1) & (shorter < 1e-9)
    places = np.flatnonzero((longer < 1) & (shorter > 1e-9) & np.roll(straight, 1) & np.roll(straight, -1))
    level = np.abs(before[:, 1]) < 1e-9  # what leads to the corner
    x, y = np.where(level, following[:, 0], ring[:, 0]), np.where(level, ring[:, 1], following[:, 1])
    return np.insert(ring, places + 1, np.stack([x, y], 1)[places], axis=0)
