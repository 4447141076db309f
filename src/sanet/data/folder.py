"""Your own pictures and masks, in one of these layouts; the first one that the folders fit is taken.

VOC::

    JPEGImages/  SegmentationClass/  ImageSets/Segmentation/train.txt, val.txt, test.txt

Split folders, either way round::

    train/images/  train/masks/  val/images/  val/masks/  test/images/  test/masks/
    images/train/  masks/train/  images/val/  masks/val/  images/test/  masks/test/

Flat, with or without lists, which lie beside the folders or in ``splits/``::

    images/  masks/  train.txt, val.txt, test.txt

Without lists every fifth picture in order of name is validated on (``val``) and the others are trained on (``train``);
there is no ``test``. A list has one picture a line, by file name or by stem, of the folder of pictures and of no folder
in it; a picture on no list is not used, and counted.

A mask is called like its picture, but for the suffix. Other names that are understood, whatever their case, are those
of ``IMAGES``, ``MASKS`` and ``SPLITS``. A split needs its pictures, its masks and, in layouts with lists, its list;
other lists, such as VOC's ``trainval.txt``, are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sanet.config import DataConfig
from sanet.data.coding import MaskCoding
from sanet.data.decoding import DataError
from sanet.data.files import FileSource, Record, existing_root, pair_by_name, read_list
from sanet.structures import LabelSet

IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "labels", "label", "annotations")
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

Lister = Callable[[], list[Record]]
EVERY_FIFTH = (
    "there are no lists: every fifth image in order of name is in val, the others are in train. Images that follow "
    "each other, as frames of a film do, are then on both sides, and scores are too high: write train.txt and val.txt"
)


class Layout(NamedTuple):
    """How a folder is laid out.

    Attributes:
        splits: what lists the records of each.
        whole: folders of which every image is used.
        notes: see ``FileSource``.
    """

    splits: dict[str, Lister]
    whole: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def source(config: DataConfig) -> FileSource:
    """The data set in ``config.root``, with the classes that the configuration names.

    Raises:
        DataError: no such folder, a layout that is not known, two folders that could both be meant, or a list that
            is no text.
        UsageError: no folder is named, or classes and colours do not fit together.
    """
    root = existing_root(config)
    background = None if config.background is None else config.classes.index(config.background)
    labels = LabelSet(config.classes, config.colors, config.ignore_index, background)
    layouts = (layout(root) for layout in (_voc, _folder_per_split, _split_per_folder, _flat))
    found_layout = next((layout for layout in layouts if layout.splits), None)
    if found_layout:
        splits, whole, notes = found_layout
        coding = MaskCoding(
            config.mask_format, config.ignore_color, colors_named=bool(config.colors) and config.mask_format == "index"
        )
        return FileSource(
            labels, tuple(splits), lambda split: splits[split](), coding, root=root, whole=whole, notes=notes
        )
    found = ", ".join(f"{path.name}/" if path.is_dir() else path.name for path in sorted(root.iterdir())[:20])
    raise DataError(
        f"{root} has no layout that is known. Looked for: images/ and masks/; train/images/ and train/masks/; "
        "images/train/ and masks/train/; or JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/train.txt. "
        f"Found: {found or 'nothing'}"
    )


def _voc(root: Path) -> Layout:
    images, masks = _entry(("jpegimages",), root), _entry(("segmentationclass",), root)
    return Layout(_listed(images, masks, root / "ImageSets" / "Segmentation") if images and masks else {})


def _folder_per_split(root: Path) -> Layout:
    folders = {split: _entry(names, root) for split, names in SPLITS.items()}
    return _paired({split: (_entry(IMAGES, folder), _entry(MASKS, folder)) for split, folder in folders.items()})


def _split_per_folder(root: Path) -> Layout:
    images, masks = _entry(IMAGES, root), _entry(MASKS, root)
    return _paired({split: (_entry(names, images), _entry(names, masks)) for split, names in SPLITS.items()})


def _flat(root: Path) -> Layout:
    images, masks = _entry(IMAGES, root), _entry(MASKS, root)
    if not images or not masks:
        return Layout({})
    if splits := _listed(images, masks, root, root / "splits"):
        return Layout(splits)
    names = list(dict.fromkeys(record.name for record in pair_by_name(images, masks)))
    lists = {"train": [name for index, name in enumerate(names) if index % 5 != 4], "val": names[4::5]}
    splits = {split: partial(pair_by_name, images, masks, chosen) for split, chosen in lists.items()}
    return Layout(splits, (images, masks), (EVERY_FIFTH,))


def _paired(folders: dict[str, tuple[Path | None, Path | None]]) -> Layout:
    pairs = {split: (images, masks) for split, (images, masks) in folders.items() if images and masks}
    whole = tuple(folder for pair in pairs.values() for folder in pair)
    return Layout({split: partial(pair_by_name, *pair) for split, pair in pairs.items()}, whole)


def _listed(images: Path, masks: Path, *folders: Path) -> dict[str, Lister]:
    """What lists the records of every split that has a list in one of the folders."""
    paths = {split: _entry(tuple(f"{name}.txt" for name in names), *folders) for split, names in SPLITS.items()}
    return {
        split: partial(pair_by_name, images, masks, read_list(path, images.name))
        for split, path in paths.items()
        if path
    }


def _entry(names: tuple[str, ...], *folders: Path | None) -> Path | None:
    """The entry of the folders that has one of the names, whatever its case; None where there is none."""
    existing = [folder for folder in folders if folder and folder.is_dir()]
    found = [path for folder in existing for path in sorted(folder.iterdir()) if path.name.lower() in names]
    if len(found) > 1:
        raise DataError(f"{' and '.join(map(str, found))} could both be meant; rename or move all but one")
    return found[0] if found else None
