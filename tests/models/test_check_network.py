"""``check_network`` accepts what works and names the traps that a stranger's head fell into."""

import pytest
import torch
from torch import nn

from sanet.models.networks import NETWORKS, create_model, load_model
from sanet.models.sanet import HeadOutput
from sanet.structures import SanetError, UsageError
from sanet.testing import check_network


class Trap(nn.Module):
    def __init__(self, levels, num_classes, part=None):
        super().__init__()
        channels = levels[-1].channels
        self.part = part(channels) if part else nn.Identity()
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features):
        last = features[-1]
        extra = nn.functional.interpolate(self.part(last), last.shape[-2:], mode="nearest")
        mask = self.classify(last + extra)
        return HeadOutput(mask, mask)


class NormBehindPooling(Trap):
    def __init__(self, levels, num_classes):
        super().__init__(levels, num_classes, lambda c: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(c)))


class AdaptivePooling(Trap):
    def __init__(self, levels, num_classes):
        super().__init__(levels, num_classes, lambda c: nn.AdaptiveAvgPool2d(3))


class Noise(nn.Module):
    def forward(self, maps):
        return maps + torch.rand(())


class Drawing(Trap):
    def __init__(self, levels, num_classes):
        super().__init__(levels, num_classes, lambda c: Noise())


class Idle(Trap):
    def __init__(self, levels, num_classes):
        super().__init__(levels, num_classes)
        self.unused = nn.Conv2d(1, 1, 1)


@pytest.mark.parametrize("network", ["sanet", "fcn_se", "danet"])
def test_built_in_heads_pass(network):
    check_network(NETWORKS[network])


@pytest.mark.slow
@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - {"sanet", "fcn_se", "danet", "smp_linknet"}))
def test_every_other_head_passes(network):
    pyramid = network in {"smp_fpn", "smp_unet", "smp_unetplusplus", "smp_manet"}
    check_network(NETWORKS[network], output_stride=32 if pyramid else 16)


@pytest.mark.parametrize(
    ("head", "word"),
    [(NormBehindPooling, "GroupNorm"), (AdaptivePooling, "AvgPool2d"), (Drawing, "drawn"), (Idle, "unused")],
)
def test_traps_are_named(head, word):
    with pytest.raises(AssertionError, match=word):
        check_network(head)


def test_a_head_without_a_module_trains_but_is_not_saved(tmp_path):
    class Local(Trap):
        pass

    model = create_model(Local, "test_resnet", num_classes=2)
    assert model.eval()(torch.rand(1, 3, 32, 32)).logits.shape == (1, 2, 32, 32)
    with pytest.raises(UsageError, match="Local"):
        model.save_pretrained(tmp_path)


def test_a_file_opens_no_module(tmp_path, monkeypatch):
    (tmp_path / "unopened_lab.py").write_text(
        "import pathlib\nfrom sanet.models.sanet import FCNHead\n"
        "pathlib.Path(__file__).with_name('ran').touch()\nclass Head(FCNHead): pass\n"
    )
    model = create_model("fcn", "test_resnet", num_classes=2)
    model.network = "unopened_lab:Head"
    model.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SanetError, match="--import unopened_lab"):
        load_model("model")
    assert not (tmp_path / "ran").exists()


def test_images_of_any_channels_and_range(tmp_path):
    torch.manual_seed(0)
    model = create_model("fcn", "test_resnet", num_classes=2, in_chans=5, value_range=1000).eval()
    model.save_pretrained(tmp_path)
    stored = torch.randint(0, 1001, (1, 5, 40, 50))
    with torch.no_grad():
        expected = model(stored.float() / 1000).logits
        for images in (stored, stored.to(torch.uint16), stored.int()):
            assert torch.equal(load_model(tmp_path)(images).logits, expected)
    with pytest.raises(UsageError, match="3 channels"):
        model(torch.rand(1, 3, 40, 50))


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_weights_of_three_channels_are_adapted_as_timm_does(channels):
    import timm

    torch.manual_seed(0)
    model = create_model("fcn", num_classes=2, pretrained_backbone=True, in_chans=channels)
    plain = create_model("fcn", num_classes=2, pretrained_backbone=True)
    name = next(iter(plain.backbone.stages.state_dict()))
    weight = plain.backbone.stages.state_dict()[name]
    expected = timm.models.adapt_input_conv(channels, weight)
    assert torch.equal(model.backbone.stages.state_dict()[name], expected)
    assert model.mean.shape == (1, channels, 1, 1)
