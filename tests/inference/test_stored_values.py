"""Models of other images than RGB of 8 bits: trained, exported, and used from the command line, all alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tifffile
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from sanet.cli.main import main
from sanet.config import DataConfig
from sanet.data import ranges
from sanet.deploy.export import export
from sanet.evaluation.evaluate import evaluate
from sanet.inference.predictor import Predictor
from sanet.insight.visualize import visualize
from sanet.models.networks import create_model, load_model
from sanet.reading import ImageReading
from sanet.structures import LabelSet, SanetError, UsageError
from sanet.training import fit

Pixels = NDArray[Any]


def scene(seed: int) -> tuple[Pixels, Pixels]:
    """Labels (64, 96), light squares and a band on dark, and a value from 0 to 1 of each pixel that shows them."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((64, 96), np.uint8)
    for _ in range(3):
        top, left = draw.integers(0, 36), draw.integers(0, 68)
        labels[top : top + 28, left : left + 28] = 1
    return labels, labels * 0.6 + 0.2 + 0.05 * draw.standard_normal(labels.shape)


def twelve_bits(path: Path, shade: Pixels, noise: Pixels) -> None:
    Image.fromarray((300 + shade * 2700).astype(np.uint16)).save(path.with_suffix(".png"))


def near_infrared(path: Path, shade: Pixels, noise: Pixels) -> None:
    pixels = np.dstack([noise * 255] * 3 + [shade * 255]).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(".png"))


def two_pages(path: Path, shade: Pixels, noise: Pixels) -> None:
    with tifffile.TiffWriter(path.with_suffix(".tif")) as file:
        for page in (noise * 1000, shade * -7):
            file.write(page.astype(np.float32), photometric="minisblack", metadata=None)


KINDS: dict[str, tuple[Any, ImageReading]] = {
    "twelve bits": (twelve_bits, ImageReading(1)),
    "near infrared": (near_infrared, ImageReading(4)),
    "two pages": (two_pages, ImageReading(2, "channels")),
}


def write_data(root: Path, write: Any) -> None:
    for split, seeds in {"train": range(8), "val": range(8, 10), "held": [99]}.items():
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for seed in seeds:
            labels, shade = scene(seed)
            noise = np.random.default_rng(seed + 1000).random(labels.shape)
            write(root / split / "images" / f"{seed}", shade, noise)
            Image.fromarray(labels).save(root / split / "masks" / f"{seed}.png")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_labels_what_it_was_not_trained_on(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write, reading = KINDS[kind]
    root, run = tmp_path / "data", tmp_path / "run"
    write_data(root, write)
    settings = {
        "output": run,
        "data.name": "folder",
        "data.root": root,
        "data.classes": "[dark, light]",
        "data.images.channels": reading.channels,
        "data.images.pages": reading.pages,
        "augmentation.crop": "[64, 64]",
        "augmentation.scale": "[1, 1]",
        "augmentation.jitter": 0.1,
        "model.name": "fcn",
        "model.backbone": "test_resnet",
        "model.output_stride": 8,
        "model.pretrained_backbone": "false",
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 0.003,
        "loss.terms": "{mask: 1}",
        "epochs": 40,
        "validate_every": 40,
        "batch_size": 4,
        "num_workers": 0,
        "accelerator": "cpu",
    }
    assert main(["train", *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]) in (
        0,
        None,
    )
    measured = yaml.safe_load((run / "config.yaml").read_text())["data"]["images"]
    assert len(measured["low"]) == len(measured["high"]) == reading.channels
    assert json.loads((run / "model" / "config.json").read_text())["images"] == measured
    assert main(["evaluate", str(run), "--split", "val"]) in (0, None)
    assert main(["export", str(run), "--output", str(tmp_path / "model.onnx")]) in (0, None)
    (image,) = (root / "held" / "images").iterdir()
    truth = np.array(Image.open(root / "held" / "masks" / "99.png"))
    masks = []
    for model, output in ((run, "torch"), (tmp_path / "model.onnx", "onnx")):
        words = [str(image), "--model", str(model), "--output", str(tmp_path / output)]
        assert main(["predict", *words]) in (0, None)
        masks.append(np.array(Image.open(tmp_path / output / "masks" / "99.png")))
        assert (masks[-1] == truth).mean() > 0.9, f"{(masks[-1] == truth).mean():.3f}"
        np.testing.assert_array_equal(Predictor(model if output == "onnx" else run / "model", "cpu")(image), masks[-1])
    assert (masks[0] == masks[1]).mean() > 0.999
    capsys.readouterr()
    bright = tmp_path / "bright"
    write(bright, scene(99)[1] * 4, np.ones((64, 96)) * 3)
    if kind != "near infrared":  # 8 bits have nothing beyond 255
        (bright,) = tmp_path.glob("bright.*")
        main(["predict", str(bright), "--model", str(run), "--output", str(tmp_path / "torch")])
        assert "range of values that the model was trained on" in capsys.readouterr().err


def test_a_run_measures_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range is measured where a run begins; resuming, scoring and starting again after a kill take it as it was."""
    write_data(tmp_path / "data", two_pages)
    settings = ["--data.name", "folder", "--data.root", str(tmp_path / "data"), "--data.classes", "[a, b]",
                "--data.images.channels", "2", "--data.images.pages", "channels", "--augmentation.crop", "[40, 40]",
                "--model.name", "fcn", "--model.backbone", "test_resnet", "--model.pretrained_backbone", "false",
                "--loss.terms", "{mask: 1}", "--num_workers", "0", "--accelerator", "cpu"]  # fmt: skip
    run = tmp_path / "run"

    def killed(*given: Any) -> Any:
        raise SanetError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(fit, "explained", killed)
        assert main(["train", *settings, "--output", str(run), "--epochs", "1"]) == 1
    stored = yaml.safe_load((run / "config.yaml").read_text())["data"]["images"]
    assert len(stored["low"]) == 2
    monkeypatch.setattr(ranges, "measured_range", killed)
    assert main(["train", *settings, "--output", str(run), "--epochs", "1"]) in (0, None)
    assert main(["train", "--resume", str(run), "--epochs", "2"]) in (0, None)
    assert main(["evaluate", str(run), "--split", "val"]) in (0, None)
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["images"] == stored
    assert load_model(run / "model").images.plain() == stored
    assert main(["train", *settings, "--output", str(tmp_path / "other"), "--epochs", "1"]) == 1


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    images = ImageReading(2, low=(300, -1.5), high=(3000, 0.5))
    network = create_model("fcn", "test_resnet", labels=LabelSet(("a", "b")), in_chans=2, images=images)
    network.train()(torch.rand(4, 2, 96, 96))
    last = [layer for layer in network.eval().modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    with torch.no_grad():  # so that about half of the pixels have either class
        logits = network(images.scaled(torch.from_numpy(np.moveaxis(raw(50, 70), -1, 0))[None])).logits
        last.bias.data[0] -= (logits[:, 0] - logits[:, 1]).median()
    return network


def raw(*shape: int) -> Pixels:
    return np.random.default_rng(0).normal([1500, 0], [1200, 1], (*shape, 2)).astype(np.float32)


def test_the_rule_travels_with_the_model(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    found = load_model(tmp_path / "model")
    assert found.images == model.images
    content = json.loads((tmp_path / "model" / "config.json").read_text())
    for wrong in ({**content["images"], "channels": 3}, {**content["images"], "low": []}, [], {"channels": 2}):
        (tmp_path / "model" / "config.json").write_text(json.dumps({**content, "images": wrong}))
        with pytest.raises(SanetError):
            load_model(tmp_path / "model")


def test_a_model_of_8_bits_says_nothing_of_it(tmp_path: Path) -> None:
    network = create_model("fcn", "test_resnet", labels=LabelSet(("a", "b")))
    network.save_pretrained(tmp_path)
    assert "images" not in json.loads((tmp_path / "config.json").read_text())
    assert not load_model(tmp_path).images.of_values


def test_all_kinds_of_images_are_labelled_alike(model: Any, tmp_path: Path) -> None:
    pixels, predictor = raw(50, 70), Predictor(model, "cpu")
    low, high = np.float32(model.images.low), np.float32(model.images.high)
    seen = ((pixels - low) / (high - low)).clip(0, 1)
    expected = model(torch.from_numpy(np.moveaxis(seen, -1, 0))[None]).logits[0].argmax(0).numpy()
    assert 0.02 < expected.mean() < 0.98
    np.save(tmp_path / "a.npy", pixels)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    for image in (pixels, torch.from_numpy(pixels).permute(2, 0, 1), tmp_path / "a.npy", str(tmp_path / "a.tif"),
                  pixels.astype(np.float64), pixels.astype(">f4")):  # fmt: skip
        np.testing.assert_array_equal(predictor(image), expected)
    whole = pixels.astype(np.int16)
    np.testing.assert_array_equal(predictor(whole), predictor(whole.astype(np.float32)))
    np.testing.assert_array_equal(model(torch.from_numpy(np.moveaxis(whole, -1, 0).copy())[None]).logits[0].argmax(0),
                                  predictor(whole))  # fmt: skip
    for wrong in (pixels[..., :1], pixels[..., 0], pixels * np.nan, pixels.astype(complex), pixels[:0], "a", None,
                  Image.new("RGB", (40, 40))):  # fmt: skip
        with pytest.raises(SanetError):
            predictor(wrong)


@pytest.mark.slow
def test_the_exported_file_takes_values_as_they_are_stored(model: Any, tmp_path: Path) -> None:
    exported = tmp_path / "model.onnx"
    export(model, exported, progress=False)
    pixels = raw(41, 83)
    values = np.moveaxis(pixels, -1, 0)[None].copy()
    session = onnxruntime.InferenceSession(exported)
    assert session.get_inputs()[0].type == "tensor(float)"
    (logits,) = session.run(None, {"images": values})
    expected = model(model.images.scaled(torch.from_numpy(values))).logits
    np.testing.assert_allclose(logits, expected.detach(), atol=1e-4)
    found, wanted = (Predictor(one, "cpu")(pixels) for one in (exported, model))
    assert (found == wanted).mean() > 0.999
    with pytest.raises(UsageError):
        Predictor(exported, "cpu")(pixels[..., :1])


def test_a_score_is_of_images_as_they_are_stored(model: Any, tmp_path: Path) -> None:
    """Two models of other ranges are scored on the same images, and each uses its own range."""
    write_data(tmp_path, two_pages)
    other = create_model("fcn", "test_resnet", labels=model.labels, in_chans=2,
                         images=replace(model.images, pages="channels", low=(0, -9), high=(9, 9)))  # fmt: skip
    this = create_model("fcn", "test_resnet", labels=model.labels, in_chans=2,
                        images=replace(model.images, pages="channels"))  # fmt: skip
    data = DataConfig("folder", str(tmp_path), ("a", "b"), images=ImageReading(2, "channels", (0,), (1,)))
    scores = [evaluate(network.eval(), data, "val", device="cpu", progress=False) for network in (this, other)]
    assert scores[0].protocol.digest == scores[1].protocol.digest
    with pytest.raises(UsageError, match="pages"):
        evaluate(model, data, "val", device="cpu", progress=False)
    predictor, counts = Predictor(other, "cpu"), 0
    for seed in (8, 9):
        truth = np.array(Image.open(tmp_path / "val" / "masks" / f"{seed}.png"))
        counts += int((predictor(tmp_path / "val" / "images" / f"{seed}.tif") == truth).sum())
    assert scores[1].confusion.trace() == counts


def test_models_of_stored_values_are_seen_beside_each_other(model: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", raw(40, 50))
    model.save_pretrained(tmp_path / "model")
    visualize([tmp_path / "a.npy"], [tmp_path / "model"], tmp_path / "a.png", device="cpu", progress=False)
    assert Image.open(tmp_path / "a.png").size[0] > 100
    shown, seen = (
        Predictor(model, "cpu")(raw(40, 50)).image,
        model.images.scaled(torch.from_numpy(raw(40, 50)[..., 0])[None, None].expand(1, 2, -1, -1)),
    )
    np.testing.assert_array_equal(shown[..., 2], (seen[0, 0] * 255).round().numpy())
