import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanet.inference.views import OVERLAP, blended_bands, label_picture, window_starts

CLASSES = 5


class PixelNetwork:
    """Logits that depend on each pixel alone, so that windows must not change them; keeps what it was asked."""

    def __init__(self):
        self.weight = torch.randn(CLASSES, 3, 1, 1, generator=torch.Generator().manual_seed(0))
        self.sizes = []

    def __call__(self, images):
        self.sizes.append(tuple(images.shape[-2:]))
        return torch.nn.functional.conv2d(images.float() / 255, self.weight)


def picture(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def blur(images):
    """Logits with a receptive field, whose values near the rim of a window differ from the whole picture's."""
    return torch.nn.functional.avg_pool2d(PixelNetwork()(images), 9, stride=1, padding=4)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150), window=st.integers(32, 80))
def test_windows_equal_the_whole_picture_for_a_pixelwise_network(height, width, window):
    network, image = PixelNetwork(), picture(height, width)
    expected = PixelNetwork()(image[None])[0].argmax(0)
    assert torch.equal(label_picture(network, image, window), expected)
    assert all(h * w <= window**2 for h, w in network.sizes)


@pytest.mark.parametrize("size", [(64, 64), (64, 40), (33, 90)])
def test_a_window_as_large_as_the_picture_is_the_picture(size):
    image = picture(*size)
    bands = list(blended_bands(blur, image, max(size)))
    torch.testing.assert_close(torch.cat(bands, dim=1), blur(image[None])[0])
    assert torch.equal(label_picture(blur, image, 90), blur(image[None])[0].argmax(0))


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
    bands = list(blended_bands(blur, image, window))
    assert sum(band.shape[1] for band in bands) == size[0]
    torch.testing.assert_close(torch.cat(bands, dim=1), sums / weights)


def test_no_band_is_taller_than_a_window():
    bands = list(blended_bands(blur, picture(500, 60), 48))
    assert max(band.shape[1] for band in bands) <= 48


@settings(derandomize=True, max_examples=200, deadline=None)
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
    labels = label_picture(network, picture(*size), 1024)
    assert labels.shape == size
    assert min(network.sizes[0]) >= 32
