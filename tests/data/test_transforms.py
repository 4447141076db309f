"""Image and mask stay together; what is outside the image is ignored."""

import itertools
import random
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from sanet.config import AugmentationConfig
from sanet.data.transforms import (
    PADDING_GREY,
    Augmentation,
    Span,
    TrainingTransform,
    color_jitter,
    nearest_part,
    resized_part,
    seeded,
)
from sanet.structures import Sample, UsageError

IGNORE = 99_999
SIZES = [(40, 50), (33, 47), (20, 100), (100, 20), (64, 64), (7, 9), (1, 1), (101, 103)]
each_size = pytest.mark.parametrize("size", SIZES)


def coordinates(height, width):
    """An image whose first two channels are row and column, and a mask that says the same."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows, columns, torch.full_like(rows, 5)]).to(torch.uint8)
    return Sample(image, rows * 256 + columns, "grid")


def run(sample, seed, crop=(64, 64), scale=(1.0, 1.0), hflip=0.5, jitter=0.0, ignore_index=IGNORE, **others):
    torch.manual_seed(seed)
    return TrainingTransform(AugmentationConfig(crop, scale, hflip, jitter=jitter, **others), ignore_index)(sample)


def test_flips_and_turns_make_every_one_of_the_eight_views_alike_often():
    """Image and mask together; and what is not asked for is not done, nor are other numbers drawn for it."""
    grid = coordinates(64, 64)
    views = {
        Sample(mask.flip(axes).rot90(quarters, (0, 1)), None, None).image.numpy().tobytes(): (quarters, len(axes))
        for quarters in range(4)
        for axes in ([], [0])
        for mask in [grid.mask]
    }
    assert len(views) == 8
    seen = []
    for seed in range(400):
        image, mask, _ = run(grid, seed, vflip=0.5, turns=True)
        assert torch.equal(image[0].long() * 256 + image[1].long(), mask)
        seen.append(views[mask.contiguous().numpy().tobytes()])
    counts = [seen.count(view) for view in views.values()]
    assert min(counts) > 25
    one, other = run(grid, 5, jitter=0.3), run(grid, 5, jitter=0.3, vflip=1.0)
    assert torch.equal(one.image.flip(-2), other.image)
    assert {run(grid, seed, hflip=0.0, vflip=1.0).mask[0, 0].item() for seed in range(9)} == {grid.mask[-1, 0].item()}
    with pytest.raises(UsageError, match="square"):
        AugmentationConfig((64, 96), turns=True)


@each_size
@pytest.mark.parametrize("seed", range(4))
def test_crop_and_hflip_move_image_and_mask_alike(size, seed):
    height, width = size
    image, mask, name = run(coordinates(*size), seed)
    inside = mask != IGNORE
    assert torch.equal((image[0].long() * 256 + image[1].long())[inside], mask[inside])
    assert (image[2][inside] == 5).all()
    assert (image[:, ~inside] == PADDING_GREY).all()
    # As much of the image as fits, every pixel of it once, and ignore everywhere else.
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


@settings(max_examples=40)
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


def test_an_image_smaller_than_the_crop_is_padded_with_ignore():
    sample = Sample(torch.zeros(3, 10, 20, dtype=torch.uint8), torch.zeros(10, 20, dtype=torch.int64), "x")
    mask = run(sample, 0, ignore_index=255).mask
    assert (mask == 0).sum() == 10 * 20
    assert (mask == 255).sum() == 64 * 64 - 10 * 20


@pytest.mark.parametrize("factor", [0.61, 0.77, 1.01, 1.3, 1.7])
def test_scaling_keeps_image_and_mask_registered(factor):
    """Rows and columns, four grey levels a pixel: on average the mask's label is what the image shows there."""
    rows, columns = torch.meshgrid(torch.arange(63), torch.arange(57), indexing="ij")
    image = torch.stack([4 * rows, 4 * columns, rows]).to(torch.uint8)
    crop = (round(63 * factor), round(57 * factor))
    got = run(Sample(image, rows * 64 + columns, "x"), 0, crop=crop, scale=(factor, factor), hflip=0)
    inner = (slice(4, -4), slice(4, -4))
    for shown, labelled in ((got.image[0] / 4, got.mask // 64), (got.image[1] / 4, got.mask % 64)):
        difference = (shown - labelled)[inner]
        assert difference.abs().max() < 1.2
        assert difference.mean().abs() < 0.1


def test_scale_factors_fill_their_range_and_keep_the_shape():
    """A white image that fits is seen whole: the box of what is no padding has its size."""
    sample = Sample(torch.full((3, 60, 30), 255, dtype=torch.uint8), torch.zeros(60, 30, dtype=torch.int64), "x")
    sizes = []
    for seed in range(400):
        inside = run(sample, seed, crop=(128, 128), scale=(0.5, 2.0)).mask != IGNORE
        sizes.append((inside.any(1).sum().item(), inside.any(0).sum().item()))
    heights = [height for height, _ in sizes]
    assert set(heights) >= {*range(31, 120, 10)}
    assert 30 <= min(heights) <= 31
    assert 119 <= max(heights) <= 120
    assert sum(heights) / 400 == pytest.approx(75, abs=5)
    assert all(abs(width - height / 2) <= 1 for height, width in sizes)


def ties(span, length):
    return (2 * torch.arange(span.start, span.start + span.kept) + 1) * length % (2 * span.size) == 0


lengths, factors = st.integers(1, 150), st.floats(0.3, 2.5)


@settings(max_examples=150)
@given(height=lengths, width=lengths, factor=factors, crop=st.tuples(lengths, lengths), seed=st.integers(0, 999))
def test_a_part_is_what_a_crop_of_the_resized_image_is(height, width, factor, crop, seed):
    """Pillow, which resizes a box of the image, differs by two levels at most, torchvision's floats by 1.5."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    mask = torch.arange(height * width).view(height, width)
    draws = torch.rand(2, generator=generator).tolist()
    rows, columns = (
        Span.place(*side, draw)
        for side, draw in zip(((height, factor, crop[0]), (width, factor, crop[1])), draws, strict=True)
    )
    size, window = [rows.size, columns.size], (..., rows.source, columns.source)

    part = resized_part(image, rows, columns).float()
    naive = F.resize(image.float(), size, antialias=True)[window]
    # PyTorch 2.15 repeats the first row of floats that become one pixel wide.
    assert columns.size == 1 or (part - naive).abs().max() < 1.5
    box = (
        columns.start * width / columns.size,
        rows.start * height / rows.size,
        (columns.start + columns.kept) * width / columns.size,
        (rows.start + rows.kept) * height / rows.size,
    )
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy())
    boxed = np.array(pillow.resize((columns.kept, rows.kept), Image.Resampling.BILINEAR, box=box))
    assert (part - torch.from_numpy(boxed).permute(2, 0, 1)).abs().max() <= 2

    naive_mask = F.resize_image(mask.double()[None], size, interpolation=v2.InterpolationMode.NEAREST_EXACT)[0][window]
    labels = nearest_part(mask, rows, columns)
    assert labels.shape == part.shape[1:]
    # Where two pixels are as near, torchvision's floats choose either.
    sure = ~ties(rows, height)[:, None] & ~ties(columns, width)
    assert torch.equal(labels.double()[sure], naive_mask[sure])


@given(length=lengths, factor=factors, crop=lengths, draw=st.floats(0, 1 - 2**-24))
def test_a_span_stays_within_its_side_and_the_crop(length, factor, crop, draw):
    span = Span.place(length, factor, crop, draw)
    assert span.size == max(1, round(length * factor))
    assert span.kept == min(span.size, crop)
    assert 0 <= span.start <= span.size - span.kept
    assert 0 <= span.offset <= crop - span.kept


@pytest.mark.parametrize(("length", "crop"), [(40, 36), (36, 40)])
def test_every_place_is_as_likely(length, crop):
    """Of the crop in the side, and of a side in the crop that is longer."""
    places = [max(Span.place(length, 1, crop, index / 1000)[1::2]) for index in range(1000)]
    assert [places.count(place) for place in range(5)] == [200] * 5


def test_hflip_is_certain_never_or_as_often_as_asked():
    sample = coordinates(64, 64)
    flipped = run(sample, 0, hflip=1.0)
    assert torch.equal(flipped.image, sample.image.flip(-1))
    assert torch.equal(flipped.mask, sample.mask.flip(-1))
    same = run(sample, 0, hflip=0.0)
    assert torch.equal(same.image, sample.image)
    assert torch.equal(same.mask, sample.mask)
    times = sum(not torch.equal(run(sample, seed, hflip=0.5).mask, sample.mask) for seed in range(200))
    assert 70 <= times <= 130


def test_crops_reach_every_corner():
    sample = coordinates(40, 36)
    corners = {run(sample, seed, crop=(32, 32), hflip=0).mask[0, 0].item() for seed in range(400)}
    assert {0 * 256 + 0, 8 * 256 + 0, 0 * 256 + 4, 8 * 256 + 4} <= corners
    assert {value >> 8 for value in corners} == set(range(9))
    assert {value & 255 for value in corners} == set(range(5))


@pytest.mark.parametrize("seed", range(5))
def test_jitter_changes_the_image_and_leaves_the_mask(seed):
    sample = Sample(torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8), torch.randint(0, 9, (50, 70)), "x")
    plain, jittered = (run(sample, seed, scale=(0.5, 2.0), jitter=jitter) for jitter in (0.0, 0.5))
    assert torch.equal(plain.mask, jittered.mask)
    assert not torch.equal(plain.image, jittered.image)


def test_jitter_leaves_the_padding():
    image, mask, _ = run(coordinates(20, 30), 0, jitter=0.9)
    assert (image[:, mask == IGNORE] == PADDING_GREY).all()
    assert (image[:, mask != IGNORE] != coordinates(20, 30).image.flatten(1)).any()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("strengths", [(1.3, 0.7, 1.3), (0.7, 1.3, 0.6), (1.6, 1.6, 0.4)])
def test_jitter_is_that_of_torchvision_but_for_its_rounding(order, strengths):
    """torchvision cuts off the fraction after each of the three, and that of the grey besides."""
    image = torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cut, exact = image, image.double() / 255
    for change in order:
        adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)[change]
        cut, exact = adjust(cut, strengths[change]), adjust(exact, strengths[change])
    got = color_jitter(image, list(strengths), list(order))
    assert got.dtype == torch.uint8
    assert (got - 255 * exact).abs().max() < 0.6  # torchvision's weights of grey add up to 0.9999
    assert (got.double() - cut).abs().max() <= 5
    assert (got.double() - cut).mean().abs() < 2


@pytest.mark.parametrize("size", [(40, 50), (7, 9), (300, 200)])
@pytest.mark.parametrize("setting", [{}, {"jitter": 0.5}, {"hflip": 0.0}, {"scale": (0.5, 2.0)}, {"crop": (32, 90)}])
def test_as_much_is_drawn_whatever_the_image_and_the_settings(size, setting):
    states = []
    for sample, settings_ in ((coordinates(40, 50), {}), (coordinates(*size), setting)):
        run(sample, 7, **settings_)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


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


# -- transforms of torchvision, and of one's own ----------------------------------------------------------------------


def labelled(height, width):
    """An image whose channels say the class of each pixel, 1 to 4 in the quarters, and a mask that says the same."""
    mask = torch.zeros(height, width, dtype=torch.int64)
    mask[height // 2 :] += 2
    mask[:, width // 2 :] += 1
    mask[:2, :3] = 255
    image = (40 + 50 * mask.clamp(max=4)).to(torch.uint8).expand(3, -1, -1)
    return Sample(image.contiguous(), mask, "quarters")


def augmented(sample, *transforms, seed=0, ignore_index=255):
    with seeded(seed):
        plain = AugmentationConfig(crop=(48, 64), scale=(1.0, 1.0), hflip=0, jitter=0)
        return Augmentation(plain, transforms, ignore_index)(sample)


def of_torchvision(name, **options):
    return {"name": f"torchvision.transforms.v2:{name}", "options": options}


@pytest.mark.parametrize("ignore_index", [255, -1, 4])
@pytest.mark.parametrize(
    ("transform", "fills"),
    [
        (of_torchvision("RandomHorizontalFlip", p=1.0), False),
        (of_torchvision("RandomRotation", degrees=[20, 40]), True),
        (of_torchvision("RandomAffine", degrees=30, translate=[0.3, 0.3], fill=1), True),
        (of_torchvision("RandomPerspective", distortion_scale=0.6, p=1.0), True),
        (of_torchvision("ElasticTransform", alpha=80.0), True),
        (of_torchvision("RandomResizedCrop", size=[40, 40]), False),
        (of_torchvision("RandomZoomOut", p=1.0, fill=3), True),
        (of_torchvision("Pad", padding=9, fill=2), True),
        (v2.Compose([v2.RandomRotation(30), v2.RandomCrop(40)]), False),
    ],
    ids=str,
)
def test_image_and_mask_move_alike_and_what_is_filled_is_ignored(transform, fills, ignore_index):
    sample = labelled(48, 64)
    sample = sample._replace(mask=sample.mask.where(sample.mask != 255, ignore_index))
    for seed in range(3):
        image, mask, name = augmented(sample, transform, seed=seed, ignore_index=ignore_index)
        assert (image.dtype, mask.dtype, name) == (torch.uint8, torch.int64, "quarters")
        assert type(image) is type(mask) is Tensor
        assert image.shape == (3, *mask.shape)
        assert set(mask.unique().tolist()) <= {0, 1, 2, 3, ignore_index}
        inside = mask != ignore_index
        shown = (image[0].double() - 40) / 50
        assert (shown - mask)[inside].abs().median() < 0.1
        # But for the seams between the quarters, where the image is smooth.
        assert ((shown - mask)[inside].abs() < 0.5).double().mean() > 0.9
        if fills:
            assert (~inside).sum() > 20


@pytest.mark.parametrize(
    "transform",
    [
        of_torchvision("ColorJitter", brightness=0.5),
        of_torchvision("RandomErasing", p=1.0),
        of_torchvision("GaussianBlur", kernel_size=5, sigma=[2.0, 2.0]),
    ],
    ids=str,
)
def test_what_changes_colours_leaves_the_mask(transform):
    plain, changed = augmented(labelled(48, 64)), augmented(labelled(48, 64), transform)
    assert torch.equal(plain.mask, changed.mask)
    assert not torch.equal(plain.image, changed.image)


def channels_lost(sample):
    return sample._replace(image=sample.image[:1])


def mask_lost(sample):
    return sample.image


def mask_cropped(sample):
    return sample._replace(mask=sample.mask[:9])


@pytest.mark.parametrize(
    ("transform", "named"),
    [
        (of_torchvision("Normalize", mean=[0.5], std=[0.5]), "Normalize"),
        (v2.ToDtype(torch.float32), "ToDtype"),
        (v2.Compose([v2.RandomCrop(9), v2.Normalize([0.5], [0.5])]), "Normalize"),
        (of_torchvision("Grayscale"), "Grayscale"),
        (of_torchvision("RandomErasin"), "RandomErasing"),
        (of_torchvision("RandomErasing", q=1), "q"),
        (of_torchvision("functional"), "Transform"),
        ("os:system", "not open"),
        (channels_lost, "channels_lost"),
        (mask_lost, "mask_lost"),
        (mask_cropped, "mask_cropped"),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),
)
def test_what_the_network_could_not_take_is_refused(transform, named):
    with pytest.raises(UsageError, match=named):
        augmented(labelled(48, 64), transform)


def test_a_transform_of_ones_own_gets_masks_of_64_bits_and_seeded_numbers():
    seen = []

    def own(sample):
        seen.append((sample.mask.dtype, torch.rand(1).item(), np.random.rand(), random.random()))
        return sample

    narrow = labelled(48, 64)._replace(mask=labelled(48, 64).mask.to(torch.uint8))
    random.seed(1)
    np.random.seed(1)
    expected = random.Random(1).random(), np.random.RandomState(1).rand()
    for seed in (1, 1, 2):
        assert augmented(narrow, own, seed=seed).mask.dtype == torch.uint8
    assert seen[0] == seen[1]
    assert all(one != other for one, other in zip(seen[0][1:], seen[2][1:], strict=True))
    assert seen[0][0] == torch.int64
    # What is drawn elsewhere goes on as if nothing had been drawn here.
    assert (random.random(), np.random.rand()) == expected


OTHER_TYPES = [(torch.uint16, 4, 4000), (torch.float32, 1, 1), (torch.int16, 5, 900)]


@pytest.mark.parametrize(("dtype", "channels", "top"), OTHER_TYPES)
def test_images_of_other_types_and_channels(dtype, channels, top):
    image = (top * torch.rand(channels, 20, 30)).to(dtype)
    image.view(-1)[0] = top
    mask = torch.zeros(20, 30, dtype=torch.int64)
    got = run(Sample(image, mask, "x"), 0, jitter=0.5)
    assert got.image.shape == (channels, 64, 64)
    assert got.image.dtype == dtype
    values = got.image.double()
    assert 0 <= values.min() <= values.max() <= top
    assert len(values[:, got.mask == IGNORE].unique()) == 1
