"""The encoding layer against loops written from equation (1) of EncNet, and what its head makes of it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sanet.models.backbones import Level
from sanet.models.baselines.encnet import EncNetHead, Encoding

CHANNELS, CLASSES = 16, 5
LEVELS = [Level(8, 4), Level(CHANNELS, 8)]


def encode_loops(pixels, codewords, smoothing):
    """Pixels (N, C), d (n, C), s (n,) -> shares (N, n) and e (n, C)."""
    shares, encoded = np.zeros((len(pixels), len(codewords))), np.zeros_like(codewords)
    for i, pixel in enumerate(pixels):
        weights = []
        for codeword, factor in zip(codewords, smoothing, strict=True):
            distance = sum((x - d) ** 2 for x, d in zip(pixel, codeword, strict=True))
            weights.append(math.exp(-factor * distance))
        for k, weight in enumerate(weights):
            shares[i, k] = weight / sum(weights)
            for channel in range(len(pixel)):
                encoded[k, channel] += shares[i, k] * (pixel[channel] - codewords[k, channel])
    return shares, encoded


def random_encoding(channels=6, codewords=4):
    """Double precision; codewords among the features, and smoothing that lets every pixel have several of them."""
    torch.manual_seed(0)
    encoding = Encoding(channels, codewords).double()
    nn.init.normal_(encoding.codewords)
    nn.init.uniform_(encoding.smoothing, 0.1, 0.3)
    return encoding.requires_grad_(False)


def random_head(**options):
    """Small, in evaluation mode, with running statistics and affine parameters that are not 0 and 1."""
    torch.manual_seed(0)
    head = EncNetHead(LEVELS, CLASSES, **{"hidden": 12, "codewords": 4, **options}).eval()
    for norm in head.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return head


def stages(*shape):
    """A batch of feature stages; only the last counts."""
    return [torch.full((1,), math.nan), torch.randn(shape[0], CHANNELS, *shape[1:])]


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (3, 1), (8, 4)])
@pytest.mark.parametrize(("channels", "codewords"), [(6, 4), (1, 3), (5, 1)])
def test_encoding_follows_the_equation(size, channels, codewords):
    encoding = random_encoding(channels, codewords)
    features = torch.randn(2, channels, *size, dtype=torch.float64)
    encoded = encoding(features).numpy()
    assert encoded.shape == (2, codewords, channels)
    for index, picture in enumerate(features.flatten(2).mT.numpy()):
        shares, expected = encode_loops(picture, encoding.codewords.numpy(), encoding.smoothing.numpy())
        assert codewords == 1 or shares.max(1).min() < 0.9  # else the nearest codeword alone would do
        np.testing.assert_allclose(encoded[index], expected, rtol=1e-10, atol=1e-12)


def test_encoding_is_a_sum_over_pixels_in_any_order():
    encoding, features = random_encoding(), torch.randn(2, 6, 5, 8, dtype=torch.float64)
    whole = encoding(features)
    shuffled = features.flatten(2)[..., torch.randperm(40)].view(2, 6, 8, 5)
    torch.testing.assert_close(encoding(shuffled), whole, rtol=1e-12, atol=1e-12)
    parts = encoding(features[..., :3]) + encoding(features[..., 3:])
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)


def test_encoding_sees_differences_only():
    encoding, features = random_encoding(), torch.randn(2, 6, 5, 8, dtype=torch.float64)
    before, shift = encoding(features), torch.randn(6, dtype=torch.float64)
    encoding.codewords += shift
    torch.testing.assert_close(encoding(features + shift[:, None, None]), before, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(encoding(features), before)


def test_encoding_holds_nothing_larger_than_its_input():
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            sizes.append(result.numel())
            return result

    features = torch.empty(2, 64, 33, 17, device="meta")
    with torch.device("meta"):
        encoding = Encoding(64, 32)
    with Watch():
        assert encoding(features).shape == (2, 32, 64)
    assert max(sizes) == features.numel()


def test_autocast_leaves_the_encoding_its_digits():
    """Squares of hundreds, which bfloat16 knows to 2 or so: enough to move pixels from one codeword to another."""
    encoding, features = random_encoding(64, 8).float(), (4 * torch.randn(2, 64, 20, 20).relu()).bfloat16()
    assert features.float().square().sum(1).mean() > 200
    with torch.autocast("cpu", torch.bfloat16):
        encoded = encoding(features)
    assert torch.equal(encoded, encoding(features.float()))


def test_head_follows_section_3():
    head, features = random_head(), stages(2, 6, 9)
    project, norm, _, encoding, phi, _ = head.encode
    with torch.no_grad():
        output = head(features)
        maps = head.squeeze[1](head.squeeze[0](features[-1])).clamp(min=0)
        encoded = encoding(norm(project(maps)).clamp(min=0))
        deviation = (phi.running_var + phi.eps).sqrt()
        each = (encoded - phi.running_mean[:, None]) / deviation[:, None] * phi.weight[:, None] + phi.bias[:, None]
        semantics = each.clamp(min=0).sum(1) / 4
        linear = head.weigh[0]
        gamma = 1 / (1 + (-semantics @ linear.weight.T - linear.bias).exp())
        weighed = (maps + maps * gamma[:, :, None, None]).clamp(min=0)
        classifier = head.classifier[1]
        mask = torch.einsum("kc,bchw->bkhw", classifier.weight[..., 0, 0], weighed) + classifier.bias[:, None, None]
        category = semantics @ head.category.weight.T + head.category.bias
    assert output.readout is output.mask
    assert output.dense is None
    assert semantics.std() > 0.01
    torch.testing.assert_close(output.mask, mask, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.category, category, rtol=1e-4, atol=1e-5)


@settings(max_examples=25)
@given(count=st.integers(1, 3), height=st.integers(1, 40), width=st.integers(1, 40), train=st.booleans())
@example(count=1, height=1, width=1, train=True)
def test_any_size_of_maps(count, height, width, train):
    output = random_head().train(train)(stages(count, height, width))
    assert output.mask.shape == (count, CLASSES, height, width)
    assert output.category.shape == (count, CLASSES)
    assert output.mask.isfinite().all()
    assert output.category.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 6, 7), (1, 1, 1)])
def test_the_gradient_reaches_every_parameter(shape):
    head = random_head()
    nn.init.uniform_(head.encode[3].smoothing, 0.1, 0.3)
    output = head(stages(*shape))
    (output.mask.square().mean() + output.category.square().mean()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_sizes_are_those_of_the_authors():
    with torch.device("meta"):
        head = EncNetHead([Level(2048, 8)], 21)
    assert head.encode[3].codewords.shape == (32, 512)
    assert head.squeeze[0].weight.shape == (512, 2048, 3, 3)
    assert head.classifier[1].weight.shape == (21, 512, 1, 1)
