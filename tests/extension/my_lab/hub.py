"""A source of the Hugging Face hub: any dataset of ``datasets`` that has an image and a mask in every row."""

from collections.abc import Sequence

import numpy as np
import torch

from sanet import LabelSet, Record, Sample, Source


class Hub(Source):
    """The rows of a dataset; needs ``pip install datasets``.

    Args:
        name: of the dataset on the hub, or of a folder that ``save_to_disk`` wrote.
        classes: names of the classes 0, 1 and so on; 255 is ignored.
        splits: ours, and the dataset's names of them.
    """

    def __init__(self, name: str, classes: Sequence[str], splits: dict[str, str]) -> None:
        from datasets import load_dataset

        self.labels, self.splits = LabelSet(tuple(classes)), tuple(splits)
        self.rows = {split: load_dataset(name, split=theirs) for split, theirs in splits.items()}

    def records(self, split: str) -> Sequence[Record]:
        """A record for each row; nothing has a file."""
        return [Record(f"{split}-{index:06d}") for index in range(len(self.rows[split]))]

    def read(self, record: Record) -> Sample:
        """Image and mask of a row."""
        split, _, index = record.name.partition("-")
        row = self.rows[split][int(index)]
        image, mask = np.array(row["image"].convert("RGB")), np.array(row["mask"], np.int64)
        return Sample(torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask), record.name)
