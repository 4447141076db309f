"""PASCAL VOC 2012: 20 classes of objects and background; 255 marks the borders of objects and counts nowhere.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010. Its archive unpacks to::

    VOCdevkit/VOC2012/  JPEGImages/  SegmentationClass/  ImageSets/Segmentation/train.txt, val.txt

``data.root`` holds ``VOCdevkit``, or is it, or is ``VOC2012``. The archive of the test pictures unpacks into the same
folders; its masks are not public, so that its pictures can be labelled but not scored here. ``trainval.txt`` is never
read: who trains on it has trained on ``val``.

``voc_aug`` trains on 10,582 pictures: those of SBD's two lists and of VOC's ``train``, without those of VOC's ``val``.
SBD (Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011) unpacks in data.root to::

    benchmark_RELEASE/dataset/  img/  cls/  train.txt  val.txt

A picture of VOC's ``train`` has VOC's own mask, any other SBD's, which has no ignored borders.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sanet.config import DataConfig
from sanet.data.coding import MaskCoding
from sanet.data.decoding import DataError
from sanet.data.files import FileSource, Record, existing_root, read_list
from sanet.structures import LabelSet

LABELS = LabelSet(
    (
        "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
        "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
    ),
    background=0,
)  # fmt: skip
COUNTS = {"train": 1464, "val": 1449, "test": 1456}
SBD_COUNTS = {"train": 8498, "val": 2857}
AUGMENTED = 10582
SBD_MASK = ("GTcls", "Segmentation")
LISTS = Path("ImageSets", "Segmentation")


def source(config: DataConfig) -> FileSource:
    """``voc``: train, val and, where it is there, test, as published.

    Raises:
        DataError: a folder or a list is missing, or a list has another number of pictures than the published one.
    """
    records = _records(devkit(config, "VOC2012", LISTS), config)
    return _source(records, MaskCoding())


def source_augmented(config: DataConfig) -> FileSource:
    """``voc_aug``: VOC with the training pictures of SBD.

    Raises:
        DataError: as for ``source``; also where SBD is missing.
    """
    records = _records(devkit(config, "VOC2012", LISTS), config)
    root = existing_root(config)
    folder = root / "benchmark_RELEASE" / "dataset"
    if not (folder / "cls").is_dir():
        pictures = devkit(config, "VOC2012", LISTS)
        home = pictures.parents[1] if pictures.parent.name == "VOCdevkit" else root
        raise DataError(
            f"{folder / 'cls'} is not there; data.root has to hold both VOCdevkit and benchmark_RELEASE: unpack SBD's "
            f"benchmark.tgz in {home}, or run `sanet download voc_aug --root {home}`"
        )
    lists = [checked_list(folder / f"{split}.txt", count, config) for split, count in SBD_COUNTS.items()]
    own = {record.name for record in records["train"]}
    held_out = {record.name for record in records["val"]}
    added = sorted(set().union(*lists) - own - held_out)
    require_count(
        f"the union of VOC train and {folder}/train.txt and val.txt", len(own) + len(added), AUGMENTED, config
    )
    records["train"] += pair_listed(added, folder / "img", folder / "cls", ".mat")
    return _source(records, MaskCoding(variable=SBD_MASK))


def devkit(config: DataConfig, year: str, lists: Path) -> Path:
    """The folder of one year's pictures: below ``VOCdevkit`` in data.root, below data.root, or data.root.

    Raises:
        DataError: there is none with pictures and lists.
    """
    root = existing_root(config)
    for folder in (root / "VOCdevkit" / year, root / year, root):
        if _is_year(folder, lists):
            return folder
    below = [
        place for depth in ("*", "*/*") for place in sorted(root.glob(f"{depth}/{year}")) if _is_year(place, lists)
    ]
    homes = [place.parents[1] if place.parent.name == "VOCdevkit" else place.parent for place in below]
    hint = f" (did you mean {homes[0]}?)" if homes else ""
    raise DataError(
        f"{root} has no VOCdevkit/{year}/ with JPEGImages/ and {lists.as_posix()}/; data.root is the folder that the "
        f"archive was unpacked in{hint}; `sanet download {config.name} --root {root}` gets what is missing"
    )


def _is_year(folder: Path, lists: Path) -> bool:
    return (folder / "JPEGImages").is_dir() and (folder / lists).is_dir()


def checked_list(path: Path, count: int, config: DataConfig) -> list[str]:
    """The pictures of a published list.

    Raises:
        DataError: it cannot be read, or has another number of pictures.
    """
    names = read_list(path)
    require_count(str(path), len(set(names)), count, config)
    return names


def require_count(what: str, found: int, published: int, config: DataConfig) -> None:
    """Raise a DataError unless the numbers of pictures are the same, or a part of the data set is meant."""
    if found != published and not config.allow_subset:
        raise DataError(
            f"{what} has {found} pictures, the published {config.name} {published}; get it again, or data.allow_subset "
            "to true if a part of it is meant: scores on that cannot be compared with published ones"
        )


def pair_listed(names: Iterable[str], images: Path, masks: Path | None, mask_suffix: str = ".png") -> list[Record]:
    """A record for every name, of ``NAME.jpg`` and a mask of the given suffix; None where there is no file.

    Suffixes may be in capitals. A folder is listed once, since a network disk takes its time to ask about every file.
    """
    pictures, labelled = _by_stem(images, ".jpg"), _by_stem(masks, mask_suffix) if masks else {}
    return [
        Record(
            name,
            images / pictures[name] if name in pictures else None,
            masks / labelled[name] if masks and name in labelled else None,
        )
        for name in names
    ]


def _by_stem(folder: Path, suffix: str) -> dict[str, str]:
    """The files of one suffix; of two that differ in its case only, the one in small letters."""
    found = sorted(os.listdir(folder)) if folder.is_dir() else []
    return {name[: -len(suffix)]: name for name in found if name.lower().endswith(suffix)}


def _records(folder: Path, config: DataConfig) -> dict[str, list[Record]]:
    """The pictures of every split; test only where its list and pictures are there."""
    images, masks = folder / "JPEGImages", folder / "SegmentationClass"
    if not masks.is_dir():
        raise DataError(f"{masks} is not there; unpack VOCtrainval_11-May-2012.tar anew: it holds the masks")
    records = {
        split: pair_listed(checked_list(folder / LISTS / f"{split}.txt", COUNTS[split], config), images, masks)
        for split in ("train", "val")
    }
    path = folder / LISTS / "test.txt"
    if path.is_file():
        test = pair_listed(read_list(path), images, None)
        if any(record.image for record in test):
            require_count(str(path), len({record.name for record in test}), COUNTS["test"], config)
            records["test"] = test
    return records


def _source(records: dict[str, list[Record]], coding: MaskCoding) -> FileSource:
    unlabelled = ("test",) if "test" in records else ()
    return FileSource(LABELS, tuple(records), records.__getitem__, coding, unlabelled, published=True)
