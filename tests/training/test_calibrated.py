"""The temperature of a finished run: the best on val, stored with the model wherever it goes, and of no label."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sanet.cli.main import main
from sanet.data.catalog import data_source
from sanet.deploy.export import export
from sanet.evaluation.calibration import calibration_error, temperature_of
from sanet.evaluation.evaluate import evaluate
from sanet.evaluation.results import TRAINED, read_scores
from sanet.inference.exported import open_exported
from sanet.inference.predictor import Predictor
from sanet.models.networks import load_model
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
            logits = model(images).logits[0].flatten(1).T.double()
        if (mask != 255).any():
            pairs.append((logits[mask.ravel() != 255], torch.from_numpy(mask[mask != 255]).long()))
    return lambda divisor: np.mean([F.cross_entropy(logits / divisor, labels).item() for logits, labels in pairs])


@pytest.mark.parametrize("kind", ["RGB", "16 bits"])
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
    source = data_source(replace(config.data, images=model.images))
    for reading in (model.images, model.images.without_range()):  # as a run reads images, and as they are stored
        assert temperature_of(Predictor(place, "cpu"), source.reading(reading).open("val")) == found
    again = evaluate(place, config.data, "val", device="cpu", progress=False)
    for evaluation in (again, kept):
        assert np.array_equal(evaluation.reliability, run.evaluation.reliability)
    model.temperature = 1.0
    plain = evaluate(model, config.data, "val", device="cpu", progress=False)
    assert np.array_equal(plain.confusion, kept.confusion)
    assert calibration_error(kept.reliability) < calibration_error(plain.reliability) - 0.05


def test_a_report_has_the_sentence_of_the_run(config, tmp_path):
    run = train(config)
    sentence = run.evaluation.facts[TRAINED]
    assert "10 images" in sentence
    pages = [run.directory, tmp_path / "of run", tmp_path / "of model"]
    for model, out in zip((run.directory, run.directory / "model"), pages[1:], strict=True):
        assert main(["evaluate", str(model), "--split", "val", "--device", "cpu", "--output", str(out)]) == 0
    for page in pages:
        assert read_scores(page).facts[TRAINED] == sentence
        assert (page / "report.html").read_text().count(f'<p class="trained">{sentence}</p>') == 1


@pytest.mark.slow
def test_exported_files_have_the_temperature_of_the_run(config, tmp_path):
    run = train(replace(config, model=replace(config.model, name="fcn")))
    for outputs in ("logits", "labels+confidence"):
        export(load_model(run.directory / "model"), tmp_path / f"{outputs}.onnx", outputs=outputs, progress=False)
        temperature = open_exported(tmp_path / f"{outputs}.onnx", "cpu").temperature
        assert temperature == run.evaluation.facts["temperature"] != 1
    found = evaluate(tmp_path / "logits.onnx", config.data, "val", device="cpu", progress=False)
    assert np.abs(found.reliability - run.evaluation.reliability).max() < 1e-3 * run.evaluation.confusion.sum()
