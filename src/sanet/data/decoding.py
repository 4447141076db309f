"""Images and masks, decoded from their files.

Nothing is repaired, shifted or resized on the way: what does not fit raises, naming the file and the remedy.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sanet.data.matlab import read_matrix
from sanet.data.samples import Samples, samples_of
from sanet.data.values import MaskCoding, Values, classes_of, packed_pixels, value_counts, values_text
from sanet.structures import Color, LabelSet, SanetError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

PICTURES = (".bmp", ".gif", ".jp2", ".j2k", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
ARRAY = ".npy"
IMAGE_SUFFIXES = (*PICTURES, ARRAY)
# Pillow asks all of its some forty decoders otherwise, one of which starts Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
LARGEST_FILE = 2**30  # bytes; no image that Pillow decodes has more
# What Pillow trips over in damaged files, found by damaging many.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, MemoryError),
    *(struct.error, Image.DecompressionBombError),
)
ORIENTATION = 274  # TIFF's and EXIF's tag
ROWS = 1024  # of an image at once
# A fourth channel in which more than this share of the pixels is neither opaque nor transparent is no transparency.
MOST_TRANSLUCENT = 0.1
DEPTH_REMEDY = "set data.images.channels, such as 1 for grey, which measures it, or save it with 8"


class DataError(SanetError):
    """A file of a dataset that cannot be used as it is."""


class StoredImage(NamedTuple):
    """An image file."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB, upright
    transparent: bool  # some pixels are; ``pixels`` has the colours that are stored under them
    size: tuple[int, int]  # width and height as stored, before the EXIF rotation


class StoredMask(NamedTuple):
    """A mask file."""

    values: Values  # (H, W) integers: the numbers stored, or the colours as ``packed_pixels`` has them
    palette: dict[int, Color]  # the colours of the numbers that occur, where the file has a palette
    lossy: bool = False  # its format changes numbers


def load_image(path: Path) -> StoredImage:
    """Any common image; greyscale is repeated over the channels.

    Raises:
        DataError: the file is missing, damaged, no ordinary file or no image, has several frames, more than 8 bits a
            channel, or a fourth channel that is no transparency.
    """
    if path.suffix.lower() == ARRAY:
        return _image_of_array(path)
    with opened(path) as (image, samples):
        if samples.largest > 255:
            raise DataError(
                f"{path} has more than 8 bits a channel, of which it does not say the range; {DEPTH_REMEDY}"
            )
        try:
            return StoredImage(rgb(image), any(_alpha(image)[:-1]), image.size)
        except UsageError as error:
            raise DataError(f"{path} {error}") from error


def _image_of_array(path: Path) -> StoredImage:
    pixels = load_array(path)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise DataError(f"{path} has {pixels.dtype} of shape {pixels.shape}, not uint8 (H, W, 3); {DEPTH_REMEDY}")
    pixels = np.array(np.broadcast_to(pixels[..., None], (*pixels.shape, 3)) if pixels.ndim == 2 else pixels)
    return StoredImage(pixels, False, (pixels.shape[1], pixels.shape[0]))


def load_array(path: Path) -> NDArray[Any]:
    """The numbers of a .npy file, mapped from it; nothing is unpickled.

    Raises:
        DataError: the file is missing or damaged, or holds no integers or floats with pixels.
    """
    require_file(path)
    try:
        values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif" or not values.size:
            raise ValueError("no integers or floats")
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as an array ({error}); replace it or remove it") from error
    return values


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, upright; see ``load_image``."""
    return load_image(path).pixels


def rgb(image: Image.Image) -> NDArray[np.uint8]:
    """A PIL image as (H, W, 3) uint8, upright; under transparency the colours that are stored there.

    Raises:
        UsageError: it has more than 8 bits a channel, or a fourth channel that is no transparency.
    """
    if image.mode.startswith(("I", "F")):
        raise UsageError(f"has more than 8 bits a channel (mode {image.mode}); {DEPTH_REMEDY}")
    alpha = _alpha(image)
    if sum(alpha[1:-1]) > MOST_TRANSLUCENT * sum(alpha):
        raise UsageError(
            "has a fourth channel that is no transparency, such as near infrared; set data.images.channels 4 if the "
            "network is to see it, or save it as RGB"
        )
    turned = image if image.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    pixels = np.empty((turned.height, turned.width, 3), np.uint8)
    for top in range(0, turned.height, ROWS):  # Pillow makes copies, of the largest images several gigabytes
        band = turned.crop((0, top, turned.width, min(top + ROWS, turned.height)))
        pixels[top : top + ROWS] = np.asarray(band.convert("RGB"))
    return pixels


def _alpha(image: Image.Image) -> list[int]:
    """How many pixels have each opacity, from 0, which is transparent."""
    return image.convert("RGBA").getchannel("A").histogram() if image.has_transparency_data else [0, 1]


def load_mask(path: Path, coding: MaskCoding) -> StoredMask:
    """A mask file, an image or a .mat file.

    Raises:
        DataError: the file is missing or damaged, has several pages, or has colours where indices are expected.
    """
    if path.suffix.lower() == ".mat" and coding.variable:
        require_file(path)
        try:
            return StoredMask(read_matrix(path, coding.variable), {})
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a mask ({error}); replace it or remove it") from error
    if coding.format == "pages":
        return StoredMask(_last_page(path), {})
    if path.suffix.lower() == ARRAY:
        stored = load_array(path)
        stored = stored[0] if stored.ndim == 3 and len(stored) == 1 else stored
        if stored.ndim != 2:
            raise DataError(f"{path} has {stored.dtype} of shape {stored.shape}; a mask is (H, W) of whole numbers")
        return StoredMask(_whole(stored, path), {})
    with opened(path) as (image, samples):
        lossy = image.format in {"JPEG", "MPO", "JPEG2000"}
        lossy = lossy or (image.format == "WEBP" and b"VP8L" not in path.read_bytes())  # the name of its lossless part
        if coding.format == "color":
            if samples.largest > 255:
                raise DataError(f"{path} has more than 8 bits a channel; save its colours with 8")
            return StoredMask(packed_pixels(np.array(image.convert("RGB"))), {}, lossy)
        if image.mode == "F":
            return StoredMask(_whole(np.array(image), path), {})
        if image.mode in {"RGB", "RGBA", "LA"} and samples.largest == 255:
            colors = np.array(image.convert("RGB"))
            if (colors == colors[..., :1]).all():
                return StoredMask(colors[..., 0].astype(np.int64), {}, lossy)
        if image.mode not in {"1", "L", "P", "I", "I;16", "I;16B"}:
            raise DataError(
                f"{path} has colours (mode {image.mode}), not class indices; save it as greyscale or palette "
                'PNG, or give the classes\' colours and set mask_format to "color"'
            )
        values = numbers(image, samples)
        return StoredMask(values, _palette(image, values) if image.mode == "P" else {}, lossy)


def _whole(values: NDArray[Any], path: Path) -> NDArray[np.int64]:
    with np.errstate(invalid="ignore"):  # what is no number is another one then
        found = values.astype(np.int64)
    if wrong := np.count_nonzero(found != values):
        raise DataError(f"{path} has {wrong} values of {values.dtype} that are not whole; a mask has whole numbers")
    return found


def numbers(image: Image.Image, samples: Samples) -> NDArray[np.int64]:
    """(H, W) int64 numbers as they are stored, of an opened image of one channel of integers."""
    values = np.array(image, np.int64)
    if image.format == "JPEG2000":  # Pillow shifts numbers of fewer bits to 8 or 16
        return values // ((256 if image.mode == "L" else 65536) // (samples.largest + 1))
    # Pillow stretches numbers of fewer bits to 8 or 16, in steps that can be taken back exactly.
    stretched_to = {"L": 255, "I": 65535}.get(image.mode, 0)
    if samples.largest < stretched_to:
        values = np.rint(values * (samples.largest / stretched_to)).astype(np.int64)
    return samples.largest - values if samples.inverted else values


def _last_page(path: Path) -> NDArray[np.int64]:
    """(H, W): the number, from 0, of the last page that is not 0; -1 where all are."""
    require_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            values = np.full(image.size[::-1], -1, np.int64)
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                if image.size[::-1] != values.shape:
                    raise DataError(f"{path} has pages of several sizes; save one that holds all classes")
                values[np.array(image.convert("I" if image.mode.startswith("I") else "L")) != 0] = number
            return values
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as an image ({error}); replace it or remove it") from error


def stored_in_color(path: Path) -> bool:
    """Whether a mask has colours, not numbers, in its pixels; a palette image has numbers. Only its head is read."""
    require_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.mode in {"RGB", "RGBA"}
    except UNREADABLE:
        return False


def read_labels(path: Path, labels: LabelSet, coding: MaskCoding) -> NDArray[np.int64]:
    """(H, W) int64 class indices, or the ignore index, of a mask file; see ``labels_of``."""
    return labels_of(load_mask(path, coding), labels, coding, path)


def labels_of(stored: StoredMask, labels: LabelSet, coding: MaskCoding, path: Path) -> NDArray[np.int64]:
    """(H, W) int64 class indices, or the ignore index, of what a mask file holds.

    Raises:
        DataError: as for ``decode_mask``; or the palette has the colours of the classes under other numbers.
    """
    if wrong := misplaced(stored.palette, labels, coding):
        raise DataError(f"{path}: {wrong}; {PALETTE_REMEDY}")
    return decode_mask(stored.values, labels, coding, path)


PALETTE_REMEDY = 'set data.mask_format to "color", which reads colours, or save the masks with one palette'


def misplaced(palette: dict[int, Color], labels: LabelSet, coding: MaskCoding) -> str:
    """Which number of a palette mask has the colour that was named for another class; empty where none has."""
    named = {color: index for index, color in enumerate(labels.colors)} if coding.colors_named else {}
    wrong = {value: named[color] for value, color in palette.items() if named.get(color, value) != value}
    return ", ".join(f"{value} has the colour of {labels.names[index]!r}" for value, index in wrong.items())


def _palette(image: Image.Image, values: NDArray[np.int64]) -> dict[int, Color]:
    """The colours of the numbers that occur in a palette image."""
    colors = np.array(image.getpalette("RGB") or [], np.int64).reshape(-1, 3).tolist()
    used = np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()
    return {value: (colors[value][0], colors[value][1], colors[value][2]) for value in used if value < len(colors)}


def decode_mask(stored: Values, labels: LabelSet, coding: MaskCoding, path: Path | str = "mask") -> NDArray[np.int64]:
    """Class indices (H, W) int64 from the stored numbers (H, W).

    Raises:
        DataError: a number that is neither a class nor the ignore index, or a colour that is not in the table.
    """
    classes, known = classes_of(stored, labels, coding)
    if not known.all():
        unknown = values_text(value_counts(stored[~known]), coding)
        wanted = f"class (0 to {len(labels) - 1}) and not the ignore value {labels.ignore_index}"
        wanted = wanted if not coding.table else "value of a class, nor one to ignore"
        raise DataError(f"{path}: {unknown}: no {wanted}; `sanet check-data` lists all such files")
    return classes


def shape_text(array: NDArray[np.generic] | Tensor) -> str:
    """Width x height, as people write the sizes of images."""
    return f"{array.shape[1]}x{array.shape[0]}"


def require_file(path: Path, most: int = LARGEST_FILE) -> None:
    """Raise a DataError unless the path is an ordinary file of no more bytes; a pipe would keep its reader waiting."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:  # a name that no file can have
        raise DataError(f"{path} cannot be read ({error}); replace it or remove it") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is no ordinary file; replace it or remove it")
    if status.st_size > most:
        raise DataError(f"{path} has {status.st_size} bytes, of which {most} are read at most; remove it")


@contextmanager
def opened(path: Path) -> Iterator[tuple[Image.Image, Samples]]:
    """A decoded image; whatever Pillow trips over, also later within the block, is a DataError."""
    require_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            frames = getattr(image, "n_frames", 1)
            # MPO is how cameras store a photograph with its previews; the photograph comes first.
            if frames > 1 and image.format != "MPO":
                raise DataError(
                    f"{path} has {frames} pages or frames, one of which may be meant: save that by itself, or "
                    "say what pages are with data.images.pages, those of masks with data.mask_format"
                )
            samples = samples_of(image, path)
            if samples.channels != len(image.getbands()):
                raise DataError(
                    f"{path} has {samples.channels} channels; save the {len(image.getbands())} that are meant"
                )
            image.load()
            yield image, samples
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as an image ({error}); replace it or remove it") from error
