"""Readings of the paper: the one that is built in, the others against loops, and what each costs (table 6)."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from sanet.models.networks import create_model
from sanet.models.sanet import resize
from sanet.structures import UsageError

SMALL = {"backbone": "test_resnet", "num_classes": 3}


def test_reading_a_is_the_paper_as_it_is_built_in():
    built_in = create_model("sanet", **SMALL).eval()
    same = create_model("sanet_variant", reading="A", least=1, **SMALL).eval()
    assert [*map(torch.Tensor.numel, built_in.state_dict().values())] == [
        *map(torch.Tensor.numel, same.state_dict().values())
    ]
    same.load_state_dict(built_in.state_dict())
    images = torch.rand(2, 3, 64, 80)
    for expected, found in zip(built_in(images), same(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_reading_c_attends_to_the_hidden_maps_and_merges_them_by_one_convolution():
    model = create_model("sanet_variant", downsample=2, **SMALL).eval()
    images = torch.rand(2, 3, 64, 80)
    features = model.backbone((images - model.mean) / model.std)[-4:]
    attended = []
    for stage, maps in zip(model.head.attention, features, strict=True):
        squeezed = stage.attention(F.avg_pool2d(maps, 2, ceil_mode=True))
        attention = resize(squeezed, [2 * side for side in squeezed.shape[-2:]])[
            ..., : maps.shape[-2], : maps.shape[-1]
        ]
        attended.append(attention * stage.main(maps) + attention)
    size = attended[0].shape[-2:]
    joined = torch.cat([resize(maps, size) for maps in attended], dim=1)
    weight = torch.cat([stage.adapt.weight for stage in model.head.attention], dim=1)
    bias = sum(stage.adapt.bias for stage in model.head.attention)
    torch.testing.assert_close(model(images).mask, F.conv2d(joined, weight, bias), rtol=1e-4, atol=1e-5)
    stage_4 = model.head.attention[3].adapt(attended[3])
    torch.testing.assert_close(model(images).dense, model.head.dense(features[3]) + stage_4, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stem", [False, True])
def test_a_path_refines_the_coarsest_maps_with_those_of_each_finer_stage(stem):
    model = create_model(
        "sanet_variant", "tf_efficientnet_lite0", 3, path=True, stem=stem, downsample=2, least=8
    ).eval()
    images = torch.rand(2, 3, 64, 96)
    features = model.backbone((images - model.mean) / model.std)[-5 if stem else -4 :]
    attended = [stage(maps) for stage, maps in zip(model.head.attention, features, strict=True)]
    assert all(maps.shape[1] == 8 for maps in attended)
    found, layers = attended[-1], list(model.head.path)
    for maps in attended[-2::-1]:
        convolution, norm, _ = layers.pop(0)
        height, width = maps.shape[-2:]
        grown = F.interpolate(found, (height, width), mode="bilinear", align_corners=False)
        found = F.conv2d(F.pad(torch.cat([grown, maps], 1), (1, 1, 1, 1)), convolution.weight)
        found = F.relu(F.batch_norm(found, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps))
    assert layers == []
    stride = 2 if stem else 4
    output = model(images)
    assert output.mask.shape[-2:] == (64 // stride, 96 // stride)
    torch.testing.assert_close(output.mask, model.head.mask(found), rtol=1e-4, atol=1e-5)
    dense = model.head.dense(features[-1]) + model.head.deepest(attended[-1])
    torch.testing.assert_close(output.dense, dense, rtol=1e-4, atol=1e-5)
    torch.autograd.backward([output.mask.sum(), output.dense.sum(), output.category.sum()])
    assert all(weights.grad is not None for weights in model.parameters())


def test_a_path_needs_maps_and_a_stem_needs_a_backbone_that_has_one():
    with pytest.raises(UsageError, match="reading"):
        create_model("sanet_variant", reading="A", path=True, **SMALL)
    with pytest.raises(UsageError, match="stem"):
        create_model("sanet_variant", "convnext_atto", num_classes=3, output_stride=32, stem=True)


@pytest.mark.parametrize("reading", ["A", "C"])
@pytest.mark.parametrize("mechanism", ["none", "excitation"])
def test_without_attention_only_the_main_channel_is_left(reading, mechanism):
    model = create_model("sanet_variant", reading=reading, mechanism=mechanism, **SMALL).eval()
    images = torch.rand(1, 3, 64, 64)
    last = model.backbone((images - model.mean) / model.std)[-1]
    stage = model.head.attention[3]
    gated = last if mechanism == "none" else stage.excitation.excite(last.mean(dim=(2, 3)))[:, :, None, None] * last
    torch.testing.assert_close(stage(last), stage.adapt(stage.main(gated)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "parameters", "macs"),
    [
        ({"reading": "A"}, 55.45, 205.3),
        ({"reading": "C"}, 55.11, 204.5),
        ({"reading": "A", "mechanism": "none"}, 49.00, 204.9),
        ({"reading": "A", "mechanism": "none", "reduction": 2}, 55.45, 232.4),
    ],
)
def test_what_they_cost_on_a_resnet_101_at_512(options, parameters, macs):
    """Table 6 of the paper: 55.5 M and 204.7 G."""
    with torch.device("meta"):
        model = create_model("sanet_variant", "resnet101", num_classes=21, output_stride=8, **options).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 512, 512, device="meta"))
    assert sum(map(torch.Tensor.numel, model.parameters())) / 1e6 == pytest.approx(parameters, abs=0.01)
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs, abs=0.1)
