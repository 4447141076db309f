"""Files that return labels, older opsets, small pictures, and the client that does without this package."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnxruntime.quantization import quantize_dynamic
from PIL import Image
from torch import nn

from sanet.config import InferenceConfig
from sanet.deploy.export import export
from sanet.deploy.padding import WholeWindows, replace_padding
from sanet.inference.exported import open_exported
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model
from sanet.reading import ImageReading
from sanet.structures import SanetError, UsageError

CLIENT = Path(__file__).parents[2] / "examples" / "exported.py"
SIDES = [(45, 61), (97, 33), (20, 45), (1, 1), (150, 70)]


def network(name="sanet", **options):
    torch.manual_seed(0)
    model = create_model(name, "test_resnet", num_classes=5, output_stride=8, **options)
    model.train()
    model(torch.rand(4, options.get("in_chans", 3), 96, 96))
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return network(shorter_side=64)


@pytest.fixture(scope="module", params=[("logits", 20), ("labels", 20), ("labels+confidence", 17)])
def file(request, model, tmp_path_factory):
    outputs, opset = request.param
    path = tmp_path_factory.mktemp("outputs") / "MODEL.ONNX"
    export(model, path, outputs=outputs, opset=opset, progress=False)
    assert [found.version for found in onnx.load(path).opset_import] == [opset]
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return path


def picture(size, channels=3):
    return np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)


@pytest.mark.parametrize("size", SIDES)
def test_labels_are_those_of_the_model(size, file, model):
    assert np.array_equal(Predictor(file, "cpu")(picture(size)), Predictor(model, "cpu")(picture(size)))


def run_client(*arguments):
    blocked = "import sys, runpy; sys.modules['sanet'] = sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
    code = blocked + "runpy.run_path(sys.argv[0], run_name='__main__')"
    subprocess.run([sys.executable, "-c", code, CLIENT, *arguments], check=True)


@pytest.mark.parametrize("size", SIDES[:3])
def test_the_client_labels_like_the_model(size, file, model, tmp_path):
    Image.fromarray(picture(size)).save(tmp_path / "a.png")
    run_client(file, tmp_path / "a.png", tmp_path / "mask.png")
    found, expected = np.array(Image.open(tmp_path / "mask.png")), Predictor(model, "cpu")(tmp_path / "a.png")
    assert (found == np.array(expected)).mean() >= 0.999


@pytest.mark.parametrize(("channels", "high"), [(1, 60_000.0), (4, 240.0)])
def test_stored_values_keep_their_range(channels, high, tmp_path):
    reading = ImageReading(channels, "refuse", (10.0,) * channels, (high,) * channels)
    model = network("fcn", in_chans=channels, images=reading, shorter_side=48)
    values = picture((45, 61), channels)
    stored = values[..., 0].astype(np.uint16) * 256 if channels == 1 else values
    Image.fromarray(stored).save(tmp_path / "a.png")
    for outputs in ("logits", "labels"):
        path = tmp_path / f"{outputs}.onnx"
        export(model, path, outputs=outputs, progress=False)
        assert open_exported(path, "cpu").images == reading
        expected = np.array(Predictor(model, "cpu")(tmp_path / "a.png"))
        assert (np.array(Predictor(path, "cpu")(tmp_path / "a.png")) == expected).mean() >= 0.999
        run_client(path, tmp_path / "a.png", tmp_path / "mask.png")
        assert (np.array(Image.open(tmp_path / "mask.png")) == expected).mean() >= 0.999


def test_confidence_is_the_calibrated_probability(tmp_path, monkeypatch):
    model = network("fcn")
    model.temperature = 2.5
    path = tmp_path / "a.onnx"
    export(model, path, outputs="labels+confidence", progress=False)
    assert open_exported(path, "cpu").temperature == 2.5
    images = torch.from_numpy(picture((45, 61))).permute(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(path)
    labels, confidence = session.run(None, {"images": images.numpy(), "size": np.array([90, 50])})
    with torch.inference_mode():
        shares = F.interpolate(model(images).logits, (90, 50), mode="bilinear").div(2.5).softmax(1)
    assert np.array_equal(labels, shares.argmax(1).numpy())
    assert np.abs(confidence / 255 - shares.amax(1).numpy()).max() <= 0.5 / 255 + 1e-5


def test_what_needs_logits_names_the_remedy(model, tmp_path):
    export(model, tmp_path / "a.onnx", outputs="labels", progress=False)
    for settings in (InferenceConfig(flip=True), InferenceConfig(scales=(1, 2)), InferenceConfig(window=32)):
        with pytest.raises(UsageError, match="--outputs logits"):
            Predictor(tmp_path / "a.onnx", "cpu", settings)(picture((64, 64)))
    with pytest.raises(SanetError, match="--outputs logits"):
        export(create_model("fcn", "test_resnet", num_classes=257), tmp_path / "b.onnx", outputs="labels")


@pytest.mark.parametrize("name", ["sanet", "encnet"])
def test_dynamic_quantisation_takes_the_file(name, tmp_path):
    export(network(name), tmp_path / "a.onnx", progress=False)
    quantize_dynamic(tmp_path / "a.onnx", tmp_path / "b.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "b.onnx"))


@pytest.mark.parametrize("kind", [nn.AvgPool2d, nn.MaxPool2d])
@pytest.mark.parametrize("side", [1, 7, 8, 9, 16, 23])
def test_whole_windows_pool_as_windows_at_the_border_do(kind, side):
    layers, maps = nn.Sequential(kind(8, ceil_mode=True)), torch.randn(2, 3, side, side + 5)
    expected = layers(maps)
    replace_padding(layers)
    assert isinstance(layers[0], WholeWindows)
    assert torch.allclose(layers(maps), expected, atol=1e-6)
