"""Parameter groups that miss nothing, and the poly schedule."""

import math
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn

from sanet.config import OptimizerConfig, ScheduleConfig
from sanet.models.networks import NETWORKS, create_model
from sanet.structures import UsageError
from sanet.training.optimization import create_optimizer, create_schedule, parameter_groups

SETTINGS = OptimizerConfig(learning_rate=0.1, head_lr_multiplier=10, weight_decay=0.01)

BACKBONES = ["test_resnet", "test_efficientnet", "test_efficientnet_gn", "test_efficientnet_ln", "test_convnext"]
each_case = pytest.mark.parametrize(
    ("network", "backbone"),
    [(network, "test_resnet") for network in NETWORKS] + [("sanet", backbone) for backbone in BACKBONES[1:]],
)


@cache
def build(network, backbone):
    with torch.device("meta"):
        try:
            return create_model(network, backbone, num_classes=3, output_stride=16)
        except UsageError:  # decoders that double the size at every level
            return create_model(network, backbone, num_classes=3, output_stride=32)


@each_case
def test_every_parameter_is_in_exactly_one_group(network, backbone):
    model = build(network, backbone)
    grouped = [id(parameter) for group in parameter_groups(model, SETTINGS) for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters()}


@each_case
def test_rate_of_a_parameter_follows_from_where_it_lives(network, backbone):
    model = build(network, backbone)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, SETTINGS)
    for group in groups:
        for parameter in group["params"]:
            inside = names[id(parameter)].startswith("backbone.")
            assert group["lr"] == (0.1 if inside else 1.0), names[id(parameter)]
            assert group["name"].startswith("backbone" if inside else "head")
    assert len({group["name"] for group in groups}) == len(groups)


def test_parameters_outside_backbone_and_head_learn_too():
    model = build.__wrapped__("fcn", "test_resnet")
    model.extra = nn.Linear(2, 2)
    (group,) = (
        group
        for group in parameter_groups(model, SETTINGS)
        if any(parameter is model.extra.weight for parameter in group["params"])
    )
    assert group["lr"] == 1.0


@each_case
def test_norms_and_biases_do_not_decay_and_weights_do(network, backbone):
    model = build(network, backbone)
    decay = {
        id(parameter): group["weight_decay"]
        for group in parameter_groups(model, SETTINGS)
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        if isinstance(owner, (nn.Conv2d, nn.Linear)) and name.endswith("weight"):
            assert decay[id(parameter)] == 0.01, name
        if "Norm" in type(owner).__name__ or name.endswith("bias"):
            assert decay[id(parameter)] == 0, name


@pytest.mark.parametrize("backbone", ["test_efficientnet_evos", "test_convnext"])
def test_no_vector_decays(backbone):
    """Norms of every kind and scales of layers are vectors; kernels never are."""
    model = create_model("sanet", backbone, num_classes=3, output_stride=16)
    decaying = [p for g in parameter_groups(model, SETTINGS) if g["weight_decay"] for p in g["params"]]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [names[id(parameter)] for parameter in decaying if parameter.ndim < 2] == []


def test_optimizer_is_sgd_over_the_groups():
    model = create_model("sanet", "test_resnet", num_classes=3)
    optimizer = create_optimizer(model, SETTINGS)
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}
    assert {group["lr"] for group in optimizer.param_groups} == {0.1, 1.0}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def rates(total, power, warmup):
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": parameters[:1], "lr": 0.02}, {"params": parameters[1:], "lr": 0.2}], lr=1.0)
    schedule = create_schedule(optimizer, total, ScheduleConfig("poly", warmup, {"power": power}))
    history = []
    for _ in range(total):
        history.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return history, [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("warmup", [0, 1, 4])
@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
@pytest.mark.parametrize("total", [1, 2, 7, 50])
def test_schedule_follows_the_formula(total, power, warmup):
    history, after = rates(total, power, warmup)
    for step, (small, large) in enumerate(history):
        rise = (step + 1) / (warmup + 1) if step < warmup else 1
        factor = rise * (1 - step / total) ** power
        assert small == pytest.approx(0.02 * factor, rel=1e-12)
        assert large == pytest.approx(0.2 * factor, rel=1e-12)
        assert small > 0
    assert after == [0, 0]


def test_first_step_is_the_base_rate_and_the_rates_fall():
    history, _ = rates(20, 0.9, 0)
    small = [rate for rate, _ in history]
    assert small[0] == 0.02
    assert all(later < earlier for earlier, later in pairwise(small))


def test_warm_up_rises_and_then_meets_the_poly_curve():
    warm, cold = rates(20, 0.9, 3)[0], rates(20, 0.9, 0)[0]
    small = [rate for rate, _ in warm]
    assert small[0] < small[1] < small[2] < small[3]
    assert warm[3:] == cold[3:]


def test_steps_past_the_end_stay_at_zero():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = create_schedule(optimizer, 2, ScheduleConfig())
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0


def test_layers_of_the_backbone_learn_the_slower_the_earlier_they_are():
    model = create_model("sanet", "test_resnet", num_classes=3)
    settings = replace(SETTINGS, layer_decay=0.5)
    groups = parameter_groups(model, settings)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(names)
    assert len({group["name"] for group in groups}) == len(groups)
    assert {rate for name, rate in rates.items() if not name.startswith("backbone.")} == {1.0}
    inside = [rate for name, rate in rates.items() if name.startswith("backbone.")]
    assert inside == sorted(inside)
    assert max(inside) == 0.05
    blocks = sorted(set(inside))
    assert len(blocks) > 4
    assert all(later == pytest.approx(2 * earlier) for earlier, later in pairwise(blocks))
    weight = "backbone.stages.layer3.0.conv1.weight"
    assert (
        rates[weight] == rates["backbone.stages.layer3.0.bn1.weight"] < rates["backbone.stages.layer4.0.conv1.weight"]
    )


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("adamw", {"betas": (0.8, 0.9)}, torch.optim.AdamW),
        ("torch.optim:RMSprop", {"alpha": 0.9}, torch.optim.RMSprop),
        (torch.optim.NAdam, {}, torch.optim.NAdam),
        (lambda groups, lr: torch.optim.Adagrad(groups, lr), {}, torch.optim.Adagrad),
    ],
)
def test_other_optimisers_have_the_same_groups(name, options, kind):
    model = create_model("fcn", "test_resnet", num_classes=3)
    optimizer = create_optimizer(model, replace(SETTINGS, name=name, options=options))
    assert type(optimizer) is kind
    sgd = create_optimizer(model, SETTINGS)
    for found, expected in zip(optimizer.param_groups, sgd.param_groups, strict=True):
        for key in ("name", "params", "lr", "weight_decay"):
            assert found[key] is expected[key] or found[key] == expected[key]
        assert {key: found[key] for key in options} == options


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("sdg", {}, "did you mean 'sgd'"),
        ("torch.optim:Adamm", {}, "did you mean 'Adam'"),
        ("torch.optim.lr_scheduler:StepLR", {}, "Optimizer"),
        ("torch.hub:load", {}, "torch.hub"),
        ("sgd", {"momentun": 0.9}, "momentun"),
        (lambda groups, lr: 3, {}, "Optimizer"),
    ],
)
def test_what_is_no_optimiser_is_named(name, options, named):
    model = create_model("fcn", "test_resnet", num_classes=3)
    with pytest.raises(UsageError, match=named):
        create_optimizer(model, replace(SETTINGS, name=name, options=options))


def rates_of(settings, total=10):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = create_schedule(optimizer, total, settings)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize(
    ("name", "options", "fall"),
    [
        ("poly", {"power": 2}, lambda share: (1 - share) ** 2),
        ("cosine", {"floor": 0.1}, lambda share: 0.1 + 0.45 * (1 + math.cos(math.pi * share))),
        ("constant", {}, lambda share: 1),
        (lambda share: 1 - share / 2, {}, lambda share: 1 - share / 2),
    ],
)
def test_schedules_follow_their_formulas_after_a_linear_rise(name, options, fall, warmup):
    expected = [min(1, (step + 1) / (warmup + 1)) * fall(step / 10) for step in range(10)]
    assert rates_of(ScheduleConfig(name, warmup, options)) == pytest.approx(expected)


def test_schedules_of_pytorch():
    one = rates_of(ScheduleConfig("torch.optim.lr_scheduler:OneCycleLR", options={"max_lr": 2.0}))
    assert max(one) == pytest.approx(2.0, rel=0.05)
    halves = ScheduleConfig("torch.optim.lr_scheduler:StepLR", options={"step_size": 5, "gamma": 0.5})
    assert rates_of(halves) == [1.0] * 5 + [0.5] * 5
    for settings, named in (
        (replace(halves, warmup_steps=3), "warmup_steps"),
        (replace(halves, options={}), "step_size"),
        (ScheduleConfig("torch.optim:SGD"), "not open"),
        (ScheduleConfig("polly"), "did you mean 'poly'"),
        (ScheduleConfig("poly", options={"pow": 2}), "pow"),
    ):
        with pytest.raises(UsageError, match=named):
            rates_of(settings)
