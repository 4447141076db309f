"""A head that this package does not know is exported, profiled, shown on the page and said to have no groups."""

import sys

import pytest
import torch

from sanet import references
from sanet.demo.visit import Visit
from sanet.deploy.config import ProfileConfig, Published
from sanet.deploy.export import export
from sanet.deploy.profile import profile
from sanet.deploy.tables import records, render
from sanet.inference.exported import open_exported
from sanet.insight.groups import Explainer
from sanet.models.networks import create_model, load_model
from sanet.references import use
from sanet.structures import UsageError

NAME = "their_lab:Plain"
MODULE = """
from torch import nn
from sanet.models.sanet import HeadOutput

class Plain(nn.Module):
    def __init__(self, levels, num_classes, side: int = 3):
        super().__init__()
        self.classify = nn.Conv2d(levels[-1].channels, num_classes, side, padding=side // 2)

    def forward(self, features):
        mask = self.classify(features[-1])
        return HeadOutput(mask, mask)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("their")
    (folder / "their_lab.py").write_text(MODULE)
    sys.path.append(str(folder))
    before = dict(references._opened)
    use("their_lab")
    torch.manual_seed(0)
    create_model(NAME, "test_resnet", num_classes=4, side=5).save_pretrained(folder / "model")
    yield folder / "model"
    references._opened.clear()
    references._opened.update(before)
    sys.path.remove(str(folder))


@pytest.mark.slow
def test_it_is_exported(saved, tmp_path):
    model = load_model(saved)
    report = export(model, tmp_path / "a.onnx", progress=False)
    assert (report.metadata["network"], report.metadata["options"]) == (NAME, {"side": 5})
    assert open_exported(tmp_path / "a.onnx", "cpu").labels == model.labels


def test_it_is_profiled_by_its_name_or_as_it_is(saved):
    head = sys.modules["their_lab"].Plain
    size = {"backbones": ("test_resnet",), "sizes": ((64, 80),), "published": {NAME: Published(miou=50)}}
    by_name, itself = (profile(ProfileConfig((network,), **size)) for network in (NAME, head))
    assert by_name.costs == itself.costs
    assert by_name.costs[0].macs > 0
    assert records(itself)[0]["network"] == NAME
    assert NAME in render(itself)


def test_the_page_labels_with_it_and_groups_by_its_features(saved):
    explainer = Explainer(saved, "cpu")
    explainer.require_rgb()
    visit = Visit(torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8).numpy(), "a")
    visit.click((5, 5))
    result = visit.result("theirs", {"theirs": explainer})
    assert result.prediction.shape == (40, 50)
    ((_, caption),) = visit.groups(result, "attention")
    assert caption.startswith("level 4,")


def test_other_images_than_rgb_are_refused_where_files_are_read():
    network = create_model("sanet", "test_resnet", num_classes=2, in_chans=4)
    with pytest.raises(UsageError, match="4 channels"):
        Explainer(network, "cpu").require_rgb()
    assert Explainer(network, "cpu").encode(torch.zeros(4, 40, 50, dtype=torch.uint8)).prediction.shape == (40, 50)
