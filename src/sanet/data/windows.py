"""Large images in training: of an image of more than 16 megapixels only the part that a crop shows is read.

A ``.npy`` file is mapped, and of a TIFF in tiles or strips those are decoded that are needed. Images in other files,
and masks, are decoded once into ``.npy`` files in ``~/.cache/sanet/windows``, or below the folder that ``SANET_CACHE``
names; beyond 64 GB those go that were used least. Where they cannot be written, images are read whole every time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sanet.data.decoding import ARRAY, FORMATS, DataError, load_array, read_image, require_file, shape_text
from sanet.data.images import DAMAGED, NO_CODE, ORIENTATION, TIFF, require_finite, stored_values, tensor_of
from sanet.data.source import Record, Source, labels_in
from sanet.files import replaced
from sanet.reading import ImageReading
from sanet.structures import SanetError

LARGE = 2**24  # pixels
LARGEST_CACHE = 64 * 10**9  # bytes
MOST_IN_A_SEGMENT = 2**22  # pixels of a tile or a strip; with larger ones most of an image would be decoded


class LargeSample(NamedTuple):
    """A labelled image, of which parts can be read.

    Attributes:
        image: (H, W, C), or (H, W), of stored values; an array, or something that is sliced alike.
        mask: (H, W) class indices, or the ignore value.
        images: how the values of the image are mapped.
        name: what the image is called.
    """

    image: Any
    mask: NDArray[Any]
    images: ImageReading
    name: str

    def image_part(self, rows: slice, columns: slice) -> Tensor:
        """(C, h, w), as the source reads it."""
        values = np.asarray(self.image[rows, columns])
        values = values[..., None] if values.ndim == 2 else values
        if not self.images.of_values:
            channels = np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values
            return torch.from_numpy(np.array(channels)).permute(2, 0, 1)
        require_finite(values, self.name)
        return self.images.scaled(tensor_of(values))

    def mask_part(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Tensor:
        """(h, w) int64 of these rows and columns, which rise."""
        part = self.mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return torch.from_numpy(part[rows - rows[0]][:, columns - columns[0]].astype(np.int64))


def open_large(source: Source, record: Record) -> LargeSample | None:
    """An image of which parts can be read, with its mask; None for one that is not large, and is read whole.

    Raises:
        DataError: a file cannot be used as it is.
    """
    if not source.reads_files or not is_large(record):
        return None
    image_path, mask_path = record.files
    image = _direct(image_path, source.images)
    if image is None:
        image = cached(image_path, [image_path], source.images.without_range(), partial(_whole, source, image_path))
    if type(source).stored_mask is Source.stored_mask:
        how, files = (source.coding, source.labels), record.paths[1:]
        mask = cached(mask_path, files, how, lambda: _small(labels_in(source, record)))
    else:  # what else it is made of is not known
        mask = labels_in(source, record)
    if image is None or mask is None:
        return None
    if image.shape[:2] != mask.shape:
        raise DataError(f"{mask_path} is {shape_text(mask)} but {image_path} is {shape_text(image)}")
    return LargeSample(image, mask, source.images, record.name)


def _whole(source: Source, path: Path) -> NDArray[Any]:
    return stored_values(path, source.images) if source.images.of_values else read_image(path)


def is_large(record: Record) -> bool:
    """Whether an image has more than 16 megapixels, as far as its head says; its reader says what is wrong with it."""
    path = record.files[0]
    with suppress(*DAMAGED, DataError):
        require_file(path)
        if path.suffix.lower() == ARRAY:
            values = load_array(path)
            return values.size // (min(values.shape) if values.ndim == 3 else 1) > LARGE
        with path.open("rb") as file:
            start = file.read(4)
        if start in TIFF:
            with tifffile.TiffFile(path) as tiff:
                page: Any = tiff.pages[0]
                return bool(page.imagelength * page.imagewidth > LARGE)
        with Image.open(path, formats=FORMATS) as image:
            return image.width * image.height > LARGE
    return False


def _direct(path: Path, images: ImageReading) -> Any:
    """What of a file can be sliced without being decoded, and has the numbers that are wanted; else None."""
    channels = images.channels or 3
    if path.suffix.lower() == ARRAY:
        values = load_array(path)
        fits = values.shape[2:] == ((channels,) if values.ndim == 3 else ()) and (values.ndim == 3 or channels == 1)
        return values if fits and (images.of_values or values.dtype == np.uint8) else None
    with path.open("rb") as file:
        if file.read(4) not in TIFF:
            return None
    with suppress(*DAMAGED, *NO_CODE):
        found = TiffPart(path)
        eight = found.shape == (*found.shape[:2], 3) and found.dtype == np.uint8 and found.rgb
        if found.usable and found.shape[2] == channels and (images.of_values or eight):
            found[:1, :1]  # whether there is a code for its compression
            return found
    return None


class TiffPart:
    """A TIFF of one page, interleaved and upright, of which ``[rows, columns]`` decodes the tiles that are needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            turned = page.tags.get(ORIENTATION)
            self.shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
            self.dtype, self.rgb = page.dtype, page.photometric == tifffile.PHOTOMETRIC.RGB
            self.tile = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
            self.usable = (
                len(tiff.pages) == 1
                and page.axes in ("YX", "YXS")
                and page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK)
                and (turned is None or turned.value == 1)
                and self.dtype is not None
                and self.dtype.kind in "buif"
                and self.tile[0] * self.tile[1] <= MOST_IN_A_SEGMENT
            )

    def __getitem__(self, part: tuple[slice, slice]) -> NDArray[Any]:
        (top, bottom, _), (left, right, _) = (
            each.indices(side) for each, side in zip(part, self.shape[:2], strict=True)
        )
        (tall, wide), across = self.tile, -(-self.shape[1] // self.tile[1])
        found = np.zeros((bottom - top, right - left, self.shape[2]), self.dtype)
        with tifffile.TiffFile(self.path) as tiff:
            page: Any = tiff.pages[0]
            for row in range(top // tall, -(-bottom // tall)):
                for column in range(left // wide, -(-right // wide)):
                    index = row * across + column
                    tiff.filehandle.seek(page.dataoffsets[index])
                    count = page.databytecounts[index]
                    content = tiff.filehandle.read(count)
                    if len(content) < count:
                        raise DataError(f"{self.path} is cut short; replace it or remove it")
                    try:
                        values = page.decode(content, index, jpegtables=page.jpegtables)[0] if count else None
                    except DAMAGED as error:
                        raise DataError(f"{self.path} cannot be read as an image ({error}); replace it") from error
                    if values is None:  # a tile that was left out is black
                        continue
                    y, x = row * tall, column * wide
                    values = values[0, max(0, top - y) : bottom - y, max(0, left - x) : right - x]
                    place = max(0, y - top), max(0, x - left)
                    found[place[0] : place[0] + values.shape[0], place[1] : place[1] + values.shape[1]] = values
        return found


def _small(labels: NDArray[np.int64]) -> NDArray[Any]:
    fits = labels.size and labels.min() >= 0 and labels.max() < 256
    return labels.astype(np.uint8 if fits else np.int32)


def cached(path: Path, files: list[Path], how: object, make: Callable[[], NDArray[Any]]) -> NDArray[Any] | None:
    """What is made of files, mapped from the cache; None where that cannot be written.

    Args:
        path: by which it is found again.
        files: whose changes make it stale.
        how: what else decides what is made.
        make: makes it.
    """
    stats = [file.stat() for file in files]
    version = repr([*((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats), how])
    place = Path(os.environ.get("SANET_CACHE") or os.path.expanduser("~/.cache/sanet"), "windows")
    prefix = sha256(f"{path.absolute()}".encode()).hexdigest()[:24]
    target = place / f"{prefix}-{sha256(version.encode()).hexdigest()[:24]}{ARRAY}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / f"{prefix}.lock"):  # of several processes one makes it
            if not target.is_file():
                for stale in place.glob(f"{prefix}-*{ARRAY}"):
                    stale.unlink(missing_ok=True)
                values = make()
                _make_room(place, values.nbytes)
                with replaced(target) as aside, aside.open("wb") as file:
                    np.save(file, values)
            os.utime(target)
            return load_array(target)
    except (OSError, SanetError) as error:
        if isinstance(error, DataError):
            raise
        return None


def _make_room(place: Path, size: int) -> None:
    """Delete what was used least until there is room for so many bytes."""
    found = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in place.glob(f"*{ARRAY}"))
    total = size + sum(bytes for _, bytes, _ in found)
    for _, bytes, file in found:
        if total > LARGEST_CACHE:
            file.unlink(missing_ok=True)
            total -= bytes
