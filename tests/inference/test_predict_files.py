import json

import numpy as np
import pytest
import torch
from PIL import Image

from sanet.inference.files import find_pictures, predict_files
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model
from sanet.structures import LabelSet, UsageError


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return Predictor(create_model("fcn", "test_resnet", labels=LabelSet(("sky", "road", "car"))), "cpu")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, size in {"a.png": (40, 50), "b.jpg": (33, 70), "deep/c.bmp": (64, 64)}.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("not a picture")
    return tmp_path / "photos"


def lines(output):
    return [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]


def test_a_folder(predictor, folder, tmp_path):
    output = tmp_path / "out"
    assert predict_files(predictor, [str(folder)], output, progress=False) == []
    found = {line["image"]: line for line in lines(output)}
    assert set(found) == {str(folder / name) for name in ("a.png", "b.jpg", "deep/c.bmp")}
    for image, line in found.items():
        picture = Image.open(image).convert("RGB")
        mask = Image.open(line["mask"])
        assert mask.mode == "P"
        assert mask.size == picture.size
        assert np.array_equal(np.array(mask), predictor(picture))
        assert mask.getpalette()[:9] == [value for color in predictor.labels.colors for value in color]
        for index, name in enumerate(predictor.labels.names):
            assert line["shares"].get(name, 0) == pytest.approx(float((np.array(mask) == index).mean()), abs=1e-6)
        overlay = Image.open(line["overlay"])
        assert overlay.width >= picture.width
        assert overlay.height >= picture.height


def test_globs_and_files(folder):
    given = [str(folder / "*.png"), str(folder / "b.jpg"), str(folder / "a.png")]
    assert list(find_pictures(given, folder / "out")) == [folder / "a.png", folder / "b.jpg"]


def test_a_corrupt_picture_is_reported_and_the_rest_goes_on(predictor, folder, tmp_path):
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:200])
    failures = predict_files(predictor, [str(folder)], tmp_path / "out", progress=False)
    assert len(failures) == 1
    assert "a.png" in failures[0]
    assert ["error" in line for line in lines(tmp_path / "out")] == [True, False, False]


def test_results_that_would_overwrite_one_another_are_refused(folder):
    Image.new("RGB", (40, 40)).save(folder / "a.jpg")
    with pytest.raises(UsageError, match=r"a\.(png|jpg) and .*a\.(jpg|png)"):
        find_pictures([str(folder)], folder / "out")


def test_an_input_without_pictures_is_named(folder):
    for given in (str(folder / "*.gif"), str(folder / "nothing.png")):
        with pytest.raises(UsageError, match="names no picture"):
            find_pictures([str(folder / "a.png"), given], folder / "out")


def test_brackets_in_a_name_are_no_pattern(folder):
    (folder / "a.png").rename(folder / "photo[1].png")
    (folder / "b.jpg").rename(folder / "photo1.jpg")
    assert list(find_pictures([str(folder / "photo[1].png")], folder / "out")) == [folder / "photo[1].png"]


def test_results_inside_the_folder_are_not_labelled_again(predictor, folder):
    output = folder / "labelled"
    for _ in range(2):
        assert predict_files(predictor, [str(folder)], output, progress=False) == []
        assert len(lines(output)) == 3
