"""Batches from a dataset, with randomness that follows from (seed, epoch, image) alone.

Neither the number of workers or processes nor a resumed run changes which image comes when, or how it is augmented.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from time import sleep
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, default_collate

from sanet import distributed
from sanet.data.source import SegmentationDataset
from sanet.data.transforms import Augmentation, seeded
from sanet.data.windows import open_large
from sanet.inference.device import choose_device
from sanet.structures import Batch, Sample, UsageError


@dataclass(frozen=True)
class Batching:
    """How the images of an epoch become steps, the same ones however many processes and parts share a step."""

    step: int  # global batch size; a dataset that has fewer images makes one step of them all
    parts: int = 1  # of a step, one after the other in each process
    done: tuple[int, int] = (0, 0)  # epoch and number of its parts, for a run that resumes in the middle of an epoch


class EpochSampler(Sampler[int]):
    """A new order of ``count`` images every epoch, for this process; yields ``epoch * count + image``.

    The key carries the epoch to the workers, which live on from one epoch to the next. An incomplete last step is left
    to the next epoch's order.

    Raises:
        UsageError: a step does not divide among processes and parts, or the dataset has fewer images than a step
            that has to be divided.
    """

    def __init__(self, count: int, seed: int, batching: Batching) -> None:
        shares = batching.parts * distributed.world_size()
        step = min(count, batching.step)
        if step % shares:
            reason = f"of only {count} images" if step < batching.step else f"batch_size {batching.step}"
            raise UsageError(
                f"a step ({reason}) does not divide among {distributed.world_size()} processes with "
                f"gradient_accumulation {batching.parts}; batch_size has to be a multiple of their product, {shares}"
            )
        self.count, self.seed, self.step, self.batching = count, seed, step, batching
        # Lightning makes the workers' iterator before it calls set_epoch, so a resumed run has to begin in its epoch.
        self.epoch = batching.done[0]

    @property
    def batch(self) -> int:
        """Images that this process computes at once."""
        return self.step // (self.batching.parts * distributed.world_size())

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch but the first one of a process that has workers."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.step * self.step // distributed.world_size()

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        parts = order[: self.count // self.step * self.step].reshape(-1, distributed.world_size(), self.batch)
        begun, done = self.batching.done
        first = done if self.epoch == begun else 0
        return iter((self.epoch * self.count + parts[first:, distributed.rank()].flatten()).tolist())


class Augmented(Dataset[Sample]):
    """The transformed images of a dataset; takes the keys of ``EpochSampler``.

    Masks are uint8 if the label set's values fit, an eighth of the bytes on their way to the device; else int64.
    """

    def __init__(self, dataset: SegmentationDataset, transform: Callable[[Sample], Sample], seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed
        fit = 0 <= dataset.labels.ignore_index < 256 and len(dataset.labels) <= 256
        self.mask_type = torch.uint8 if fit else torch.int64

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int) -> Sample:
        index = key % len(self.dataset)
        if isinstance(self.transform, Augmentation):
            large = open_large(self.dataset.source, self.dataset.records[index])
            if large is not None:
                with seeded(self.seed, key):
                    sample = self.transform(large)
                return sample._replace(mask=sample.mask.to(self.mask_type))
        sample = self.dataset[index]
        sample = sample._replace(mask=sample.mask.to(self.mask_type))
        with seeded(self.seed, key):
            return self.transform(sample)


def batch_of(samples: Sequence[Sample]) -> Batch:
    """Samples of one size as a batch."""
    image, mask, names = default_collate(list(samples))
    return Batch(image, mask, tuple(names))


PATIENCE = 5.0  # seconds after which a process that loads images asks whether its parent is still there


def ignore_signals(worker: int) -> None:
    """Let a process that loads images end with its parent, not with the signals that tell the parent to stop.

    Ctrl-C and the SIGTERM of a scheduler reach every process of a job, but the step they interrupt is to be finished.
    A parent that was killed tells nobody, and PyTorch's loaders then wait for ever for someone to take their images.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):  # macOS has no way to see who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # Not the system's parent, which a fork server may be.
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(owner: BaseProcess) -> None:
    while owner.is_alive():
        if not hasattr(signal, "sigtimedwait"):
            sleep(PATIENCE)
        elif (told := signal.sigtimedwait({signal.SIGTERM}, PATIENCE)) and told.si_pid == owner.pid:
            break
    os._exit(0)


def training_loader(
    dataset: SegmentationDataset, transform: Callable[[Sample], Sample], batching: Batching, num_workers: int, seed: int
) -> DataLoader[Batch]:
    """Shuffled, augmented batches; see ``EpochSampler`` for which images come when."""
    sampler = EpochSampler(len(dataset), seed, batching)
    augmented = Augmented(dataset, transform, seed)
    return _loader(
        augmented, num_workers, batch_size=sampler.batch, sampler=sampler, persistent_workers=num_workers > 0
    )


def evaluation_loader(dataset: SegmentationDataset, num_workers: int) -> DataLoader[Batch]:
    """Every image once, in order, complete and alone, since images differ in size.

    Of several processes that share the job each has every so manyth image, from its rank on, whatever the remainder.

    Raises:
        UsageError: a negative number of workers.
    """
    if num_workers < 0:
        raise UsageError(f"num_workers {num_workers}: 0 or more")
    share = range(distributed.rank(), len(dataset), distributed.world_size())
    return _loader(Subset(dataset, share), num_workers, batch_size=1)


def _loader(dataset: Dataset[Sample], num_workers: int, **options: Any) -> DataLoader[Batch]:
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        num_workers=num_workers,
        # What Python 3.14 does in its place has threads that get signals before a worker can block them.
        multiprocessing_context="fork" if num_workers and sys.platform == "linux" else None,
        collate_fn=batch_of,
        worker_init_fn=ignore_signals,
        pin_memory=choose_device().type == "cuda",
        generator=torch.Generator(),  # its own, so that the global one stays as it is
        **options,
    )
