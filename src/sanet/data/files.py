"""Data sets of pictures and masks in files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from unicodedata import normalize

import torch
from torch.utils.data import Dataset

from sanet.config import DataConfig
from sanet.data.coding import MaskCoding
from sanet.data.decoding import IMAGE_SUFFIXES, DataError, read_image, read_labels, require_file, shape_text
from sanet.structures import LabelSet, Sample, UsageError, choose


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
        root: where it lies; what lies there and is not used is counted.
        whole: folders of which every image is meant to be used, so that one that is not read is an error.
        notes: what was decided about it that its user may not expect.
    """

    labels: LabelSet
    splits: tuple[str, ...]
    list_records: Callable[[str], list[Record]]
    coding: MaskCoding = field(default_factory=MaskCoding)
    unlabelled: tuple[str, ...] = ()
    published: bool = False
    root: Path | None = None
    whole: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

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
        DataError: no records, one without a partner, two of one name, or a name that is no UTF-8 text.
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
        twice = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if twice:
            raise DataError(f"listed more than once, and would count as often: {names_text(twice)}; leave one of each")
        unreadable = [ascii(name) for name in self.names if not is_text(name)]
        if unreadable:
            raise DataError(f"names that are no UTF-8 text: {names_text(unreadable)}; rename the files")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        image_path, mask_path = self.files[index]
        image = read_image(image_path)
        mask = read_labels(mask_path, self.labels, self.coding)
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


def read_list(path: Path, folder: str = ".") -> list[str]:
    """The images of a list, one a line, without their suffixes.

    Args:
        path: of the list.
        folder: of the images; a line may name it before the image, and no other.

    Raises:
        DataError: there is no such file, it is no text, or a line names another folder or several files.
    """
    require_file(path)
    try:
        # Windows editors put a byte order mark first, which would become part of the first name.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8, one picture a line") from error
    return [_listed_name(path, line.strip(), folder) for line in lines if line.strip()]


def _listed_name(path: Path, line: str, folder: str) -> str:
    columns = [column for column in re.split(r"[\s,;]+", line) if column.lower().endswith(IMAGE_SUFFIXES)]
    if len(columns) > 1 or "\t" in line:
        raise DataError(f"{path}: {line!r} has several columns; name one image a line, whose mask is called like it")
    name = PurePosixPath(line)
    if str(name.parent) not in {".", folder} or "\\" in line:
        raise DataError(f"{path}: {line!r} names a folder; lists name images of {folder} alone, without folders")
    # A dot may also be a part of the stem, so only the suffix of a picture is taken off.
    return composed(name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name)


def composed(name: str) -> str:
    """The name with letters and their accents in one character each; macOS stores file names the other way."""
    return normalize("NFC", name)


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


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            found.setdefault(composed(path.stem), []).append(path)
    return found
