"""Batch norms that are the library's own, but for one value per channel."""

import pytest
import timm
import torch
from timm.layers import norm_act
from torch import nn

from sanet.models.networks import create_model
from sanet.models.norms import BatchNorm2d, BatchNormAct2d, tolerate_single_values

KINDS = pytest.mark.parametrize(
    ("kind", "original"), [(BatchNorm2d, nn.BatchNorm2d), (BatchNormAct2d, norm_act.BatchNormAct2d)]
)


def twins(kind, original, **options):
    ours, theirs = kind(3, **options), original(3, **options)
    for norm in (ours, theirs):
        torch.manual_seed(1)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return ours, theirs


@KINDS
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 1, 2), (1, 3, 2, 1), (4, 3, 5, 6)])
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"momentum": 0.3, "eps": 1e-2}], ids=str)
def test_batch_norm_is_the_librarys_own_where_that_works(kind, original, shape, training, options):
    ours, theirs = (norm.train(training) for norm in twins(kind, original, **options))
    for step in range(3):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        inputs = [values.clone().requires_grad_() for _ in range(2)]
        outputs = [norm(value) for norm, value in zip((ours, theirs), inputs, strict=True)]
        assert torch.equal(*outputs)
        for output in outputs:
            (output**2).sum().backward()
        assert torch.equal(inputs[0].grad, inputs[1].grad)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


@KINDS
def test_batch_norm_of_one_value_uses_its_running_statistics_and_keeps_them(kind, original):
    ours, theirs = twins(kind, original)
    value = torch.randn(1, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value"):
        theirs(value)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    assert torch.equal(ours.train()(value), theirs.eval()(value))
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, before[name]), name


# A plain batch norm behind a global pooling, and timm's own.
@pytest.mark.parametrize("name", ["resnest14d", "skresnet18"])
def test_a_step_of_one_picture_does_not_stop_a_backbone_that_pools_before_a_norm(name):
    theirs = timm.create_model(name, features_only=True).train()
    picture = torch.rand(1, 3, 64, 96)
    with pytest.raises(ValueError, match="more than 1 value"):
        theirs(picture)
    model = create_model("fcn", name, num_classes=3, output_stride=32).train()
    model(picture).logits.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    tolerate_single_values(theirs)
    theirs(picture)
    renewed = timm.create_model(name, features_only=True)
    renewed.load_state_dict(theirs.state_dict())
    for ours, original in zip(theirs.eval()(picture), renewed.eval()(picture), strict=True):
        assert torch.equal(ours, original)
