"""Calibration, against sums written from the paper and temperatures that are known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sanet.config import DataConfig, InferenceConfig
from sanet.data.catalog import data_source
from sanet.data.source import SegmentationDataset
from sanet.deploy.export import describe, prepare, write
from sanet.deploy.graph import give_labels
from sanet.evaluation import calibration
from sanet.evaluation.calibration import (
    calibration_error,
    fitted_temperature,
    reliability,
    risk_area,
    risk_counts,
    temperature_of,
)
from sanet.evaluation.evaluate import evaluate
from sanet.evaluation.results import read_scores
from sanet.inference.exported import open_exported
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model
from sanet.structures import LabelSet


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    """Of labels that are drawn as calibrated logits say, which were multiplied by it since."""
    draws = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(40_000, 5, generator=draws)
    labels = torch.multinomial(logits.softmax(1), 1, generator=draws)[:, 0]
    found = fitted_temperature(logits * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    errors = []
    for divisor in (1.0, found):
        shares = (logits * temperature / divisor).softmax(1)
        confidence, classes = shares.max(1)
        errors.append(calibration_error(reliability(confidence, classes == labels).numpy()))
    assert errors[1] < 0.01
    assert temperature == 1 or errors[0] > 0.05


def test_bins_equal_a_loop():
    draws = np.random.default_rng(0)
    confidence, correct = draws.random(500), draws.random(500) < 0.5
    confidence[:3] = 0, 1, 1 / 15
    error = 0.0
    for number in range(15):
        inside = [
            index for index, value in enumerate(confidence)
            if number / 15 < value <= (number + 1) / 15 or (number == 0 and value == 0)
        ]  # fmt: skip
        if inside:
            error += len(inside) / 500 * abs(correct[inside].mean() - confidence[inside].mean())
    counts = reliability(torch.from_numpy(confidence), torch.from_numpy(correct)).numpy()
    assert counts[0].sum() == 500
    assert calibration_error(counts) == pytest.approx(error)
    assert np.isnan(calibration_error(np.zeros((3, 15))))


@pytest.fixture(scope="module")
def model():
    """A network that is sure of some pixels of noise and not of others, and that was calibrated."""
    torch.manual_seed(3)
    model = create_model("fcn", "test_resnet", labels=LabelSet(("a", "b", "c"))).eval()
    with torch.inference_mode():
        logits = model(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)).logits
        model.head.classifier.bias -= logits.mean(dim=(0, 2, 3))
        for values in (model.head.classifier.weight, model.head.classifier.bias):
            values *= 8 / logits.std()
    model.temperature = 1.7
    return model


@pytest.fixture(scope="module")
def data(model, tmp_path_factory):
    """Three images of noise, of classes drawn as the calibrated network says; a tenth of the pixels is ignored."""
    root, draws = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "val" / kind).mkdir(parents=True)
    for number, size in enumerate([(45, 61), (33, 70), (64, 40)]):
        image = draws.integers(0, 256, (*size, 3), dtype=np.uint8)
        with torch.inference_mode():
            shares = shares_of(model, torch.from_numpy(image).permute(2, 0, 1)[None], InferenceConfig())
        mask = (draws.random(size) > shares.cumsum(0)[:2]).sum(0).astype(np.uint8)
        mask[draws.random(size) < 0.1] = 255
        Image.fromarray(image).save(root / "val" / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "val" / "masks" / f"{number}.png")
    return DataConfig("folder", str(root), ("a", "b", "c"))


def shares_of(model, image, settings):
    """Calibrated probabilities (K, H, W), from equations: of several views their mean, whose logarithm is divided."""
    views = []
    for scale in settings.scales:
        sides = [max(32, round(scale * side)) for side in image.shape[-2:]]
        for flipped in {False, settings.flip}:
            seen = image.flip(-1) if flipped else image
            seen = F.interpolate(seen.float(), sides, mode="bilinear", antialias=True).round().byte()
            logits = F.interpolate(model(seen).logits.double(), image.shape[-2:], mode="bilinear")
            views.append(logits.flip(-1) if flipped else logits)
    mean = torch.stack(views).softmax(2).mean(0)[0].numpy()
    powers = mean ** (1 / model.temperature)
    return powers / powers.sum(0)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The network as a file of logits, and as one of labels beside it."""
    logits = tmp_path_factory.mktemp("exports") / "logits.onnx"
    write(prepare(model), logits, describe(model, "onnx"), progress=False)
    give_labels(Path(shutil.copy(logits, logits.with_name("labels.onnx"))), False, open_exported(logits, "cpu"))
    return logits


@pytest.mark.parametrize("views", [InferenceConfig(), InferenceConfig(scales=(1, 1.5), flip=True)], ids=["1", "4"])
@pytest.mark.parametrize(
    ("kind", "temperature"), [("network", 1.7), ("network", 1), pytest.param("onnx", 1.7, marks=pytest.mark.slow)]
)
def test_reliability_equals_a_loop_over_images(kind, temperature, views, model, data, tmp_path, request, monkeypatch):
    given, expected = model if kind == "network" else request.getfixturevalue("exported"), np.zeros((3, 15))
    monkeypatch.setattr(model, "temperature", temperature)
    with torch.inference_mode():
        for image, mask, _ in map(data_source(data).open("val").__getitem__, range(3)):
            shares = shares_of(model, image[None], views)
            for row, column in zip(*np.where(mask != 255), strict=True):
                sure = shares[:, row, column].max()
                place = next(number for number in range(15) if sure <= (number + 1) / 15 + 1e-12)
                expected[:, place] += 1, sure, shares[mask[row, column], row, column] == sure
    evaluation = evaluate(given, data, "val", tmp_path, views, "cpu", progress=False)
    assert np.count_nonzero(expected[0] > 100) > 5
    pixels = evaluation.confusion.sum()
    assert evaluation.reliability[0].sum() == pixels == expected[0].sum()
    assert np.abs(evaluation.reliability - expected).max() / pixels < 1e-3
    error = sum(abs(sure - right) for _, sure, right in expected.T) / pixels
    assert calibration_error(evaluation.reliability) == pytest.approx(error, abs=1e-3)
    assert evaluation.facts["temperature"] == temperature
    kept, stored = read_scores(tmp_path), json.loads((tmp_path / "scores.json").read_text())
    assert np.array_equal(kept.reliability, evaluation.reliability)
    assert stored["calibration_error"] == calibration_error(evaluation.reliability)
    del stored["reliability"], stored["calibration_error"]
    (tmp_path / "scores.json").write_text(json.dumps(stored))
    assert read_scores(tmp_path).reliability is None  # as an older version wrote it


@pytest.mark.slow
def test_without_confidence_there_is_no_reliability(model, exported, data, tmp_path):
    """Of a file of labels alone; and of a split without a labelled pixel."""
    alone = exported.with_name("labels.onnx")
    labels = evaluate(alone, data, "val", tmp_path / "labels", device="cpu", progress=False)
    shutil.copytree(f"{data.root}/val", tmp_path / "void" / "val")
    for path in (tmp_path / "void" / "val" / "masks").iterdir():
        Image.fromarray(np.full_like(np.array(Image.open(path)), 255)).save(path)
    void = replace(data, root=str(tmp_path / "void"))
    empty = evaluate(model, void, "val", tmp_path / "empty", device="cpu", progress=False)
    assert labels.confusion.sum() > empty.confusion.sum() == 0
    for name, found in {"labels": labels, "empty": empty}.items():
        assert found.reliability is None
        stored = json.loads((tmp_path / name / "scores.json").read_text())
        assert stored["reliability"] is stored["calibration_error"] is read_scores(tmp_path / name).reliability is None
        assert (tmp_path / name / "report.html").stat().st_size > 1000


def test_a_temperature_is_fitted_to_the_images_that_fit(model, data, monkeypatch):
    """To one image, to several, and to one among others that are too large."""
    predictor, dataset = Predictor(model, "cpu"), data_source(data).open("val")
    assert temperature_of(predictor, dataset) == pytest.approx(1.7, rel=0.05)
    monkeypatch.setattr(calibration, "PIXELS", 50_000)  # which pixels are drawn depends on an image's place
    alone = temperature_of(predictor, SegmentationDataset(dataset.source, dataset.records[1:2]))
    image, mask, _ = dataset[1]
    with torch.inference_mode():
        logits = model(image[None]).logits.double()
    steps = np.geomspace(1, 3, 300)
    best = steps[np.argmin([F.cross_entropy(logits / step, mask[None], ignore_index=255).item() for step in steps])]
    assert alone == pytest.approx(best, rel=0.02)
    monkeypatch.setattr(calibration, "LARGEST", mask.numel())  # the other two are larger
    assert temperature_of(predictor, dataset) == pytest.approx(best, rel=0.02)
    monkeypatch.setattr(calibration, "LARGEST", mask.numel() - 1)
    assert temperature_of(predictor, dataset) == 1


def area_of(confidence, correct):
    """The mean share of errors among the most confident pixels, for every number of them."""
    order = np.argsort(-confidence, kind="stable")
    return (np.cumsum(~correct[order]) / np.arange(1, len(order) + 1)).mean()


@pytest.mark.parametrize("power", [1, 8])
def test_the_risk_coverage_area_equals_a_loop_over_all_coverages(power):
    """Also where nearly all pixels are nearly certain."""
    draws = np.random.default_rng(power)
    confidence = (1 - draws.random(20_000) ** power).astype(np.float32)
    correct = draws.random(20_000) < confidence
    given = torch.from_numpy(confidence), torch.from_numpy(correct)
    halves = [risk_counts(*(each[part] for each in given)) for part in (slice(0, 7000), slice(7000, None))]
    assert risk_area(sum(halves)) == pytest.approx(area_of(confidence, correct), rel=0.01)
    assert risk_area(sum(halves)) < 0.9 * risk_area(risk_counts(given[0].flip(0), given[1]))


def test_the_risk_coverage_area_of_an_evaluation(model, data, tmp_path):
    evaluation, pairs = evaluate(model, data, "val", tmp_path, device="cpu", progress=False), []
    for sample in data_source(data).open("val"):
        with torch.inference_mode():
            shares = shares_of(model, sample.image[None], InferenceConfig())
        labelled = sample.mask.numpy() != 255
        pairs.append((shares.max(0)[labelled], (shares.argmax(0) == sample.mask.numpy())[labelled]))
    expected = area_of(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))
    assert evaluation.facts["risk_coverage_area"] == pytest.approx(expected, rel=0.02)
    assert read_scores(tmp_path).facts["risk_coverage_area"] == evaluation.facts["risk_coverage_area"]
