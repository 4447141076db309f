"""Which image comes when, and how it is augmented, follows from (seed, epoch, image) alone."""

import multiprocessing
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanet.config import AugmentationConfig
from sanet.data import loading
from sanet.data.loading import Augmented, Batching, EpochSampler, evaluation_loader, ignore_signals, training_loader
from sanet.data.source import Record, Source
from sanet.data.transforms import TrainingTransform
from sanet.structures import Batch, LabelSet, Sample


class Noise:
    """``count`` images of noise, each of a size of its own."""

    def __init__(self, count):
        self.labels = LabelSet(("a", "b", "c"))
        self.names = [f"image {index}" for index in range(count)]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        generator = torch.Generator().manual_seed(index)
        height, width = 34 + index, 50 - index
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
        return Sample(image, torch.randint(0, 3, (height, width), generator=generator), self.names[index])


TRANSFORM = TrainingTransform(AugmentationConfig((32, 32)), 255)


def epochs(workers, wanted, count=7, batch_size=3, seed=5):
    """The batches of some epochs, by epoch, from one loader that lives through them all."""
    loader = training_loader(Noise(count), TRANSFORM, Batching(batch_size), workers, seed)
    collected = {}
    for epoch in wanted:
        loader.sampler.set_epoch(epoch)
        collected[epoch] = list(loader)
    return collected


def same(left, right):
    return len(left) == len(right) and all(
        list(one.name) == list(other.name) and torch.equal(one.image, other.image) and torch.equal(one.mask, other.mask)
        for one, other in zip(left, right, strict=True)
    )


@pytest.fixture(scope="module")
def four_epochs():
    return epochs(0, range(4))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers(workers, four_epochs):
    torch.manual_seed(1234)  # nor on the state of the process
    again = epochs(workers, range(4))
    assert all(same(again[epoch], four_epochs[epoch]) for epoch in range(4))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumed_at_epoch_3_goes_on_as_if_never_stopped(workers, four_epochs):
    assert same(epochs(workers, [3])[3], four_epochs[3])


def test_epochs_and_seeds_differ(four_epochs):
    orders = [[name for batch in four_epochs[epoch] for name in batch.name] for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    assert not same(epochs(0, [0], seed=6)[0], four_epochs[0])


def test_batches_are_batches(four_epochs):
    batch = four_epochs[0][0]
    assert isinstance(batch, Batch)
    assert batch.image.shape == (3, 3, 32, 32)
    assert batch.image.dtype == torch.uint8
    assert batch.mask.shape == (3, 32, 32)
    assert batch.mask.dtype == torch.uint8
    assert len(batch.name) == 3
    assert all(isinstance(name, str) for name in batch.name)


@pytest.mark.parametrize(
    ("classes", "ignore_index", "dtype"),
    [
        (3, 255, torch.uint8),
        (255, 255, torch.uint8),
        (3, 256, torch.int64),
        (3, -1, torch.int64),
        (257, 300, torch.int64),
    ],
)
def test_masks_are_bytes_if_every_value_fits(classes, ignore_index, dtype):
    """Either way they are the masks of the dataset."""
    dataset = Noise(2)
    dataset.labels = LabelSet(tuple(str(index) for index in range(classes)), ignore_index=ignore_index)
    mask = Augmented(
        dataset, TrainingTransform(AugmentationConfig((40, 50), (1, 1), hflip=0, jitter=0), ignore_index), 5
    )[0].mask
    assert mask.dtype == dtype
    assert (mask == ignore_index).sum() == 6 * 50
    assert torch.equal(mask[mask != ignore_index].long(), dataset[0].mask.flatten())


def test_augmentation_follows_from_seed_epoch_and_image():
    dataset = Noise(5)
    augmented = Augmented(dataset, TRANSFORM, seed=5)
    # Key 2 is image 2 in epoch 0, key 7 the same one in epoch 1.
    first, second, other_seed = augmented[2], augmented[7], Augmented(dataset, TRANSFORM, seed=6)[2]
    assert first.name == second.name == other_seed.name == "image 2"
    assert torch.equal(first.image, augmented[2].image)
    assert not torch.equal(first.image, second.image)
    assert not torch.equal(first.image, other_seed.image)


def test_images_of_one_epoch_are_drawn_apart():
    def draw(sample):
        return sample._replace(name=torch.rand(()).item())

    draws = [Augmented(Noise(5), draw, seed)[key].name for seed in range(4) for key in range(20)]
    assert len(set(draws)) == len(draws)


@settings(max_examples=60)
@given(count=st.integers(1, 25), batch_size=st.integers(1, 8), seed=st.integers(0, 3), epoch=st.integers(0, 5))
def test_every_image_comes_at_most_once_and_few_are_left_out(count, batch_size, seed, epoch):
    def small(sample):
        return sample._replace(image=torch.zeros(1), mask=torch.zeros(1))

    loader = training_loader(Noise(count), small, Batching(batch_size), 0, seed)
    loader.sampler.set_epoch(epoch)
    batches = [batch.name for batch in loader]
    assert len(batches) == len(loader)
    seen = Counter(name for names in batches for name in names)
    assert set(seen.values()) == {1}
    assert count - len(seen) <= (batch_size - 1 if count > batch_size else 0)
    # One image alone cannot train batch norm; only a batch size or a dataset of one leads to it.
    assert batch_size == 1 or count == 1 or all(len(names) > 1 for names in batches)
    assert all(len(names) == min(batch_size, count) for names in batches)


def test_images_left_out_change_from_epoch_to_epoch():
    seen = [{name for batch in batches for name in batch.name} for batches in epochs(0, range(6)).values()]
    assert all(len(names) == 6 for names in seen)  # of seven
    assert len(set.union(*seen)) == 7
    assert len({frozenset(names) for names in seen}) > 1


def test_sampler_gives_a_permutation_of_every_epoch():
    sampler = EpochSampler(10, 3, Batching(10))
    orders = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert list(sampler) == keys
        assert {key // 10 for key in keys} == {epoch}
        assert sorted(key % 10 for key in keys) == list(range(10))
        orders.append(tuple(key % 10 for key in keys))
    assert len(sampler) == 10
    assert len(set(orders)) == 5


def states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


@pytest.mark.parametrize("key", [0, 3, 8])
def test_an_image_leaves_the_global_generators_alone(key):
    before = states()
    Augmented(Noise(5), TRANSFORM, 5)[key]
    assert states() == before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_epoch_leaves_the_global_generators_alone(workers):
    loader = training_loader(Noise(5), TRANSFORM, Batching(2), workers, 5)
    before = states()
    assert len(list(loader)) == 2
    assert states() == before


def test_an_evaluation_leaves_the_global_generators_alone():
    loader = evaluation_loader(Noise(3), 0)
    before = states()
    assert len(list(loader)) == 3
    assert states() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: its generator must stay as it is")
def test_an_image_leaves_the_generator_of_the_gpu_alone():
    torch.cuda.manual_seed(0)
    before = torch.cuda.get_rng_state()
    Augmented(Noise(5), TRANSFORM, 5)[3]
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_image_once_in_order_whole_and_alone(workers):
    dataset = Noise(4)
    for _ in range(2):
        batches = list(evaluation_loader(dataset, workers))
        assert [list(batch.name) for batch in batches] == [[name] for name in dataset.names]
        for index, batch in enumerate(batches):
            assert torch.equal(batch.image, dataset[index].image[None])
            assert torch.equal(batch.mask, dataset[index].mask[None])


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_memory_is_pinned_where_models_run_on_cuda(device, pinned, monkeypatch):
    monkeypatch.setattr(loading, "choose_device", lambda: torch.device(device))
    assert evaluation_loader(Noise(3), 0).pin_memory is pinned
    assert training_loader(Noise(3), TRANSFORM, Batching(2), 0, 5).pin_memory is pinned


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_images_may_have_any_channels_and_spawned_workers_get_the_source(workers):
    loader = evaluation_loader(Elevations().open("all"), workers)
    loader.multiprocessing_context = multiprocessing.get_context("spawn") if workers else None
    batches = list(loader)
    assert [batch.name for batch in batches] == [("0",), ("1",), ("2",)]
    assert all(batch.image.shape == (1, 5, 4, 6) and batch.image.dtype == torch.float32 for batch in batches)
    assert [batch.image.max().item() for batch in batches] == [0.0, 0.25, 0.5]


class Elevations(Source):
    """A stranger's source of five measurements a pixel."""

    labels = LabelSet(("flat",))
    splits = ("all",)

    def records(self, split):
        return [Record(str(index)) for index in range(3)]

    def read(self, record):
        return Sample(torch.full((5, 4, 6), float(record.name) / 4), torch.zeros(4, 6, dtype=torch.int64), record.name)


def load_for_long(ready):
    ignore_signals(0)
    ready.set()
    time.sleep(100)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="no way to see who sent a signal")
def test_a_process_that_loads_ends_with_the_one_that_asked_for_it_and_with_no_other():
    """Python waits at its end for every process that it has told to; one that does not listen would hang it."""
    context = evaluation_loader(Noise(3), 1).multiprocessing_context
    ready = context.Event()
    process = context.Process(target=load_for_long, args=(ready,), daemon=True)
    process.start()
    assert ready.wait(60)
    for number in (signal.SIGTERM, signal.SIGINT):
        subprocess.run([sys.executable, "-c", f"import os; os.kill({process.pid}, {int(number)})"], check=True)
    process.join(0.5)
    assert process.is_alive()
    process.terminate()
    process.join(30)
    alive = process.is_alive()
    process.kill()
    assert not alive
    assert process.exitcode == 0
