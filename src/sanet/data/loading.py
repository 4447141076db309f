"""Batches from a data set, with randomness that follows from (seed, epoch, picture) alone.

Neither the number of workers nor a resumed run changes which picture comes when, or how it is augmented.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sanet.structures import LabelSet, Sample


class SegmentationDataset(Protocol):
    """What a data set offers: its classes, the names of its pictures, and the pictures themselves."""

    labels: LabelSet
    names: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class EpochSampler(Sampler[int]):
    """A new order of ``count`` pictures every epoch; yields ``epoch * count + picture``.

    The key carries the epoch to the workers, which live on from one epoch to the next.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch, also the first one after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        return iter((self.epoch * self.count + order).tolist())


class Augmented(Dataset[Sample]):
    """The transformed pictures of a data set; takes the keys of ``EpochSampler``."""

    def __init__(self, dataset: SegmentationDataset, transform: Callable[[Sample], Sample], seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int) -> Sample:
        sample = self.dataset[key % len(self.dataset)]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                int(np.random.SeedSequence((self.seed, key)).generate_state(1, np.uint64)[0] >> 1)
            )
            return self.transform(sample)


def training_loader(
    dataset: SegmentationDataset, transform: Callable[[Sample], Sample], batch_size: int, workers: int, seed: int
) -> DataLoader[Sample]:
    """Shuffled, augmented batches; an incomplete last batch is left to the next epoch's order."""
    return DataLoader(
        Augmented(dataset, transform, seed),
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), seed),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        drop_last=len(dataset) > batch_size,
        generator=torch.Generator(),  # its own, so that the global one stays as it is
    )


def evaluation_loader(dataset: SegmentationDataset, workers: int) -> DataLoader[Sample]:
    """Every picture once, in order, whole and alone, since pictures differ in size."""
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=1,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),
    )
