"""IR against the network and its ONNX file, by OpenVINO itself; and graphs that someone made to do harm."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sanet.cli.main import main
from sanet.config import DataConfig, InferenceConfig, OutputConfig
from sanet.deploy.export import describe, export
from sanet.evaluation.evaluate import evaluate
from sanet.inference.exported import METADATA, open_exported
from sanet.inference.ir import core
from sanet.inference.predict import fingerprint_of
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model
from sanet.structures import LabelSet, SanetError, UsageError

LABELS = LabelSet(("sky", "Straße <\"&'>", "car"), ((1, 2, 3), (200, 10, 0), (0, 255, 7)), ignore_index=250)
pytestmark = pytest.mark.slow  # what is fast is in test_engines.py
SIDES = [(45, 61), (97, 33), (20, 45), (1, 1), (150, 70)]


def picture(size):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("sanet", "test_resnet", labels=LABELS, output_stride=8, shorter_side=64, heads=[1, 4])
    model.train()
    model(torch.rand(4, 3, 96, 96))
    return model.eval()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("ir") / "MODEL.XML"
    return path, export(model, path, progress=False)


def test_openvino_itself_runs_the_file(exported, model):
    path, _ = exported
    compiled = core().compile_model(core().read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in SIDES:
        images = torch.from_numpy(picture(size)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            found, expected = torch.from_numpy(compiled(images.numpy())["logits"]), None
            if min(size) >= 32:
                expected = model(images).logits
                assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
        assert found.shape == (1, 3, *size)


def test_the_file_says_what_an_onnx_file_does(exported, model):
    path, report = exported
    assert sorted(file.name for file in path.parent.iterdir() if file.name[0] != ".") == [
        "MODEL.XML", "MODEL.XML.json", "MODEL.bin"
    ]  # fmt: skip
    found = open_exported(path, "cpu")
    assert found.labels == LABELS
    assert found.metadata == json.loads(json.dumps(report.metadata))
    assert found.metadata == json.loads(json.dumps(describe(model, "onnx"))) | {"format": "openvino"}
    assert report.bytes == path.stat().st_size + path.with_suffix(".bin").stat().st_size
    assert all(case.same for case in report.cases)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return create_model("fcn", "test_resnet", labels=LABELS).eval()


def test_labels_are_those_of_the_model(exported, model):
    for size in SIDES:
        assert np.array_equal(Predictor(exported[0], "cpu")(picture(size)), Predictor(model, "cpu")(picture(size)))


def test_images_side_by_side_are_labelled_as_one_after_the_other(exported):
    predictor = Predictor(exported[0], "cpu")
    images = [picture(size) for size in SIDES] * 2
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = predictor(images)
        with ThreadPoolExecutor(4) as pool:
            threads = [*pool.map(predictor, images)]
    finally:
        torch.set_num_threads(before)
    for image, *found in zip(images, together, threads, strict=True):
        assert all(np.array_equal(predictor(image), each) for each in found)


def test_the_command_line(small, tmp_path, monkeypatch):
    """By the format, as by a suffix; of labels and an older opset."""
    monkeypatch.chdir(tmp_path)
    small.save_pretrained("model")
    assert main(["export", "model", "--format", "openvino", "--outputs", "labels+confidence", "--opset", "18"]) == 0
    for size in SIDES:
        assert np.array_equal(Predictor("model.xml", "cpu")(picture(size)), Predictor(small, "cpu")(picture(size)))
    Image.fromarray(picture((45, 60))).save("photo.png")
    for name in ("model", "model.xml"):
        assert main(["predict", "photo.png", "--model", name, "--output", f"out-{name}"]) == 0
    assert Path("out-model/masks/photo.png").read_bytes() == Path("out-model.xml/masks/photo.png").read_bytes()
    assert main(["export", "model", "--output", "m.xml", "--format", "onnx"]) == 2
    assert sorted(path.name for path in tmp_path.glob("m*.*")) == ["model.bin", "model.xml", "model.xml.json"]


def test_other_weights_are_another_model(exported, tmp_path):
    """So that what one has labelled the other labels again."""
    path = tmp_path / "m.xml"
    path.write_bytes(exported[0].read_bytes())
    weights = exported[0].with_suffix(".bin").read_bytes()
    found = set()
    for content in (weights, weights[:-1] + bytes([weights[-1] ^ 1])):
        path.with_suffix(".bin").write_bytes(content)
        found.add(fingerprint_of(str(path), InferenceConfig(), OutputConfig()))
    assert len(found) == 2


# Two graphs that end in the order in which they began, and then a signal, as of PyTorch's loading processes.
CHILD = """
import signal, subprocess, sys
from sanet.inference.exported import open_exported
first, second = (open_exported(sys.argv[1], "cpu") for _ in range(2))
del first
del second
signal.signal(signal.SIGCHLD, lambda *_: None)
subprocess.run(["true"], check=True)
"""


def test_nothing_is_told_to_anybody_and_signals_arrive_when_graphs_are_gone(exported, tmp_path):
    """OpenVINO's own import writes the number by which it is counted into the home folder, and sends it."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")}
    words = [sys.executable, "-c", CHILD, str(exported[0])]
    subprocess.run(words, check=True, env=kept | {"HOME": str(tmp_path)})
    assert not (tmp_path / "intel").exists()


# Int8


def test_int8_keeps_its_weights_in_bytes_and_says_what_it_costs(few_scenes, tmp_path, monkeypatch):
    """By the command line, where the suffix decides."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    create_model("fcn", "test_efficientnet", labels=few_scenes.open("train").labels).save_pretrained("model")
    words = ["--output", "m.int8.xml", "--calibration", "4", "--max_miou_drop", "1", "--data.name", "scenes"]
    assert main(["export", "model", *words]) == 0
    path = Path("m.int8.xml")
    kinds = {operator.get_type_name() for operator in core().read_model(path).get_ops()}
    assert "FakeQuantize" in kinds
    stored = open_exported(path, "cpu").metadata
    cost = stored["quantization"]
    assert path.with_suffix(".bin").stat().st_size < 0.5 * cost["float_bytes"]
    assert stored["format"] == "openvino-int8"
    assert evaluate(path, DataConfig(), "val", device="cpu", progress=False).scores.miou == cost["int8_miou"]
    assert cost["equal_labels"] > 0.8
    assert sorted(file.suffix for file in tmp_path.glob("m.*")) == [".bin", ".json", ".xml"]


# Refused


@pytest.fixture
def stored(exported, tmp_path):
    """A function that stores the graph, changed, beside the weights."""

    def store(change, cut=0):
        content = exported[0].read_text(encoding="utf-8")
        path = tmp_path / "a.xml"
        path.write_text(change(content), encoding="utf-8")
        weights = exported[0].with_suffix(".bin").read_bytes()
        path.with_suffix(".bin").write_bytes(weights[: len(weights) - cut])
        return path

    return store


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace("<net", '<!DOCTYPE net [<!ENTITY a "b">]><net', 1), "declares"),
        (lambda text: text.replace('version="opset1"', 'version="extension"', 1), "none of OpenVINO's own"),
        (lambda text: text.replace("</net>", "<body><layers/></body></net>"), "control flow"),
        (lambda text: text.replace(METADATA, "other.json"), "not written by"),
        (lambda text: text[: len(text) // 2], ""),
        (lambda text: text.replace('names="logits"', 'names="labels"'), "inputs and outputs"),
    ],
)
def test_more_or_less_than_a_network_is_refused(change, reason, stored):
    with pytest.raises(SanetError, match=rf"a\.xml cannot be read: .*{reason}"):
        Predictor(stored(change), "cpu")


def test_missing_weights_are_named(stored, exported):
    path = stored(str)
    assert np.array_equal(Predictor(path, "cpu")(picture((45, 61))), Predictor(exported[0], "cpu")(picture((45, 61))))
    with pytest.raises(SanetError, match=r"a\.xml cannot be read"):
        Predictor(stored(str, cut=1000), "cpu")
    path.with_suffix(".bin").unlink()
    with pytest.raises(SanetError, match=r"no exported file .*a\.bin"):
        Predictor(path, "cpu")


def test_it_runs_on_cpus_alone(exported):
    with pytest.raises(UsageError, match="'cuda'"):
        Predictor(exported[0], "cuda")


def test_without_openvino_the_extra_is_named(exported, small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    for act in (lambda: Predictor(exported[0], "cpu"), lambda: export(small, tmp_path / "m.xml", progress=False)):
        with pytest.raises(SanetError, match=r"pip install 'sanet-segmentation\[openvino\]'"):
            act()
    assert not [*tmp_path.iterdir()]
