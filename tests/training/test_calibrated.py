"""The temperature of a finished run: the best on val, stored with the model wherever it goes, and of no label."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sanet.cli.main import main
from sanet.deploy.export import describe
from sanet.evaluation.calibration import calibration_error
from sanet.evaluation.evaluate import evaluate
from sanet.evaluation.results import TRAINED, read_scores
from sanet.inference.predictor import Predictor
from sanet.models.networks import load_model
from sanet.models.unlike import FeatureStatistics
from sanet.reading import ImageReading
from sanet.training.fit import train


def loss_on_val(model, root):
    """Cross-entropy on the labelled pixels of val by temperature; every image that has some counts alike."""
    pairs = []
    for path in sorted((root / "val" / "images").iterdir()):
        pixels, mask = np.array(Image.open(path)), np.array(Image.open(root / "val" / "masks" / path.name))
        images = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)[None]
        if model.images.of_values:
            (low,), (high,) = model.images.low, model.images.high
            images = ((images.float() - low) / (high - low)).clamp(0, 1)
        with torch.inference_mode():
            pairs.append((model(images).logits.double(), torch.from_numpy(mask).long()[None]))
    return lambda divisor: np.nanmean([F.cross_entropy(a / divisor, b, ignore_index=255).item() for a, b in pairs])


@pytest.mark.parametrize("kind", ["RGB", pytest.param("16 bits", marks=pytest.mark.slow)])
def test_a_run_keeps_the_temperature_that_is_best_on_val(config, root, kind):
    """Of images of 8 bits, of which one has no label, and of stored values, which the model scales by itself."""
    mask = root / "val" / "masks" / "val1.png"
    Image.fromarray(np.full_like(np.array(Image.open(mask)), 255)).save(mask)
    if kind == "16 bits":
        config = replace(config, data=replace(config.data, images=ImageReading(1)))
        for path in root.rglob("images/*.png"):
            Image.fromarray(500 + 100 * np.array(Image.open(path).convert("L"), np.uint16)).save(path)
    run = train(replace(config, epochs=8))
    place, kept = run.directory / "model", read_scores(run.directory)
    model = load_model(place)
    found, loss = model.temperature, loss_on_val(model, root)
    assert loss(found) <= min(loss(found * factor) for factor in np.geomspace(0.1, 10, 201)) + 1e-3
    assert loss(found) < loss(1) - 0.05
    stored = json.loads((place / "config.json").read_text())["temperature"]
    assert found == stored == Predictor(place, "cpu").temperature == kept.facts["temperature"]
    assert describe(model, "onnx")["temperature"] == found  # what an exported file says
    assert np.array_equal(kept.reliability, run.evaluation.reliability)
    images = {
        split: [Predictor(place, "cpu")(path) for path in sorted((root / split / "images").iterdir())]
        for split in ("train", "val")
    }
    features = {split: np.array([each.features for each in all]) for split, all in images.items()}
    known = FeatureStatistics.of(features["train"][[0, 2, 4, 5, 7, 9]], features["val"])  # evenly spaced
    assert np.allclose(model.statistics.mean, known.mean, rtol=1e-3, atol=1e-3)
    assert [each.unlike for each in images["val"]] == pytest.approx([*map(known.unlike, features["val"])], abs=0.02)
    assert "features" not in describe(model, "onnx")  # which gives logits alone
    model.temperature = 1.0
    plain = evaluate(model, config.data, "val", device="cpu", progress=False)
    assert np.array_equal(plain.confusion, kept.confusion)
    assert calibration_error(kept.reliability) < calibration_error(plain.reliability) - 0.05


def test_a_report_has_the_sentence_of_the_run(config, tmp_path):
    run = train(config)
    sentence = run.evaluation.facts[TRAINED]
    pages = [run.directory, tmp_path / "of run", tmp_path / "of model"]
    for model, out in zip((run.directory, run.directory / "model"), pages[1:], strict=True):
        assert main(["evaluate", str(model), "--split", "val", "--device", "cpu", "--output", str(out)]) == 0
    for page in pages:
        assert read_scores(page).facts[TRAINED] == sentence
        assert (page / "report.html").read_text().count(f'<p class="trained">{sentence}</p>') == 1
