"""How the numbers of an image file are stored, which Pillow does not say in one way."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL = 258, 262, 277  # TIFF's tags
SIZES_OF_JPEG2000 = b"\xff\x4f\xff\x51"  # the markers behind which a codestream says how its samples are stored


class Samples(NamedTuple):
    """How the numbers of an opened file are stored."""

    largest: int  # that a number can be
    inverted: bool  # Pillow hands out ``largest`` less the number
    channels: int  # of every pixel; Pillow drops what it knows no name for


def samples_of(image: Image.Image, path: Path) -> Samples:
    """How numbers are stored, of an image that was opened and not decoded yet."""
    channels = len(image.getbands())
    if image.format == "PNG":
        with path.open("rb") as file:
            bits = file.read(25)[24]
        return Samples(2**bits - 1, False, channels)
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        inverted = tags.get(PHOTOMETRIC) == 0 and image.mode in {"1", "L"}
        return Samples(2 ** max(tags.get(BITS_PER_SAMPLE, (1,))) - 1, inverted, tags.get(SAMPLES_PER_PIXEL, 1))
    if image.format == "JPEG2000":
        return Samples(2 ** _bits_of_jpeg2000(path) - 1, False, channels)
    if image.format == "PPM" and isinstance(arguments := image.tile[0].args, tuple):  # type: ignore[attr-defined]
        return Samples(arguments[1], False, channels)
    largest = {"1": 1, "I": 65535}.get(image.mode, 255)
    return Samples(largest, image.format == "PPM" and image.mode == "1", channels)


def _bits_of_jpeg2000(path: Path) -> int:
    """The most of a channel; Pillow cuts those of colours down to 8."""
    content = path.read_bytes()
    place = content.find(SIZES_OF_JPEG2000) + len(SIZES_OF_JPEG2000)
    count = int.from_bytes(content[place + 36 : place + 38])
    kinds = content[place + 38 : place + 38 + 3 * count : 3]
    if any(kind & 128 for kind in kinds):
        raise ValueError("it has signed numbers")
    return max(kind + 1 for kind in kinds)
