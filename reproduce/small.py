"""Datasets of other kinds than streets: VOC's images with animals, cracks in roads, and vessels of the retina."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sanet import LabelSet, Record, Sample, Source

ANIMALS = {0: "background", 8: "cat", 10: "cow", 12: "dog", 13: "horse", 15: "person", 17: "sheep"}


class Animals(Source):
    """Images of PASCAL VOC 2012 with animals, seven of its classes; what is of another is ignored.

    It is a part of VOC: scores on it are never set beside published ones of VOC. Every second image of VOC's val, from
    the second on, is "test".

    Args:
        root: folder with JPEGImages, SegmentationClass and ImageSets/Segmentation.
        train: the list to train on, "train" or "trainaug" of SBD.
    """

    labels = LabelSet(tuple(ANIMALS.values()))
    splits = ("train", "val", "test")

    def __init__(self, root: str, train: str = "train") -> None:
        self.root = Path(root)
        self.lists = {
            "train": (train, slice(None)),
            "val": ("val", slice(0, None, 2)),
            "test": ("val", slice(1, None, 2)),
        }

    def records(self, split: str) -> Sequence[Record]:
        """The images of a list, in its order."""
        name, part = self.lists[split]
        names = (self.root / "ImageSets" / "Segmentation" / f"{name}.txt").read_text().split()[part]
        images, masks = self.root / "JPEGImages", self.root / "SegmentationClass"
        return [Record(name, images / f"{name}.jpg", masks / f"{name}.png") for name in names]

    def read(self, record: Record) -> Sample:
        """Image and mask of a record."""
        return _sample(record, {value: index for index, value in enumerate(ANIMALS)}, self.labels.ignore_index)


class Cracks(Source):
    """CrackForest: cracks in roads, 1.6 % of the pixels (Shi et al., 2016), from masks of 0 and 255.

    Of the 118 labelled images by name the first 72 are "train", 16 in the middle "val" and the last 25 "test"; those
    between are left out, since neighbours may show one place.

    Args:
        root: folder with images and masks.
    """

    labels = LabelSet(("road", "crack"))
    splits = ("train", "val", "test")

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def records(self, split: str) -> Sequence[Record]:
        """The images of one split, by name."""
        masks = sorted((self.root / "masks").glob("*.png"))
        chosen = {"train": slice(72), "val": slice(74, 90), "test": slice(93, None)}[split]
        return [Record(mask.stem, self.root / "images" / f"{mask.stem}.jpg", mask) for mask in masks[chosen]]

    def read(self, record: Record) -> Sample:
        """Image and mask of a record."""
        return _sample(record, {0: 0, 255: 1}, self.labels.ignore_index)


class Retina(Source):
    """DRIVE: vessels of the retina (Staal et al., 2004), from masks of 0 and 255; the border of the camera is ignored.

    Its training images have an observer's masks: 21 to 32 are "train", 33 to 35 "val", and 36 to 40 "test", each of
    another person.

    Args:
        root: folder with images, masks and fov.
    """

    labels = LabelSet(("retina", "vessel"))
    splits = ("train", "val", "test")

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def records(self, split: str) -> Sequence[Record]:
        """The images of one split, by name."""
        numbers = {"train": range(21, 33), "val": range(33, 36), "test": range(36, 41)}[split]
        images, masks, fields = (self.root / name for name in ("images", "masks", "fov"))
        return [Record(f"{n}", images / f"{n}.tif", masks / f"{n}.gif", fields / f"{n}.gif") for n in numbers]

    def read(self, record: Record) -> Sample:
        """Image and mask of a record."""
        sample = _sample(record, {0: 0, 255: 1}, self.labels.ignore_index)
        assert record.valid is not None
        with Image.open(record.valid) as field:
            sample.mask[torch.from_numpy(np.array(field.convert("L")) == 0)] = self.labels.ignore_index
        return sample


def _sample(record: Record, classes: dict[int, int], ignore_index: int) -> Sample:
    image_path, mask_path = record.files
    with Image.open(image_path) as image, Image.open(mask_path) as mask:
        # A GIF's palette may put its values in any order.
        pixels, stored = np.array(image.convert("RGB")), np.array(mask.convert("L") if mask.format == "GIF" else mask)
    table = np.full(256, ignore_index, np.int64)
    for value, index in classes.items():
        table[value] = index
    return Sample(torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(table[stored]), record.name)
