"""Masks of anybody, scored without a model: as those of a model, or an error that names the file."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sanet
from sanet.cli.main import main
from sanet.config import DataConfig
from sanet.data.decoding import DataError
from sanet.evaluation.compare import compare
from sanet.evaluation.results import read_scores
from sanet.structures import SanetError, UsageError

NAMES = ("ground", "tree", "lamp")


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    """Images of odd sizes with masks of 10, 20 and 30, in train and val."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 4)):
        for kind in ("images", "masks"):
            (tmp_path / "photos" / split / kind).mkdir(parents=True)
        for index in range(count):
            size = tuple(int(side) for side in rng.integers(33, 70, 2))
            image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
            image.save(tmp_path / "photos" / split / "images" / f"{split}{index}.png")
            mask = rng.choice(np.array([10, 20, 30, 255], np.uint8), size)
            Image.fromarray(mask).save(tmp_path / "photos" / split / "masks" / f"{split}{index}.png")
    values = {10: "ground", 20: "tree", 30: "lamp"}
    return DataConfig("folder", str(tmp_path / "photos"), values=values)


@pytest.fixture
def predictions(data: DataConfig, tmp_path: Path) -> Path:
    """The masks of val as predictions, in values of the ground truth; nothing is ignored."""
    folder = tmp_path / "masks-of-mine"
    folder.mkdir()
    for path in Path(str(data.root), "val", "masks").iterdir():
        mask = np.array(Image.open(path))
        Image.fromarray(np.where(mask == 255, 10, mask).astype(np.uint8)).save(folder / path.name)
    return folder


def score(predictions: Path, data: DataConfig, **options):
    return sanet.score(predictions, None, data, **{"split": "val", "progress": False, **options})


@pytest.mark.parametrize("packed", ["", "zip", "gztar"])
def test_what_predict_writes_scores_as_evaluate_does_to_the_last_digit(data, tmp_path, packed):
    torch.manual_seed(3)
    model = sanet.create_model("fcn", "test_resnet", labels=sanet.LabelSet(NAMES)).eval()
    model.save_pretrained(tmp_path / "model")
    images = f"{data.root}/val/images"
    assert main(["predict", images, "--model", str(tmp_path / "model"), "--output", str(tmp_path / "p")]) == 0
    expected = sanet.evaluate(tmp_path / "model", data, "val", tmp_path / "one", device="cpu", progress=False)
    given = tmp_path / "p"
    if packed:
        given = Path(shutil.make_archive(str(tmp_path / "packed"), packed, tmp_path, "p"))
    found = score(given, data, output=tmp_path / "other")
    assert repr(found.table) == repr(expected.table)
    assert repr(found.scores) == repr(expected.scores)
    assert found.protocol.digest == expected.protocol.digest
    for name in ("confusion", "image_counts"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    kept = read_scores(tmp_path / "other")
    assert np.array_equal(kept.image_counts, expected.image_counts)
    assert repr(kept.table) == repr(expected.table)
    assert "+0.0 +0.0–+0.0" in compare([tmp_path / "one", tmp_path / "other"])
    assert (tmp_path / "other" / "report.html").stat().st_size > 1000


def test_the_truth_scores_one_and_copying_is_said_beside_it(data, predictions):
    found = score(predictions, data)
    assert found.scores.miou == 1
    assert {interval.value for intervals in found.table.classes.values() for interval in intervals} == {1.0}
    (copied,) = [value for key, value in found.facts.items() if "copying" in key]
    assert 0 < copied["miou"] < 0.5
    assert copied["training images"] == 3


def test_masks_alone_are_a_ground_truth(data, predictions, tmp_path):
    truth = Path(str(data.root), "val", "masks")
    plain = DataConfig(values=data.values)
    found = sanet.score(predictions, truth, plain, output=tmp_path / "out", progress=False)
    assert (found.scores.miou, found.reliability) == (1, None)
    assert found.protocol.images_sha256 is None
    assert found.protocol.labels_sha256 == score(predictions, data).protocol.labels_sha256
    assert found.protocol.split == "all"
    assert (tmp_path / "out" / "report.html").is_file()


def test_nested_predictions_of_all_splits(data, predictions, tmp_path):
    for split in ("train", "val"):
        source = Path(str(data.root), split, "masks")
        (tmp_path / "nested" / split).mkdir(parents=True)
        for path in source.iterdir():
            mask = np.array(Image.open(path))
            where = tmp_path / "nested" / split / f"{path.stem}_mask.png"
            Image.fromarray(np.where(mask == 255, 20, mask).astype(np.uint8)).save(where)
    found = score(tmp_path / "nested", data, split=None)
    assert (len(found.image_miou), found.scores.miou) == (7, 1)


def test_a_missing_prediction_is_named_or_left_out(data, predictions):
    (predictions / "val2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 images have no prediction: val2; .*allow_subset"):
        score(predictions, data)
    found = score(predictions, data, allow_subset=True)
    assert (list(found.image_miou), found.protocol.allow_subset) == (["val0", "val1", "val3"], True)


def change(path: Path, how) -> None:
    Image.fromarray(how(np.array(Image.open(path)))).save(path)


def ignoring(mask):
    return np.full_like(mask, 255)


COLORS = np.array([(0, 0, 0), (128, 64, 32), (0, 200, 10), (5, 6, 250)], np.uint8)
FILES = {
    "16 bits.PNG": lambda mask, path: Image.fromarray(mask.astype(np.uint16)).save(path),
    "numbers.npy": lambda mask, path: np.save(path, mask.astype(np.float32)),
    "colours.png": lambda mask, path: Image.fromarray(COLORS[mask // 10]).save(path),
    "shares.npy": lambda mask, path: np.save(path, np.stack([mask == value for value in (10, 20, 30)])),
    "lossy.jpg": lambda mask, path: Image.fromarray(mask).save(path, quality=100),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("in_colour", [False, True])
def test_what_files_predictions_may_be(data, predictions, tmp_path, kind, in_colour):
    """In folders as those of the images, and packed; what is wrong is counted as in plain files, or all is refused."""
    change(predictions / "val0.png", np.flipud)
    expected = score(predictions, data)
    assert 0.5 < expected.scores.miou < 1
    if in_colour:
        for path in Path(str(data.root)).rglob("masks/*"):
            change(path, lambda mask: COLORS[np.where(mask == 255, 0, mask // 10)])
        values = {"#804020": "ground", "#00c80a": "tree", "#0506fa": "lamp", "#000000": "ignore"}
        data = DataConfig("folder", data.root, values=values, group=r"val(?=[01])|\w+$")
    (tmp_path / "packed" / "val").mkdir(parents=True)
    for path in predictions.iterdir():
        mask = np.array(Image.open(path))
        mask = mask // 10 - 1 if in_colour and kind[0] != "c" else mask  # as indices, beside a truth in colours
        FILES[kind](mask, tmp_path / "packed" / "val" / f"{path.stem}.{kind.split('.')[1]}")
    given, truth = (shutil.make_archive(tmp_path / name, "zip", folder) for name, folder in
                    {"given": tmp_path / "packed", "truth": data.root}.items())  # fmt: skip
    data = replace(data, root=truth)
    if kind[:2] in ("sh", "lo") or (kind[0] == "c" and not in_colour):
        why = "is in a lossy format" if kind[0] == "l" else "has (bool|colours)"
        with pytest.raises(DataError, match=rf"given\.zip/val/val0\.\w+ {why}"):
            score(given, data)
        return
    found = score(given, data)
    assert np.array_equal(found.confusion, expected.confusion)
    assert found.groups is None if not in_colour else found.groups.tolist() == [0, 0, 1, 2]


def test_a_lossy_file_keeps_ranges_of_grey(data, predictions):
    data = DataConfig("folder", data.root, values={"0-15": "ground", "16-255": "other"})
    for path in [*predictions.iterdir()]:
        Image.fromarray((np.array(Image.open(path)) // 16 * 255).astype(np.uint8)).save(path.with_suffix(".jpg"))
        path.unlink()
    assert score(predictions, data, indices=False).scores.pixel_accuracy > 0.5


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda mask: mask[1:], r"val1\.png is \d+x\d+, but its ground truth is \d+x\d+"),
        (lambda mask: np.where(mask == 20, 99, mask).astype(np.uint8), r"val1\.png: 99 on \d+ pixels"),
        (ignoring, r"val1\.png has the ignore value on \d+ labelled pixels"),
    ],
)
def test_what_does_not_fit_is_an_error_with_the_file(data, predictions, how, message):
    change(predictions / "val1.png", how)
    with pytest.raises(DataError, match=message):
        score(predictions, data)


def test_a_spare_prediction_is_named(data, predictions):
    shutil.copy(predictions / "val1.png", predictions / "other.png")
    with pytest.raises(DataError, match=r"1 predictions are of no image, such as other\.png"):
        score(predictions, data)


def test_two_predictions_of_an_image_are_named(data, predictions):
    Image.open(predictions / "val1.png").save(predictions / "val1.tif")
    with pytest.raises(DataError, match=r"val1 has 2 predictions"):
        score(predictions, data)


def test_values_and_indices_that_both_fit_have_to_be_said(data, predictions):
    data = DataConfig("folder", data.root, values={1: "ground", 0: "tree"})
    for path in [*predictions.iterdir(), *Path(str(data.root)).rglob("masks/*")]:
        change(path, lambda mask: (mask == 10).astype(np.uint8))
    with pytest.raises(UsageError, match="--indices"):
        score(predictions, data)
    right, wrong = (score(predictions, data, indices=indices).scores.pixel_accuracy for indices in (False, True))
    assert right == 1 - wrong
    assert right > 0.7  # what was ignored is a class now


def test_a_damaged_archive_and_no_ground_truth_are_errors(data, tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4")
    with pytest.raises(SanetError, match=r"broken\.zip"):
        score(tmp_path / "broken.zip", data)
    with pytest.raises(UsageError, match="ground truth"):
        sanet.score(tmp_path)


def test_the_command_prints_the_table(data, predictions, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["score", str(predictions), str(data.root), "--split", "val", "--output", str(out)]
    assert main([*words, "--data.values", "{10: ground, 20: tree, 30: lamp}"]) == 0
    printed = capsys.readouterr().out
    assert "boundary F1" in printed
    assert "copying the mask" in printed
    assert {path.name for path in out.iterdir()} >= {"scores.json", "image_counts.npz", "report.html"}
