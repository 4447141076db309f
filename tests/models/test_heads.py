"""The heads of the paper's networks: what each computes, and what table 6 says it costs."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from awake import build, evaluated, pictures
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from brightness import loss_of
from sanet.models.backbones import Backbone
from sanet.models.networks import NETWORKS, create_model
from sanet.models.sanet import Branch, Readout

each_backbone = pytest.mark.parametrize(("backbone", "stride"), [("test_resnet", 8), ("test_efficientnet", 16)])

# -- what SANet and FCN compute ---------------------------------------------------------------------------------------


def grown(maps, size):
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


@each_backbone
@pytest.mark.parametrize("readout", get_args(Readout))
def test_sanet_combines_its_parts_as_documented(backbone, stride, readout):
    model = build("sanet", backbone, stride, readout=readout).eval()
    images, _ = pictures(2, 70, 95)
    head = model.head
    with torch.no_grad():
        output = model(images)
        features = model.backbone((images - model.mean) / model.std)
        attended = [module(stage) for module, stage in zip(head.attention, features[-4:], strict=True)]
        merged = torch.cat([grown(stage, attended[0].shape[-2:]) for stage in attended], 1)
        mask = torch.einsum("kc,bchw->bkhw", head.mask.weight[..., 0, 0], merged) + head.mask.bias[:, None, None]
        dense = torch.einsum("kc,bchw->bkhw", head.dense.weight[..., 0, 0], features[-1])
        dense = dense + head.dense.bias[:, None, None] + attended[-1]
        squeezed = features[-1].flatten(2).mean(2)
        hidden = (squeezed @ head.category[0].weight.T + head.category[0].bias).clamp(min=0)
        category = hidden @ head.category[2].weight.T + head.category[2].bias
    parts = {"mask": mask, "dense": dense, "sum": mask + grown(dense, mask.shape[-2:])}
    assert hidden.shape == (2, 4)
    for got, expected in (
        (output.mask, mask),
        (output.dense, dense),
        (output.category, category),
        (output.logits, grown(parts[readout], (70, 95))),
    ):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_readouts_differ_in_the_logits_only():
    images, _ = pictures()
    with torch.no_grad():
        outputs = [build("sanet", readout=readout).eval()(images) for readout in get_args(Readout)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert torch.equal(outputs[one].mask, outputs[other].mask)
        assert torch.equal(outputs[one].dense, outputs[other].dense)
        assert not torch.allclose(outputs[one].logits, outputs[other].logits)


@each_backbone
def test_fcn_is_one_convolution_on_stage_4(backbone, stride):
    model = evaluated("fcn", backbone, stride)
    images, _ = pictures(2, 70, 95)
    with torch.no_grad():
        output = model(images)
        stage = model.backbone((images - model.mean) / model.std)[-1]
        classifier = model.head.classifier
        mask = torch.einsum("kc,bchw->bkhw", classifier.weight[..., 0, 0], stage) + classifier.bias[:, None, None]
    assert output.dense is None
    assert output.category is None
    torch.testing.assert_close(output.mask, mask, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.logits, grown(mask, (70, 95)), rtol=1e-4, atol=1e-5)


def test_options_reach_the_head():
    model = build("sanet", pooling="max", groups=1, reduction=2, downsample=4, category_hidden=7)
    module = model.head.attention[1]
    assert isinstance(module.pool, nn.MaxPool2d)
    assert module.main[0].groups == 1
    assert module.main[0].out_channels == model.backbone.levels[-3].channels // 2
    assert module.downsample == 4
    assert model.head.category[0].out_features == 7


@each_backbone
@pytest.mark.parametrize("residual", [True, False])
def test_fcn_se_re_weights_what_fcn_reads(backbone, stride, residual):
    model = build("fcn_se", backbone, stride, residual=residual).eval()
    images, _ = pictures(2, 70, 95)
    with torch.no_grad():
        output = model(images)
        last = model.backbone((images - model.mean) / model.std)[-1]
        expected = model.head.classifier(model.head.excitation(last))
    assert (model.head.excitation.residual is None) != residual
    torch.testing.assert_close(output.mask, expected, rtol=1e-4, atol=1e-5)


# -- the switches of table 1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [(1, 2, 3, 4), (4,), (1,), (3, 1)])
def test_heads_that_are_off_neither_exist_nor_count(heads):
    model = build("sanet", "test_resnet", 8, heads=heads).eval()
    images, _ = pictures(1, 70, 95)
    with torch.no_grad():
        output = model(images)
        features = model.backbone((images - model.mean) / model.std)[-4:]
        attended = [
            module(features[number - 1]) for number, module in zip(sorted(heads), model.head.attention, strict=True)
        ]
        merged = torch.cat([grown(stage, attended[0].shape[-2:]) for stage in attended], 1)
        dense = model.head.dense(features[-1]) + (attended[-1] if 4 in heads else 0)
        mask = model.head.mask(merged)
    assert len(model.head.attention) == len(heads)
    torch.testing.assert_close(output.mask, mask, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.dense, dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("off", get_args(Branch))
def test_a_branch_that_is_off_has_no_parameters_and_no_output(off):
    whole, part = build("sanet"), build("sanet", branches=[branch for branch in get_args(Branch) if branch != off])
    images, masks = pictures()
    output = part(images)
    assert getattr(output, off) is None
    missing = {name for name, _ in whole.named_parameters()} - {name for name, _ in part.named_parameters()}
    assert missing == {name for name, _ in whole.named_parameters() if name.startswith(f"head.{off}.")}
    terms = loss_of(output, masks)
    assert terms[off] == 0
    assert terms["loss"] > terms["mask"]


# -- table 6 ----------------------------------------------------------------------------------------------------------


def complexity(network):
    """Millions of parameters and 10^9 multiply-accumulates, without memory or time."""
    with torch.device("meta"):
        model = create_model(network, "resnet101", num_classes=21, output_stride=8).eval()
        image = torch.empty(1, 3, 512, 512)
    with FlopCounterMode(display=False) as counter:
        model(image)
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6, counter.get_total_flops() / 2 / 1e9


def test_complexity_of_sanet_is_that_of_table_6():
    parameters, macs = complexity("sanet")
    assert parameters == pytest.approx(55.5, rel=0.005)
    assert macs <= 205.5
    assert macs == pytest.approx(204.7, rel=0.005)


def test_complexity_of_fcn():
    parameters, macs = complexity("fcn")
    assert parameters == pytest.approx(42.54, abs=0.005)
    assert parameters == pytest.approx(42.6, rel=0.005)
    assert macs == pytest.approx(177.4, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", ["resnet50", "tf_efficientnet_b7", *(f"tf_efficientnet_lite{n}" for n in (0, 1, 2))]
)
def test_networks_of_the_paper_over_its_backbones(backbone):
    with torch.device("meta"):
        stages = Backbone(backbone, 8)
        heads = [NETWORKS[network](stages.levels, 21) for network in ("sanet", "fcn", "fcn_se")]
    maps = stages(torch.empty(2, 3, 97, 130, device="meta"))
    finest = [maps[-4].shape, maps[-1].shape, maps[-1].shape]
    for head, like in zip(heads, finest, strict=True):
        assert head([*maps]).readout.shape == (2, 21, *like[-2:])
