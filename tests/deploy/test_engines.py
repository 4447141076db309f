"""The engines label alike; a graph is made once for a model, and for another one another."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sanet.cli.main import main
from sanet.deploy import engines
from sanet.deploy.engines import MANY, computed_by
from sanet.evaluation.results import read_scores
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model, load_model
from sanet.models.unlike import FeatureStatistics
from sanet.references import use
from sanet.structures import UsageError
from serve.caller import mask_in, png, serving

pytestmark = pytest.mark.slow


def saved(folder):
    torch.manual_seed(0)
    model = create_model("fcn", "test_resnet", num_classes=5, output_stride=8)
    rng, channels = np.random.default_rng(0), model.backbone.levels[-1].channels
    features = rng.random((9, channels)).astype(np.float32)
    model.statistics = FeatureStatistics.of(features, features[:4])
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, images of three sizes, and a cache that got a graph of either engine, one as there were many images."""
    folder = tmp_path_factory.mktemp("engines")
    saved(folder / "model")
    (folder / "photos").mkdir()
    for number, size in enumerate([(45, 61), (97, 33), (20, 45)]):
        values = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / "photos" / f"{number}.png")
    images = [folder / "photos" / "0.png"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SANET_CACHE", str(folder / "cache"))
        assert computed_by("torch", str(folder / "model"), "cpu", MANY, images) == str(folder / "model")
        assert computed_by("auto", str(folder / "model"), "cpu", MANY - 1, images) == str(folder / "model")
        assert not kept(folder)
        assert [Path(computed_by("auto", str(folder / "model"), "cpu", MANY, images))] == [*kept(folder)]
        ir = computed_by("openvino", str(folder / "model"), "cpu", 1, images)
        assert [path.suffix for path in kept(folder)] == [".bin", ".onnx", ".xml"]
        assert [*kept(folder)][-1] == Path(ir)
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """The same, for a test to change; without the graph, where that is deleted."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("SANET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kept(place):
    return {path: path.read_bytes() for path in sorted((place / "cache" / "graphs").glob("*.[bxo]*"))}


def predicted(output, *words):
    options = ["--model", "model", "--output", output, "--device", "cpu", "--confidence", "true", *words]
    assert main(["predict", "photos", *options]) == 0
    lines = [json.loads(line) for line in Path(output, "predictions.jsonl").read_text().splitlines()]
    paths = sorted(Path(output).rglob("*.png"))
    files = {path.relative_to(output): np.array(Image.open(path)).astype(int) for path in paths}
    return lines, files


def test_graphs_predict_what_torch_does_and_are_made_once(place, capsys):
    before = kept(place)
    lines, files = predicted("torch", "--engine", "torch")
    assert "engine: torch" in capsys.readouterr().out
    for engine in ("auto", "onnxruntime", "openvino"):
        found, others = predicted(engine, "--engine", engine)
        assert f"engine: {engine.replace('auto', 'onnxruntime')}" in capsys.readouterr().out
        assert list(files) == list(others)
        assert len(files) == 6
        for name, values in files.items():
            assert np.abs(values - others[name]).max() <= (1 if name.parts[0] == "confidence" else 0)
        for line, other in zip(lines, found, strict=True):
            assert line["unlike"] == pytest.approx(other.pop("unlike"), abs=1e-3)
            # The fingerprint too: what one engine has labelled the other does not label again.
            assert other == {name: value for name, value in line.items() if name != "unlike"}
    assert kept(place) == before


def test_a_graph_that_is_kept_is_served(place):
    """By a process that could not read the weights of the network."""
    (place / "image.png").write_bytes(png(64, 96))
    expected = Predictor("model", "cpu")("image.png")
    (place / "model" / "model.safetensors").write_bytes(b"")
    with serving("--engine", "openvino", model="model") as (_, caller):
        found = mask_in(caller.call("POST", "/predict", png(64, 96))[2])
    assert (found == expected).mean() > 0.999


def test_another_temperature_is_another_graph(place):
    assert computed_by("auto", "model", "cpu") != "model"
    model = load_model("model")
    model.temperature = 2.0
    model.save_pretrained("model")
    assert computed_by("auto", "model", "cpu") == "model"


def test_a_graph_that_labels_otherwise_is_not_kept(place, monkeypatch, capsys):
    """No real one does: here more than all of the pixels have to be equal."""
    monkeypatch.setattr(engines, "SMALLEST_EQUAL_SHARE", 1.01)
    for graph in kept(place):
        graph.unlink()
    assert computed_by("auto", "model", "cpu", MANY, [place / "photos" / "0.png"]) == "model"
    assert "0.png" in capsys.readouterr().err
    assert not kept(place)


def test_an_engine_that_cannot_is_an_error(place, capsys):
    _, graph, ir = map(str, kept(place))
    assert computed_by("onnxruntime", graph) == computed_by("auto", graph) == graph
    assert computed_by("openvino", ir) == computed_by("auto", ir) == ir
    for file, engine in ((graph, "torch"), (graph, "openvino"), (ir, "torch"), (ir, "onnxruntime")):
        for words in (["predict", "photos", "--model", file], ["evaluate", file, "--data.root", "photos"]):
            assert main([*words, "--engine", engine]) == 2
            assert f"--engine {engine}" in capsys.readouterr().err


def test_a_network_of_ones_own_has_no_graph(place, monkeypatch):
    """Its code may change where the hash of the model does not."""
    Path("lab_of_engines.py").write_text("from sanet.models.sanet import FCNHead\n\n\nclass Head(FCNHead):\n    pass\n")
    monkeypatch.syspath_prepend(place)
    use("lab_of_engines")
    create_model("lab_of_engines:Head", "test_resnet", num_classes=5).save_pretrained("own")
    assert computed_by("auto", "own", "cpu", MANY) == "own"
    with pytest.raises(UsageError, match="network of your own"):
        computed_by("onnxruntime", "own", "cpu")


def test_scores_are_those_of_the_model_and_say_the_engine(place):
    for number in range(3):
        image = Image.open(f"photos/{number}.png")
        for split in ("train", "val"):
            for folder in ("images", "masks"):
                Path("data", split, folder).mkdir(parents=True, exist_ok=True)
            image.save(f"data/{split}/images/{number}.png")
            mask = np.random.default_rng(number).integers(0, 5, (image.height, image.width), dtype=np.uint8)
            Image.fromarray(mask).save(f"data/{split}/masks/{number}.png")
    found = {}
    for engine in ("torch", "onnxruntime", "openvino"):
        words = ["--data.root", "data", "--split", "val", "--device", "cpu", "--engine", engine, "--output", engine]
        assert main(["evaluate", "model", *words]) == 0
        found[engine] = read_scores(Path(engine))
    assert "engine" not in found["torch"].facts
    for engine in ("onnxruntime", "openvino"):
        assert np.array_equal(found["torch"].confusion, found[engine].confusion)
        assert found[engine].facts["engine"] == engine
        assert found["torch"].facts["model"] == found[engine].facts["model"] == "model"
