"""Heads of systems of the paper's tables against loops from their papers, and what those publish of them."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from sanet.models.backbones import Level
from sanet.models.baselines.apcnet import AdaptiveContext, APCNetHead
from sanet.models.baselines.deeplabv2 import DeepLabv2Head
from sanet.models.baselines.dfn import ChannelAttentionBlock, DFNHead, RefinementResidualBlock
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


def test_dfn_refines_and_chooses_channels_as_in_its_figure():
    torch.manual_seed(0)
    block, choose = RefinementResidualBlock(6, 4).eval(), ChannelAttentionBlock(4)
    fine, coarse = torch.randn(2, 6, 5, 7), torch.randn(2, 4, 5, 7)
    (first, norm, _), second = block.refine[0], block.refine[1]
    unified = torch.einsum("oc,bchw->bohw", block.unify.weight[..., 0, 0], fine)
    hidden = torch.zeros_like(unified)
    for row, column in itertools.product(range(3), range(3)):
        seen = shifted(unified, row - 1, column - 1)
        hidden += torch.einsum("oc,bchw->bohw", first.weight[:, :, row, column], seen)
    hidden = (hidden / (1 + norm.eps) ** 0.5).clamp(min=0)  # a norm that has seen nothing
    refined = unified.clone()
    for row, column in itertools.product(range(3), range(3)):
        seen = shifted(hidden, row - 1, column - 1)
        refined += torch.einsum("oc,bchw->bohw", second.weight[:, :, row, column], seen)
    torch.testing.assert_close(block(fine), refined.clamp(min=0), rtol=1e-4, atol=1e-5)
    both = torch.cat([refined, coarse], dim=1).mean((2, 3))
    hidden = (both @ choose.weigh[0].weight[..., 0, 0].T + choose.weigh[0].bias).clamp(min=0)
    weights = 1 / (1 + torch.exp(-(hidden @ choose.weigh[2].weight[..., 0, 0].T + choose.weigh[2].bias)))
    expected = refined * weights[:, :, None, None] + coarse
    torch.testing.assert_close(choose(refined, coarse), expected, rtol=1e-4, atol=1e-5)


def test_dfn_goes_down_to_fine_and_its_border_network_up_to_coarse():
    torch.manual_seed(0)
    head = DFNHead(LEVELS, CLASSES, hidden=8, border=3).eval()
    features = [torch.randn(2, level.channels, -(-70 // level.stride), -(-90 // level.stride)) for level in LEVELS]
    output = head(features)
    coarsest_first = output.dense.split(CLASSES, dim=1)
    assert output.mask.shape == coarsest_first[2].shape == (2, CLASSES, 18, 23)
    assert output.border.shape == (2, 4, 18, 23)
    for stage in range(4):  # what a stage sees: of masks it and all finer ones, of borders it and all coarser ones
        changed = head([maps + 5 * (index == stage) for index, maps in enumerate(features)])
        same = [torch.equal(*pair) for pair in zip(changed.dense.split(CLASSES, 1), coarsest_first, strict=True)]
        assert same == [stage < 3, stage < 2, stage < 1]
        assert not torch.allclose(changed.mask, output.mask)
        borders = [
            torch.equal(one, other)
            for one, other in zip(changed.border.unbind(1), output.border.unbind(1), strict=True)
        ]
        assert borders == [number < stage for number in range(4)]


def test_dfn_has_the_size_of_its_authors_code():
    """Over a ResNet-101; but for the first of their blocks of 21 channels, which nothing comes out of."""

    def block(channels, width):
        return channels * width + 2 * 9 * width**2 + 2 * width

    def prediction(channels, outputs):
        return block(channels, 9 * outputs) + 9 * outputs**2 + outputs

    classes, widths, levels = 21, (256, 512, 1024, 2048), [Level(2 ** (8 + n), 2 ** (2 + n)) for n in range(4)]
    attention = 1024 * 512 + 512 + 512**2 + 512
    smooth = [block(width, 512) + attention + block(512, 512) + prediction(512, classes) for width in widths]
    border = [block(width, 21) + prediction(21, 1) for width in widths]
    assert size_of(DFNHead(levels, classes)) == 2048 * 512 + 2 * 512 + sum(smooth) + sum(border) + 3 * block(21, 21)
