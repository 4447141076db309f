"""A saved model and images, for all tests of prediction."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from sanet.models.networks import create_model
from sanet.structures import LabelSet

LABELS = LabelSet(("sky", "road", "car"))


def saved(folder, seed, labels=LABELS):
    """A model that no other seed makes."""
    torch.manual_seed(seed)
    create_model("fcn", "test_resnet", labels=labels).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folders of three models: the second has other weights, the third other names."""
    root = tmp_path_factory.mktemp("models")
    other = LabelSet(("sky", "street", "car"))
    return saved(root / "first", 0), saved(root / "second", 1), saved(root / "third", 0, other)


@pytest.fixture
def folder(tmp_path):
    """Three images of different sizes, one of them in a subfolder, and a note."""
    rng = np.random.default_rng(0)
    for name, size in {"a.png": (40, 50), "b.jpg": (33, 70), "deep/c.bmp": (64, 64)}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture
def collection(folder, models, tmp_path, monkeypatch):
    """The first model in model/, the images in photos/, and both within the working directory."""
    shutil.copytree(models[0], tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path
