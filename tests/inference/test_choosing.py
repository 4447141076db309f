"""Which images to label next: against brute force, and by what their files and a tool's importer say."""

import csv
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sanet
from sanet.cli.main import main
from sanet.data.catalog import data_source
from sanet.inference.choosing import ranked
from sanet.structures import UsageError

COMMAND = ["next", "pool", "--model", "model", "--device", "cpu"]


def slow_choice(uncertainty, features, labelled, count):
    """From the definition, anew for every image."""
    both = np.concatenate([labelled, features]) / np.concatenate([labelled, features]).std(axis=0)
    offset, taken = len(labelled), []
    for _ in range(count):
        known = [*range(offset), *(offset + at for at in taken)]
        gains = {}
        for at in set(range(len(features))) - {*taken}:
            apart = [np.linalg.norm(both[offset + at] - both[other]) for other in known]
            gains[at] = uncertainty[at] * (min(apart) if apart else 1)
        taken.append(max(gains, key=gains.get))
    return taken


@pytest.mark.parametrize("labelled", [0, 1, 5])
def test_the_choice_equals_a_slow_one(labelled):
    rng = np.random.default_rng(labelled)
    uncertainty, features, known = rng.random(30), rng.random((30, 6)) * [1, 9, 1, 1, 50, 2], rng.random((labelled, 6))
    found = ranked(uncertainty, features, known, 12)
    assert [at for at, _, _ in found] == slow_choice(uncertainty, features, known, 12)
    assert sorted(at for at, _, _ in ranked(uncertainty, features, known, 99)) == [*range(30)]
    both = np.concatenate([known, features])
    scaled = both / both.std(axis=0)
    for at, near, distance in found[labelled == 0 :]:
        assert distance == pytest.approx(np.linalg.norm(scaled[labelled + at] - scaled[near]))


def test_of_images_that_are_alike_one_is_taken():
    features = np.repeat(np.random.default_rng(0).random((4, 5)), 6, axis=0)
    chosen = [at for at, _, _ in ranked(np.linspace(1, 2, 24), features, features[:1], 3)]
    assert sorted(at // 6 for at in chosen) == [1, 2, 3]


@pytest.fixture
def pool(folder, models, tmp_path, monkeypatch):
    """Three images of a kind in pool/, of which one is labelled, and one file that is no image."""
    monkeypatch.chdir(tmp_path)
    folder.rename("pool")
    shutil.copytree(models[0], "model")
    Path("pool/broken.png").write_bytes(b"no image")
    return Path("pool")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_no_utf_8_text_is_in_the_list_as_it_is(pool):
    os.rename("pool/a.png", b"pool/\xff.png")
    assert main(COMMAND) == 0
    assert b",pool/\xff.png," in Path("next/next.csv").read_bytes()


def test_the_list_has_what_the_predictions_say(pool, capsys):
    assert main([*COMMAND, "--labelled", "pool/a.png", "--count", "5", "--format", "labelme"]) == 0
    said = capsys.readouterr()
    assert "broken.png" in said.err
    rows = [*csv.DictReader(Path("next/next.csv").read_text(encoding="utf-8").splitlines())]
    assert {row["image"] for row in rows} == {"pool/b.jpg", "pool/deep/c.bmp"}
    assert rows[0]["nearest"] == "pool/a.png"
    predictor = sanet.Predictor("model", "cpu")
    for row in rows:
        assert float(row["uncertainty"]) == pytest.approx(predictor(row["image"]).entropy.mean(), rel=1e-3)
        assert row["nearest"] in {"pool/a.png", rows[0]["image"]}
    source = data_source(sanet.DataConfig("labelme", "next/labelme"))
    names, found = np.array([*source.labels.names]), {}
    for split in source.splits:
        found |= {Path(sample.name).stem: names[sample.mask.numpy()] for sample in source.open(split)}
    for name in ("b.jpg", "deep/c.bmp"):
        mask = predictor(pool / name).mask
        drawn = np.array(predictor.labels.names)[mask]
        assert (found[Path(name).stem] == drawn).mean() > 0.9  # outlines are simplified


def test_from_python_the_same_without_files(pool):
    before = sorted(Path().rglob("*"))
    chosen = sanet.next_to_label("pool", "model", 2, ["pool/deep"], device="cpu")
    assert {choice.image.name for choice in chosen} == {"a.png", "b.jpg"}
    assert chosen[0].nearest == Path("pool/deep/c.bmp")
    assert sorted(Path().rglob("*")) == before


def test_what_cannot_be_chosen_from_is_refused(pool, tmp_path):
    for given, labelled, model in (
        ("pool/broken.png", (), "model"),
        (["pool/a.png"], "pool/a.png", "model"),
        (str(pool), (), "model.onnx"),
    ):
        with pytest.raises((UsageError, sanet.SanetError)):
            sanet.next_to_label(given, model, labelled=labelled, device="cpu")
    Path("pool/film.mp4").write_bytes(b"")
    with pytest.raises(UsageError, match="film"):
        sanet.next_to_label("pool", "model", device="cpu")


@pytest.mark.parametrize("views", [{}, {"scales": (1, 1.5), "flip": True}, {"window": 32}])
def test_features_are_the_mean_over_views_of_the_last_level(views, models):
    model = sanet.load_model(models[0])
    predictor = sanet.Predictor(model, "cpu", sanet.InferenceConfig(**views))
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    seen = torch.from_numpy(image).permute(2, 0, 1)[None]
    parts = [seen]
    if "scales" in views:
        large = torch.nn.functional.interpolate(seen.float(), (48, 96), mode="bilinear", antialias=True).round().byte()
        parts = [seen, seen.flip(-1), large, large.flip(-1)]
    elif views:
        parts = [seen[..., left : left + 32] for left in (0, 16, 32)]
    with torch.inference_mode():
        levels = [model.backbone((part / 255 - model.mean) / model.std)[-1] for part in parts]
    expected = torch.stack([level.mean((2, 3))[0] for level in levels]).mean(0).numpy()
    found = predictor(image)
    assert np.allclose(found.features, expected, rtol=1e-4, atol=1e-5)
    assert np.allclose(predictor([image[::-1].copy(), image])[1].features, expected, rtol=1e-4, atol=1e-5)
    assert found.unlike is None
