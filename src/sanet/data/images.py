"""Images of any depth and number of channels, as the numbers that are stored in their files.

TIFF is read by tifffile, which knows what the field writes: many channels, interleaved or in planes, integers and
floats of any size. What its codecs leave out, such as LZW, is read by Pillow where that keeps every number.
"""

from __future__ import annotations

import logging
import lzma
import zlib
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.io import ImageReadMode, decode_png

from sanet.data.decoding import (
    ARRAY,
    FORMATS,
    ORIENTATION,
    UNREADABLE,
    DataError,
    load_array,
    numbers,
    opened,
    read_image,
    require_file,
)
from sanet.data.samples import samples_of
from sanet.reading import FAR_OUTSIDE, ImageReading

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is raised
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MOST_VALUES = 2**29  # of an image; a damaged header may ask for any number of them
MOST_PAGES = 64
MOST_LOOKED_AT = 2**22  # pixels of an image
NO_CODE = (ImportError, NotImplementedError)  # what tifffile says where another library has it
DAMAGED = (*UNREADABLE, zlib.error, lzma.LZMAError)
PREVIEW_OR_MASK = 5  # bits of TIFF's kind of page
MINISWHITE, PALETTE = 0, 3  # TIFF's photometric interpretations
# Modes of Pillow whose channels are those of the file.
AS_STORED = {"1", "L", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


def image_of(path: Path, images: ImageReading) -> Tensor:
    """An image file as (C, H, W): uint8 of RGB of 8 bits, else float32, in [0, 1] if the reading has a range.

    Raises:
        DataError: see ``load_image`` and ``stored_values``.
    """
    if not images.of_values:
        return torch.from_numpy(read_image(path)).permute(2, 0, 1)
    return images.scaled(tensor_of(stored_values(path, images)))


def tensor_of(values: NDArray[Any]) -> Tensor:
    """(H, W, C) numbers of any kind as (C, H, W) float32."""
    return torch.from_numpy(np.array(np.moveaxis(values, -1, 0), np.float32, order="C"))


def stored_values(path: Path, images: ImageReading) -> NDArray[Any]:
    """(H, W, C) integers or floats as they are stored, upright.

    Raises:
        DataError: the file is missing or damaged, has another number of channels than the reading, several pages that
            are not to be channels, numbers that are not finite, or a coding that would change numbers.
    """
    require_file(path)
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix.lower() == ARRAY:
        pixels = load_array(path)
        planes = pixels.ndim == 3 and images.channels == len(pixels) != pixels.shape[2]
        pixels = np.moveaxis(pixels, 0, -1) if planes else pixels
    else:
        pixels = _tiff(path, images) if start in TIFF else _picture(path)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] != images.channels:
        found = f"{pixels.shape[2]} channels" if pixels.ndim == 3 else f"the shape {pixels.shape}"
        raise DataError(
            f"{path} has {found}, and data.images.channels is {images.channels}; correct the setting, or save the "
            "channels that are meant"
        )
    if pixels.dtype.kind not in "buif":
        raise DataError(f"{path} has numbers of {pixels.dtype}; integers and floats are read")
    require_finite(pixels, path)
    return pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels


def require_finite(values: NDArray[Any], name: object) -> None:
    """Raise a DataError where floats are infinite or no numbers, or too large for float32."""
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        wrong = values.size - np.count_nonzero(np.isfinite(values.astype(np.float32, copy=False)))
    if wrong:
        raise DataError(
            f"{name}: {wrong} values are infinite or no numbers; save numbers in their place, and the ignore value in "
            "the mask"
        )


def _picture(path: Path) -> NDArray[Any]:
    """What Pillow reads, but for colours of 16 bits, which it would cut to 8."""
    with opened(path) as (image, samples):
        several = len(image.getbands()) > 1 and image.mode in AS_STORED
        if samples.largest > 255 and (several or image.mode not in AS_STORED):
            if image.format != "PNG":
                raise DataError(f"{path} has colours of more than 8 bits as {image.format}; save it as PNG or TIFF")
            content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            pixels: NDArray[Any] = decode_png(content, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy()
            return upright(pixels, image.getexif().get(ORIENTATION, 1))
        if image.mode not in AS_STORED:
            image = image.convert("RGB")
        turned = ImageOps.exif_transpose(image)
        if several or image.mode in {"1", "F", "RGB"}:
            return np.array(turned)
        turned.format = image.format
        return numbers(turned, samples)


def _tiff(path: Path, images: ImageReading) -> NDArray[Any]:
    try:
        with tifffile.TiffFile(path) as file:
            pages = pages_of(file)
            if len(pages) != 1 and (images.pages != "channels" or len(pages) > MOST_PAGES):
                raise DataError(
                    f"{path} has {len(pages)} pages; save the one that is meant, or set data.images.pages: channels "
                    "where they are the channels of one image, images where each is one"
                )
            return np.concatenate([page_values(page, path) for page in pages], axis=2)
    except DAMAGED as error:
        raise DataError(f"{path} cannot be read as an image ({error}); replace it or remove it") from error


def pages_of(file: tifffile.TiffFile) -> list[Any]:
    """The pages of a TIFF that are neither previews nor masks of transparency."""
    found: list[Any] = [*file.pages]
    return [page for page in found if not (page.subfiletype or 0) & PREVIEW_OR_MASK]


def page_values(page: Any, path: Path) -> NDArray[Any]:
    """(H, W, S) of one page of a TIFF."""
    if page.photometric == PALETTE or page.axes not in ("YX", "YXS", "SYX") or not 0 < page.size <= MOST_VALUES:
        raise DataError(
            f"{path} has a page {page.axes} of shape {page.shape}, {getattr(page.photometric, 'name', 'unknown')}; "
            f"channels of grey or colours, without a palette, are read, of up to {MOST_VALUES} values"
        )
    size = page.parent.filehandle.size
    beyond = any(place + count > size for place, count in zip(page.dataoffsets, page.databytecounts, strict=True))
    if beyond or len(page.dataoffsets) < prod(page.chunked):
        raise ValueError("it is cut short")  # tifffile puts zeros there
    try:
        values: NDArray[Any] = page.asarray()
    except (ValueError, *NO_CODE) as error:
        if isinstance(error, ValueError) and "imagecodecs" not in str(error):
            raise
        return _by_pillow(page, path)
    if page.axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    elif page.axes == "YX":
        values = values[..., None]
    if page.photometric == MINISWHITE and values.dtype.kind == "u":
        values = 2**page.bitspersample - 1 - values
    tag = page.tags.get(ORIENTATION)
    return upright(values, int(tag.value) if tag else 1)


def _by_pillow(page: Any, path: Path) -> NDArray[Any]:
    """The same, of a compression that tifffile has no code for by itself, where Pillow hands out the numbers."""
    pages = getattr(page.parent, "pages", ())
    if len(pages) == 1 and (page.samplesperpixel == 1 or page.bitspersample == 8):
        values = _picture(path)
        values = values[..., None] if values.ndim == 2 else values
        if values.shape[2] == page.samplesperpixel:
            return values
    coding = getattr(page.compression, "name", "unknown")
    raise DataError(
        f"{path} has {page.bitspersample} bits, compressed by {coding}: pip install 'sanet-segmentation[tiff]', which "
        "reads that, or save it with 8, 16 or 32 bits, and without compression or with deflate"
    )


class Head(NamedTuple):
    """What the head of an image file says."""

    size: tuple[int, int]  # width and height as stored
    channels: int
    eight: bool  # bits a channel, at most, and as many channels as pictures have


def head_of(path: Path) -> Head:
    """What an image file says before it is decoded.

    Raises:
        DataError: the file is missing or damaged.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if path.suffix.lower() == ARRAY:
            values = load_array(path)
            planes = values.ndim == 3 and values.shape[0] < values.shape[2]
            height, width, channels = (*(np.moveaxis(values, 0, -1) if planes else values).shape, 1, 1)[:3]
            return Head((width, height), channels, values.dtype == np.uint8 and channels in (1, 3))
        if start in TIFF:
            with tifffile.TiffFile(path) as tiff:
                page: Any = tiff.pages[0]
                channels = page.samplesperpixel
                return Head((page.imagewidth, page.imagelength), channels, page.bitspersample <= 8 and channels <= 4)
        with Image.open(path, formats=FORMATS) as image:
            return Head(image.size, len(image.getbands()), samples_of(image, path).largest <= 255)
    except DAMAGED as error:
        raise DataError(f"{path} cannot be read as an image ({error}); replace it or remove it") from error


def spread_of(path: Path, images: ImageReading) -> tuple[tuple[int, int], list[list[float]]]:
    """Width and height of an image of stored values, and of each channel the values beyond which 5 % of its pixels are.

    Of a large image some four million pixels are looked at.

    Raises:
        DataError: see ``stored_values``.
    """
    values = stored_values(path, images)
    pixels = values.reshape(-1, values.shape[2])
    pixels = pixels[:: max(1, len(pixels) // MOST_LOOKED_AT)]
    shares = [FAR_OUTSIDE, 1 - FAR_OUTSIDE]
    return (values.shape[1], values.shape[0]), np.quantile(pixels, shares, axis=0, method="nearest").T.tolist()


def upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, C) turned and mirrored as an orientation of TIFF or EXIF says, from 1, which is upright."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values[::-1] if orientation in (3, 4, 7, 8) else values


def shown(values: Tensor) -> NDArray[np.uint8]:
    """(C, H, W) uint8, or float in [0, 1], as (H, W, 3) uint8 for people: the first three channels, or the first."""
    channels = values[:3] if len(values) >= 3 else values[:1].expand(3, -1, -1)
    if channels.is_floating_point():
        channels = (channels * 255).round().to(torch.uint8)
    pixels: NDArray[np.uint8] = channels.permute(1, 2, 0).cpu().numpy()
    return pixels


def array_of(image: Image.Image) -> NDArray[Any]:
    """(H, W) or (H, W, C) of a PIL image, as it holds them, upright."""
    return np.array(ImageOps.exif_transpose(image))
