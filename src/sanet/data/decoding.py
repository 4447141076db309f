"""Pictures and masks, decoded from their files.

Nothing is repaired, shifted or resized on the way: what does not fit raises, naming the file and the remedy.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sanet.data.coding import MaskCoding, meanings, packed, unknown_values, unpacked, values_text
from sanet.data.matlab import read_matrix
from sanet.structures import LabelSet, SanetError, UsageError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
# What Pillow trips over: broken EXIF data ends in the struct module or in a SyntaxError.
UNREADABLE = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


class DataError(SanetError):
    """A file of a data set that cannot be used as it is."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Any common picture, upright (its EXIF rotation applied), as (H, W, 3) uint8 RGB.

    Greyscale is repeated over the channels and transparency dropped; 16-bit pictures are scaled to 8 bits.

    Raises:
        DataError: the file is missing, truncated or no picture, or has values beyond 16 bits.
    """
    with _opened(path) as picture:
        try:
            return rgb(picture)
        except UsageError as error:
            raise DataError(f"{path}: {error}") from error


def rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """A PIL picture as (H, W, 3) uint8; see ``read_image``.

    Raises:
        UsageError: it has values beyond 16 bits.
    """
    upright = ImageOps.exif_transpose(picture)
    if not upright.mode.startswith(("I", "F")):
        return np.array(upright.convert("RGB"))
    values = np.asarray(upright)
    if upright.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise UsageError(f"the picture has values beyond 16 bits (mode {upright.mode}); save it with 8 or 16 bits")
    return np.repeat((values // 257).astype(np.uint8)[..., None], 3, axis=2)


def read_mask(path: Path, coding: MaskCoding) -> NDArray[np.int64]:
    """The numbers stored in a mask file, a picture or a .mat file, before anything is made of them.

    Returns:
        (H, W) int64 with "index", (H, W, 3) int64 with "color".

    Raises:
        DataError: the file is missing, damaged, of no known kind, or has colours where indices are expected.
    """
    if path.suffix.lower() == ".mat" and coding.variable:
        try:
            return read_matrix(path, coding.variable)
        except FileNotFoundError as error:
            raise DataError(f"{path} does not exist") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a mask ({error}); replace it or take it out") from error
    with _opened(path) as picture:
        if coding.format == "color":
            return np.array(picture.convert("RGB"), np.int64)
        if picture.mode not in {"1", "L", "P", "I", "I;16", "I;16B"}:
            raise DataError(
                f"{path} has colours (mode {picture.mode}), not class indices; save it as greyscale or palette "
                'PNG, or give the classes\' colours and set mask_format to "color"'
            )
        return np.array(picture, np.int64)


def decode_mask(
    stored: NDArray[np.int64], labels: LabelSet, coding: MaskCoding, path: Path | str = "mask"
) -> NDArray[np.int64]:
    """Class indices (H, W) int64 from the stored numbers.

    Raises:
        DataError: a number that is neither a class nor the ignore index, or a colour that is not in the table.
    """
    if coding.format == "index":
        inside = (stored >= 0) & (stored < (len(coding.table) or len(labels)))
        if not coding.table:
            inside |= stored == labels.ignore_index
        if inside.all():
            return np.array(coding.table, np.int64)[stored] if coding.table else stored
    unknown = unknown_values(stored, labels, coding)
    if unknown:
        known = f"class (0 to {len(labels) - 1}) and not the ignore value {labels.ignore_index}"
        known = f"label (0 to {len(coding.table) - 1})" if coding.table else known
        known = known if coding.format == "index" else "colour of a class and not data.ignore_color"
        raise DataError(f"{path}: {values_text(unknown)}: no {known}; `sanet check-data` lists all such files")
    table = meanings(labels, coding)
    colors, inverse = np.unique(packed(stored), return_inverse=True)
    return np.array([table[unpacked(color)] for color in colors.tolist()], np.int64)[inverse].reshape(stored.shape[:2])


def shape_text(array: NDArray[np.generic]) -> str:
    """Width x height, as people write picture sizes."""
    return f"{array.shape[1]}x{array.shape[0]}"


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A decoded picture; whatever Pillow trips over, also later within the block, is a DataError."""
    try:
        with Image.open(path) as picture:
            picture.load()
            yield picture
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read as a picture ({error}); replace it or take it out") from error
