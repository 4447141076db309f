"""``check_network`` accepts what works and names the traps that a stranger's head fell into."""

import sys
import traceback

import pytest
import torch
from awake import PYRAMIDS
from torch import nn

from sanet import references
from sanet.models import networks
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


class Returning(Trap):
    """Returns something else than it should."""

    def __init__(self, levels, num_classes, change):
        super().__init__(levels, num_classes)
        self.change = change

    def forward(self, features):
        return self.change(super().forward(features))


class PlainList(Trap):
    def __init__(self, levels, num_classes):
        super().__init__(levels, num_classes)
        self.branches = [nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)]


class PlainDict(Trap):
    def __init__(self, levels, num_classes):
        super().__init__(levels, num_classes)
        self.scales = {"a": nn.Parameter(torch.ones(()))}


class NoInit(nn.Module):
    def __init__(self, levels, num_classes):
        self.classify = nn.Conv2d(levels[-1].channels, num_classes, 1)


class NoInitNorLayers(nn.Module):
    def __init__(self, levels, num_classes):
        pass


class NoModule:
    def __init__(self, levels, num_classes):
        pass


class Required(Trap):
    def __init__(self, levels, num_classes, windows):
        super().__init__(levels, num_classes)


class LevelsOnly(Trap):
    def __init__(self, levels):
        super().__init__(levels, 2)


class OtherSize(Trap):
    def forward(self, features):
        last = features[-1]
        half = nn.functional.avg_pool2d(last, 2, ceil_mode=True)
        mask = self.classify(last + nn.functional.interpolate(half, scale_factor=2))
        return HeadOutput(mask, mask)


class Deciding(Trap):
    def forward(self, features):
        return super().forward([maps * (2 if maps.mean() > 0 else 3) for maps in features])


class Failing(Trap):
    def forward(self, features):
        if features[0].shape[-1] < 17:
            raise KeyError("nothing for this")
        return super().forward(features)


class Unwritable(Trap):
    def __init__(self, levels, num_classes, part=None, kind=frozenset()):
        super().__init__(levels, num_classes)


CHANGES = {
    "a tensor": (lambda output: output.mask, ["Tensor", "HeadOutput"]),
    "a class too many": (
        lambda output: output._replace(mask=torch.cat([output.mask, output.mask[:, :1]], 1)),
        ["mask", "(2, 4, ", "(B, K, h, w)", "K = 3"],
    ),
    "readout": (lambda output: output._replace(readout=output.readout[:, 0]), ["readout", "(B, K, h, w)"]),
    "no mask": (lambda output: output._replace(mask=None), ["mask", "NoneType"]),
    "category": (lambda output: output._replace(category=output.mask), ["category", "(B, K)", "(2, 3, "]),
    "dense": (lambda output: output._replace(dense=output.mask.mean((2, 3))), ["dense", "(2, 3)", "(B, S * K, h, w)"]),
    "detached": (lambda output: output._replace(mask=output.mask.detach()), ["gradient", "mask", "detach()"]),
    "detached dense": (lambda output: output._replace(dense=output.mask.detach()), ["gradient", "dense"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_wrong_output_is_refused_when_the_network_is_made(name):
    change, words = CHANGES[name]
    with pytest.raises(UsageError, match="Returning") as refused:
        create_model(Returning, "test_resnet", num_classes=3, change=change)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (PlainList, ["branches", "nn.ModuleList"]),
        (PlainDict, ["scales", "nn.ModuleDict"]),
        (NoInit, ["super().__init__()"]),
        (NoInitNorLayers, ["super().__init__()"]),
        (NoModule, ["nn.Module"]),
        (Required, ["windows"]),
        (LevelsOnly, ["levels, num_classes"]),
    ],
)
def test_a_head_that_cannot_train_is_refused_when_the_network_is_made(head, words):
    with pytest.raises(UsageError, match=head.__name__) as refused:
        create_model(head, "test_resnet", num_classes=3)
    for word in words:
        assert word in str(refused.value)


def test_trying_a_head_changes_nothing():
    class Counting(Trap):
        def __init__(self, levels, num_classes):
            super().__init__(levels, num_classes, lambda c: nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(inplace=True)))
            self.part[0].eval()
            self.draws = []

        def forward(self, features):
            self.draws.append(torch.rand(()))
            nn.functional.relu_(features[0])
            return super().forward(features)

    torch.manual_seed(0)
    model = create_model(Counting, "test_resnet", num_classes=3)
    after = torch.rand(3)
    assert len(model.head.draws) == 1
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "require_output", lambda model: None)
        same = create_model(Counting, "test_resnet", num_classes=3)
    assert torch.equal(torch.rand(3), after)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == [module.training for module in same.modules()]
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_built_in_heads_keep_the_contract(network):
    pyramid = network in PYRAMIDS
    networks.require_output(create_model(network, "test_resnet", num_classes=3, output_stride=32 if pyramid else 16))


@pytest.mark.slow
@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - {"fcn", "smp_linknet"}))
def test_every_other_head_passes(network):
    check_network(network, output_stride=32 if network in PYRAMIDS else 16)


@pytest.mark.slow
def test_a_head_is_checked_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "named_lab.py").write_text(
        "from sanet.models.sanet import FCNHead\nclass Head(FCNHead): pass\nclass Lost(FCNHead):\n"
        "    def __init__(self, levels, num_classes):\n        super().__init__(levels, num_classes + 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(references, "_opened", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    check_network("named_lab:Head")
    with pytest.raises(UsageError, match=r"readout is \(2, 4, 8, 12\)"):
        check_network("named_lab:Lost")
    with pytest.raises(SanetError, match="no_such_lab"):
        check_network("no_such_lab:Head")


HINTS = {"GroupNorm", "AvgPool2d", "size of another map", "texts, numbers", "on their values"}


@pytest.mark.parametrize(
    ("head", "word", "line"),
    [
        (NormBehindPooling, "GroupNorm", "self.part(last)"),
        pytest.param(AdaptivePooling, "AvgPool2d", "", marks=pytest.mark.slow),  # the exporter tries for long
        (Drawing, "drawn", ""),
        (Idle, "unused", ""),
        (OtherSize, "size of another map", "self.classify(last + "),
        (Unwritable, "texts, numbers", ""),
        (Deciding, "on their values", "maps.mean() > 0"),
        (Failing, "nothing for this", 'KeyError("nothing for this")'),
    ],
)
def test_traps_are_named_with_the_line_and_no_other_hint(head, word, line, capfd):
    with pytest.raises(AssertionError, match=word) as caught:
        check_network(head)
    text = str(caught.value)
    assert [hint for hint in HINTS if hint in text] == [word] * (word in HINTS)
    assert line in text
    assert "\n" not in text
    shown = "".join(traceback.format_exception(caught.value)) + capfd.readouterr().err
    assert len(shown.splitlines()) < 20


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
