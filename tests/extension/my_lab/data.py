"""A source: masks that no built-in dataset reads, as arrays with 10 for a leaf and 20 for the soil."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sanet import LabelSet, Record, Sample, Source

VALUES = {10: 1, 20: 0}


class Leaves(Source):
    """``root/SPLIT/NAME.npy``, (4, H, W) uint8: red, green, blue, and the mask as the lab's tool stores it.

    Args:
        root: folder of the dataset.
    """

    labels = LabelSet(("soil", "leaf"))
    splits = ("train", "val", "test")

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def records(self, split: str) -> Sequence[Record]:
        """Everything that belongs to a split, in a stable order."""
        return [Record(path.stem, path, path) for path in sorted((self.root / split).glob("*.npy"))]

    def read(self, record: Record) -> Sample:
        """Image and mask of a record."""
        stored = np.load(record.image)
        mask = np.full(stored.shape[1:], self.labels.ignore_index, np.int64)
        for value, index in VALUES.items():
            mask[stored[3] == value] = index
        return Sample(torch.from_numpy(stored[:3]), torch.from_numpy(mask), record.name)
