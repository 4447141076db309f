"""PASCAL Context: all pixels of VOC 2010's images, of which the 59 most frequent labels are distinguished.

Source: Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the Wild", CVPR 2014;
4,998 images to train on and 5,105 to validate on, after VOC 2010's own lists. The archives unpack to::

    VOCdevkit/VOC2010/  JPEGImages/  ImageSets/Main/train.txt, val.txt      VOCtrainval_03-May-2010.tar, 1.3 GB, from
        http://host.robots.ox.ac.uk/pascal/VOC/voc2010/
    trainval/NAME.mat   labels.txt   59_labels.txt                          trainval.tar.gz, 31 MB, from
        https://cs.stanford.edu/~roozbeh/pascal-context/

``data.root`` holds ``VOCdevkit`` and ``trainval``. What is none of the 59 classes is the first of 60 in ``Context60``,
and ignored in ``Context59``. Classes are in the order of ``59_labels.txt``, the 20 of VOC first; other projects have
them in alphabetical order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.io
import torch
from PIL import Image

from sanet import LabelSet, Record, Sample, SanetError, Source

COUNTS = {"train": 4998, "val": 5105}
# The number of each class in the masks.
CLASSES = {
    "aeroplane": 2, "bicycle": 23, "bird": 25, "boat": 31, "bottle": 34, "bus": 45, "car": 59, "cat": 65, "chair": 72,
    "cow": 98, "diningtable": 397, "dog": 113, "horse": 207, "motorbike": 258, "person": 284, "pottedplant": 308,
    "sheep": 347, "sofa": 368, "train": 416, "tvmonitor": 427, "bag": 9, "bed": 18, "bench": 22, "book": 33,
    "building": 44, "cabinet": 46, "ceiling": 68, "clothes": 80, "computer": 85, "cup": 104, "door": 115,
    "fence": 144, "floor": 158, "flower": 159, "food": 162, "grass": 187, "ground": 189, "keyboard": 220,
    "light": 232, "mountain": 259, "mouse": 260, "curtain": 105, "platform": 296, "sign": 355, "plate": 295,
    "road": 324, "rock": 326, "shelves": 349, "sidewalk": 354, "sky": 360, "snow": 366, "bedcloth": 19, "track": 415,
    "tree": 420, "truck": 424, "wall": 440, "water": 445, "window": 454, "wood": 458,
}  # fmt: skip
# What labels.txt calls a class by another name.
FULL_NAMES = {"diningtable": "table", "clothes": "cloth", "bedcloth": "bedclothes"}
# Labels are numbered from 1; 0 is what has none.
LABELS, IGNORED = 459, 255


class Context59(Source):
    """59 classes; all other pixels are ignored.

    Args:
        root: folder with ``VOCdevkit`` and ``trainval``.
        allow_subset: a part of the dataset is meant, so that the published numbers of images do not count.

    Raises:
        SanetError: a folder or a list is missing, a list has another number of images than the published one, or the
            files with the labels' names are of another version.
    """

    labels = LabelSet(tuple(CLASSES), ignore_index=IGNORED, background_ignored=True)
    splits = tuple(COUNTS)
    published = True

    def __init__(self, root: str | None, allow_subset: bool = False) -> None:
        if root is None:
            raise SanetError("data.root must name the folder with VOCdevkit and trainval")
        self.root = Path(root)
        self.folder, self.masks = self.root / "VOCdevkit" / "VOC2010", self.root / "trainval"
        for needed in (self.folder / "JPEGImages", self.masks):
            if not needed.is_dir():
                raise SanetError(f"{needed} does not exist; {self.__module__} says where to get it")
        _require_numbers(self.root / "labels.txt")
        _require_names(self.root / "59_labels.txt")
        self.listed = {split: self._names(split, count, allow_subset) for split, count in COUNTS.items()}
        rest = IGNORED if self.labels.background is None else self.labels.background
        index = {number: self.labels.names.index(name) for name, number in CLASSES.items()}
        self.table = np.array([index.get(number, rest) for number in range(LABELS + 1)])

    def _names(self, split: str, published: int, allow_subset: bool) -> list[str]:
        path = self.folder / "ImageSets" / "Main" / f"{split}.txt"
        if not path.is_file():
            raise SanetError(f"{path} does not exist; unpack VOCtrainval_03-May-2010.tar again")
        names = path.read_text(encoding="utf-8-sig").split()
        if len(set(names)) != published and not allow_subset:
            raise SanetError(f"{path} has {len(set(names))} images, the published one {published}; or set "
                             "data.options to {allow_subset: true} if a part of it is meant")  # fmt: skip
        return names

    def records(self, split: str) -> Sequence[Record]:
        """The images of a split, in the order of its list."""
        found = []
        for name in self.listed[split]:
            image, mask = self.folder / "JPEGImages" / f"{name}.jpg", self.masks / f"{name}.mat"
            found.append(Record(name, image if image.is_file() else None, mask if mask.is_file() else None))
        return found

    def read(self, record: Record) -> Sample:
        """Image and mask of a record."""
        image_path, mask_path = record.files
        with Image.open(image_path) as image:
            pixels = np.array(image.convert("RGB"))
        try:
            stored = scipy.io.loadmat(str(mask_path))["LabelMap"]
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise SanetError(f"{mask_path} is no mask of PASCAL Context ({error!r}); download it again") from error
        if stored.min() < 0 or stored.max() > LABELS or stored.shape != pixels.shape[:2]:
            raise SanetError(
                f"{mask_path} has labels from {stored.min()} to {stored.max()}, or another size than its image"
            )
        return Sample(torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(self.table[stored]), record.name)


class Context60(Context59):
    """The same classes, and background, which is all other pixels."""

    labels = LabelSet(("background", *CLASSES), ignore_index=IGNORED, background=0)


def _require_numbers(path: Path) -> None:
    """Raise a SanetError if the list of all labels exists and numbers a class otherwise."""
    found = _numbered(path)
    for name, number in CLASSES.items():
        full = FULL_NAMES.get(name, name)
        if found and found.get(full) != number:
            raise SanetError(
                f"{path} gives {full!r} the number {found.get(full)}, not {number}; download the file again"
            )


def _require_names(path: Path) -> None:
    """Raise a SanetError if the list of the 59 classes exists and names others."""
    found = {FULL_NAMES.get(name, name) for name in _numbered(path)} - {"background"}
    differing = found ^ {FULL_NAMES.get(name, name) for name in CLASSES}
    if found and differing:
        raise SanetError(
            f"{path} does not name the 59 classes: {', '.join(sorted(differing))}; download the file again"
        )


def _numbered(path: Path) -> dict[str, int]:
    """The numbers of the names in lines like "12: dog"; none where there is no file. Spaces in names do not count."""
    if not path.is_file():
        return {}
    try:
        pairs = [line.split(":", 1) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        return {"".join(name.split()): int(number) for number, name in pairs}
    except ValueError as error:
        raise SanetError(f'{path} has a line that is not like "12: dog" ({error}); download the file again') from error
