"""Your own pictures and masks, in one of these layouts; the first one that the folders fit is taken.

VOC::

    JPEGImages/  SegmentationClass/  ImageSets/Segmentation/train.txt, val.txt, test.txt

Split folders, either way round::

    train/images/  train/masks/  val/images/  val/masks/  test/images/  test/masks/
    images/train/  masks/train/  images/val/  masks/val/  images/test/  masks/test/

Flat, with or without lists, which lie beside the folders or in ``splits/``::

    images/  masks/  train.txt, val.txt, test.txt

Without lists every fifth picture in order of name is validated on (``val``) and the others are trained on (``train``);
there is no ``test``. A list has one picture a line, by file name or by stem; a picture on no list is not used.

A mask is called like its picture, but for the suffix. Other names that are understood, whatever their case, are those
of ``IMAGES``, ``MASKS`` and ``SPLITS``. A split needs its pictures, its masks and, in layouts with lists, its list;
other lists, such as VOC's ``trainval.txt``, are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

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
    splits = next(filter(None, (layout(root) for layout in (_voc, _folder_per_split, _split_per_folder, _flat))), None)
    if splits:
        coding = MaskCoding(config.mask_format, config.ignore_color)
        return FileSource(labels, tuple(splits), lambda split: splits[split](), coding)
    found = ", ".join(f"{path.name}/" if path.is_dir() else path.name for path in sorted(root.iterdir())[:20])
    raise DataError(
        f"{root} has no layout that is known. Looked for: images/ and masks/; train/images/ and train/masks/; "
        "images/train/ and masks/train/; or JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/train.txt. "
        f"Found: {found or 'nothing'}"
    )


def _voc(root: Path) -> dict[str, Lister]:
    images, masks = _entry(("jpegimages",), root), _entry(("segmentationclass",), root)
    return _listed(images, masks, _lists(root / "ImageSets" / "Segmentation")) if images and masks else {}


def _folder_per_split(root: Path) -> dict[str, Lister]:
    folders = {split: _entry(names, root) for split, names in SPLITS.items()}
    return _paired({split: (_entry(IMAGES, folder), _entry(MASKS, folder)) for split, folder in folders.items()})


def _split_per_folder(root: Path) -> dict[str, Lister]:
    images, masks = _entry(IMAGES, root), _entry(MASKS, root)
    return _paired({split: (_entry(names, images), _entry(names, masks)) for split, names in SPLITS.items()})


def _flat(root: Path) -> dict[str, Lister]:
    images, masks = _entry(IMAGES, root), _entry(MASKS, root)
    if not images or not masks:
        return {}
    lists = _lists(root, root / "splits")
    if not lists:
        names = list(dict.fromkeys(record.name for record in pair_by_name(images, masks)))
        lists = {"train": [name for index, name in enumerate(names) if index % 5 != 4], "val": names[4::5]}
    return _listed(images, masks, lists)


def _paired(folders: dict[str, tuple[Path | None, Path | None]]) -> dict[str, Lister]:
    return {
        split: partial(pair_by_name, images, masks) for split, (images, masks) in folders.items() if images and masks
    }


def _listed(images: Path, masks: Path, lists: dict[str, list[str]]) -> dict[str, Lister]:
    return {split: partial(pair_by_name, images, masks, names) for split, names in lists.items()}


def _lists(*folders: Path) -> dict[str, list[str]]:
    """The stems on the list of every split that has one in one of the folders."""
    paths = {split: _entry(tuple(f"{name}.txt" for name in names), *folders) for split, names in SPLITS.items()}
    return {split: read_list(path) for split, path in paths.items() if path}


def _entry(names: tuple[str, ...], *folders: Path | None) -> Path | None:
    """The entry of the folders that has one of the names, whatever its case; None where there is none."""
    existing = [folder for folder in folders if folder and folder.is_dir()]
    found = [path for folder in existing for path in sorted(folder.iterdir()) if path.name.lower() in names]
    if len(found) > 1:
        raise DataError(f"{' and '.join(map(str, found))} could both be meant; rename or move all but one")
    return found[0] if found else None
