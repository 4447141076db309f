"""Images of two splits that look alike: copies in another size, quality or brightness, and frames of one scene.

An image's look is 63 bits: the signs of the lowest frequencies of its cosine transform, but for the mean, as in pHash
(Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010), which compares with their median
in place of zero. By signs, a mirrored image differs in the bits of odd columns alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, KEPT = 32, 8  # pixels, and frequencies, along each axis
# Bits that may differ; docs/results/duplicates says what is found by that, and what is missed.
MOST = 6
FLATTEST = 2.0  # standard deviation of grey, of 255, below which the signs are noise
BITS = KEPT * KEPT - 1
COSINES = np.cos(np.pi / SIDE * np.outer(np.arange(KEPT), np.arange(SIDE) + 0.5))
ODD_COLUMNS = np.tile(np.arange(KEPT) % 2 == 1, KEPT)[1:]
BLOCK = 2**22  # distances that are held at once


class Pair(NamedTuple):
    """Two images that look alike, the second one the nearest to the first in its split."""

    split: str
    name: str
    other_split: str
    other_name: str
    distance: int  # bits that differ, of 63


def look_of(pixels: NDArray[np.uint8]) -> int | None:
    """The look of an image (H, W, 3); None where it is of one grey."""
    grey = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, np.float64)
    if values.std() < FLATTEST:
        return None
    signs = (COSINES @ values @ COSINES.T).ravel()[1:] > 0
    return int.from_bytes(np.packbits(signs).tobytes(), "big")


def near_duplicates(looks: Mapping[str, Mapping[str, int]], most: int = MOST) -> list[Pair]:
    """For every two splits the images of the smaller one that look like one of the other, or like its mirror image.

    Args:
        looks: of every split, by name of the image.
        most: bits that may differ.
    """
    found = []
    for pair in combinations([split for split in looks if looks[split]], 2):
        small, large = sorted(pair, key=lambda split: len(looks[split]))
        names, others = list(looks[small]), list(looks[large])
        signs, other_signs = _signs(looks[small]), _signs(looks[large])
        mirrored = other_signs * np.where(ODD_COLUMNS, -1, 1).astype(np.float32)
        rows = max(1, BLOCK // len(others))
        for start in range(0, len(names), rows):
            block = signs[start : start + rows]
            # The product of signs is 1 where they agree, so that the distance is one matrix product.
            distances = (BITS - np.maximum(block @ other_signs.T, block @ mirrored.T)) / 2
            nearest = distances.argmin(axis=1)
            for row in np.flatnonzero(distances[np.arange(len(block)), nearest] <= most).tolist():
                column, distance = int(nearest[row]), round(float(distances[row, nearest[row]]))
                found.append(Pair(small, names[start + row], large, others[column], distance))
    return found


def _signs(looks: Mapping[str, int]) -> NDArray[np.float32]:
    """(N, 63) of -1 and 1."""
    packed = np.frombuffer(b"".join(look.to_bytes(KEPT, "big") for look in looks.values()), np.uint8)
    return np.unpackbits(packed.reshape(-1, KEPT), axis=1, count=BITS).astype(np.float32) * 2 - 1
