"""The two attention modules of DANet against loops written from equations (1) to (4), and the head over them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from sanet.models.backbones import Level
from sanet.models.baselines.danet import ChannelAttention, DANetHead, PositionAttention

CHANNELS, CLASSES = 64, 5
LEVELS = [Level(8, 4), Level(CHANNELS, 8)]
SIZES = [(4, 6), (1, 1), (5, 1), (3, 3)]


def awake(module):
    """Evaluation mode; scales, running statistics and affine parameters that are not 0 and 1."""
    for part in module.modules():
        if isinstance(part, PositionAttention | ChannelAttention):
            nn.init.constant_(part.scale, 0.7)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return module.eval()


def random_position(channels=16):
    torch.manual_seed(0)
    return awake(PositionAttention(channels)).double().requires_grad_(False)


def random_channel():
    torch.manual_seed(0)
    return awake(ChannelAttention()).double().requires_grad_(False)


def random_head(**options):
    torch.manual_seed(0)
    return awake(DANetHead(LEVELS, CLASSES, **options))


def stages(*shape):
    """A batch of feature stages; only the last counts."""
    return [torch.full((1,), math.nan), torch.randn(shape[0], CHANNELS, *shape[1:])]


def softmax_loops(energies):
    weights = [math.exp(energy) for energy in energies]
    return [weight / sum(weights) for weight in weights]


def dot_loops(left, right):
    return sum(a * b for a, b in zip(left, right, strict=True))


def project_loops(pixels, convolution):
    """A 1x1 convolution: (N, C) -> (N, C')."""
    bias = np.zeros(convolution.out_channels) if convolution.bias is None else convolution.bias.numpy()
    rows = convolution.weight[..., 0, 0].numpy()
    return np.array([[dot_loops(row, pixel) + b for row, b in zip(rows, bias, strict=True)] for pixel in pixels])


def position_loops(pixels, module):
    """(N, C) -> weights s (N, N), of position j on all i, and E (N, C)."""
    keys, queries, values = (project_loops(pixels, part) for part in (module.key, module.query, module.value))
    weights = np.array([softmax_loops([dot_loops(key, query) for key in keys]) for query in queries])  # (1)
    result = np.zeros_like(pixels)
    for j in range(len(pixels)):
        gathered = sum(weights[j, i] * values[i] for i in range(len(pixels)))
        result[j] = module.scale.item() * gathered + pixels[j]  # (2)
    return weights, result


def channel_loops(maps, scale):
    """(C, N) -> weights x (C, C), of channel j on all i, and E (C, N)."""
    weights, result = np.zeros((len(maps), len(maps))), np.zeros_like(maps)
    for j, own in enumerate(maps):
        energies = [dot_loops(own, other) for other in maps]
        weights[j] = softmax_loops([max(energies) - energy for energy in energies])  # (3), as the authors have it
        result[j] = scale * sum(weights[j, i] * maps[i] for i in range(len(maps))) + own  # (4)
    return weights, result


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [16, 3])
def test_position_attention_follows_the_equations(size, channels):
    module, features = random_position(channels), 2 * torch.randn(2, channels, *size, dtype=torch.float64)
    output = module(features)
    for index, picture in enumerate(features.flatten(2)):
        weights, expected = position_loops(picture.T.numpy(), module)
        assert size == (1, 1) or weights.max() > 1.2 * weights.min()  # else a mean over all positions would do
        np.testing.assert_allclose(output[index].flatten(1).T.numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [16, 3])
def test_channel_attention_follows_the_equations(size, channels):
    module, features = random_channel(), 0.5 * torch.randn(2, channels, *size, dtype=torch.float64)
    output = module(features)
    for index, maps in enumerate(features.flatten(2).numpy()):
        weights, expected = channel_loops(maps, module.scale.item())
        assert 1.2 * weights.min() < weights.max() < 0.99  # neither a mean over channels nor one of them
        np.testing.assert_allclose(output[index].flatten(1).numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("create", [random_position, random_channel])
def test_positions_have_no_order(create):
    module, features = create(), 0.5 * torch.randn(2, 16, 5, 8, dtype=torch.float64)
    order = torch.randperm(40)
    shuffled = module(features.flatten(2)[..., order].view(2, 16, 8, 5)).flatten(2)
    torch.testing.assert_close(shuffled, module(features).flatten(2)[..., order], rtol=1e-12, atol=1e-12)


def test_channels_have_no_order():
    module, features, order = random_channel(), 0.5 * torch.randn(2, 16, 5, 8, dtype=torch.float64), torch.randperm(16)
    torch.testing.assert_close(module(features[:, order]), module(features)[:, order], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("module", [PositionAttention(16), ChannelAttention()], ids=["position", "channel"])
def test_attention_starts_as_the_identity_and_learns_its_scale(module):
    features = torch.randn(2, 16, 5, 8)
    output = module(features)
    assert torch.equal(output, features)
    output.square().mean().backward()
    assert module.scale.grad != 0


def test_half_precision_keeps_large_products_between_channels():
    """Products of thousands: bfloat16 knows them to 16 or so, and a softmax needs them to a fraction of one."""
    module = random_channel().float()
    features = (3 * torch.randn(2, 16, 40, 40).relu()).bfloat16()
    products = features.double().flatten(2) @ features.double().flatten(2).mT
    assert products.max() > 4000
    with torch.autocast("cpu", torch.bfloat16):
        output = module(features)
    assert output.dtype == torch.bfloat16
    exact = random_channel()(features.double())
    torch.testing.assert_close(output.double(), exact, rtol=0.02, atol=0.02)


def test_head_sums_both_branches():
    head, features = random_head(), stages(2, 6, 9)
    with torch.no_grad():
        output = head(features)
        branches = []
        for before, attention, after in (head.position, head.channel):
            attended = attention(before[1](before[0](features[-1])).clamp(min=0))
            branches.append(after[1](after[0](attended)).clamp(min=0))
        classifier = head.classifier[1]
        mask = torch.einsum("kc,bchw->bkhw", classifier.weight[..., 0, 0], sum(branches))
        mask = mask + classifier.bias[:, None, None]
    assert output.readout is output.mask
    assert output.dense is None
    assert output.category is None
    torch.testing.assert_close(output.mask, mask, rtol=1e-4, atol=1e-5)


@settings(max_examples=25)
@given(count=st.integers(1, 3), height=st.integers(1, 24), width=st.integers(1, 24), train=st.booleans())
@example(count=1, height=1, width=1, train=True)
def test_any_size_of_maps(count, height, width, train):
    output = random_head().train(train)(stages(count, height, width))
    assert output.mask.shape == (count, CLASSES, height, width)
    assert output.mask.isfinite().all()


def test_the_gradient_reaches_every_parameter():
    head = random_head()
    head(stages(2, 6, 7)).mask.square().mean().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("channels", [1, 3, 17, 64, 2048])
def test_hidden_layers_of_any_backbone_have_a_channel(channels):
    with torch.device("meta"):
        head = DANetHead([Level(channels, 8)], CLASSES)
        output = head([torch.empty(2, channels, 3, 4)])
    attention = head.position[1]
    assert output.mask.shape == (2, CLASSES, 3, 4)
    assert attention.value.out_channels == max(1, channels // 4)
    assert attention.query.out_channels == attention.key.out_channels == max(1, channels // 32)
