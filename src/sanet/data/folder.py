"""Your own images and masks, in one of these layouts; the first one that the folders fit is taken.

VOC::

    JPEGImages/  SegmentationClass/  ImageSets/Segmentation/train.txt, val.txt, test.txt

Split folders, either way round::

    train/images/  train/masks/  val/images/  val/masks/  test/images/  test/masks/
    images/train/  masks/train/  images/val/  masks/val/  images/test/  masks/test/

Flat, with or without lists, which lie beside the folders or in ``splits/``::

    images/  masks/  train.txt, val.txt, test.txt

Without lists every fifth image in order of name is in ``val`` and the others are in ``train``; there is no ``test``.
A list has one image a line, by file name or by stem, of the folder of images and of no folder in it; an image on no
list is not used, and counted.

A mask has the name of its image, but for the suffix. Other names that are understood, whatever their case, are those
of ``IMAGES``, ``MASKS`` and ``SPLITS``. A split needs its images, its masks and, in layouts with lists, its list;
other lists, such as VOC's ``trainval.txt``, are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sanet.config import MaskFormat
from sanet.data.decoding import DataError
from sanet.data.listing import existing_root, pair_by_name, read_list
from sanet.data.source import Record, Source
from sanet.data.values import MaskCoding
from sanet.structures import Color, LabelSet

IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "label", "annotations")
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

EVERY_FIFTH = (
    "there are no lists: every fifth image in order of name is in val, the others are in train. Images that follow "
    "each other, as frames of a film do, are then on both sides (data leakage), and scores are too high: write "
    "train.txt and val.txt"
)


VOC_LISTS = Path("ImageSets", "Segmentation")


class Pairs(NamedTuple):
    """Where the images and masks of a split are, and the names of those to use; None for all."""

    images: Path
    masks: Path
    names: list[str] | None = None


Layout = dict[str, Pairs]


class Folder(Source):
    """The dataset in a folder, with the classes that the user names; for the arguments see ``DataConfig``.

    Raises:
        DataError: no such folder, a layout that is not known, two folders that could both be meant, or a list that
            is no text.
        UsageError: classes and colours do not fit together.
    """

    def __init__(
        self,
        root: str | Path,
        classes: Sequence[str],
        colors: Sequence[Color] = (),
        ignore_index: int = 255,
        background: str | None = None,
        mask_format: MaskFormat = "index",
        ignore_color: Color | None = None,
    ) -> None:
        self.root = root = existing_root(root)
        index = None if background is None else list(classes).index(background)
        self.labels = LabelSet(tuple(classes), tuple(colors), ignore_index, index)
        self.coding = MaskCoding(mask_format, ignore_color, colors_named=bool(colors) and mask_format == "index")
        self.layout = _layout(root) or self._every_fifth(root)
        self.splits = tuple(self.layout)
        if not self.complete and all(pairs.names is None for pairs in self.layout.values()):
            self.complete = tuple(folder for pairs in self.layout.values() for folder in (pairs.images, pairs.masks))

    def records(self, split: str) -> list[Record]:
        """The images of one split, in the order of its list or by name."""
        return pair_by_name(*self.layout[split])

    def _every_fifth(self, root: Path) -> Layout:
        images, masks = _entry(IMAGES, root), _entry(MASKS, root)
        if not images or not masks:
            found = ", ".join(f"{path.name}/" if path.is_dir() else path.name for path in sorted(root.iterdir())[:20])
            raise DataError(
                f"{root} has no layout that is known. Looked for: images/ and masks/; train/images/ and train/masks/; "
                "images/train/ and masks/train/; or JPEGImages/, SegmentationClass/ and "
                f"ImageSets/Segmentation/train.txt. Found: {found or 'nothing'}"
            )
        self.notes, self.complete = (EVERY_FIFTH,), (images, masks)
        names = list(dict.fromkeys(record.name for record in pair_by_name(images, masks)))
        train = [name for index, name in enumerate(names) if index % 5 != 4]
        return {"train": Pairs(images, masks, train), "val": Pairs(images, masks, names[4::5])}


def _layout(root: Path) -> Layout:
    """Of the layouts in which something says what is in a split, the first one that the folders fit."""
    if found := _listed(_entry(("jpegimages",), root), _entry(("segmentationclass",), root), root / VOC_LISTS):
        return found
    splits = {split: _entry(names, root) for split, names in SPLITS.items()}
    if found := _paired({split: (_entry(IMAGES, folder), _entry(MASKS, folder)) for split, folder in splits.items()}):
        return found
    images, masks = _entry(IMAGES, root), _entry(MASKS, root)
    inner = {split: (_entry(names, images), _entry(names, masks)) for split, names in SPLITS.items()}
    return _paired(inner) or _listed(images, masks, root, root / "splits")


def _paired(folders: dict[str, tuple[Path | None, Path | None]]) -> Layout:
    return {split: Pairs(images, masks) for split, (images, masks) in folders.items() if images and masks}


def _listed(images: Path | None, masks: Path | None, *folders: Path) -> Layout:
    """The splits that have a list in one of the folders."""
    if not images or not masks:
        return {}
    paths = {split: _entry(tuple(f"{name}.txt" for name in names), *folders) for split, names in SPLITS.items()}
    return {split: Pairs(images, masks, read_list(path, images.name)) for split, path in paths.items() if path}


def _entry(names: tuple[str, ...], *folders: Path | None) -> Path | None:
    """The entry of the folders that has one of the names, whatever its case; None where there is none."""
    existing = [folder for folder in folders if folder and folder.is_dir()]
    found = [path for folder in existing for path in sorted(folder.iterdir()) if path.name.lower() in names]
    if len(found) > 1:
        raise DataError(f"{' and '.join(map(str, found))} could both be meant; rename or move all but one")
    return found[0] if found else None
