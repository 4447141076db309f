"""What copying the mask of the most similar training image scores.

python benchmarks/copying.py OUTPUT.csv CAMVID VOC CRACKS

CAMVID in the SegNet layout; VOC in VOC's, with the lists train, trainaug and val; CRACKS with images/ and masks/ of 0
and 255, of which the first 80 masks by name are for training and the others are scored.
"""

import csv
import sys
from pathlib import Path

import torch

from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.data.decoding import load_mask, read_image
from sanet.data.listing import pair_by_name
from sanet.data.source import Record, SegmentationDataset, Source
from sanet.data.values import MaskCoding
from sanet.evaluation.copying import copy_nearest
from sanet.structures import LabelSet, Sample

FIRST = 80


class Cracks(Source):
    """Masks of 0 and 255."""

    labels = LabelSet(("ground", "crack"))
    splits = ("train", "val")

    def __init__(self, root: Path) -> None:
        self.masks = sorted((root / "masks").glob("*.png"))
        self.images = root / "images"

    def records(self, split: str) -> list[Record]:
        """The first, or the others."""
        masks = self.masks[:FIRST] if split == "train" else self.masks[FIRST:]
        return [Record(mask.stem, self.images / f"{mask.stem}.jpg", mask) for mask in masks]

    def read(self, record: Record) -> Sample:
        """255 is a crack."""
        image, mask = record.files
        labels = load_mask(mask, MaskCoding()).values > 127
        return Sample(
            torch.from_numpy(read_image(image)).permute(2, 0, 1), torch.from_numpy(labels).long(), record.name
        )


def main(output: str, camvid: str, voc: str, cracks: str) -> None:
    """Measure, and write a table."""
    streets, animals = data_source(DataConfig("camvid", camvid)), data_source(DataConfig("voc", voc, allow_subset=True))
    names = Path(voc, "ImageSets", "Segmentation", "trainaug.txt").read_text().split()
    more = pair_by_name(Path(voc, "JPEGImages"), Path(voc, "SegmentationClass"), names)
    ground = Cracks(Path(cracks))
    pairs: dict[str, tuple[SegmentationDataset, SegmentationDataset]] = {
        "camvid val": (streets.open("train"), streets.open("val")),
        "camvid test": (streets.open("train"), streets.open("test")),
        "voc_animals val": (animals.open("train"), animals.open("val")),
        "voc_animals val, trainaug": (SegmentationDataset(animals, more), animals.open("val")),
        "crackforest, last": (ground.open("train"), ground.open("val")),
    }
    with Path(output).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("split", "train images", "images", "mIoU", "pixel accuracy", "seconds", "IoU by class"))
        for name, (train, split) in pairs.items():
            found = copy_nearest(train, split, 600)
            classes = "; ".join(f"{name} {iou:.4f}" for name, iou in found.scores.class_iou.items())
            numbers = (f"{value:.4f}" for value in (found.scores.miou, found.scores.pixel_accuracy))
            table.writerow((name, found.candidates, found.images, *numbers, f"{found.seconds:.1f}", classes))
            print(name, found)


if __name__ == "__main__":
    main(*sys.argv[1:])
