"""Readings of the paper: the one that is built in, the others against loops, and what each costs (table 6)."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from sanet.models.networks import create_model
from sanet.models.sanet import resize

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


@pytest.mark.parametrize("reading", ["A", "C"])
@pytest.mark.parametrize("mechanism", ["none", "excitation"])
def test_without_attention_only_the_main_channel_is_left(reading, mechanism):
    model = create_model("sanet_variant", reading=reading, mechanism=mechanism, **SMALL).eval()
    images = torch.rand(1, 3, 64, 64)
    last = model.backbone((images - model.mean) / model.std)[-1]
    stage = model.head.attention[3]
    gated = last if mechanism == "none" else stage.excitation.excite(last.mean(dim=(2, 3)))[:, :, None, None] * last
    torch.testing.assert_close(stage(last), stage.adapt(stage.main(gated)))


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
    model = create_model("sanet_variant", "resnet101", num_classes=21, output_stride=8, **options).eval().to("meta")
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 512, 512, device="meta"))
    assert sum(map(torch.Tensor.numel, model.parameters())) / 1e6 == pytest.approx(parameters, abs=0.01)
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs, abs=0.1)
