"""A dataset before any image is opened: its classes, its splits, and what belongs to each image.

A source of your own is a class that derives from ``Source``; see docs/extending.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from sanet.config import DataConfig
from sanet.data.decoding import DataError, StoredMask, labels_of, load_mask, shape_text
from sanet.data.images import image_of
from sanet.data.values import MaskCoding
from sanet.reading import EIGHT_BITS, ImageReading
from sanet.structures import LabelSet, Sample, SanetError, UsageError, failure, first_line


@dataclass(frozen=True)
class Record:
    """One image of a split, before it is opened.

    Args:
        name: name of the image in messages, reports and results.
        image: file of the image; None where it is missing, or where there is no file.
        mask: file of the mask; likewise.
        valid: file of a mask that is 0 where pixels are ignored; None where all count.
        group: what images have in common, such as a patient or a film; a group of "train" is in no other split.
    """

    name: str
    image: Path | None = None
    mask: Path | None = None
    valid: Path | None = None
    group: str | None = None

    @property
    def paths(self) -> list[Path]:
        """Those of its files that are named."""
        return [path for path in (self.image, self.mask, self.valid) if path]

    @property
    def files(self) -> tuple[Path, Path]:
        """Image and mask.

        Raises:
            DataError: one of them is missing.
        """
        if self.image is None or self.mask is None:
            missing = "image" if self.image is None else "mask"
            raise DataError(f"{self.name} has no {missing}; `sanet check-data` lists all such files")
        return self.image, self.mask


class Source(ABC):
    """A dataset; built from its root folder and options, as ``MySource(root=..., **options)``.

    It has to pickle, since processes that load images get it.

    Attributes:
        labels: the classes.
        splits: names of the splits, such as ("train", "val", "test").
        coding: how ``read`` understands mask files.
        images: how ``read`` understands image files; without a range it reads the values that are stored.
        unlabelled: those of the splits that have images only.
        published: the splits were published, so that a name is one image in all of them.
        root: folder of the dataset, in which files that are not used are counted.
        complete: folders of which every image is meant to be used.
        notes: what was decided about the dataset that its user may not expect.
        named: somebody said which classes there are.
        settings: those by which all that was found out about the dataset is found again; None: as they were given.
        drawn: what else decides what ``stored_mask`` gives for a file, as a text.
        spare: how many of its images are in no split.
        odd: files in which something is odd that no check of files finds, and what.
    """

    labels: LabelSet
    splits: tuple[str, ...]
    coding: MaskCoding = MaskCoding()
    images: ImageReading = EIGHT_BITS
    unlabelled: tuple[str, ...] = ()
    published: bool = False
    root: Path | None = None
    complete: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    named: bool = True
    settings: DataConfig | None = None
    drawn: str = ""
    spare: int = 0
    odd: tuple[tuple[Path, str], ...] = ()

    @abstractmethod
    def records(self, split: str) -> Sequence[Record]:
        """The images of one split in a stable order, incomplete records too."""

    def read(self, record: Record) -> Sample:
        """Image (C, H, W) and mask (H, W) int64 of one record; here, of its files, as ``images`` says.

        Raises:
            DataError: a file cannot be used as it is.
        """
        image_path, mask_path = record.files
        image, mask = image_of(image_path, self.images), labels_in(self, record)
        if image.shape[1:] != mask.shape:
            raise DataError(f"{mask_path} is {shape_text(mask)} but {image_path} is {shape_text(image[0])}")
        return Sample(image, torch.from_numpy(mask), record.name)

    def stored_mask(self, record: Record) -> StoredMask:
        """The numbers of a record's mask, as ``coding`` understands them.

        Raises:
            DataError: the file cannot be used as it is.
        """
        return load_mask(record.mask or record.files[1], self.coding)

    def reading(self, images: ImageReading) -> Self:
        """The same source, which reads image files in another way; itself if it has a way of its own."""
        other = copy(self) if self.reads_files else self
        if self.reads_files:
            other.images = images
        return other

    @property
    def reads_files(self) -> bool:
        """Whether images and masks are what ``Source.read`` finds in the files of a record."""
        return type(self).read is Source.read

    def open(self, split: str) -> SegmentationDataset:
        """The images of one split with their masks.

        Raises:
            UsageError: no such split.
            DataError: it is empty, it has no masks, an image or a mask is missing, a name is there twice, or, of
                "train", an image or its group is in another split as well.
        """
        records = records_of(self, split)
        if split in self.unlabelled:
            raise DataError(
                f"{split} has {len(records)} images but no masks, which its publisher keeps; label them with "
                "`sanet predict`, and train and score on a split with masks"
            )
        if split == "train" and (found := leaks(self)):
            others = ", ".join(sorted({other for other, _ in found}))
            raise DataError(
                f"data leakage: {len(found)} images of train are also in {others}: "
                f"{names_text([*found.values()])}; leave them in one of the two, or scores are too high"
            )
        return SegmentationDataset(self, records)


class SegmentationDataset(Dataset[Sample]):
    """The images of one split.

    Args:
        source: the dataset.
        records: those of the split.

    Attributes:
        labels: the classes.
        names: names of the images.

    Raises:
        DataError: no records, one without a file, two of one name, or a name that is no UTF-8 text.
    """

    def __init__(self, source: Source, records: Sequence[Record]) -> None:
        if not records:
            raise DataError("the split holds no images; `sanet check-data` counts them in every split")
        self.source, self.records = source, records
        self.labels = source.labels
        self.names = [record.name for record in records]
        for record in records if source.reads_files else ():
            _ = record.files
        repeated = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if repeated:
            raise DataError(
                f"listed more than once, and would count as often: {names_text(repeated)}; leave one of each"
            )
        unreadable = [ascii(name) for name in self.names if not is_text(name)]
        if unreadable:
            raise DataError(f"names that are no UTF-8 text: {names_text(unreadable)}; rename the files")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        return read_sample(self.source, self.records[index])


@contextmanager
def explained(root: str | Path | None) -> Iterator[None]:
    """Say of what a source cannot open which file it is, and which setting leads there."""
    try:
        yield
    except OSError as error:
        what = error.filename or "a file of the dataset"
        place = f"data.root is {root}" if root else "data.root is not set"
        raise DataError(
            f"{what} cannot be read ({error.strerror or first_line(error)}); {place}: name the folder that holds the "
            "dataset with --data.root"
        ) from error


def records_of(source: Source, split: str) -> Sequence[Record]:
    """The images of one split.

    Raises:
        UsageError: no such split.
        DataError: a file or a folder that lists them cannot be read.
    """
    if split not in source.splits:
        raise UsageError(f"unknown split {split!r}; the dataset has {', '.join(source.splits)}: choose with --split")
    with explained(source.root):
        return source.records(split)


def read_sample(source: Source, record: Record) -> Sample:
    """What a source reads, if its types, shapes and range are those that are promised; else a DataError."""
    try:
        with explained(source.root):
            image, mask, name = sample = source.read(record)
    except SanetError:
        raise
    except Exception as error:  # whatever the code of a source raises
        raise DataError(f"{record.name}: {failure(error)}") from error
    if image.ndim != 3 or image.shape[1:] != mask.shape or mask.dtype != torch.int64:
        raise DataError(
            f"{name}: an image of {image.dtype} {tuple(image.shape)} with a mask of {mask.dtype} {tuple(mask.shape)}; "
            "a source reads images (C, H, W) and masks (H, W) of torch.int64"
        )
    stored = source.reads_files and source.images.of_values and not source.images.low
    if image.is_floating_point() and not stored:
        low, high = image.min().item(), image.max().item()
        if not 0 <= low <= high <= 1:  # nor if they are no numbers
            raise DataError(
                f"{name}: an image of {image.dtype} with values from {low:g} to {high:g}; floats have to be in [0, 1]: "
                "divide them by the largest value that there can be, such as 255, or let the source read integers"
            )
    return sample


def labels_in(source: Source, record: Record) -> NDArray[np.int64]:
    """(H, W) int64 class indices of a record's mask, or the ignore index.

    Raises:
        DataError: a file cannot be used as it is.
    """
    mask = labels_of(source.stored_mask(record), source.labels, source.coding, record.mask or record.files[1])
    if record.valid is not None:
        mask[~valid_pixels(record, mask.shape)] = source.labels.ignore_index
    return mask


def valid_pixels(record: Record, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where the pixels of a mask of this shape (H, W) are valid; a DataError where ``Record.valid`` has another."""
    if record.valid is None:
        return np.ones(shape, np.bool_)
    stored = load_mask(record.valid, MaskCoding())
    valid: NDArray[np.bool_] = stored.values > (127 if stored.lossy else 0)
    if valid.shape != shape:
        raise DataError(f"{record.valid} is {shape_text(valid)} but {record.mask} is {shape[1]}x{shape[0]}")
    return valid


def leaks(source: Source) -> dict[tuple[str, Record], str]:
    """What is in "train" and in another split as well: for records of the others, the file, the name or the group.

    A name is one image in a published dataset, and where there are no files. Your own folders may use a name once in
    every split. What is in a file, ``sanet check-data`` compares.
    """

    def keys(record: Record) -> dict[object, str]:
        found: dict[object, str] = {record.image: str(record.image)} if record.image else {}
        if source.published or not record.image:
            found["name", record.name] = record.name
        if record.group is not None:
            found["group", record.group] = f"group {record.group}"
        return found

    if "train" not in source.splits:
        return {}
    trained = {key for record in records_of(source, "train") for key in keys(record)}
    return {
        (split, record): shared
        for split in source.splits
        if split != "train"
        for record in records_of(source, split)
        for key, shared in keys(record).items()
        if key in trained
    }


def is_text(name: str) -> bool:
    """Whether a file name is UTF-8, as reports and results are; one from an old archive may not be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def names_text(names: Sequence[str]) -> str:
    """The first names, and how many there are besides."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
