"""The modules of the paper against loops written from equations (1) to (5)."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sanet.models.sanet import SqueezeAttention, SqueezeExcitation, conv_branch

SIZES = [(11, 19), (16, 8), (8, 8), (5, 3), (1, 1), (17, 25)]


def convolve(features, weight, groups):
    """3x3 convolution with one zero around, channel by channel."""
    channels, height, width = features.shape
    per_group_in, per_group_out = channels // groups, len(weight) // groups
    result = np.zeros((len(weight), height, width))
    for out in range(len(weight)):
        first = out // per_group_out * per_group_in
        for y in range(height):
            for x in range(width):
                total = 0.0
                for channel in range(per_group_in):
                    for dy in (-1, 0, 1):
                        for dx in (-1, 0, 1):
                            if 0 <= y + dy < height and 0 <= x + dx < width:
                                pixel = features[first + channel, y + dy, x + dx]
                                total += pixel * weight[out, channel, dy + 1, dx + 1]
                result[out, y, x] = total
    return result


def normalise(features, norm):
    result = np.zeros_like(features)
    for channel in range(len(features)):
        deviation = math.sqrt(norm.running_var[channel].item() + norm.eps)
        centred = (features[channel] - norm.running_mean[channel].item()) / deviation
        result[channel] = centred * norm.weight[channel].item() + norm.bias[channel].item()
    return result


def channel_loops(features, channel, groups):
    """F(.): convolution in groups, norm, ReLU, convolution, norm."""
    first, first_norm, _, second, second_norm = channel
    hidden = np.maximum(normalise(convolve(features, first.weight.detach().numpy(), groups), first_norm), 0)
    return normalise(convolve(hidden, second.weight.detach().numpy(), 1), second_norm)


def pool_loops(features, window, kind):
    """Cells of ``window`` pixels a side; the last ones are cut at the border."""
    channels, height, width = features.shape
    cells = np.zeros((channels, math.ceil(height / window), math.ceil(width / window)))
    for channel, row, column in np.ndindex(cells.shape):
        pixels = [
            features[channel, y, x]
            for y in range(row * window, min(height, (row + 1) * window))
            for x in range(column * window, min(width, (column + 1) * window))
        ]
        cells[channel, row, column] = max(pixels) if kind == "max" else sum(pixels) / len(pixels)
    return cells


def grow_loops(cells, factor, height, width):
    """Bilinear, half-pixel centres: pixel y lies at (y + 0.5) / factor - 0.5 between the cells."""
    channels, rows, columns = cells.shape
    result = np.zeros((channels, height, width))
    for y in range(height):
        at_y = max((y + 0.5) / factor - 0.5, 0.0)
        top = math.floor(at_y)
        bottom, share_y = min(top + 1, rows - 1), at_y - top
        for x in range(width):
            at_x = max((x + 0.5) / factor - 0.5, 0.0)
            left = math.floor(at_x)
            right, share_x = min(left + 1, columns - 1), at_x - left
            upper = cells[:, top, left] * (1 - share_x) + cells[:, top, right] * share_x
            lower = cells[:, bottom, left] * (1 - share_x) + cells[:, bottom, right] * share_x
            result[:, y, x] = upper * (1 - share_y) + lower * share_y
    return result


def random_module(channels, classes, **options):
    """Double precision, evaluation mode, running statistics and affine parameters that are not 0 and 1."""
    torch.manual_seed(0)
    return awake(SqueezeAttention(channels, classes, **options))


def awake(module):
    """In double precision, and every norm with statistics and parameters of its own."""
    module = module.double().eval()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.1, 0.5)
    return module


def rough(*shape):
    """Noise that differs from pixel to pixel, and from one pooling cell to the next."""
    cells = 3 * torch.randn(*shape[:-2], -(-shape[-2] // 4), -(-shape[-1] // 4), dtype=torch.float64)
    grid = cells.repeat_interleave(4, -2).repeat_interleave(4, -1)
    return grid[..., : shape[-2], : shape[-1]] + torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("size", SIZES)
def test_module_follows_the_equations(size, pooling):
    module = random_module(16, 3, pooling=pooling)
    features = rough(2, 16, *size)
    attended, output = module.attend(features), module(features)
    for index, picture in enumerate(features.numpy()):
        squeezed = channel_loops(pool_loops(picture, 8, pooling), module.attention, groups=2)
        attention = grow_loops(squeezed, 8, *size)
        expected = attention * channel_loops(picture, module.main, groups=2) + attention  # (4)
        assert max(size) <= 8 or attention.std(axis=(1, 2)).min() > 0.01  # else every way to grow it would do
        np.testing.assert_allclose(attended[index].detach().numpy(), attention, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(output[index].detach().numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("downsample", "groups", "reduction"), [(1, 1, 1), (2, 4, 2), (3, 2, 4)])
def test_module_follows_the_equations_with_other_sizes(downsample, groups, reduction):
    module = random_module(8, 2, downsample=downsample, groups=groups, reduction=reduction)
    picture = rough(1, 8, 7, 10)
    squeezed = channel_loops(pool_loops(picture[0].numpy(), downsample, "average"), module.attention, groups)
    attention = grow_loops(squeezed, downsample, 7, 10)
    expected = attention * channel_loops(picture[0].numpy(), module.main, groups) + attention
    np.testing.assert_allclose(module(picture)[0].detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_the_two_channels_share_no_weights():
    module = SqueezeAttention(8, 3)
    main, attention = ({id(p) for p in part.parameters()} for part in (module.main, module.attention))
    assert not main & attention
    assert len(main | attention) == len(list(module.parameters()))


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 7, 9, 17, 64, 2048])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_channel_counts_that_do_not_divide(channels, groups):
    with torch.device("meta"):
        channel = conv_branch(channels, 5, 4, groups)
        output = channel(torch.empty(2, channels, 3, 3))
    first = channel[0]
    assert output.shape == (2, 5, 3, 3)
    assert channels % first.groups == 0
    assert first.out_channels % first.groups == 0
    assert first.groups == (groups if channels % groups == 0 else math.gcd(groups, channels))
    assert 1 <= first.out_channels <= max(first.groups, channels / 4)
    if channels % (4 * first.groups) == 0:
        assert first.out_channels == channels // 4


def test_odd_channels_follow_the_equations():
    module = random_module(9, 3)
    picture = rough(1, 9, 10, 12)
    attention = grow_loops(channel_loops(pool_loops(picture[0].numpy(), 8, "average"), module.attention, 1), 8, 10, 12)
    expected = attention * channel_loops(picture[0].numpy(), module.main, 1) + attention
    np.testing.assert_allclose(module(picture)[0].detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_unknown_pooling_lists_the_choices():
    with pytest.raises(ValueError, match=r"(?s)median.*average.*max"):
        SqueezeAttention(8, 3, pooling="median")


def test_a_batch_of_one_whose_pooled_map_is_one_cell_trains():
    torch.manual_seed(0)
    module = SqueezeAttention(8, 3)
    features = torch.randn(1, 8, 4, 4)
    rate_zero = module(features)
    rate_zero.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter -= 0.01 * parameter.grad
    assert module(features).square().mean() < rate_zero.square().mean()


# -- squeeze-and-excitation -------------------------------------------------------------------------------------------


def excite_loops(features, excite):
    """Equation (3), with the sigmoid and the ReLU that its text names: one weight for each channel."""
    first, _, second, _ = excite
    squeezed = [features[channel].sum() / features[channel].size for channel in range(len(features))]
    hidden = []
    for row, bias in zip(first.weight.tolist(), first.bias.tolist(), strict=True):
        hidden.append(max(0.0, sum(weight * value for weight, value in zip(row, squeezed, strict=True)) + bias))
    weights = []
    for row, bias in zip(second.weight.tolist(), second.bias.tolist(), strict=True):
        total = sum(weight * value for weight, value in zip(row, hidden, strict=True)) + bias
        weights.append(1 / (1 + math.exp(-total)))
    return weights


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("residual", [True, False])
def test_squeeze_and_excitation_is_equation_2(size, residual):
    torch.manual_seed(0)
    module = awake(SqueezeExcitation(8, hidden=4, residual=residual))
    features = torch.randn(2, 8, *size, dtype=torch.float64)
    with torch.no_grad():
        found = module(features)
    for picture, result in zip(features.numpy(), found.numpy(), strict=True):
        weights = excite_loops(picture, module.excite)
        expected = np.stack([weight * channel for weight, channel in zip(weights, picture, strict=True)])
        if residual:
            expected += channel_loops(picture, module.residual, 2)
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


def test_with_weights_of_one_it_is_the_residual_block_of_equation_1():
    module = awake(SqueezeExcitation(8))
    nn.init.zeros_(module.excite[2].weight)
    nn.init.constant_(module.excite[2].bias, 50.0)  # the sigmoid of it is 1 to the last bit
    features = torch.randn(1, 8, 6, 7, dtype=torch.float64)
    with torch.no_grad():
        found = module(features)[0].numpy()
    picture = features[0].numpy()
    np.testing.assert_allclose(found, picture + channel_loops(picture, module.residual, 2), rtol=1e-9, atol=1e-9)
