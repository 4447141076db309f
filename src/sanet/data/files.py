"""Pictures and masks in files: decoding, and a data set of such pairs.

Nothing is repaired, shifted or resized on the way: what does not fit raises, naming the file and the remedy.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from sanet.config import DataConfig
from sanet.data.coding import MaskCoding, meanings, packed, unknown_values, unpacked, values_text
from sanet.data.matlab import read_matrix
from sanet.structures import LabelSet, Sample, SanetError, UsageError, choose

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
# What Pillow trips over: broken EXIF data ends in the struct module or in a SyntaxError.
UNREADABLE = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


class DataError(SanetError):
    """A file of a data set that cannot be used as it is."""


@dataclass(frozen=True)
class Record:
    """One picture of a split and its mask; None stands for a partner that is missing."""

    name: str
    image: Path | None
    mask: Path | None


@dataclass(frozen=True)
class FileSource:
    """A data set in files before any of them is opened.

    Args:
        labels: the classes.
        splits: the splits that it has.
        list_records: the records of one split, in a stable order; incomplete ones too.
        coding: how its mask files are to be read.
        unlabelled: those of the splits that have pictures only.
        published: its splits were published, so that a name is one picture in all of them.
    """

    labels: LabelSet
    splits: tuple[str, ...]
    list_records: Callable[[str], list[Record]]
    coding: MaskCoding = field(default_factory=MaskCoding)
    unlabelled: tuple[str, ...] = ()
    published: bool = False

    def open(self, split: str) -> FileDataset:
        """The pictures of one split with their masks.

        Raises:
            UsageError: no such split.
            DataError: it is empty, it has no masks, a picture has no mask or a mask no picture, or, of "train", a
                picture is in another split as well.
        """
        records = self.list_records(choose("split", split, self.splits))
        if split in self.unlabelled:
            raise DataError(
                f"{split} has {len(records)} pictures but no masks, which its publisher keeps; label them with "
                "`sanet predict`, and train and score on a split with masks"
            )
        if split == "train":
            require_disjoint(self, records)
        return FileDataset(records, self.labels, self.coding)

    def pictures(self, split: str) -> list[Record]:
        """The records of one split, with masks or without; every one has a picture.

        Raises:
            UsageError: no such split.
            DataError: a picture is missing.
        """
        records = self.list_records(choose("split", split, self.splits))
        missing = [record.name for record in records if record.image is None]
        if missing:
            raise DataError(
                f"{split} lists {len(missing)} pictures that are not there, {names_text(missing)}; add them"
            )
        return records


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
        return Sample(torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask), self.names[index])


def require_disjoint(source: FileSource, records: Sequence[Record]) -> None:
    """Raise a DataError if a picture of the training split, given by its records, is in another split as well.

    The same file is the same picture, however a link may call it; in a published data set so is the same name. Your
    own folders may use a name once in every split. What is in a file, ``sanet check-data`` compares.
    """
    names = {record.name for record in records} if source.published else set()
    folders: dict[Path, _Folder] = {}
    files = {_real(record.image, folders) for record in records if record.image}
    for split in source.splits:
        others = source.list_records(split) if split != "train" else []
        shared = [
            other.name
            for other in others
            if other.name in names or (other.image and _real(other.image, folders) in files)
        ]
        if shared:
            raise DataError(
                f"{len(shared)} pictures of train are also in {split}: {names_text(shared)}; leave them in one of the "
                "two, or scores would flatter the model"
            )


class _Folder(NamedTuple):
    """Where a folder lies, without links, and the names of the links in it."""

    path: Path
    links: set[str]


def _real(path: Path, folders: dict[Path, _Folder]) -> Path:
    """The path without links; a folder is listed once, since a network disk takes its time to ask about every file."""
    if path.parent not in folders:
        with os.scandir(path.parent) as entries:
            links = {entry.name for entry in entries if entry.is_symlink()}
        folders[path.parent] = _Folder(path.parent.resolve(), links)
    folder = folders[path.parent]
    return path.resolve() if path.name in folder.links else folder.path / path.name


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


def read_list(path: Path) -> list[str]:
    """The pictures of a list, one a line, without their folders and suffixes.

    Raises:
        DataError: there is no such file, or it is no text.
    """
    try:
        # Windows editors put a byte order mark first, which would become part of the first name.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; a split needs its list, one picture a line") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8, one picture a line") from error
    names = [Path(line.strip()) for line in lines if line.strip()]
    # A dot may also be a part of the stem, so only the suffix of a picture is taken off.
    return [name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name for name in names]


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


def names_text(names: Sequence[str]) -> str:
    """The first names, and how many there are besides."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


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


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(path.stem, []).append(path)
    return found
