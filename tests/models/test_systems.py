"""Heads of systems of the paper's tables against loops from their papers, and what those publish of them."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from sanet.models.backbones import Level
from sanet.models.baselines.apcnet import AdaptiveContext, APCNetHead
from sanet.models.baselines.deeplabv2 import DeepLabv2Head
from sanet.models.baselines.dilatednet import DilatedNetHead
from sanet.models.baselines.parsenet import ParseNetHead
from sanet.models.baselines.refinenet import ChainedPooling, RefineBlock, RefineNetHead
from sanet.structures import UsageError

CHANNELS, CLASSES = 12, 5
LEVELS = [Level(4, 4), Level(6, 8), Level(8, 16), Level(CHANNELS, 32)]
SIZES = [(1, 1), (3, 7), (9, 8)]


def size_of(module):
    return sum(parameter.numel() for parameter in module.parameters())


def last_stage(*shape):
    torch.manual_seed(1)
    return [torch.full((1,), float("nan"))] * 3 + [torch.randn(2, CHANNELS, *shape)]


def shifted(maps, rows, columns):
    """What lies so far below and to the right of every pixel; 0 beyond the border."""
    height, width = maps.shape[-2:]
    result = torch.zeros_like(maps)
    for row, column in itertools.product(range(height), range(width)):
        if 0 <= row + rows < height and 0 <= column + columns < width:
            result[..., row, column] = maps[..., row + rows, column + columns]
    return result


@pytest.mark.parametrize("size", SIZES)
def test_deeplabv2_adds_fields_of_view(size):
    torch.manual_seed(0)
    head, features = DeepLabv2Head(LEVELS, CLASSES, rates=(1, 2, 5)), last_stage(*size)
    expected = torch.zeros(2, CLASSES, *size)
    for branch, rate in zip(head.branches, (1, 2, 5), strict=True):
        expected += branch.bias[:, None, None]
        for row, column in itertools.product(range(3), range(3)):
            seen = shifted(features[-1], (row - 1) * rate, (column - 1) * rate)
            expected += torch.einsum("kc,bchw->bkhw", branch.weight[:, :, row, column], seen)
    torch.testing.assert_close(head(features).readout, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_parsenet_puts_image_beside_pixels_at_one_length(size):
    torch.manual_seed(0)
    head, features = ParseNetHead(LEVELS, CLASSES).eval(), last_stage(*size)
    with torch.no_grad():
        head.local.scale.uniform_(1, 2)
        head.context.scale.uniform_(1, 2)
        found = head(features).readout
    weight, bias = head.classifier[1].weight[:, :, 0, 0], head.classifier[1].bias
    for image, maps in enumerate(features[-1]):
        whole = maps.flatten(1).mean(1)
        context = whole / whole.square().sum().sqrt() * head.context.scale
        for row, column in itertools.product(*map(range, size)):
            pixel = maps[:, row, column]
            local = pixel / pixel.square().sum().sqrt() * head.local.scale
            expected = weight @ torch.cat([local, context]) + bias
            torch.testing.assert_close(found[image, :, row, column], expected, rtol=1e-4, atol=1e-5)


def test_the_context_module_has_the_size_and_reach_of_the_paper():
    classes = 7
    context = DilatedNetHead(LEVELS, classes).context
    weights = sum(parameter.numel() for parameter in context.parameters() if parameter.ndim > 1)
    assert weights == 64 * classes**2  # "approximately 64C^2 parameters"
    for layer in context:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.constant_(layer.weight, 1.0)
    image = torch.zeros(1, classes, 99, 99)
    image[..., 49, 49] = 1
    reached = context(image)[0, 0] > 0
    assert (int(reached.any(0).sum()), int(reached.any(1).sum())) == (67, 67)  # table 1, the last line


def test_the_context_module_starts_as_the_identity():
    torch.manual_seed(0)
    scores = torch.rand(1, 7, 40, 40)
    torch.testing.assert_close(DilatedNetHead(LEVELS, 7).context(scores), scores)
    # The large one has noise: of the deviation that equation (5) leaves open.
    large = DilatedNetHead(LEVELS, 7, "large").context
    assert (large(scores) - scores).abs().mean() < 0.2
    with pytest.raises(UsageError, match="basic, large"):
        DilatedNetHead(LEVELS, 7, "huge")


@pytest.mark.parametrize("scale", [1, 2, 3, 6])
def test_regions_are_those_of_adaptive_pooling(scale):
    module = AdaptiveContext(CHANNELS, 4, scale)
    for height, width in itertools.product((1, 2, 5, 6, 7, 13, 24), repeat=2):
        maps = torch.randn(2, CHANNELS, height, width)
        torch.testing.assert_close(module.pooled(maps), F.adaptive_avg_pool2d(maps, scale), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_pixels_gather_from_regions_by_their_affinity(size):
    torch.manual_seed(0)
    module, maps = AdaptiveContext(CHANNELS, 4, 3).eval(), last_stage(*size)[-1]
    with torch.no_grad():
        found, reduced = module(maps), module.reduce(maps)
        regions = module.reduce_regions(F.adaptive_avg_pool2d(maps, 3)).flatten(2)
        weights = module.affinity(reduced + module.context(F.adaptive_avg_pool2d(reduced, 1))).sigmoid()
        gathered = torch.zeros_like(reduced)
        for row, column in itertools.product(*map(range, size)):
            for region in range(9):
                share = weights[:, region, row, column, None]
                gathered[:, :, row, column] += share * regions[:, :, region]
        torch.testing.assert_close(found, module.fuse(module.carry(gathered) + reduced), rtol=1e-4, atol=1e-5)
    assert APCNetHead(LEVELS, CLASSES, hidden=4).eval()(last_stage(*size)).readout.shape == (2, CLASSES, *size)


def test_chained_pooling_is_written_out():
    torch.manual_seed(0)
    module, maps = ChainedPooling(3, 2), torch.randn(1, 3, 6, 9)
    first = module.convolutions[0](pooled(maps.relu()))
    torch.testing.assert_close(module(maps), maps.relu() + first + module.convolutions[1](pooled(first)))


def pooled(maps):
    """The largest of 5x5 neighbours."""
    below = torch.full_like(maps, float("-inf"))
    for rows, columns in itertools.product(range(-2, 3), repeat=2):
        inside = shifted(torch.ones_like(maps), rows, columns) > 0
        below = torch.maximum(below, shifted(maps, rows, columns).masked_fill(~inside, float("-inf")))
    return below


def test_refinenet_goes_from_coarse_to_fine():
    torch.manual_seed(0)
    head = RefineNetHead(LEVELS, CLASSES, hidden=8).eval()
    features = [torch.randn(2, level.channels, -(-70 // level.stride), -(-90 // level.stride)) for level in LEVELS]
    output = head(features).readout
    assert output.shape == (2, CLASSES, 18, 23)
    for stage in range(4):  # each counts, and the last one for pixels far away, too
        changed = [maps + (index == stage) for index, maps in enumerate(features)]
        assert not torch.allclose(head(changed).readout, output)
    # 2 residual units of two 3x3 convolutions for each path, a convolution each, 2 pools, 1 residual unit.
    unit, convolution = 2 * (9 * 64 + 8), 9 * 64 + 8
    assert size_of(RefineBlock((8, 8), 8, 2)) == 4 * unit + 2 * convolution + 2 * convolution + unit
    assert size_of(RefineBlock((8,), 8, 2)) == 2 * unit + 2 * convolution + unit
