"""Two datasets on which the readings of the paper are compared: VOC's images with animals, and cracks in roads."""

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

    It is a part of VOC: scores on it are never set beside published ones of VOC.

    Args:
        root: folder with JPEGImages, SegmentationClass and ImageSets/Segmentation.
        train: the list to train on, "train" or "trainaug" of SBD.
    """

    labels = LabelSet(tuple(ANIMALS.values()))
    splits = ("train", "val")

    def __init__(self, root: str, train: str = "train") -> None:
        self.root = Path(root)
        self.lists = {"train": train, "val": "val"}

    def records(self, split: str) -> Sequence[Record]:
        """The images of a list, in its order."""
        names = (self.root / "ImageSets" / "Segmentation" / f"{self.lists[split]}.txt").read_text().split()
        images, masks = self.root / "JPEGImages", self.root / "SegmentationClass"
        return [Record(name, images / f"{name}.jpg", masks / f"{name}.png") for name in names]

    def read(self, record: Record) -> Sample:
        """Image and mask of a record."""
        return _sample(record, {value: index for index, value in enumerate(ANIMALS)}, self.labels.ignore_index)


class Cracks(Source):
    """CrackForest: cracks in roads, 1.6 % of the pixels (Shi et al., 2016), from masks of 0 and 255.

    Of the 118 labelled images the first 80 by name are "train" and the last 34 "val"; those between are left out,
    since neighbours may show one place.

    Args:
        root: folder with images and masks.
    """

    labels = LabelSet(("road", "crack"))
    splits = ("train", "val")

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def records(self, split: str) -> Sequence[Record]:
        """The images of one split, by name."""
        masks = sorted((self.root / "masks").glob("*.png"))
        chosen = masks[:80] if split == "train" else masks[-34:]
        return [Record(mask.stem, self.root / "images" / f"{mask.stem}.jpg", mask) for mask in chosen]

    def read(self, record: Record) -> Sample:
        """Image and mask of a record."""
        return _sample(record, {0: 0, 255: 1}, self.labels.ignore_index)


def _sample(record: Record, classes: dict[int, int], ignore_index: int) -> Sample:
    image_path, mask_path = record.files
    with Image.open(image_path) as image, Image.open(mask_path) as mask:
        pixels, stored = np.array(image.convert("RGB")), np.array(mask)
    table = np.full(256, ignore_index, np.int64)
    for value, index in classes.items():
        table[value] = index
    return Sample(torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(table[stored]), record.name)
