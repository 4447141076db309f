"""Damaged files are read, or are an error with the file's name, soon and in little memory."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from sanet.data.decoding import load_image, load_mask
from sanet.data.listing import read_list
from sanet.data.values import MaskCoding
from sanet.structures import SanetError

# Of 300 variants of each file the fast part of the suite tries a tenth.
COUNTS = [30, pytest.param(300, marks=pytest.mark.slow)]
each_count = pytest.mark.parametrize("count", COUNTS)
SECONDS, BYTES = 10, 2**30
RNG = np.random.default_rng(0)
PIXELS, INDICES = RNG.integers(0, 256, (40, 56, 3), np.uint8), RNG.integers(0, 4, (40, 56), np.uint8)


def in_palette(indices: Any) -> Image.Image:
    image = Image.fromarray(indices)
    image.putpalette([*range(256)] * 3)
    return image


IMAGES: dict[str, Callable[[Path], object]] = {
    suffix: lambda path: Image.fromarray(PIXELS).save(path, lossless=True, exif=exif())
    for suffix in (".png", ".jpg", ".webp", ".tif")
} | {suffix: lambda path: Image.fromarray(PIXELS).save(path) for suffix in (".bmp", ".ppm")}
MASKS: dict[str, Callable[[Path], object]] = {
    ".png": lambda path: Image.fromarray(INDICES).save(path),
    ".2.png": lambda path: in_palette(INDICES).save(path, bits=2),
    ".tif": lambda path: Image.fromarray(INDICES).save(path, compression="tiff_lzw"),
    ".2.tif": lambda path: in_palette(INDICES).save(path),
    ".pgm": lambda path: Image.fromarray(INDICES).save(path),
    ".bmp": lambda path: in_palette(INDICES).save(path),
    ".mat": lambda path: scipy.io.savemat(path, {"LabelMap": INDICES}, do_compression=True),
    ".2.mat": lambda path: scipy.io.savemat(path, {"LabelMap": INDICES.astype(float)}),
}
CODING = MaskCoding(variable=("LabelMap",))


def exif() -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = 1
    return found


def damaged(content: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """Files with bits flipped, most of them in the first bytes, bytes cut off, doubled, zeroed or made the largest."""
    for number in range(count):
        found = bytearray(content)
        reach = len(found) if number % 2 else min(len(found), 160)
        for _ in range(rng.integers(1, 4)):
            found[rng.integers(reach)] ^= 1 << rng.integers(8)
        place, length = rng.integers(reach), rng.integers(1, 9)
        kind = number % 7
        if kind == 1:
            del found[place:]
        elif kind == 2:
            found[place : place + length] = bytes([rng.choice([0, 255, 127])]) * length
        elif kind == 3:
            found[place:place] = found[place : place + length]
        yield bytes(found)


def check(path: Path, content: bytes, read: Callable[[Path], Any], count: int) -> int:
    """How many damaged variants were refused; nothing but a ``SanetError`` may come of them."""
    before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for variant in damaged(content, np.random.default_rng(list(path.name.encode())), count):
        path.write_bytes(variant)
        start = perf_counter()
        try:
            read(path)
        except SanetError as error:
            refused, named = refused + 1, str(path) in str(error)
        else:
            named = True
        assert named
        assert perf_counter() - start < SECONDS
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < BYTES
    return refused


@each_count
@pytest.mark.filterwarnings("ignore")  # Pillow warns of much before it fails
@pytest.mark.parametrize("suffix", IMAGES)
def test_damaged_images(tmp_path: Path, suffix: str, count: int) -> None:
    path = tmp_path / f"image{suffix}"
    IMAGES[suffix](path)
    if suffix != ".jpg":
        np.testing.assert_array_equal(load_image(path).pixels, PIXELS)
    assert check(path, path.read_bytes(), load_image, count) > count // 10


@each_count
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", MASKS)
def test_damaged_masks(tmp_path: Path, suffix: str, count: int) -> None:
    path = tmp_path / f"mask{suffix}"
    MASKS[suffix](path)
    np.testing.assert_array_equal(load_mask(path, CODING).values, INDICES)
    assert check(path, path.read_bytes(), lambda path: load_mask(path, CODING), count) > count // 10


@each_count
def test_damaged_lists(tmp_path: Path, count: int) -> None:
    names = [f"images/straße {index}.jpg" for index in range(9)]
    path = tmp_path / "train.txt"
    path.write_text("\n".join(names), encoding="utf-8")
    assert read_list(path) == [f"straße {index}" for index in range(9)]
    assert check(path, path.read_bytes(), lambda path: read_list(path), count) > count // 10
