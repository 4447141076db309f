"""Images of any depth and channels, against tifffile, torchvision, rasterio, Pillow and plain NumPy."""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sanet.config import DataConfig
from sanet.data import ranges
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError, load_mask, read_image
from sanet.data.images import image_of, require_finite, stored_values, upright
from sanet.data.ranges import measured_range, with_range
from sanet.data.values import MaskCoding
from sanet.reading import EIGHT_BITS, ImageReading, read_plain
from sanet.structures import UsageError

CASES = os.environ.get("SANET_CASES")
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


def numbers(dtype: str, *shape: int, seed: int = 0) -> NDArray[Any]:
    """Over the whole range of a type; floats of many sizes and both signs."""
    draw = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return (draw.standard_normal(shape) * 10.0 ** draw.integers(-5, 6, shape)).astype(dtype)
    limits = np.iinfo(dtype)
    return draw.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def png(pixels: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits, written from its specification: Pillow has no such colours."""
    height, width, channels = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_a_tiff_is_read(tmp_path: Path, dtype: str, channels: int) -> None:
    pixels, path = numbers(dtype, 13, 17, channels), tmp_path / "a.TIF"
    planes = np.moveaxis(pixels, -1, 0)
    for values, how in (
        (pixels, {"planarconfig": "contig"}),
        (planes, {"planarconfig": "separate"}),
        (pixels, {"planarconfig": "contig", "tile": (16, 16), "compression": "zlib"}),
        (pixels, {"planarconfig": "contig", "byteorder": ">"}),
        (pixels, {"planarconfig": "contig", "bigtiff": True}),
    ):
        how = how if channels > 1 else {name: value for name, value in how.items() if name != "planarconfig"}
        values = values if channels > 1 else pixels[..., 0]
        tifffile.imwrite(path, values, photometric="minisblack", metadata=None, **how)
        found = stored_values(path, ImageReading(channels))
        np.testing.assert_array_equal(found, pixels)
        assert found.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_an_array_is_read(tmp_path: Path, dtype: str) -> None:
    pixels, path = numbers(dtype, 7, 5, 3), tmp_path / "a.NPY"
    for values in (
        pixels,
        np.moveaxis(pixels, -1, 0),
        np.asfortranarray(pixels),
        pixels.astype(f">{pixels.dtype.str[1:]}"),
    ):
        with path.open("wb") as file:
            np.save(file, values)
        np.testing.assert_array_equal(stored_values(path, ImageReading(3)), pixels)


@pytest.mark.parametrize("compress", ["lzw", "deflate", "packbits", "lzma", "zstd"])
@pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", 3), ("uint8", 4), ("uint16", 1), ("uint16", 5), ("float32", 1)]
)
def test_a_compression_is_read_exactly_or_named(tmp_path: Path, compress: str, dtype: str, channels: int) -> None:
    """What GDAL writes; all of it with imagecodecs, and without it what tifffile and Pillow have codes for."""
    rasterio = pytest.importorskip("rasterio")
    pixels, path = numbers(dtype, 40, 50, channels), tmp_path / "a.tif"
    form = {"driver": "GTiff", "height": 40, "width": 50, "count": channels, "dtype": dtype, "interleave": "pixel"}
    for predictor in (1, 3 if dtype == "float32" else 2):
        more = {} if compress == "packbits" else {"predictor": predictor}
        with rasterio.open(path, "w", **form, compress=compress, **more) as target:
            target.write(np.moveaxis(pixels, -1, 0))
        if find_spec("imagecodecs") is None and channels == 5 and compress in ("lzw", "zstd"):
            with pytest.raises(DataError, match="pip install"):
                stored_values(path, ImageReading(channels))
        else:
            np.testing.assert_array_equal(stored_values(path, ImageReading(channels)), pixels)


def test_an_array_is_never_unpickled(tmp_path: Path) -> None:
    for name, values in {"objects": np.array([[1, "a"]], object), "complex": np.ones((3, 3), complex)}.items():
        with (tmp_path / f"{name}.npy").open("wb") as file:
            np.save(file, values)
        for read in (lambda path: stored_values(path, ImageReading(1)), read_image):
            with pytest.raises(DataError, match="cannot be read as an array"):
                read(tmp_path / f"{name}.npy")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 4), }".ljust(117) + b"\n"
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(DataError, match="cannot be read as an array"):
        stored_values(tmp_path / "b.npy", ImageReading(4))


def test_arrays_of_8_bits_are_images_and_masks(tmp_path: Path) -> None:
    pixels = numbers("uint8", 6, 5, 3)
    np.save(tmp_path / "a.npy", pixels)
    np.save(tmp_path / "b.npy", pixels[..., 0])
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy"), pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "b.npy"), np.stack([pixels[..., 0]] * 3, -1))
    np.testing.assert_array_equal(load_mask(tmp_path / "b.npy", MaskCoding()).values, pixels[..., 0])
    with pytest.raises(DataError, match="mask"):
        load_mask(tmp_path / "a.npy", MaskCoding())
    np.save(tmp_path / "c.npy", numbers("uint16", 6, 5, 3))
    with pytest.raises(DataError, match=r"data\.images"):
        read_image(tmp_path / "c.npy")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits(tmp_path: Path, channels: int) -> None:
    pixels = numbers("uint16", 9, 7, channels)
    (tmp_path / "a.PNG").write_bytes(png(pixels))
    np.testing.assert_array_equal(stored_values(tmp_path / "a.PNG", ImageReading(channels)), pixels)
    with pytest.raises(DataError, match="more than 8 bits"):
        read_image(tmp_path / "a.PNG")


PILLOW = (
    "L.png LA.png RGB.png RGBA.png 1.png RGB.bmp L.jp2 RGB.jp2 RGBA.jp2 I;16.jp2 L.pgm RGB.ppm RGB.webp I;16.tif F.tif"
)


@pytest.mark.parametrize(("mode", "suffix"), [name.split(".") for name in PILLOW.split()])
def test_what_pillow_reads(tmp_path: Path, mode: str, suffix: str) -> None:
    channels = len(Image.new(mode, (1, 1)).getbands())
    dtype = {"I;16": "uint16", "F": "float32"}.get(mode, "uint8")
    pixels = numbers(dtype, 40, 33, channels)
    if mode == "1":
        Image.fromarray(pixels[..., 0] > 99).save(tmp_path / "a.png")
        pixels = (pixels > 99).astype(np.uint8)
    else:
        how = {"lossless": True} if suffix == "webp" else {}
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(tmp_path / f"a.{suffix}", **how)
    np.testing.assert_array_equal(stored_values(tmp_path / f"a.{suffix}", ImageReading(channels)), pixels)


def test_numbers_are_not_stretched(tmp_path: Path) -> None:
    grey = numbers("uint16", 6, 5) % 4001
    (tmp_path / "a.pgm").write_bytes(b"P5 5 6 4000\n" + grey.astype(">u2").tobytes())
    np.testing.assert_array_equal(stored_values(tmp_path / "a.pgm", ImageReading(1))[..., 0], grey)
    (tmp_path / "b.pgm").write_bytes(b"P5 5 6 150\n" + (grey % 151).astype(np.uint8).tobytes())
    np.testing.assert_array_equal(stored_values(tmp_path / "b.pgm", ImageReading(1))[..., 0], grey % 151)
    (tmp_path / "c.ppm").write_bytes(b"P6 5 6 4000\n" + np.stack([grey] * 3, -1).astype(">u2").tobytes())
    with pytest.raises(DataError, match="save it as PNG or TIFF"):
        stored_values(tmp_path / "c.ppm", ImageReading(3))
    tifffile.imwrite(tmp_path / "d.tif", grey.astype(np.uint8), photometric="miniswhite")
    found = stored_values(tmp_path / "d.tif", ImageReading(1))[..., 0]
    np.testing.assert_array_equal(found, 255 - grey.astype(np.uint8))
    np.testing.assert_array_equal(found, read_image(tmp_path / "d.tif")[..., 0])


def test_a_gif_of_one_frame_is_read_as_its_colours_and_as_its_indices(tmp_path: Path) -> None:
    indices = numbers("uint8", 9, 8) % 3
    image = Image.fromarray(indices, "P")
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 255])
    image.save(tmp_path / "a.GIF", optimize=False)
    np.testing.assert_array_equal(read_image(tmp_path / "a.GIF"), np.array(image.convert("RGB")))
    np.testing.assert_array_equal(load_mask(tmp_path / "a.GIF", MaskCoding()).values, indices)
    image.save(tmp_path / "b.gif", save_all=True, append_images=[image.rotate(180)])
    with pytest.raises(DataError, match="2 pages or frames"):
        read_image(tmp_path / "b.gif")


def test_jpeg_2000_as_rgb(tmp_path: Path) -> None:
    pixels = numbers("uint8", 40, 33, 3)
    Image.fromarray(pixels).save(tmp_path / "a.jp2")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jp2"), pixels)
    Image.fromarray(numbers("uint16", 40, 33)).save(tmp_path / "b.JP2")
    with pytest.raises(DataError, match="more than 8 bits"):
        read_image(tmp_path / "b.JP2")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(tmp_path: Path, orientation: int) -> None:
    pixels = numbers("uint8", 6, 4, 3)
    exif = Image.Exif()
    exif[274] = orientation
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(stream)))
    np.testing.assert_array_equal(upright(pixels, orientation), expected)
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=tags)
    for suffix in ("png", "tif"):
        np.testing.assert_array_equal(stored_values(tmp_path / f"a.{suffix}", ImageReading(3)), expected)


def test_pages_are_refused_or_channels(tmp_path: Path) -> None:
    path, pages = tmp_path / "a.tif", numbers("uint16", 3, 6, 5)
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, photometric="minisblack", metadata=None)
    with pytest.raises(DataError, match=r"a\.tif has 3 pages.*data.images.pages"):
        stored_values(path, ImageReading(3))
    found = stored_values(path, ImageReading(3, "channels"))
    np.testing.assert_array_equal(found, np.moveaxis(pages, 0, -1))
    with pytest.raises(DataError, match="has 3 channels, and data"):
        stored_values(path, ImageReading(2, "channels"))
    with tifffile.TiffWriter(path) as file:  # a page for people is none of the image
        file.write(pages[0], photometric="minisblack", metadata=None)
        file.write(pages[0, ::2, ::2], photometric="minisblack", metadata=None, subfiletype=1)
    np.testing.assert_array_equal(stored_values(path, ImageReading(1))[..., 0], pages[0])
    with tifffile.TiffWriter(path) as file:
        file.write(pages[0], photometric="minisblack", metadata=None)
        file.write(pages[0, :3], photometric="minisblack", metadata=None)
    with pytest.raises(DataError, match="cannot be read as an image"):
        stored_values(path, ImageReading(2, "channels"))


def test_what_cannot_be_meant_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((5, 5), np.complex64))
    with pytest.raises(DataError):
        image_of(path, ImageReading(1, low=(0,), high=(1,)))
    values = numbers("float32", 5, 5)
    values[2, 3], values[0, 0] = np.nan, np.inf
    tifffile.imwrite(path, values)
    with pytest.raises(DataError, match=r"a\.tif: 2 values"):
        stored_values(path, ImageReading(1))
    with pytest.raises(DataError, match="1 values"):
        require_finite(np.array([1e300, 1]), "b")
    tifffile.imwrite(path, numbers("uint8", 5, 5), photometric="palette", colormap=np.zeros((3, 256), np.uint16))
    with pytest.raises(DataError, match="palette"):
        stored_values(path, ImageReading(1))


@pytest.mark.parametrize("seed", range(40))
def test_damaged_tiffs_are_data_errors(tmp_path: Path, seed: int) -> None:
    path, draw = tmp_path / "a.tif", np.random.default_rng(seed)
    tifffile.imwrite(path, numbers("uint16", 3, 16, 16), compression="zlib" if seed % 2 else None, metadata=None)
    content = bytearray(path.read_bytes())
    for _ in range(30):
        damaged = bytearray(content)
        for place in draw.integers(0, min(400, len(content)), draw.integers(1, 6)):
            damaged[place] = draw.integers(256)
        path.write_bytes(damaged[: draw.integers(1, len(content) + 1)] if draw.random() < 0.3 else damaged)
        with suppress(DataError):
            stored_values(path, ImageReading(3, "channels"))


@pytest.mark.parametrize(("compression", "rows"), [(None, 1), ("zlib", 8)])
def test_strips_that_are_missing_are_not_zeros(tmp_path: Path, compression: str | None, rows: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbers("uint8", 16, 16), compression=compression, rowsperstrip=rows, metadata=None)
    assert stored_values(path, ImageReading(1)).shape == (16, 16, 1)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(60_000)
    with pytest.raises(DataError, match="cut short"):
        stored_values(path, ImageReading(1))


# -- the range


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(DTYPES), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_percentiles_are_numpys(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, channels: int, count: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("images")
    images = [numbers(dtype, 5 + seed % 60, 11 + number, channels, seed=seed + number) for number in range(count)]
    files = [folder / f"{number}.npy" for number in range(count)]
    for path, pixels in zip(files, images, strict=True):
        np.save(path, pixels)
    low, high = measured_range(files, ImageReading(channels), progress=False)
    pixels = np.concatenate([image.reshape(-1, channels) for image in images]).astype(np.float32)
    expected = np.quantile(pixels, [0.001, 0.999], axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(np.array([low, high], np.float32), expected)


def test_small_and_large_types_in_one_split(tmp_path: Path) -> None:
    images = [numbers(dtype, 30, 30, 2) for dtype in ("uint8", "int16", "float32", "uint32")]
    files = [tmp_path / f"{number}.npy" for number in range(4)]
    for path, pixels in zip(files, images, strict=True):
        np.save(path, pixels)
    pixels = np.concatenate([image.reshape(-1, 2).astype(np.float32) for image in images])
    expected = np.quantile(pixels, [0.001, 0.999], axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(np.float32(measured_range(files, ImageReading(2), False)), expected)


def test_of_many_pixels_some_stand_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "MOST", 50_000)
    pixels = np.random.default_rng(3).normal(size=(500, 600, 1))
    np.save(tmp_path / "a.npy", pixels)
    measured = [measured_range([tmp_path / "a.npy"], ImageReading(1), progress=False) for _ in range(2)]
    assert measured[0] == measured[1]
    (low,), (high,) = measured[0]
    assert 0.0005 < (pixels < low).mean() < 0.0015
    assert 0.0005 < (pixels > high).mean() < 0.0015


def test_channels_of_few_values(tmp_path: Path) -> None:
    pixels = np.zeros((100, 100, 3), np.float32)
    pixels[..., 1] = -7
    pixels[0, 0, 0], pixels[0, 0, 1] = 5, 5
    np.save(tmp_path / "a.npy", pixels)
    low, high = measured_range([tmp_path / "a.npy"], ImageReading(3), progress=False)
    assert (low, high) == ((0, -7, 0), (5, 5, 1))


def test_values_are_mapped_and_clipped() -> None:
    images = ImageReading(2, low=(100, -1), high=(300, 1))
    values = torch.tensor([[50.0, 100, 200, 300, 999], [-9, -1, 0, 1, 9]])[:, None]
    expected = torch.tensor([[0, 0, 0.5, 1, 1], [0, 0, 0.5, 1, 1]])[:, None]
    assert torch.equal(images.scaled(values), expected)
    assert torch.equal(images.scaled(values.to(torch.int32)[None]), expected[None])
    assert torch.allclose(images.scaled(images.stored(expected)), expected)
    assert images.outside(values) == pytest.approx(0.2)
    assert read_plain(images.plain()) == images
    assert read_plain(EIGHT_BITS.plain()) == EIGHT_BITS
    assert ImageReading(3, low=(0,), high=(4095,)).high == (4095,) * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"pages": "channels"},
        {"low": (0,), "high": (1,)},
        {"channels": 0},
        {"channels": 2, "low": (0, 1), "high": (1, 1)},
        {"channels": 2, "low": (0, 1)},
        {"channels": 3, "low": (0, 1), "high": (2, 3)},
        {"channels": 1, "low": (float("nan"),), "high": (2,)},
        {"channels": 1, "pages": "first"},
    ],
)
def test_a_reading_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ImageReading(**wrong)


def test_a_model_says_the_range_or_nothing() -> None:
    for wrong in ({}, {"channels": 1}, ImageReading(1).plain(), "rgb", {**(ImageReading(1).plain() or {}), "x": 1}):
        with pytest.raises(UsageError):
            read_plain(wrong)


@pytest.mark.skipif(not CASES, reason="set SANET_CASES to the folder with inputs that failed to run this")
@pytest.mark.parametrize(
    ("case", "images", "check"),
    [
        ("twelve_bits", ImageReading(1), lambda low, high: 300 <= low[0] < high[0] <= 3000),
        ("eight_bits_in_sixteen", ImageReading(1), lambda low, high: 0 <= low[0] < high[0] <= 255),
        ("near_infrared", ImageReading(4), lambda low, high: (low[3], high[3]) == (40, 220)),
        ("channels_as_pages", ImageReading(3, "channels"), lambda low, high: max(high) <= 255),
    ],
)
def test_inputs_that_failed(case: str, images: ImageReading, check: Any) -> None:
    source = data_source(DataConfig("folder", f"{CASES}/{case}", ("a", "b", "c"), images=images))
    report = check_data(source, progress=False)
    assert report.errors == []
    assert check(report.reading.low, report.reading.high)
    sample = source.reading(with_range(source, progress=False)).open("val")[0]
    assert sample.image.shape == (images.channels, 64, 96)
    assert sample.image.dtype == torch.float32
    assert sample.image.min() == 0
    assert sample.image.max() == 1
