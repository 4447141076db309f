import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sanet.config import InferenceConfig
from sanet.inference import views
from sanet.inference.views import OVERLAP, blended_bands, label_image, window_starts
from sanet.structures import UsageError

CLASSES = 5


class PixelNetwork:
    """Logits that depend on each pixel alone, so that windows must not change them; keeps what it was asked."""

    def __init__(self):
        self.weight = torch.randn(CLASSES, 3, 1, 1, generator=torch.Generator().manual_seed(0))
        self.sizes = []

    def __call__(self, images):
        self.sizes.append(tuple(images.shape[-2:]))
        return torch.nn.functional.conv2d(images.float() / 255, self.weight)


def class_probabilities(network, image, settings=InferenceConfig()):
    """(K, H, W) of one image (C, H, W)."""
    return views.class_probabilities(network, image[None], settings)[0]


def picture(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def blur(images):
    """Logits with a receptive field, whose values near the rim of a window differ from the whole picture's."""
    return torch.nn.functional.avg_pool2d(PixelNetwork()(images), 9, stride=1, padding=4)


@settings(max_examples=25)
@given(height=st.integers(1, 150), width=st.integers(1, 150), window=st.integers(32, 80))
def test_windows_equal_the_whole_picture_for_a_pixelwise_network(height, width, window):
    network, image = PixelNetwork(), picture(height, width)
    expected = PixelNetwork()(image[None])[0].argmax(0)
    assert torch.equal(label_image(network, image, InferenceConfig(window)), expected)
    assert all(h * w <= window**2 for h, w in network.sizes)


@pytest.mark.parametrize("size", [(64, 64), (64, 40), (33, 90)])
def test_a_window_as_large_as_the_picture_is_the_picture(size):
    image = picture(*size)
    bands = list(blended_bands(blur, image[None], max(size)))
    torch.testing.assert_close(torch.cat(bands, dim=2), blur(image[None]))
    assert torch.equal(label_image(blur, image, InferenceConfig(90)), blur(image[None])[0].argmax(0))


@pytest.mark.parametrize(("size", "window"), [((100, 70), 40), ((90, 200), 64), ((41, 41), 40)])
def test_bands_are_the_weighted_mean_of_their_windows(size, window):
    image = picture(*size)
    tall, wide = min(window, size[0]), min(window, size[1])
    sums, weights = torch.zeros(CLASSES, *size), torch.zeros(size)
    for top in window_starts(size[0], tall):
        for left in window_starts(size[1], wide):
            logits = blur(image[None, :, top : top + tall, left : left + wide])[0]
            for y in range(tall):
                for x in range(wide):
                    weight = min(y + 1, tall - y) * min(x + 1, wide - x)
                    sums[:, top + y, left + x] += weight * logits[:, y, x]
                    weights[top + y, left + x] += weight
    bands = [band[0] for band in blended_bands(blur, image[None], window)]
    assert sum(band.shape[1] for band in bands) == size[0]
    torch.testing.assert_close(torch.cat(bands, dim=1), sums / weights)


def test_no_band_is_taller_than_a_window():
    bands = list(blended_bands(blur, picture(500, 60)[None], 48))
    assert max(band.shape[2] for band in bands) <= 48


@settings(max_examples=200)
@given(length=st.integers(1, 3000), window=st.integers(1, 700))
def test_window_starts_cover_everything_and_overlap(length, window):
    starts = window_starts(length, window)
    assert starts[0] == 0
    if length <= window:
        assert starts == [0]
        return
    assert starts[-1] == length - window
    steps = [after - before for before, after in itertools.pairwise(starts)]
    # Rounding moves a start by half a pixel at most.
    assert all(0 < step <= max(1, window * (1 - OVERLAP)) + 1 for step in steps)


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (31, 31), (32, 31)])
def test_pictures_below_the_smallest_side_are_grown_by_their_rim(size):
    network = PixelNetwork()
    labels = label_image(network, picture(*size))
    assert labels.shape == size
    assert min(network.sizes[0]) >= 32


def lopsided(images):
    """Logits with a receptive field that looks to the right only, so that a mirror changes them."""
    logits = PixelNetwork()(images)
    return logits + 2 * F.pad(logits, (0, 5))[..., 5:]


def triangle(old, new, antialias):
    """(new, old) weights of a bilinear resize, from its definition: a tent around the centre of every new pixel."""
    factor = old / new
    reach = max(1.0, factor) if antialias else 1.0
    weights = torch.zeros(new, old, dtype=torch.float64)
    for y in range(new):
        centre = (y + 0.5) * factor - 0.5
        centre = centre if antialias else min(max(centre, 0), old - 1)
        for x in range(old):
            weights[y, x] = max(0.0, 1 - abs(x - centre) / reach)
    return weights / weights.sum(dim=1, keepdim=True)


def loop_resize(maps, height, width, antialias):
    rows, columns = triangle(maps.shape[-2], height, antialias), triangle(maps.shape[-1], width, antialias)
    return rows @ maps.double() @ columns.T


def loop_probabilities(network, image, scales, mirror):
    """What the definition says, picture by picture, for pictures that no window cuts."""
    _, height, width = image.shape
    views = []
    for scale in scales:
        for mirrored in [False, True] if mirror else [False]:
            seen = image.flip(-1) if mirrored else image
            size = max(32, round(height * scale)), max(32, round(width * scale))
            if size != (height, width):
                seen = loop_resize(seen, *size, antialias=True).float()
            logits = loop_resize(network(seen[None])[0], height, width, antialias=False)
            found = logits.softmax(0)
            views.append(found.flip(-1) if mirrored else found)
    return torch.stack(views).mean(0).float()


@pytest.mark.parametrize("size", [(40, 61), (33, 32), (51, 90)])
@pytest.mark.parametrize(
    ("scales", "mirror"), [((1.0,), True), ((0.7,), False), ((0.5, 1.0, 1.75), True), ((1.5, 2.0), False)]
)
def test_views_equal_loops_from_the_definition(size, scales, mirror):
    image, views = picture(*size), InferenceConfig(1024, scales, mirror)
    found = class_probabilities(lopsided, image.float(), views)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loop_probabilities(lopsided, image, scales, mirror), rtol=0, atol=2e-5)
    # Resized bytes are rounded to bytes, half a grey value away at most.
    torch.testing.assert_close(class_probabilities(lopsided, image, views), found, rtol=0, atol=5e-3)


@settings(max_examples=30)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    scales=st.lists(st.sampled_from([0.31, 0.5, 0.75, 1.0, 1.3, 1.75, 2.5]), min_size=1, max_size=3, unique=True),
    mirror=st.booleans(),
    window=st.integers(32, 90),
)
def test_any_size_any_views(height, width, scales, mirror, window):
    """Every size is labelled at its own size, and no view is larger than a window."""
    network, image, views = PixelNetwork(), picture(height, width), InferenceConfig(window, tuple(scales), mirror)
    found = class_probabilities(network, image, views)
    assert found.shape == (CLASSES, height, width)
    torch.testing.assert_close(found.sum(0), torch.ones(height, width))
    assert torch.equal(label_image(PixelNetwork(), image, views), found.argmax(0)) or views == InferenceConfig(window)
    assert all(h * w <= window**2 and min(h, w) >= 32 for h, w in network.sizes)
    # For a network that sees single pixels, windows change nothing.
    torch.testing.assert_close(
        found,
        class_probabilities(PixelNetwork(), image, InferenceConfig(4096, tuple(scales), mirror)),
        rtol=0,
        atol=1e-5,
    )


@settings(max_examples=30)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    scale=st.sampled_from([0.6, 1.0, 1.4]),
    window=st.integers(32, 90),
)
def test_a_mirrored_picture_has_a_mirrored_labelling(height, width, scale, window):
    """Also in windows, which need not lie symmetrically: the two views change places."""
    image, views = picture(height, width), InferenceConfig(window, (scale,), True)
    once, again = (class_probabilities(lopsided, seen, views) for seen in (image, image.flip(-1)))
    assert torch.equal(again.flip(-1), once)
    assert torch.equal(label_image(lopsided, image.flip(-1), views).flip(-1), label_image(lopsided, image, views))


def test_a_network_that_is_not_symmetric_needs_the_mirror_for_that():
    image = picture(40, 50)
    found = [class_probabilities(lopsided, seen) for seen in (image, image.flip(-1))]
    assert not torch.allclose(found[1].flip(-1), found[0], atol=1e-2)


@pytest.mark.parametrize("size", [(40, 61), (7, 90), (120, 33)])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.5)])
def test_a_mirror_changes_nothing_for_a_symmetric_network(size, scales):
    image = picture(*size)
    once, twice = (class_probabilities(blur, image, InferenceConfig(1024, scales, mirror)) for mirror in (False, True))
    # A resized pixel that rounds to the other of two grey values moves a logit by a hundredth of that step.
    torch.testing.assert_close(twice, once, rtol=0, atol=2e-3)
    torch.testing.assert_close(
        class_probabilities(blur, image / 255, InferenceConfig(1024, scales, True)),
        class_probabilities(blur, image / 255, InferenceConfig(1024, scales)),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize(("size", "window"), [((40, 61), 1024), ((100, 70), 40), ((5, 200), 1024)])
def test_one_scale_of_1_takes_the_logits_as_they_are(size, window):
    """Bit for bit, without a softmax that could make two classes equal."""
    asked = []

    def network(images):
        asked.append(images)
        return 1e-7 * blur(images) + 50

    image = picture(*size)
    found = label_image(network, image, InferenceConfig(window, (1,)))
    assert all(images.dtype == torch.uint8 for images in asked)
    grown = image[:, torch.arange(max(32, size[0])).clamp(max=size[0] - 1)]
    grown = grown[:, :, torch.arange(max(32, size[1])).clamp(max=size[1] - 1)]
    if grown.shape[1] * grown.shape[2] <= window**2:
        expected = network(grown[None])[0].argmax(0)
    else:
        expected = torch.cat(list(blended_bands(network, grown[None], window)), dim=2)[0].argmax(0)
    assert torch.equal(found, expected[: size[0], : size[1]])


def test_large_views_go_through_windows_and_small_ones_whole():
    network = PixelNetwork()
    label_image(network, picture(60, 60), InferenceConfig(64, (0.75, 1.5)))
    assert network.sizes[0] == (45, 45)
    assert set(network.sizes[1:]) == {(64, 64)}
    assert len(network.sizes) == 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": 31}, r"window 31"),
        ({"shorter_side": 31}, "shorter_side 31"),
        ({"scales": ()}, r"scales \[\]"),
        ({"scales": (1.0, 0.5, 1)}, r"scales \[0.5, 1.0, 1.0\].*twice"),
        ({"scales": (0.0,)}, r"scales 0.0"),
        ({"scales": (-1.0, 1.0)}, "scales"),
        ({"scales": (math.inf,)}, "scales"),
        ({"scales": (math.nan,)}, "scales"),
    ],
)
def test_views_that_cannot_be(settings, words):
    with pytest.raises(UsageError, match=words):
        InferenceConfig(**settings)


@settings(max_examples=25)
@given(st.integers(32, 120), st.integers(32, 120), st.sampled_from([32, 48, 96]), st.booleans())
def test_a_shorter_side_is_a_scale_that_depends_on_the_picture(height, width, side, mirror):
    image, scales = picture(height, width), (0.5, 1.0)
    seen = PixelNetwork()
    found = class_probabilities(seen, image, InferenceConfig(1024, scales, mirror, side))
    factors = tuple(scale * side / min(height, width) for scale in scales)
    assert torch.equal(found, class_probabilities(PixelNetwork(), image, InferenceConfig(1024, factors, mirror)))
    assert {min(size) for size in seen.sizes} == {max(32, side // 2), side}
    assert found.shape[-2:] == image.shape[-2:]


def test_a_picture_that_has_the_shorter_side_is_seen_as_it_is():
    image, views = picture(40, 70), InferenceConfig(shorter_side=40)
    assert torch.equal(label_image(blur, image, views), blur(image[None])[0].argmax(0))


def test_the_order_of_scales_makes_no_other_views():
    assert InferenceConfig(scales=[1.5, 1]) == InferenceConfig(scales=(1.0, 1.5))


@pytest.mark.parametrize("size", [(500, 333), (31, 45), (72, 300)])
def test_resized_logits_of_large_images_come_in_parts(size, monkeypatch):
    logits = torch.randn(1, 5, 72, 90, generator=torch.Generator().manual_seed(0))
    (whole,) = views.resized_bands([logits], 72, size)
    monkeypatch.setattr(views, "PART", 700)
    parts = [*views.resized_bands([logits[..., :30, :], logits[..., 30:, :]], 72, size)]
    assert max(part[0, 0].numel() for part in parts) <= 700
    torch.testing.assert_close(torch.cat(parts, dim=-2), whole)
    expected = F.interpolate(logits, size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-4)
