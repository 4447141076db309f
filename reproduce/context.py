"""PASCAL Context: all pixels of VOC 2010's pictures, of which the 59 most frequent labels are told apart.

Source: Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the Wild", CVPR 2014;
4,998 pictures to train on and 5,105 to validate on, after VOC 2010's own lists. The archives unpack to::

    VOCdevkit/VOC2010/  JPEGImages/  ImageSets/Main/train.txt, val.txt
    trainval/NAME.mat   labels.txt   59_labels.txt

``data.root`` holds ``VOCdevkit`` and ``trainval``; ``trainval`` may lie in ``VOC2010`` instead. What is none of the
59 classes is the first of 60 in ``context60``, and ignored in ``context59``. Scores of the two cannot be compared:
see ``Scores.miou_with_background`` and ``Scores.miou_without_background``.

Classes are in the order of ``59_labels.txt``, the 20 of VOC first; other projects have them in alphabetical order.
"""

from __future__ import annotations

from pathlib import Path

from sanet.config import DataConfig
from sanet.data.coding import MaskCoding
from sanet.data.decoding import DataError
from sanet.data.files import FileSource, existing_root
from sanet.data.voc import checked_list, devkit, pair_listed
from sanet.structures import LabelSet

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
LABELS = 459
IGNORED = 255
CONTEXT_59 = LabelSet(tuple(CLASSES), ignore_index=IGNORED, background_ignored=True)
CONTEXT_60 = LabelSet(("background", *CLASSES), ignore_index=IGNORED, background=0)


def source59(config: DataConfig) -> FileSource:
    """``context59``: 59 classes; all other pixels are ignored.

    Raises:
        DataError: a folder or a list is missing, a list has another number of pictures than the published one, or
            the files with the labels' names are of another version.
    """
    return _source(config, CONTEXT_59)


def source60(config: DataConfig) -> FileSource:
    """``context60``: the same classes, and background, which is all other pixels.

    Raises:
        DataError: as for ``source59``.
    """
    return _source(config, CONTEXT_60)


def table(labels: LabelSet) -> tuple[int, ...]:
    """The class index, or the ignore index, of every label from 0 to 459."""
    rest = labels.ignore_index if labels.background is None else labels.background
    index = {number: labels.names.index(name) for name, number in CLASSES.items()}
    return tuple(index.get(number, rest) for number in range(LABELS + 1))


def _source(config: DataConfig, labels: LabelSet) -> FileSource:
    lists = Path("ImageSets", "Main")
    folder = devkit(config, "VOC2010", lists)
    root = existing_root(config)
    masks = next((place / "trainval" for place in (root, folder) if (place / "trainval").is_dir()), None)
    if masks is None:
        raise DataError(
            f"{root} has no trainval/ with PASCAL Context's .mat masks; unpack its trainval.tar.gz there, or run "
            f"`sanet download {config.name} --root {root}`"
        )
    _require_numbers(masks.parent / "labels.txt")
    _require_names(masks.parent / "59_labels.txt")
    records = {
        split: pair_listed(
            checked_list(folder / lists / f"{split}.txt", count, config), folder / "JPEGImages", masks, ".mat"
        )
        for split, count in COUNTS.items()
    }
    coding = MaskCoding(table=table(labels), variable=("LabelMap",))
    return FileSource(labels, tuple(records), records.__getitem__, coding, published=True)


def _require_numbers(path: Path) -> None:
    """Raise a DataError if the list of all labels is there and numbers a class otherwise."""
    found = _numbered(path)
    for name, number in CLASSES.items():
        full = FULL_NAMES.get(name, name)
        if found and found.get(full) != number:
            raise DataError(f"{path} gives {full!r} the number {found.get(full)}, not {number}; get the file anew")


def _require_names(path: Path) -> None:
    """Raise a DataError if the list of the 59 classes is there and names others."""
    found = {FULL_NAMES.get(name, name) for name in _numbered(path)} - {"background"}
    differing = found ^ {FULL_NAMES.get(name, name) for name in CLASSES}
    if found and differing:
        raise DataError(f"{path} does not name the 59 classes: {', '.join(sorted(differing))}; get the file anew")


def _numbered(path: Path) -> dict[str, int]:
    """The numbers of the names in lines like "12: dog"; none where there is no file. Spaces in names do not count."""
    if not path.is_file():
        return {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        pairs = [line.split(":", 1) for line in lines if line.strip()]
        return {"".join(name.split()): int(number) for number, name in pairs}
    except ValueError as error:
        raise DataError(f'{path} has a line that is not like "12: dog" ({error}); get the file anew') from error
