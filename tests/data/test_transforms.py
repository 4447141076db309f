"""Picture and mask stay together; what is not picture is ignored."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sanet.data.transforms import PADDING_GREY, RandomScale, TrainingTransform
from sanet.structures import Sample

IGNORE = 99_999
SIZES = [(40, 50), (33, 47), (20, 100), (100, 20), (64, 64), (7, 9), (1, 1), (101, 103)]
each_size = pytest.mark.parametrize("size", SIZES)


def coordinates(height, width):
    """A picture whose first two channels are row and column, and a mask that says the same."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows, columns, torch.full_like(rows, 5)]).to(torch.uint8)
    return Sample(image, rows * 256 + columns, "grid")


def run(sample, seed, crop=(64, 64), scale=(1.0, 1.0), mirror=0.5, jitter=0.0, ignore_index=IGNORE):
    torch.manual_seed(seed)
    return TrainingTransform(crop, scale, mirror, jitter, ignore_index)(sample)


@each_size
@pytest.mark.parametrize("seed", range(4))
def test_crop_and_mirror_move_picture_and_mask_alike(size, seed):
    height, width = size
    image, mask, name = run(coordinates(*size), seed)
    inside = mask != IGNORE
    assert torch.equal((image[0].long() * 256 + image[1].long())[inside], mask[inside])
    assert (image[2][inside] == 5).all()
    assert (image[:, ~inside] == PADDING_GREY).all()
    # As much of the picture as fits, every pixel of it once, and ignore everywhere else.
    assert inside.sum() == min(height, 64) * min(width, 64)
    assert len(mask[inside].unique()) == inside.sum()
    assert name == "grid"


@each_size
@pytest.mark.parametrize("crop", [(32, 32), (64, 48), (33, 77)])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 2.0)])
def test_the_crop_is_exact(size, crop, scale):
    for seed in range(3):
        image, mask, _ = run(coordinates(*size), seed, crop=crop, scale=scale, jitter=0.3)
        assert image.shape == (3, *crop)
        assert mask.shape == crop
        assert image.dtype == torch.uint8
        assert mask.dtype == torch.int64
        assert type(image) is type(mask) is Tensor


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    crop=st.tuples(st.integers(32, 70), st.integers(32, 70)),
    ignore_index=st.sampled_from([255, 9, -1]),
    seed=st.integers(0, 999),
)
def test_masks_hold_only_their_own_labels_and_ignore(size, crop, ignore_index, seed):
    """Padding with 0 would make background of it; a smooth resize would make labels between the labels."""
    labels = torch.tensor([3, 7])
    mask = labels[torch.randint(0, 2, size, generator=torch.Generator().manual_seed(seed))]
    sample = Sample(torch.zeros(3, *size, dtype=torch.uint8), mask, "x")
    got = run(sample, seed, crop=crop, scale=(0.5, 2.0), jitter=0.3, ignore_index=ignore_index).mask
    assert set(got.unique().tolist()) <= {*mask.unique().tolist(), ignore_index}


def test_a_picture_smaller_than_the_crop_is_padded_with_ignore():
    sample = Sample(torch.zeros(3, 10, 20, dtype=torch.uint8), torch.zeros(10, 20, dtype=torch.int64), "x")
    mask = run(sample, 0, ignore_index=255).mask
    assert (mask == 0).sum() == 10 * 20
    assert (mask == 255).sum() == 64 * 64 - 10 * 20


@pytest.mark.parametrize("factor", [0.61, 0.77, 1.01, 1.3, 1.7])
def test_scaling_keeps_picture_and_mask_registered(factor):
    """Rows and columns, four grey levels a pixel: on average the mask's label is what the picture shows there."""
    rows, columns = torch.meshgrid(torch.arange(63), torch.arange(57), indexing="ij")
    image = torch.stack([4 * rows, 4 * columns, rows]).to(torch.uint8)
    crop = (round(63 * factor), round(57 * factor))
    got = run(Sample(image, rows * 64 + columns, "x"), 0, crop=crop, scale=(factor, factor), mirror=0)
    inner = (slice(4, -4), slice(4, -4))
    for shown, labelled in ((got.image[0] / 4, got.mask // 64), (got.image[1] / 4, got.mask % 64)):
        difference = (shown - labelled)[inner]
        assert difference.abs().max() < 1.2
        assert difference.mean().abs() < 0.1


def test_scale_factors_fill_their_range_and_keep_the_shape():
    torch.manual_seed(0)
    scale, image = RandomScale(0.5, 2.0), torch.zeros(3, 200, 100, dtype=torch.uint8)
    sizes = [scale.make_params([image])["size"] for _ in range(400)]
    factors = [height / 200 for height, _ in sizes]
    assert 0.5 <= min(factors) < 0.55
    assert 1.95 < max(factors) <= 2.0
    assert sum(factors) / 400 == pytest.approx(1.25, abs=0.1)
    assert all(abs(width - height / 2) <= 1 for height, width in sizes)


def test_mirror_is_certain_never_or_as_often_as_asked():
    sample = coordinates(64, 64)
    flipped = run(sample, 0, mirror=1.0)
    assert torch.equal(flipped.image, sample.image.flip(-1))
    assert torch.equal(flipped.mask, sample.mask.flip(-1))
    same = run(sample, 0, mirror=0.0)
    assert torch.equal(same.image, sample.image)
    assert torch.equal(same.mask, sample.mask)
    times = sum(not torch.equal(run(sample, seed, mirror=0.5).mask, sample.mask) for seed in range(200))
    assert 70 <= times <= 130


def test_crops_reach_every_corner():
    sample = coordinates(40, 36)
    corners = {run(sample, seed, crop=(32, 32), mirror=0).mask[0, 0].item() for seed in range(400)}
    assert {0 * 256 + 0, 8 * 256 + 0, 0 * 256 + 4, 8 * 256 + 4} <= corners
    assert {value >> 8 for value in corners} == set(range(9))
    assert {value & 255 for value in corners} == set(range(5))


@pytest.mark.parametrize("seed", range(5))
def test_jitter_changes_the_picture_and_leaves_the_mask(seed):
    sample = Sample(torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8), torch.randint(0, 9, (50, 70)), "x")
    plain, jittered = (run(sample, seed, scale=(0.5, 2.0), jitter=jitter) for jitter in (0.0, 0.5))
    assert torch.equal(plain.mask, jittered.mask)
    assert not torch.equal(plain.image, jittered.image)


def test_the_sample_itself_stays_as_it_is():
    sample = coordinates(40, 50)
    before = Sample(sample.image.clone(), sample.mask.clone(), sample.name)
    for seed in range(3):
        run(sample, seed, scale=(0.5, 2.0), jitter=0.5)
    assert torch.equal(sample.image, before.image)
    assert torch.equal(sample.mask, before.mask)


def test_the_seed_decides():
    sample = coordinates(40, 50)
    one, same, other = (run(sample, seed, scale=(0.5, 2.0), jitter=0.5) for seed in (3, 3, 4))
    assert torch.equal(one.image, same.image)
    assert torch.equal(one.mask, same.mask)
    assert not torch.equal(one.image, other.image)
