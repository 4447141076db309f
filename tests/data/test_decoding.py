"""Decoding: what is stored in a file is what comes out, or an error that names the file."""

from __future__ import annotations

import os
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sanet.data.decoding import DataError, load_image, load_mask, read_image, read_labels
from sanet.data.values import MaskCoding, color_coding
from sanet.structures import LabelSet

LABELS = LabelSet(("soil", "leaf", "stem"), ((0, 0, 0), (0, 128, 0), (10, 20, 30)))
INDEX, COLOR = MaskCoding(), color_coding(LABELS, (255, 255, 255))
# What row 0 and column 0 of the stored image show, for each value of the EXIF tag Orientation (EXIF 2.32, table 6).
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


def packed_rows(values: NDArray[Any], bits: int) -> list[bytes]:
    """Rows of samples of so many bits, the first in the highest bits, each row from a new byte on."""
    rows = []
    for row in values.tolist():
        text = "".join(f"{value:0{bits}b}" for value in row)
        text = text.ljust(-(-len(text) // 8) * 8, "0")
        rows.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    return rows


def png(values: NDArray[Any], bits: int, kind: int = 0, width: int | None = None) -> bytes:
    """A PNG whose samples are the values, of PNG's colour type ``kind``."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width or values.shape[1], values.shape[0], bits, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row for row in packed_rows(values, bits))
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(values: NDArray[Any], bits: int, photometric: int, channels: int = 1) -> bytes:
    """An uncompressed TIFF whose samples are the values, the channels of a pixel side by side."""
    data = b"".join(packed_rows(values, bits))
    extra = max(0, channels - 3)
    sizes = struct.pack(f"<{channels}H", *[bits] * channels)
    tags = [(256, 4, 1, values.shape[1] // channels), (257, 4, 1, values.shape[0])]
    tags += [(258, 3, channels, bits if channels == 1 else 8 + len(data)), (259, 3, 1, 1), (262, 3, 1, photometric)]
    tags += [(273, 4, 1, 8), (277, 3, 1, channels), (278, 4, 1, values.shape[0]), (279, 4, 1, len(data))]
    tags += [(338, 3, extra, 0)] if 0 < extra <= 2 else []
    tags += [(338, 3, extra, 8 + len(data) + len(sizes))] if extra > 2 else []
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + b"\0\0\0\0"
    tail = sizes + bytes(2 * extra)
    return b"II*\0" + struct.pack("<I", 8 + len(data) + len(tail)) + data + tail + directory


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("photometric", ["png", 0, 1])  # of TIFF: 0 is white, or 0 is black
def test_masks_hold_what_is_stored_at_any_depth(tmp_path: Path, bits: int, photometric: Any) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (7, 13), np.uint8)
    values[0, :2] = 0, 2**bits - 1
    path = tmp_path / ("a.png" if photometric == "png" else "a.tif")
    path.write_bytes(png(values, bits) if photometric == "png" else tiff(values, bits, photometric))
    np.testing.assert_array_equal(load_mask(path, INDEX).values, values)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("maximum", [1, 2, 5, 100, 150, 254, 255, 256, 300, 1000, 40000, 65534, 65535])
def test_pgm_masks_hold_what_is_stored_whatever_their_maximum(tmp_path: Path, maximum: int, plain: bool) -> None:
    values = np.random.default_rng(maximum).integers(0, maximum + 1, (7, 301))
    values[0, :2] = 0, maximum
    numbers = " ".join(map(str, values.ravel().tolist())).encode()
    data = numbers if plain else values.astype("u1" if maximum < 256 else ">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(f"P{2 if plain else 5} 301 7 {maximum}\n".encode() + data)
    np.testing.assert_array_equal(load_mask(tmp_path / "a.pgm", INDEX).values, values)


@pytest.mark.parametrize("plain", [False, True])
def test_bitmaps_hold_what_is_stored(tmp_path: Path, plain: bool) -> None:
    values = random_indices(2)
    numbers = " ".join(map(str, values.ravel().tolist())).encode()
    (tmp_path / "a.pgm").write_bytes(
        b"P%d 9 6\n" % (1 if plain else 4) + (numbers if plain else b"".join(packed_rows(values, 1)))
    )
    np.testing.assert_array_equal(load_mask(tmp_path / "a.pgm", INDEX).values, values)


def test_a_palette_must_not_contradict_the_colours_that_were_named(tmp_path: Path) -> None:
    indices, coding = random_indices(), MaskCoding(colors_named=True)
    for order, right in (((0, 1, 2), True), ((0, 2, 1), False)):
        image = Image.fromarray(indices, "P")
        image.putpalette([value for index in order for value in LABELS.colors[index]])
        image.save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_labels(tmp_path / "a.png", LABELS, INDEX), indices)
        np.testing.assert_array_equal(read_labels(tmp_path / "a.png", LABELS, COLOR), np.array(order)[indices])
        if right:
            np.testing.assert_array_equal(read_labels(tmp_path / "a.png", LABELS, coding), indices)
        else:
            with pytest.raises(DataError, match=r"a\.png: 1 has the colour of 'stem', 2 has the colour of 'leaf'"):
                read_labels(tmp_path / "a.png", LABELS, coding)


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
    pixels, path = random_bytes(6, 9, 3), tmp_path / f"image{suffix}"
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


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("largest", [255, 3000, 65535])
def test_deep_images_are_refused_as_they_do_not_say_their_range(tmp_path: Path, largest: int, suffix: str) -> None:
    deep = np.random.default_rng(0).integers(0, largest + 1, (6, 9)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a{suffix}")
    with pytest.raises(DataError, match=rf"a\{suffix} has more than 8 bits"):
        read_image(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("pixels", [np.full((2, 2), 70000, np.int32), np.full((2, 2), 0.5, np.float32)])
def test_integers_of_32_bits_and_floats_are_refused(tmp_path: Path, pixels: NDArray[Any]) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif has more than 8 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", [2, 6])  # PNG's RGB and RGBA
def test_colours_of_16_bits_are_refused(tmp_path: Path, kind: int) -> None:
    (tmp_path / "a.png").write_bytes(png(random_bytes(6, 9 * (3 if kind == 2 else 4)), 16, kind, width=9))
    for read in (read_image, partial(load_mask, coding=COLOR)):
        with pytest.raises(DataError, match=r"a\.png has more than 8 bits"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_opaque_and_cut_out_images_keep_their_stored_colours(tmp_path: Path, mode: str) -> None:
    pixels = random_bytes(6, 9, 4) if mode == "RGBA" else random_bytes(6, 9, 2)
    for alpha, transparent in ((np.full((6, 9), 255), False), (255 * random_indices(2), True)):
        pixels[..., -1] = alpha
        Image.fromarray(pixels, mode).save(tmp_path / "a.png")
        found = load_image(tmp_path / "a.png")
        np.testing.assert_array_equal(found.pixels, np.broadcast_to(pixels[..., :-1], (6, 9, 3)))
        assert found.transparent == transparent


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_a_fourth_channel_that_is_a_measurement_is_refused(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(random_bytes(6, 9, 4), "RGBA").save(tmp_path / f"a{suffix}", lossless=True, exact=True)
    with pytest.raises(DataError, match=rf"a\{suffix} has a fourth channel"):
        read_image(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("channels", [4, 5, 6])
def test_channels_that_have_no_name_are_refused(tmp_path: Path, channels: int) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(random_bytes(6, 9 * channels), 8, 2, channels))
    with pytest.raises(DataError, match=rf"a\.tif has {channels} channels"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_several_frames_are_refused_with_their_number(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(random_bytes(6, 9) + shift) for shift in range(3)]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    for read in (read_image, partial(load_mask, coding=INDEX)):
        with pytest.raises(DataError, match=rf"a\{suffix} has 3 pages or frames"):
            read(tmp_path / f"a{suffix}")


def test_only_the_formats_that_are_meant_are_opened(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n%%EndComments\nshowpage\n%%EOF\n"
    )
    Image.fromarray(random_bytes(6, 9)).save(tmp_path / "b.png", "TGA")
    for name in ("a.png", "b.png"):
        for read in (read_image, partial(load_mask, coding=INDEX)):
            with pytest.raises(DataError, match=rf"{name} cannot be read"):
                read(tmp_path / name)


def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(20 * 2**30)
    for name in ("pipe.png", "zero.png", "folder.png", "sparse.png"):
        for read in (read_image, partial(load_mask, coding=INDEX)):
            with pytest.raises(DataError, match=name):
                read(tmp_path / name)


def test_palette_image_shows_its_colours(tmp_path: Path) -> None:
    indices, colors = random_indices(), random_bytes(256, 3)
    image = Image.fromarray(indices, "P")
    image.putpalette(colors.tobytes())
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colors[indices])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    image, exif = Image.fromarray(random_bytes(3, 5, 3)), Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"plain{suffix}")
    image.save(tmp_path / f"tagged{suffix}", exif=exif)
    expected = turned_upright(np.array(Image.open(tmp_path / f"plain{suffix}")), *ORIENTATIONS[orientation])
    np.testing.assert_array_equal(read_image(tmp_path / f"tagged{suffix}"), expected)


@pytest.mark.parametrize("read", [read_image, partial(load_mask, coding=INDEX)])
@pytest.mark.parametrize("kept", [1000, 0])
def test_unreadable_file_is_named(tmp_path: Path, kept: int, read: Any) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(random_bytes(40, 40)).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        read(path)
    path.write_text("no image")
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
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
    mask = read_labels(tmp_path / f"a{suffix}", LABELS, INDEX)
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, indices)


def test_16_bit_mask_is_not_scaled(tmp_path: Path) -> None:
    indices = np.array([[0, 300], [1000, 65535]], np.uint16)
    Image.fromarray(indices).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "a.png", INDEX).values, indices)


@pytest.mark.parametrize("colors", [LABELS.colors, ((0, 128, 0), (0, 0, 0), (0, 0, 0))])
def test_palette_mask_holds_indices_whatever_its_colours(tmp_path: Path, colors: Any) -> None:
    indices = random_indices()
    image = Image.fromarray(indices, "P")
    image.putpalette([value for color in colors for value in color])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "a.png", INDEX).values, indices)


def test_one_bit_mask(tmp_path: Path) -> None:
    indices = random_indices(2)
    Image.fromarray(indices.astype(bool)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "a.png", INDEX).values, indices)


def test_colours_become_classes(tmp_path: Path) -> None:
    indices = random_indices(4)
    Image.fromarray(np.array([*LABELS.colors, (255, 255, 255)], np.uint8)[indices]).save(tmp_path / "a.png")
    mask = read_labels(tmp_path / "a.png", LABELS, COLOR)
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, np.where(indices == 3, 255, indices))


def test_colours_are_no_indices(tmp_path: Path) -> None:
    Image.fromarray(random_bytes(4, 4, 3)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png has colours .* mask_format"):
        load_mask(tmp_path / "a.png", INDEX)


WHOLE = np.array([[0, 1, 2], [2, 300, 0]])


@pytest.mark.parametrize(
    ("name", "stored"),
    [("a.npy", WHOLE.astype(np.float64)), ("a.npy", WHOLE[None]), ("a.tif", WHOLE.astype(np.float32))],
)
def test_whole_numbers_are_read_however_they_are_stored(tmp_path: Path, name: str, stored: NDArray[Any]) -> None:
    def write(values: NDArray[Any]) -> None:
        np.save(tmp_path / name, values) if name == "a.npy" else Image.fromarray(values).save(tmp_path / name)

    write(stored)
    np.testing.assert_array_equal(load_mask(tmp_path / name, MaskCoding()).values, WHOLE)
    for odd in (0.5, np.nan, 1e30):
        if stored.dtype.kind == "f":
            write(np.where(stored == 1, odd, stored).astype(stored.dtype))
            with pytest.raises(DataError, match=rf"{name} has 1 values of float.* not whole"):
                load_mask(tmp_path / name, MaskCoding())


def test_grey_beside_transparency_is_read(tmp_path: Path) -> None:
    grey = WHOLE.astype(np.uint8)
    Image.fromarray(np.stack([grey, 99 - grey], -1), "LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "a.png", MaskCoding()).values, grey)
