"""Two saved models, and a page that shows them, for all tests of the page."""

import pytest
import torch
from visitor import png

import sanet
from sanet.demo.config import DemoConfig
from sanet.demo.serve import served
from sanet.insight.groups import Explainer


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name in ("sanet", "fcn"):
        network = sanet.create_model(name, "test_resnet", num_classes=4, output_stride=8)
        network.save_pretrained(folder / name / "model")
    return [folder / "sanet" / "model", folder / "fcn" / "model"]


@pytest.fixture(scope="module")
def address(models, tmp_path_factory):
    example = tmp_path_factory.mktemp("examples") / "corner.png"
    example.write_bytes(png(30, 90))
    with served(models, DemoConfig(port=0, largest_megabytes=1, largest_megapixels=0.5), [example]) as address:
        yield address


@pytest.fixture
def encodings(monkeypatch):
    """The sizes of the images that were encoded."""
    sizes, encode = [], Explainer.encode

    def counted(self, image):
        sizes.append(tuple(image.shape[1:]))
        return encode(self, image)

    monkeypatch.setattr(Explainer, "encode", counted)
    return sizes
