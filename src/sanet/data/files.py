"""Pictures and masks in files: decoding, and a data set of such pairs.

Nothing is repaired, shifted or resized on the way: what does not fit raises, naming the file and the remedy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from sanet.config import DataConfig, MaskFormat
from sanet.structures import Color, LabelSet, Sample, SanetError, UsageError, choose

StoredValue = int | Color
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


class DataError(SanetError):
    """A file of a data set that cannot be used as it is."""


@dataclass(frozen=True)
class Record:
    """One picture of a split and its mask; None stands for a partner that is missing."""

    name: str
    image: Path | None
    mask: Path | None


@dataclass(frozen=True)
class MaskCoding:
    """How the numbers of a mask file become class indices.

    Args:
        format: "index", the stored number is the class (greyscale, or a palette PNG whatever its colours), or
            "color", the RGB colour is one of ``labels.colors``.
        ignore_color: with "color", the colour that stands for the ignore index.
    """

    format: MaskFormat = "index"
    ignore_color: Color | None = None


@dataclass(frozen=True)
class FileSource:
    """A data set in files before any of them is opened.

    Args:
        labels: the classes.
        splits: the splits that it has.
        list_records: the records of one split, in a stable order; incomplete ones too.
        coding: how its mask files are to be read.
    """

    labels: LabelSet
    splits: tuple[str, ...]
    list_records: Callable[[str], list[Record]]
    coding: MaskCoding = MaskCoding()

    def open(self, split: str) -> FileDataset:
        """The pictures of one split.

        Raises:
            UsageError: no such split.
            DataError: it is empty, or a picture has no mask or a mask no picture.
        """
        return FileDataset(self.list_records(choose("split", split, self.splits)), self.labels, self.coding)


class FileDataset(Dataset[Sample]):
    """Pictures and masks that lie in files.

    Args:
        records: the pairs of one split.
        labels: their classes.
        coding: how a mask file is to be read.

    Raises:
        DataError: no records, or one without a partner.
    """

    def __init__(self, records: Sequence[Record], labels: LabelSet, coding: MaskCoding = MaskCoding()) -> None:
        if not records:
            raise DataError("the split holds no pictures; `sanet check-data` counts them in every split")
        self.labels = labels
        self.coding = coding
        self.names = [record.name for record in records]
        self.files: list[tuple[Path, Path]] = []
        for record in records:
            if record.image is None or record.mask is None:
                missing = "picture" if record.image is None else "mask"
                raise DataError(f"{record.name} has no {missing}; `sanet check-data` lists all such files")
            self.files.append((record.image, record.mask))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        image_path, mask_path = self.files[index]
        image = read_image(image_path)
        mask = decode_mask(read_mask(mask_path, self.coding), self.labels, self.coding, mask_path)
        if image.shape[:2] != mask.shape:
            raise DataError(f"{mask_path} is {shape_text(mask)} but {image_path} is {shape_text(image)}")
        return Sample(torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(mask), self.names[index])


def existing_root(config: DataConfig) -> Path:
    """The folder of a data set that lies in files.

    Raises:
        UsageError: none is named.
        DataError: it is not there.
    """
    if config.root is None:
        raise UsageError(f"data.root must name the folder that holds the data set {config.name!r}")
    root = Path(config.root)
    if not root.is_dir():
        raise DataError(f"data.root {root} is not a folder")
    return root


def pair_by_name(images: Path, masks: Path, names: Iterable[str] | None = None) -> list[Record]:
    """Pair the pictures and masks of two folders by file stem.

    Args:
        images: folder of the pictures.
        masks: folder of the masks; a folder that does not exist counts as empty.
        names: the stems to take, in this order; all of them, sorted, where left out.

    Returns:
        A record for every name. What has no partner is None, and of several files with the same stem every one has
        a record, so that nothing is lost unseen.
    """
    found_images, found_masks = _by_stem(images), _by_stem(masks)
    if names is None:
        names = sorted(found_images.keys() | found_masks.keys())
    return [
        Record(name, image, mask)
        for name in names
        for image, mask in zip_longest(found_images.get(name, [None]), found_masks.get(name, [None]))
    ]


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
    """The numbers stored in a mask file, before anything is made of them.

    Returns:
        (H, W) int64 with "index", (H, W, 3) int64 with "color".

    Raises:
        DataError: the file is missing, truncated or no picture, or has colours where indices are expected.
    """
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
    unknown = unknown_values(stored, labels, coding)
    if unknown:
        known = f"class (0 to {len(labels) - 1}) and not the ignore value {labels.ignore_index}"
        known = known if coding.format == "index" else "colour of a class and not data.ignore_color"
        raise DataError(f"{path}: {values_text(unknown)}: no {known}; `sanet check-data` lists all such files")
    if coding.format == "index":
        return stored
    table = meanings(labels, coding)
    colors, inverse = np.unique(_packed(stored), return_inverse=True)
    return np.array([table[_unpacked(color)] for color in colors.tolist()], np.int64)[inverse].reshape(stored.shape[:2])


def meanings(labels: LabelSet, coding: MaskCoding) -> dict[StoredValue, int]:
    """Every number or colour that may stand in a mask file, with its class index or the ignore index."""
    if coding.format == "index":
        return {value: value for value in (*range(len(labels)), labels.ignore_index)}
    table: dict[StoredValue, int] = {color: index for index, color in enumerate(labels.colors)}
    if coding.ignore_color is not None:
        table[coding.ignore_color] = labels.ignore_index
    return table


def value_counts(stored: NDArray[np.int64], coding: MaskCoding) -> dict[StoredValue, int]:
    """The numbers or colours stored in a mask, each with its number of pixels, most frequent first."""
    values, counts = np.unique(stored if coding.format == "index" else _packed(stored), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    pairs = zip(values[order].tolist(), counts[order].tolist(), strict=True)
    return {value if coding.format == "index" else _unpacked(value): count for value, count in pairs}


def unknown_values(stored: NDArray[np.int64], labels: LabelSet, coding: MaskCoding) -> dict[StoredValue, int]:
    """Those of ``value_counts`` that mean nothing."""
    known = meanings(labels, coding)
    return {value: count for value, count in value_counts(stored, coding).items() if value not in known}


def values_text(counts: dict[StoredValue, int]) -> str:
    """The most frequent values with their numbers of pixels, and how much there is besides."""
    text = ", ".join(f"{value} on {count} pixels" for value, count in list(counts.items())[:6])
    rest = list(counts.values())[6:]
    return text + (f", {len(rest)} other values on {sum(rest)} pixels" if rest else "")


def shape_text(array: NDArray[np.generic]) -> str:
    """Width x height, as people write picture sizes."""
    return f"{array.shape[1]}x{array.shape[0]}"


def _packed(colors: NDArray[np.int64]) -> NDArray[np.int64]:
    return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]


def _unpacked(color: int) -> Color:
    return color >> 16, color >> 8 & 255, color & 255


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A decoded picture; whatever Pillow trips over, also later within the block, is a DataError."""
    try:
        with Image.open(path) as picture:
            picture.load()
            yield picture
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    # Broken EXIF data ends in the struct module or in a SyntaxError.
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a picture ({error}); replace it or take it out") from error


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(path.stem, []).append(path)
    return found
