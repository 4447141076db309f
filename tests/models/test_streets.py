"""The package's own model: small, whole, what its card says, and of use on a street."""

import json
import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import sanet
from sanet.cli.main import main
from sanet.demo.serve import EXAMPLES
from sanet.inference.predictor import Predictor
from sanet.insight.groups import Explainer
from sanet.models.store import BUNDLED

OWN_SIDE = 720
STREET = EXAMPLES / "Seq05VD_f02370.jpg"
RAW = Path(__file__).parents[2] / "docs" / "results" / "own" / "scores-test.json"

# Column and row of places of which there is no doubt.
PLACES = (("road", 250, 300), ("building", 410, 180), ("sky", 290, 15), ("pavement", 50, 290), ("car", 110, 180))


@cache
def seen_whole():
    """The street as the model labels it, in the size that it knows."""
    return np.asarray(Predictor(device="cpu")(Image.open(STREET)))


def test_it_is_stored_in_half_precision_and_computes_in_single():
    file = BUNDLED["streets"] / "model.safetensors"
    assert file.stat().st_size < 10e6  # two bytes for each of less than 5 M parameters, which are counted below
    stored = load_file(file)
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    model = sanet.load_model(BUNDLED["streets"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert sum(parameter.numel() for parameter in model.parameters()) < 5e6
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name].to(tensor.dtype))


@pytest.mark.slow
def test_it_labels_alike_wherever_it_lies(tmp_path, monkeypatch):
    shutil.copytree(BUNDLED["streets"], tmp_path / "copy")
    monkeypatch.chdir(BUNDLED["streets"].parent)
    picture = Image.open(STREET)
    small = Predictor(device="cpu", inference=sanet.InferenceConfig(shorter_side=0))
    assert small.inference.shorter_side == 0
    mask = np.asarray(small(picture))
    assert (mask != seen_whole()).mean() > 0.02
    for model in (tmp_path / "copy", BUNDLED["streets"].name, Path("..", "models", BUNDLED["streets"].name)):
        assert Predictor(model, "cpu").inference.shorter_side == OWN_SIDE
        assert np.array_equal(Predictor(model, "cpu", small.inference)(picture), mask)


def test_the_card_has_the_figures_of_the_raw_file():
    card, raw = (
        (BUNDLED["streets"] / "README.md").read_text(encoding="utf-8"),
        json.loads(RAW.read_text(encoding="utf-8")),
    )
    assert raw["protocol"]["shorter_side"] == OWN_SIDE
    assert (raw["protocol"]["data"], raw["protocol"]["split"], raw["protocol"]["pictures"]) == ("camvid", "test", 233)
    assert f"**{raw['scores']['miou']:.3f}**" in card
    rows = dict(re.findall(r"^\| (\w+) \| (0\.\d\d) \|$", card, re.MULTILINE))
    assert rows == {name: f"{iou:.2f}" for name, iou in raw["scores"]["class_iou"].items()}


def test_a_street_is_labelled_as_one_sees_it():
    mask, names = seen_whole(), sanet.load_model("streets").labels.names
    assert mask.shape == (360, 480)
    seen = {name: names[mask[row, column]] for name, column, row in PLACES}
    assert seen == {name: name for name, _, _ in PLACES}
    whole = Explainer(BUNDLED["streets"], "cpu", OWN_SIDE).encode(
        torch.from_numpy(np.array(Image.open(STREET))).permute(2, 0, 1)
    )
    assert np.array_equal(whole.prediction.numpy(), mask)


def test_sanet_predict_without_a_model_says_whose_it_is(tmp_path, capsys):
    assert main(["predict", str(STREET), "--output", str(tmp_path), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "no --model: streets" in said
    assert "(sky, building" in said
    assert f"shorter side of {OWN_SIDE}" in said
    assert str(BUNDLED["streets"] / "README.md") in said
    mask = np.asarray(Image.open(tmp_path / "masks" / "Seq05VD_f02370.png"))
    assert np.array_equal(mask, seen_whole())
    assert main(["predict", str(STREET), "--output", str(tmp_path / "b"), "--shorter_side", "90"]) == 0
    assert "shorter side of 90" in capsys.readouterr().out


@pytest.mark.parametrize("side", [None, 96])
def test_the_explainer_sees_pictures_in_the_size_that_it_is_told(side):
    torch.manual_seed(0)
    model = sanet.create_model("sanet", "test_resnet", num_classes=4, output_stride=8)
    image = torch.randint(0, 256, (3, 48, 80), dtype=torch.uint8)
    encoding = Explainer(model, "cpu", side).encode(image)
    factor = 2 if side else 1
    assert encoding.heads[0].main.shape[-2:] == (12 * factor, 20 * factor)
    predictor = sanet.Predictor(model, "cpu", sanet.InferenceConfig(shorter_side=side))
    assert torch.equal(encoding.prediction, predictor.label(image))


@pytest.mark.parametrize(
    ("asked", "side"), [pytest.param([], OWN_SIDE, marks=pytest.mark.slow), (["--shorter_side", "48"], 48)]
)
def test_it_has_a_name_for_the_commands_that_see_inside(tmp_path, monkeypatch, capsys, asked, side):
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "masks"):
        Path("photos", folder).mkdir(parents=True)
    Image.open(STREET).resize((48, 45)).save("photos/images/a.png")
    Image.fromarray(np.tile(np.arange(48, dtype=np.uint8) // 24, (45, 1))).save("photos/masks/a.png")
    Path("photos/val.txt").write_text("a\n", encoding="utf-8")
    given = ["streets", "photos/images/a.png", "--point", "3", "4", "--device", "cpu"]
    assert main(["explain", *given, *asked]) == 0
    assert f"{side * 48 // 45} x {side}" in capsys.readouterr().out
    data = [
        "--data.name",
        "folder",
        "--data.root",
        "photos",
        "--data.classes",
        f"[{','.join(sanet.load_model(BUNDLED['streets']).labels.names)}]",
    ]
    assert main(["grouping", "streets", "--split", "val", *data, "--device", "cpu", *asked]) == 0
    said = capsys.readouterr().out
    assert f"shorter side of {side}; seed 0" in said
    assert main(["evaluate", "streets", "--split", "val", "--output", "scores", *data, "--device", "cpu", *asked]) == 0
    scores = json.loads(Path("scores", "scores.json").read_text(encoding="utf-8"))
    assert (scores["protocol"]["inference"]["shorter_side"], scores["facts"]["model"]) == (side, "streets")
    assert f"shorter side of {side}" in capsys.readouterr().out


def test_it_is_compared_in_the_size_that_it_knows(tmp_path, monkeypatch):
    """Which its name, its folder and its own predictor agree on."""
    monkeypatch.chdir(tmp_path)
    seen, ask = [], Predictor.__call__

    def noted(self, image):
        seen.append(ask(self, image))
        return seen[-1]

    monkeypatch.setattr(Predictor, "__call__", noted)
    assert main(["visualize", str(STREET), "--models", "streets", "--output", "a.png", "--device", "cpu"]) == 0
    assert len(seen) == 1
    assert np.array_equal(seen[0], seen_whole())


@pytest.mark.slow
def test_a_run_of_that_name_is_not_hidden(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    sanet.create_model("sanet", "test_resnet", num_classes=4, output_stride=8).save_pretrained("streets")
    Image.open(STREET).resize((80, 60)).save("a.png")
    assert main(["explain", "streets", "a.png", "--point", "3", "4", "--device", "cpu"]) == 0
    assert "was resized" not in capsys.readouterr().out
    assert main(["predict", "a.png", "--output", "named", "--model", "streets", "--device", "cpu"]) == 0
    assert main(["predict", "a.png", "--output", "none", "--device", "cpu"]) == 0
    named, none = (np.asarray(Image.open(Path(folder, "masks", "a.png"))) for folder in ("named", "none"))
    assert np.array_equal(named, Predictor("streets")(Image.open("a.png")))
    assert np.array_equal(none, Predictor()(Image.open("a.png")))
    assert not np.array_equal(named, none)
