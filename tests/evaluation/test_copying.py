"""The mask of the nearest training image, against loops; parts of the data where time is short."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from sanet.data.source import Record, SegmentationDataset, Source
from sanet.evaluation import copying
from sanet.evaluation.copying import copy_nearest, filled, resized, thumbnail
from sanet.structures import LabelSet, Sample

LABELS = LabelSet(("a", "b", "c"))


class Given(Source):
    """Samples in memory."""

    labels = LABELS
    splits = ("train", "val")

    def __init__(self, samples: dict[str, list[Sample]]) -> None:
        self.samples = samples

    def records(self, split: str) -> Sequence[Record]:
        """By their names."""
        return [Record(f"{split}{index}") for index in range(len(self.samples[split]))]

    def read(self, record: Record) -> Sample:
        """As it was given."""
        split = record.name.rstrip("0123456789")
        return self.samples[split][int(record.name.removeprefix(split))]


def sample(seed: int, channels: int = 3) -> Sample:
    """Of a size of its own, with some pixels ignored."""
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(20, 40)), int(rng.integers(20, 40)))
    image = torch.from_numpy(rng.integers(0, 256, (channels, *size), np.uint8))
    mask = torch.from_numpy(rng.integers(0, 3, size))
    mask[rng.random(size) < 0.1] = 255
    return Sample(image, mask, str(seed))


def datasets(train: list[Sample], val: list[Sample]) -> tuple[SegmentationDataset, SegmentationDataset]:
    source = Given({"train": train, "val": val})
    return source.open("train"), source.open("val")


def field_means(image: Tensor) -> np.ndarray:
    """Loops over the fields, whose ends are rounded outwards."""
    channels, height, width = image.shape
    means = np.zeros((channels, 16, 16))
    for row in range(16):
        for column in range(16):
            rows = slice(row * height // 16, -(-(row + 1) * height // 16))
            columns = slice(column * width // 16, -(-(column + 1) * width // 16))
            means[:, row, column] = image[:, rows, columns].double().mean(dim=(1, 2))
    return means


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_against_loops(channels: int) -> None:
    train = [sample(seed, channels) for seed in range(7)]
    val = [sample(seed, channels) for seed in range(20, 24)]
    counts = np.zeros((3, 3), np.int64)
    for image, mask, _ in val:
        distances = [((field_means(image) - field_means(other.image)) ** 2).sum() for other in train]
        copied = train[int(np.argmin(distances))].mask.numpy()
        common = np.bincount(copied[copied != 255]).argmax()
        height, width = mask.shape
        for y in range(height):
            for x in range(width):
                value = copied[int((y + 0.5) * copied.shape[0] / height), int((x + 0.5) * copied.shape[1] / width)]
                if mask[y, x] != 255:
                    counts[mask[y, x], common if value == 255 else value] += 1
    found = copy_nearest(*datasets(train, val))
    expected = counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())
    np.testing.assert_allclose(list(found.scores.class_iou.values()), expected)
    assert found.complete
    ((_, facts),) = found.facts.items()
    assert (facts["images"], facts["training images"], facts["miou"]) == (4, 7, found.scores.miou)
    assert f"mIoU {expected.mean():.3f}" in str(found)


def test_thumbnails() -> None:
    image = sample(0).image
    np.testing.assert_allclose(thumbnail(image).numpy(), field_means(image).ravel(), rtol=1e-5)


def test_a_copy_scores_all() -> None:
    whole = [Sample(one.image, one.mask.clamp(max=2), one.name) for one in map(sample, range(5))]
    assert copy_nearest(*datasets(whole, whole[1:3])).scores.miou == 1


def test_what_is_resized_and_ignored() -> None:
    mask = torch.tensor([[0, 1], [2, 255]])
    assert resized(mask, 2, 4).tolist() == [[0, 0, 1, 1], [2, 2, 255, 255]]
    assert resized(resized(mask, 6, 10), 2, 2).equal(mask)
    assert filled(torch.tensor([[1, 1], [2, 255]]), 255).tolist() == [[1, 1], [2, 1]]
    assert filled(torch.full((2, 2), 255), 255).tolist() == [[0, 0], [0, 0]]


def test_little_time_takes_a_part_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(copying, "monotonic", lambda: next(clock))
    samples = [sample(seed) for seed in range(30)]
    found = copy_nearest(*datasets(samples, samples[:20]), seconds=10)
    assert (found.candidates, found.images, found.complete) == (7, 4, False)
    assert "on 4 images, of 7 training images" in str(found)
