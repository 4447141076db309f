"""Images under several networks: rows and columns, the share of wrong pixels, and what cannot be drawn."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import sanet
from sanet.inference.predictor import Predictor
from sanet.insight.visualize import visualize
from sanet.structures import LabelSet, SanetError, UsageError

LABELS = LabelSet(("road", "sky", "tree"), ignore_index=9)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name in ("sanet", "fcn"):
        network = sanet.create_model(name, "test_resnet", labels=LABELS, output_stride=8)
        network.save_pretrained(folder / name / "model")
    return [folder / "sanet" / "model", folder / "fcn" / "model"]


@pytest.fixture
def files(tmp_path):
    random, images, masks = np.random.default_rng(0), [], []
    for index, size in enumerate([(40, 60), (50, 36)]):
        images.append(tmp_path / f"{index}.png")
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(images[-1])
        masks.append(tmp_path / f"{index}-mask.png")
        Image.fromarray(random.choice([0, 1, 2, 9], size).astype(np.uint8)).save(masks[-1])
    return images, masks


@pytest.fixture
def titles(monkeypatch):
    """What stands above the panes of the figure that is saved, row by row."""
    found, save = [], Figure.savefig

    def noted(self, *args, **kwargs):
        found.extend(pane.get_title() for pane in self.axes)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", noted)
    return found


def test_a_row_for_each_image_and_one_for_its_errors(models, files, titles, tmp_path):
    images, masks = files
    visualize(images, models, tmp_path / "a.png", masks, device="cpu", progress=False)
    expected = []
    for file, mask in zip(images, masks, strict=True):
        truth, image = np.asarray(Image.open(mask)), np.asarray(Image.open(file))
        wrong = [(Predictor(model, "cpu")(image)[truth != 9] != truth[truth != 9]).mean() for model in models]
        expected += [file.name, "sanet", "fcn", "ground truth", *(f"wrong: {share:.1%}" for share in wrong)]
    assert titles == expected
    assert Image.open(tmp_path / "a.png").width > 900


def test_without_masks_there_are_no_errors(models, files, titles, tmp_path):
    visualize(files[0], models[1:], tmp_path / "a.png", device="cpu", progress=False)
    assert titles == ["0.png", "fcn", "1.png", "fcn"]


def test_long_names_do_not_run_into_each_other(models, files, monkeypatch, tmp_path):
    drawn, save = [], Figure.savefig

    def noted(self, *args, **kwargs):
        save(self, *args, **kwargs)
        FigureCanvasAgg(self).draw()
        drawn.extend(pane.title.get_window_extent() for pane in self.axes)

    monkeypatch.setattr(Figure, "savefig", noted)
    long = [Path(shutil.copytree(model, tmp_path / f"{model.parent.name}-{'0' * 40}")) for model in models]
    visualize(files[0][:1], long, tmp_path / "a.png", device="cpu", progress=False)
    assert [first.x1 < second.x0 for first, second in pairwise(drawn)] == [True, True]


def test_what_cannot_be_drawn(models, files, tmp_path):
    images, masks = files

    def drawn(*arguments):
        visualize(*arguments[:2], tmp_path / "a.png", *arguments[2:], device="cpu", progress=False)

    with pytest.raises(UsageError, match="1 masks for 2 images"):
        drawn(images, models, masks[:1])
    with pytest.raises(UsageError, match="60x40, its image 36x50"):
        drawn(images[1:], models, masks[:1])
    with pytest.raises(UsageError, match="one image or more"):
        drawn([], models)
    with pytest.raises(UsageError, match="named twice"):
        drawn(images, [models[0], models[0]])
    other = tmp_path / "other"
    sanet.create_model("fcn", "test_resnet", num_classes=3, output_stride=8).save_pretrained(other)
    with pytest.raises(UsageError, match="different classes"):
        drawn(images, [models[0], other], masks)
    with pytest.raises(SanetError, match=r"nothing\.png"):
        drawn([tmp_path / "nothing.png"], models)
    with pytest.raises(UsageError, match=r"a\.txt"):
        visualize(images, [tmp_path / "no model"], tmp_path / "a.txt")
    assert not (tmp_path / "a.png").exists()


def test_names_that_mean_something_to_a_figure_or_a_terminal_are_shown_as_they_are(files, titles, tmp_path):
    odd = tmp_path / "$\\frac{$ <b>\x1b[31m\n.png"
    shutil.copy(files[0][0], odd)
    labels = LabelSet(("$\\frac{$", "a | b", "{{7*7}}"), ignore_index=9)
    network = sanet.create_model("fcn", "test_resnet", labels=labels, output_stride=8)
    network.save_pretrained(tmp_path / "$x^$")
    visualize([odd], [tmp_path / "$x^$"], tmp_path / "a.png", device="cpu", progress=False)
    assert "".join(titles[0].split()) == r"$\frac{$<b>\x1b[31m\n.png"
    assert titles[1] == "$x^$"
