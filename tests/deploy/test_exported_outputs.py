"""Files that return labels, older opsets, small pictures, and the client that does without this package."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

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
from sanet.deploy.export import describe, export, prepare, write
from sanet.deploy.padding import WholeWindows, replace_padding
from sanet.inference.exported import open_exported
from sanet.inference.predictor import Predictor
from sanet.models.networks import SegmentationModel, create_model
from sanet.reading import EIGHT_BITS, ImageReading
from sanet.structures import SanetError, UsageError

CLIENT = Path(__file__).parents[2] / "examples" / "exported.py"
SIDES = [(45, 61), (97, 33), (20, 45), (1, 1), (150, 70)]
FOUR = ImageReading(4, "refuse", (10.0, 20.0, -30.5, 10.0), (240.0, 190.5, 240.0, 99.0))
DEEP = ImageReading(1, "refuse", (10.0,), (60_000.0,))


def network(name, images=EIGHT_BITS, **options):
    torch.manual_seed(0)
    options |= {"in_chans": images.channels or 3, "images": images}
    model = create_model(name, "test_resnet", num_classes=5, output_stride=8, **options)
    model.train()
    model(torch.rand(4, model.in_chans, 96, 96))
    return model.eval()


class Exported(NamedTuple):
    model: SegmentationModel
    path: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function that exports each kind of file once."""
    made = {}

    def of(outputs):
        if outputs not in made:
            path = tmp_path_factory.mktemp("outputs") / "MODEL.ONNX"
            # One window of pooling is larger than the maps of small pictures, and one is not.
            model = {
                "logits": lambda: network("fcn", FOUR, shorter_side=48),
                "labels": lambda: network("fcn", DEEP, shorter_side=48),
                "labels+confidence": lambda: network("sanet", heads=[1, 4], shorter_side=64),
            }[outputs]()
            opset = 17 if outputs == "labels+confidence" else 20
            model.temperature = 2.5
            export(model, path, outputs=outputs, opset=opset, progress=False)
            assert [found.version for found in onnx.load(path).opset_import] == [opset]
            onnx.checker.check_model(onnx.load(path), full_check=True)
            made[outputs] = Exported(model, path)
        return made[outputs]

    return of


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow) for name in ("logits", "labels", "labels+confidence")]
)
def file(request, exported):
    return exported(request.param)


def picture(size, channels=3):
    """What a file of an image holds: 16 bits where it has one channel."""
    values = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    return values[..., 0].astype(np.uint16) * 256 if channels == 1 else values


def equal(found, expected, model):
    """To the last pixel, but that stored values are scaled and cut by each in its own order."""
    return (np.array(found) == np.array(expected)).mean() >= (0.999 if model.images.of_values else 1)


def test_labels_are_those_of_the_model(file, tmp_path):
    assert open_exported(file.path, "cpu").images == file.model.images
    ways = [Predictor(which, "cpu") for which in (file.path, file.model)]
    for size in SIDES:
        Image.fromarray(picture(size, file.model.in_chans)).save(tmp_path / "a.png")
        assert equal(*(way(tmp_path / "a.png") for way in ways), file.model)


def test_the_client_labels_like_the_model(file, tmp_path):
    """In a process where neither sanet nor torch can be imported."""
    names = [(str(tmp_path / f"{number}.png"), str(tmp_path / f"mask {number}.png")) for number in range(3)]
    for size, (name, _) in zip(SIDES, names, strict=False):
        Image.fromarray(picture(size, file.model.in_chans)).save(name)
    code = f"""
import runpy, sys
sys.modules["sanet"] = sys.modules["torch"] = None
for names in {names!r}:
    sys.argv = [{str(CLIENT)!r}, {str(file.path)!r}, *names]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    predictor = Predictor(file.model, "cpu")
    for name, mask in names:
        assert (np.array(Image.open(mask)) == np.array(predictor(name))).mean() >= 0.999


@pytest.mark.slow
def test_stored_values_are_scaled_in_the_file(exported):
    """Of any size and sign, each channel by its own range."""
    model, path = exported("logits")
    draws = np.random.default_rng(0)
    values = draws.normal(100, 90, (1, 4, 41, 83)).astype(np.float32)
    session = onnxruntime.InferenceSession(path)
    assert session.get_inputs()[0].type == "tensor(float)"
    (logits,) = session.run(None, {"images": values})
    low, high = (np.float32(ends)[:, None, None] for ends in (model.images.low, model.images.high))
    with torch.inference_mode():
        expected = model(torch.from_numpy(((values - low) / (high - low)).clip(0, 1))).logits
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    with pytest.raises(UsageError):
        Predictor(path, "cpu")(np.moveaxis(values[0, :1], 0, -1))


@pytest.mark.slow
def test_confidence_is_the_calibrated_probability(exported):
    model, path = exported("labels+confidence")
    assert open_exported(path, "cpu").temperature == 2.5
    images = torch.from_numpy(picture((45, 61))).permute(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(path)
    labels, confidence = session.run(None, {"images": images.numpy(), "size": np.array([90, 50])})
    with torch.inference_mode():
        shares = F.interpolate(model(images).logits, (90, 50), mode="bilinear").div(2.5).softmax(1)
    assert np.array_equal(labels, shares.argmax(1).numpy())
    assert np.abs(confidence / 255 - shares.amax(1).numpy()).max() <= 0.5 / 255 + 1e-5


@pytest.mark.slow
def test_what_needs_logits_names_the_remedy(exported, tmp_path):
    for settings in (InferenceConfig(flip=True), InferenceConfig(scales=(1, 2)), InferenceConfig(window=32)):
        with pytest.raises(UsageError, match="--outputs logits"):
            Predictor(exported("labels+confidence").path, "cpu", settings)(picture((64, 64)))
    with pytest.raises(SanetError, match="--outputs logits"):
        export(create_model("fcn", "test_resnet", num_classes=257), tmp_path / "b.onnx", outputs="labels")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn", "sanet", "encnet"])
def test_dynamic_quantisation_takes_the_file(name, exported, tmp_path):
    path = tmp_path / "a.onnx"
    if name == "fcn":
        path = exported("logits").path
    else:
        model = network(name)
        write(prepare(model), path, describe(model, "onnx"), progress=False)
    quantize_dynamic(path, tmp_path / "b.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "b.onnx"))


@pytest.mark.parametrize("kind", [nn.AvgPool2d, nn.MaxPool2d])
@pytest.mark.parametrize("side", [1, 7, 8, 9, 16, 23])
def test_whole_windows_pool_as_windows_at_the_border_do(kind, side):
    layers, maps = nn.Sequential(kind(8, ceil_mode=True)), torch.randn(2, 3, side, side + 5)
    expected = layers(maps)
    replace_padding(layers)
    assert isinstance(layers[0], WholeWindows)
    assert torch.allclose(layers(maps), expected, atol=1e-6)
