"""PASCAL VOC 2012: 20 classes of objects and background; 255 marks the borders of objects and is ignored.

Source: Everingham et al., "The PASCAL Visual Object Classes Challenge", 2010. Its archive unpacks to::

    VOCdevkit/VOC2012/  JPEGImages/  SegmentationClass/  ImageSets/Segmentation/train.txt, val.txt

``data.root`` holds ``VOCdevkit``, or is it, or is ``VOC2012``. The archive of the test images unpacks into the same
folders; its masks are not public, so that its images can be labelled but not scored here. ``trainval.txt`` is never
read: who trains on it has trained on ``val``.
"""

from __future__ import annotations

from pathlib import Path

from sanet.data.decoding import DataError
from sanet.data.listing import existing_root, pair_by_name, read_list
from sanet.data.source import Record, Source
from sanet.data.values import MaskCoding
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
LISTS = Path("ImageSets", "Segmentation")


class VOC(Source):
    """``voc``: train, val and, where it exists, test, as published.

    Args:
        root: folder with ``VOCdevkit``.
        allow_subset: a part of the dataset is meant, so that the published numbers of images do not count.

    Raises:
        DataError: a folder or a list is missing, or a list has another number of images than the published one.
    """

    name = "voc"
    labels = LABELS
    published = True

    def __init__(self, root: str | Path, allow_subset: bool = False) -> None:
        self.root, self.allow_subset = existing_root(root), allow_subset
        self.folder = self._devkit(self.root)
        images, masks = self.folder / "JPEGImages", self.folder / "SegmentationClass"
        if not masks.is_dir():
            raise DataError(f"{masks} does not exist; unpack VOCtrainval_11-May-2012.tar again: it holds the masks")
        self.listed = {
            split: pair_by_name(images, masks, self._names(self.folder / LISTS / f"{split}.txt", COUNTS[split]))
            for split in ("train", "val")
        }
        path = self.folder / LISTS / "test.txt"
        if path.is_file():
            test = pair_by_name(images, Path("none"), read_list(path))
            if any(record.image for record in test):
                self._require_count(str(path), len({record.name for record in test}), COUNTS["test"])
                self.listed["test"], self.unlabelled = test, ("test",)
        self.splits = tuple(self.listed)

    def records(self, split: str) -> list[Record]:
        """The images of one split, in the order of its list."""
        return self.listed[split]

    def _devkit(self, root: Path) -> Path:
        for folder in (root / "VOCdevkit" / "VOC2012", root / "VOC2012", root):
            if (folder / "JPEGImages").is_dir() and (folder / LISTS).is_dir():
                return folder
        raise DataError(
            f"{root} has no VOCdevkit/VOC2012/ with JPEGImages/ and {LISTS.as_posix()}/; data.root is the folder that "
            f"the archive was unpacked in; `sanet download {self.name} --root {root}` downloads what is missing"
        )

    def _names(self, path: Path, count: int) -> list[str]:
        names = read_list(path)
        self._require_count(str(path), len(set(names)), count)
        return names

    def _require_count(self, what: str, found: int, published: int) -> None:
        if found != published and not self.allow_subset:
            raise DataError(
                f"{what} has {found} images, the published {self.name} {published}; download it again, or set "
                "data.allow_subset to true if a part of it is meant: scores on a part cannot be compared with "
                "published ones"
            )


class AugmentedVOC(VOC):
    """``voc_aug``: trains on 10,582 images: VOC's ``train`` and both lists of SBD, without VOC's ``val``.

    SBD (Hariharan et al., "Semantic Contours from Inverse Detectors", ICCV 2011) unpacks in data.root to::

        benchmark_RELEASE/dataset/  img/  cls/  train.txt  val.txt

    An image of VOC's ``train`` has VOC's own mask, any other SBD's, which has no ignored borders.

    Raises:
        DataError: as for ``VOC``; also where SBD is missing.
    """

    name = "voc_aug"
    coding = MaskCoding(variable=("GTcls", "Segmentation"))

    def __init__(self, root: str | Path, allow_subset: bool = False) -> None:
        super().__init__(root, allow_subset)
        folder = existing_root(root) / "benchmark_RELEASE" / "dataset"
        if not (folder / "cls").is_dir():
            raise DataError(
                f"{folder / 'cls'} does not exist; data.root has to hold both VOCdevkit and benchmark_RELEASE: unpack "
                f"SBD's benchmark.tgz in the folder of VOCdevkit, or run `sanet download {self.name} --root` with it"
            )
        lists = [self._names(folder / f"{split}.txt", count) for split, count in SBD_COUNTS.items()]
        own = {record.name for record in self.listed["train"]}
        added = sorted(set().union(*lists) - own - {record.name for record in self.listed["val"]})
        self._require_count(
            f"the union of VOC train and {folder}/train.txt and val.txt", len(own) + len(added), AUGMENTED
        )
        self.listed["train"] += pair_by_name(folder / "img", folder / "cls", added, (".mat",))
