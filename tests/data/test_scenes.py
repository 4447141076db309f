"""The built-in images: what follows from an index, and that only its surroundings name a thing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sanet.data.scenes import (
    COUNTS,
    HEIGHT,
    LABELS,
    MEADOW,
    NAMES,
    SKY,
    WATER,
    WIDTH,
    Canvas,
    Light,
    Scenes,
    Thing,
    paint_thing,
)
from sanet.structures import Sample

DIGEST = """
import hashlib
from sanet.data.scenes import Scenes
sample = Scenes(seed=3).open("test")[5]
print(hashlib.sha256(sample.image.numpy().tobytes() + sample.mask.numpy().tobytes()).hexdigest())
"""


@cache
def samples(split: str) -> list[Sample]:
    scenes = Scenes().open(split)
    return [scenes[index] for index in range(len(scenes))]


def digest(sample: Sample) -> str:
    return hashlib.sha256(sample.image.numpy().tobytes() + sample.mask.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("split", COUNTS)
def test_samples_are_what_they_promise(split: str) -> None:
    scenes = Scenes().open(split)
    assert len(scenes) == len(scenes.names) == len(samples(split)) == COUNTS[split]
    assert scenes.labels == LABELS
    for name, sample in zip(scenes.names, samples(split), strict=True):
        assert sample.name == name
        assert sample.image.dtype == torch.uint8
        assert sample.image.shape == (3, HEIGHT, WIDTH)
        assert sample.mask.dtype == torch.int64
        assert sample.mask.shape == (HEIGHT, WIDTH)
        assert set(np.unique(sample.mask)) <= set(range(len(LABELS)))


def test_names_tell_split_and_index() -> None:
    assert Scenes().open("train")[12].name == "scene-train-00012"
    assert Scenes().records("val")[-1].name == f"scene-val-{COUNTS['val'] - 1:05d}"


def test_images_use_the_range_of_values() -> None:
    images = torch.stack([sample.image for sample in samples("val")]).float()
    assert 80 < images.mean() < 180
    assert images.flatten(1).std(dim=1).min() > 15


def test_an_image_follows_from_its_index_alone() -> None:
    first = digest(Scenes(seed=3).open("test")[5])
    other_order = Scenes(seed=3).open("test")
    np.random.seed(1)
    torch.manual_seed(1)
    _ = other_order[9], other_order[0]
    assert digest(other_order[5]) == first


@pytest.mark.slow
def test_another_process_draws_the_same() -> None:
    first = digest(Scenes(seed=3).open("test")[5])
    assert subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True).stdout.strip() == first


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("train", "4b3d29a140f8e591473e726d8b426c7d3cc85064762e5f88fe5c63f4e5ac8f56"),
        ("val", "0158cae21ca9c3692f2a88d8f19f3ab88ca49fb908c2d8700f4ad4df25d1850a"),
        ("test", "719b826e38b12fd497f2a232980904037cf0f11097c5977023cb7e6a3aa4064e"),
    ],
)
def test_images_are_those_of_the_documented_results(split: str, expected: str) -> None:
    found = hashlib.sha256()
    for sample in samples(split):
        found.update(sample.image.numpy().tobytes() + sample.mask.numpy().tobytes())
    assert found.hexdigest() == expected


def test_splits_and_seeds_share_no_image() -> None:
    digests = [digest(sample) for split in COUNTS for sample in samples(split)]
    digests += [digest(Scenes(seed=1).open("train")[index]) for index in range(20)]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("split", COUNTS)
def test_every_class_is_in_every_split(split: str) -> None:
    masks = torch.stack([sample.mask for sample in samples(split)])
    shares = torch.bincount(masks.flatten(), minlength=len(LABELS)) / masks.numel()
    assert shares.min() > 0.005, dict(zip(LABELS.names, shares.tolist(), strict=True))
    images = torch.stack([(masks == index).flatten(1).any(dim=1).sum() for index in range(len(LABELS))])
    assert images.min() >= 8


def test_sun_or_moon_names_all_that_is_in_a_sky() -> None:
    by_sun = {LABELS.names.index(name) for name in ("balloon", "kite")}
    by_moon = {LABELS.names.index("lantern")}
    for sample in samples("train"):
        present = set(np.unique(sample.mask).tolist())
        assert not (present & by_sun and present & by_moon)


@pytest.mark.parametrize("shape", NAMES)
def test_the_same_thing_is_named_by_what_is_behind_it(shape: str) -> None:
    labels, looks = [], []
    for surface, moon in ((SKY, False), (MEADOW, False), (WATER, False), (SKY, True)):
        canvas = Canvas(np.full((3, HEIGHT, WIDTH), surface / 2), np.full((HEIGHT, WIDTH), surface))
        thing = Thing(shape, surface, x=90, y=60, size=15.0, turn=0.2)
        paint_thing(np.random.default_rng(0), canvas, thing, Light(moon, x=30.0, y=20.0))
        own = canvas.mask != surface
        labels.append(LABELS.names[canvas.mask[60, 90]])
        looks.append(np.where(own, canvas.image, 0))
    assert tuple(labels) == NAMES[shape]
    for look in looks[1:]:
        np.testing.assert_allclose(look, looks[0], rtol=0, atol=1e-12)


def appearances(names: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Of everything so called in the training images: its own pixels' statistics (N, D), and its name (N,)."""
    statistics, labels = [], []
    for sample in samples("train"):
        for label, name in enumerate(names):
            own = sample.mask == LABELS.names.index(name)
            if own.sum() > 60:
                pixels = sample.image[:, own].double().numpy() / 255
                quartiles = np.percentile(pixels, (10, 50, 90), axis=1).ravel()
                statistics.append([*pixels.mean(axis=1), *pixels.std(axis=1), *quartiles])
                labels.append(label)
    return np.array(statistics), np.array(labels)


@pytest.mark.parametrize("names", [("balloon", "ball", "buoy"), ("kite", "crate", "raft")])
def test_own_pixels_do_not_tell_the_class(names: tuple[str, ...]) -> None:
    features, labels = appearances(names)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    distances = np.square(features[:, None] - features[None]).sum(axis=-1)
    np.fill_diagonal(distances, np.inf)
    nearest = labels[np.argsort(distances, axis=1)[:, :9]]
    votes = np.stack([(nearest == label).mean(axis=1) for label in range(3)], axis=1)
    # Divided by how frequent a class is, so that chance is a third whatever the counts.
    guesses = (votes / np.bincount(labels)).argmax(axis=1)
    accuracy = np.mean([(guesses == label)[labels == label].mean() for label in range(3)])
    assert accuracy < 0.43, f"nearest neighbours name {accuracy:.0%} rightly; chance is 33 %"


def test_an_unknown_split_offers_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'trian'.*train, val, test.*--split"):
        Scenes().open("trian")
