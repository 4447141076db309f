"""Decoding: what is stored in a file is what comes out, or an error that names the file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sanet.data.coding import MaskCoding
from sanet.data.decoding import DataError, decode_mask, read_image, read_mask
from sanet.structures import LabelSet

INDEX, COLOR = MaskCoding(), MaskCoding("color", ignore_color=(255, 255, 255))
LABELS = LabelSet(("soil", "leaf", "stem"), ((0, 0, 0), (0, 128, 0), (10, 20, 30)))
# What row 0 and column 0 of the stored picture show, for each value of the EXIF tag Orientation (EXIF 2.32, table 6).
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def random_bytes(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def random_indices(classes: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, classes, (6, 9), np.uint8)


def turned_upright(stored: NDArray[np.uint8], row_side: str, column_side: str) -> NDArray[np.uint8]:
    """Put every stored pixel where the two sides say, one by one."""
    rows, columns = stored.shape[:2]
    transposed = row_side in {"left", "right"}
    upright = np.zeros((columns, rows, 3) if transposed else stored.shape, np.uint8)
    for row in range(rows):
        for column in range(columns):
            down = row if row_side in {"top", "left"} else rows - 1 - row
            along = column if column_side in {"top", "left"} else columns - 1 - column
            upright[(along, down) if transposed else (down, along)] = stored[row, column]
    return upright


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".ppm", ".tif", ".tiff", ".webp"])
def test_rgb_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    pixels, path = random_bytes(6, 9, 3), tmp_path / f"picture{suffix}"
    Image.fromarray(pixels).save(path, lossless=True)
    image = read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


def test_jpeg(tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), (200, 90, 40), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpeg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpeg"), pixels, atol=3)


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tif"])
def test_greyscale_is_repeated(tmp_path: Path, suffix: str) -> None:
    grey = random_bytes(6, 9)
    Image.fromarray(grey).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), np.stack([grey] * 3, -1))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 9)).astype(np.uint16)
    deep[0, :3] = 0, 256, 65535
    Image.fromarray(deep).save(tmp_path / f"a{suffix}")
    expected = np.floor(deep / 65535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), np.stack([expected] * 3, -1))


def test_16_bit_pgm_is_scaled(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 65535], [30000, 256, 1000]])
    (tmp_path / "a.pgm").write_bytes(b"P5 3 2 65535\n" + deep.astype(">u2").tobytes())
    expected = np.floor(deep / 65535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "a.pgm"), np.stack([expected] * 3, -1))


@pytest.mark.parametrize("pixels", [np.full((2, 2), 70000, np.int32), np.full((2, 2), 0.5, np.float32)])
def test_beyond_16_bits_is_refused(tmp_path: Path, pixels: NDArray[Any]) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: the picture has values beyond 16 bits"):
        read_image(tmp_path / "a.tif")


def test_transparency_is_dropped(tmp_path: Path) -> None:
    pixels = random_bytes(6, 9, 4)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels[..., :3])


def test_palette_picture_shows_its_colours(tmp_path: Path) -> None:
    indices, colors = random_indices(), random_bytes(256, 3)
    picture = Image.fromarray(indices, "P")
    picture.putpalette(colors.tobytes())
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colors[indices])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    picture, exif = Image.fromarray(random_bytes(3, 5, 3)), Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"plain{suffix}")
    picture.save(tmp_path / f"tagged{suffix}", exif=exif)
    expected = turned_upright(np.array(Image.open(tmp_path / f"plain{suffix}")), *ORIENTATIONS[orientation])
    np.testing.assert_array_equal(read_image(tmp_path / f"tagged{suffix}"), expected)


def test_exif_orientation_of_16_bits(tmp_path: Path) -> None:
    deep, exif = np.arange(15, dtype=np.uint16).reshape(3, 5) * 4369, Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(deep).save(tmp_path / "a.png", exif=exif)
    stored = np.stack([(deep // 257).astype(np.uint8)] * 3, -1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), turned_upright(stored, "right", "top"))


@pytest.mark.parametrize("read", [read_image, partial(read_mask, coding=INDEX)])
@pytest.mark.parametrize("kept", [1000, 0])
def test_unreadable_file_is_named(tmp_path: Path, kept: int, read: Any) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(random_bytes(40, 40)).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a\.png cannot be read as a picture"):
        read(path)
    path.write_text("no picture")
    with pytest.raises(DataError, match=r"a\.png cannot be read as a picture"):
        read(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.png does not exist"):
        read(path)


def test_broken_exif_is_named(tmp_path: Path) -> None:
    Image.fromarray(random_bytes(4, 4, 3)).save(tmp_path / "a.webp", exif=b"Exif\0\0nonsense")
    with pytest.raises(DataError, match=r"a\.webp cannot be read"):
        read_image(tmp_path / "a.webp")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".pgm"])
def test_greyscale_mask_holds_indices(tmp_path: Path, suffix: str) -> None:
    indices = random_indices()
    indices[0, 0] = 255
    Image.fromarray(indices).save(tmp_path / f"a{suffix}")
    mask = decode_mask(read_mask(tmp_path / f"a{suffix}", INDEX), LABELS, INDEX)
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, indices)


def test_16_bit_mask_is_not_scaled(tmp_path: Path) -> None:
    indices = np.array([[0, 300], [1000, 65535]], np.uint16)
    Image.fromarray(indices).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", INDEX), indices)


@pytest.mark.parametrize("colors", [LABELS.colors, ((0, 128, 0), (0, 0, 0), (0, 0, 0))])
def test_palette_mask_holds_indices_whatever_its_colours(tmp_path: Path, colors: Any) -> None:
    indices = random_indices()
    picture = Image.fromarray(indices, "P")
    picture.putpalette([value for color in colors for value in color])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", INDEX), indices)


def test_one_bit_mask(tmp_path: Path) -> None:
    indices = random_indices(2)
    Image.fromarray(indices.astype(bool)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", INDEX), indices)


def test_colours_become_classes(tmp_path: Path) -> None:
    indices = random_indices(4)
    Image.fromarray(np.array([*LABELS.colors, COLOR.ignore_color], np.uint8)[indices]).save(tmp_path / "a.png")
    mask = decode_mask(read_mask(tmp_path / "a.png", COLOR), LABELS, COLOR)
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, np.where(indices == 3, 255, indices))


def test_colours_are_no_indices(tmp_path: Path) -> None:
    Image.fromarray(random_bytes(4, 4, 3)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png has colours .* mask_format"):
        read_mask(tmp_path / "a.png", INDEX)
