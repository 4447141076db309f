"""Large images in training: of an image of more than 16 megapixels only the part that a crop shows is read.

A ``.npy`` file is mapped; images in other files, and masks, are decoded once, see ``kept.py``. Where that cannot be
written, images are read whole every time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sanet.data.decoding import ARRAY, DataError, load_array, read_image, shape_text
from sanet.data.images import head_of, require_finite, stored_values, tensor_of
from sanet.data.kept import WINDOWS, kept
from sanet.data.source import Record, Source, labels_in
from sanet.reading import ImageReading
from sanet.structures import Sample, SanetError

LARGE = 2**24  # pixels


class LargeSample(NamedTuple):
    """A labelled image, of which parts can be read.

    Attributes:
        image: (H, W, C), or (H, W), of stored values, mapped from a file.
        mask: (H, W) class indices, or the ignore value.
        images: how the values of the image are mapped.
        name: what the image is called.
    """

    image: NDArray[Any]
    mask: NDArray[Any]
    images: ImageReading
    name: str

    def part(self, rows: slice, columns: slice) -> Sample:
        """Image (C, h, w), as the source reads it, and mask (h, w) int64."""
        values = np.array(self.image[rows, columns])
        values = values[..., None] if values.ndim == 2 else values
        mask = torch.from_numpy(self.mask[rows, columns].astype(np.int64))
        if not self.images.of_values:
            return Sample(torch.from_numpy(values).permute(2, 0, 1), mask, self.name)
        require_finite(values, self.name)
        return Sample(self.images.scaled(tensor_of(values)), mask, self.name)


def open_large(source: Source, record: Record) -> LargeSample | None:
    """An image of which parts can be read, with its mask; None for one that is not large, and is read whole.

    Raises:
        DataError: a file cannot be used as it is.
    """
    if not source.reads_files or not is_large(record):
        return None
    image_path, mask_path = record.files
    images = source.images
    image, mask = _mapped(image_path, images), None
    if image is None:
        image = _decoded(image_path, [image_path], images.without_range(), partial(_whole, image_path, images))
    if type(source).stored_mask is Source.stored_mask:
        how = (source.coding, source.labels)
        mask = _decoded(mask_path, record.paths[1:], how, lambda: _small(labels_in(source, record)))
    else:  # what else it is made of is not known
        mask = labels_in(source, record)
    if image is None or mask is None:
        return None
    if image.shape[:2] != mask.shape:
        raise DataError(f"{mask_path} is {shape_text(mask)} but {image_path} is {shape_text(image)}")
    return LargeSample(image, mask, images, record.name)


def is_large(record: Record) -> bool:
    """Whether an image has more than 16 megapixels, as far as its head says; its reader says what is wrong with it."""
    with suppress(DataError):
        width, height = head_of(record.files[0]).size
        return width * height > LARGE
    return False


def _mapped(path: Path, images: ImageReading) -> NDArray[Any] | None:
    """The values of a .npy file that has the numbers that are wanted."""
    if path.suffix.lower() != ARRAY:
        return None
    values = load_array(path)
    fits = values.shape[2:] in {(images.channels or 3,), () if images.channels == 1 else (0,)}
    return values if fits and (images.of_values or values.dtype == np.uint8) else None


def _whole(path: Path, images: ImageReading) -> NDArray[Any]:
    return stored_values(path, images) if images.of_values else read_image(path)


def _small(labels: NDArray[np.int64]) -> NDArray[Any]:
    fits = labels.size and labels.min() >= 0 and labels.max() < 256
    return labels.astype(np.uint8 if fits else np.int32)


def _decoded(path: Path, files: list[Path], how: object, make: Callable[[], NDArray[Any]]) -> NDArray[Any] | None:
    try:
        return load_array(kept(WINDOWS, path, files, how, make))
    except DataError:
        raise
    except (OSError, SanetError):  # the cache cannot be written
        return None
