import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sanet import files
from sanet.config import InferenceConfig
from sanet.inference import predict as predicting
from sanet.inference.inputs import find_pictures
from sanet.inference.predict import LocalEngine, PredictorSettings, planned, predict_collection, predict_files
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model, load_model
from sanet.structures import LabelSet, SanetError, UsageError

LABELS = LabelSet(("sky", "road", "car"))

# Labels slowly, so that it can be killed in the middle.
SLOWLY = """
import time
from sanet.inference.predict import LocalEngine, PredictorSettings, predict_collection
settings = PredictorSettings("model", "cpu")
engine = LocalEngine.of(settings)
label = engine.predictor.label
engine.predictor.label = lambda picture: (time.sleep(0.05), label(picture))[1]
predict_collection(engine, ["photos"], "out", progress=False)
"""


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return Predictor(create_model("fcn", "test_resnet", labels=LABELS), "cpu")


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
    assert set(found) == {f"../photos/{name}" for name in ("a.png", "b.jpg", "deep/c.bmp")}
    for image, line in found.items():
        picture = Image.open(output / image).convert("RGB")
        mask = Image.open(output / line["mask"])
        for kind in ("mask", "overlay"):
            assert line[f"{kind}_sha256"] == hashlib.sha256((output / line[kind]).read_bytes()).hexdigest()
        assert mask.mode == "P"
        assert mask.size == picture.size
        assert np.array_equal(np.array(mask), predictor(picture))
        assert mask.getpalette()[:9] == [value for color in predictor.labels.colors for value in color]
        for index, name in enumerate(predictor.labels.names):
            assert line["shares"].get(name, 0) == pytest.approx(float((np.array(mask) == index).mean()), abs=1e-6)
        overlay = Image.open(output / line["overlay"])
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


def test_linked_folders_are_gone_through_once(folder, tmp_path):
    (tmp_path / "more").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "more" / "d.png")
    for name in ("linked", "linked-again"):
        (folder / name).symlink_to(tmp_path / "more")
    (folder / "deep" / "round").symlink_to(folder)
    names = ["a.png", "b.jpg", "deep/c.bmp", "linked/d.png"]
    assert list(find_pictures([str(folder)], folder / "out")) == [folder / name for name in names]


def test_a_picture_longer_than_a_jpeg_can_be_has_a_smaller_overlay(predictor, tmp_path):
    Image.new("RGB", (66000, 33)).save(tmp_path / "strip.png")
    assert predict_files(predictor, [str(tmp_path / "strip.png")], tmp_path / "out", progress=False) == []
    assert Image.open(tmp_path / "out" / "masks" / "strip.png").size == (66000, 33)
    assert max(Image.open(tmp_path / "out" / "overlays" / "strip.jpg").size) == 65500


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


@pytest.fixture
def collection(folder, tmp_path, monkeypatch):
    """A saved model in model/, pictures in photos/, and both within the working directory."""
    torch.manual_seed(0)
    create_model("fcn", "test_resnet", labels=LABELS).save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(output="out", model="model", **views):
    settings = PredictorSettings(model, "cpu", InferenceConfig(**views))
    return predict_collection(LocalEngine.of(settings), ["photos"], output, progress=False)


def written(output):
    """When each mask and overlay was written."""
    return {path: path.stat().st_mtime_ns for path in output.rglob("*.*") if path.suffix in {".png", ".jpg"}}


def test_what_is_done_is_kept(collection):
    assert predict() == (3, 0, [])
    before, text = written(collection / "out"), (collection / "out" / "predictions.jsonl").read_bytes()
    assert len(before) == 6
    assert predict() == (0, 3, [])
    assert written(collection / "out") == before
    assert (collection / "out" / "predictions.jsonl").read_bytes() == text


def test_new_pictures_are_added_and_lines_keep_the_order(collection):
    (collection / "photos" / "a.png").rename(collection / "a.png")
    assert predict() == (2, 0, [])
    (collection / "a.png").rename(collection / "photos" / "a.png")
    assert predict() == (1, 2, [])
    assert [line["image"] for line in lines(collection / "out")] == [
        "../photos/a.png",
        "../photos/b.jpg",
        "../photos/deep/c.bmp",
    ]


def test_another_model_or_other_settings_label_again(collection):
    predict()
    torch.manual_seed(1)
    create_model("fcn", "test_resnet", labels=LABELS).save_pretrained(collection / "model")
    assert predict() == (3, 0, [])
    assert predict(window=64) == (3, 0, [])
    renamed = load_model(collection / "model")
    renamed.labels = LabelSet(("sky", "street", "car"))
    renamed.save_pretrained(collection / "renamed")
    assert predict(model="renamed", window=64) == (3, 0, [])
    assert predict(model="renamed", window=64) == (0, 3, [])


def test_a_second_call_into_the_same_output_keeps_what_the_first_has_done(collection):
    predict()
    first = lines(collection / "out")
    Path("holiday").mkdir()
    (collection / "photos" / "a.png").rename("holiday/d.png")
    settings = PredictorSettings("model", "cpu")
    engine = LocalEngine.of(settings)
    assert predict_collection(engine, ["holiday"], "out", progress=False) == (1, 0, [])
    assert lines(collection / "out")[:-1] == first
    assert lines(collection / "out")[-1]["image"] == "../holiday/d.png"
    (collection / "out" / "masks" / "a.png").unlink()
    assert predict() == (0, 2, [])
    assert [line["image"] for line in lines(collection / "out")] == [
        "../holiday/d.png",
        "../photos/b.jpg",
        "../photos/deep/c.bmp",
    ]


def test_one_call_at_a_time_writes_into_an_output(collection):
    with files.locked(Path("out")), pytest.raises(SanetError, match="out is in use by another run"):
        predict()
    assert predict() == (3, 0, [])
    assert not list((collection / "out").glob("*lock*"))


@pytest.mark.parametrize("output", ["notes.txt", "notes.txt/out"])
def test_an_output_that_cannot_be_written_is_named_before_the_work(collection, output):
    Path("notes.txt").write_text("not a folder")
    with pytest.raises(UsageError, match=r"--output: .*notes\.txt is there already"):
        predict(output)
    assert Path("notes.txt").read_text() == "not a folder"


def test_a_changed_picture_is_labelled_again(collection):
    predict()
    picture = collection / "photos" / "a.png"
    Image.fromarray(255 - np.array(Image.open(picture))).save(picture)
    assert predict() == (1, 2, [])
    os.utime(picture, ns=(0, 0))
    assert predict() == (1, 2, [])


@pytest.mark.parametrize("lost", ["masks/a.png", "overlays/deep/c.jpg"])
def test_a_result_that_is_gone_is_made_again(collection, lost):
    predict()
    (collection / "out" / lost).unlink()
    assert predict() == (1, 2, [])
    assert (collection / "out" / lost).exists()


def test_a_picture_that_failed_is_tried_again(collection):
    whole = (collection / "photos" / "b.jpg").read_bytes()
    (collection / "photos" / "b.jpg").write_bytes(whole[:300])
    labelled, kept, failures = predict()
    assert (labelled, kept) == (2, 0)
    assert "photos/b.jpg" in failures[0]
    assert predict() == (0, 2, failures)
    (collection / "photos" / "b.jpg").write_bytes(whole)
    assert predict() == (1, 2, [])
    assert not any("error" in line for line in lines(collection / "out"))


@pytest.mark.parametrize("foreign", ["[1]\n", '{"image": ["photos"]}\n', "my notes\n"])
def test_a_file_of_other_lines_is_somebodys_own(collection, foreign):
    predict()
    path = collection / "out" / "predictions.jsonl"
    for text in (path.read_text() + foreign, foreign, foreign.strip()):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"--output: line \d of out/predictions\.jsonl"):
            predict()
        assert path.read_text() == text


def test_a_torn_line_counts_for_nothing(collection):
    predict()
    path = collection / "out" / "predictions.jsonl"
    text = path.read_text()
    first, second, third = text.splitlines()
    path.write_text(f"{first}\n{second}\n{third[:50]}")
    with pytest.raises(UsageError, match=r"--output: out/masks/deep/c\.png"):  # no line knows it any more
        predict()
    for kind in ("masks/deep/c.png", "overlays/deep/c.jpg"):
        (collection / "out" / kind).unlink()
    assert predict() == (1, 2, [])
    again = path.read_text()
    assert again.splitlines()[:2] == [first, second]
    assert json.loads(again.splitlines()[2]) == json.loads(third)


@pytest.mark.parametrize("where", ["out", "../elsewhere/masks/out"])
def test_files_of_an_older_version_are_ours_and_made_again(collection, where):
    """Its lines have paths that begin at the working directory of the call, and no sums."""
    predict()
    path = collection / "out" / "predictions.jsonl"
    old = [
        {"image": f"photos/{place}", "mask": f"{where}/{line['mask']}", "overlay": f"{where}/{line['overlay']}",
         "shares": line["shares"]}
        for place, line in zip(("a.png", "b.jpg", "deep/c.bmp"), lines(collection / "out"), strict=True)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in old))
    (collection / "photos" / "b.jpg").rename(collection / "b.jpg")
    assert predict() == (2, 0, [])
    assert [line["mask"] for line in lines(collection / "out")] == [old[1]["mask"], "masks/a.png", "masks/deep/c.png"]
    assert predict() == (0, 2, [])


def test_a_line_never_speaks_of_another_models_mask(collection):
    """The model changes, and the first picture of the second call is labelled before it breaks off."""
    predict()
    first = LocalEngine.of(PredictorSettings("model", "cpu")).fingerprint

    class Broken(LocalEngine):
        def results(self, jobs):
            yield next(super().results(jobs))
            raise SanetError("broken")

    settings = PredictorSettings("model", "cpu", InferenceConfig(window=64))
    with pytest.raises(SanetError, match="broken"):
        predict_collection(Broken.of(settings), ["photos"], "out", progress=False)
    newest = {line["mask"]: line for line in lines(collection / "out")}
    assert [line["fingerprint"] != first for line in newest.values()] == [True, False, False]
    for mask, line in newest.items():
        assert hashlib.sha256((collection / "out" / mask).read_bytes()).hexdigest() == line["mask_sha256"]
    assert predict() == (1, 2, [])


def test_a_call_that_was_killed_is_taken_up(collection):
    rng = np.random.default_rng(0)
    for index in range(30):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(collection / "photos" / f"{index}.png")
    process = subprocess.Popen([sys.executable, "-c", SLOWLY])
    path = collection / "out" / "predictions.jsonl"
    until = time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.wait()
    for result in written(collection / "out"):
        Image.open(result).load()  # is whole
    done = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    masks = [collection / "out" / line["mask"] for line in done]
    before = {mask: mask.stat().st_mtime_ns for mask in masks if mask.exists()}
    assert 3 <= len(before) < 33
    labelled, kept, failures = predict()
    assert (labelled + kept, failures) == (33, [])
    assert len(done) - 1 <= kept <= len(done)  # of the last line the files may not be in their places
    assert sum(mask.stat().st_mtime_ns == time for mask, time in before.items()) >= kept
    assert predict("undisturbed") == (33, 0, [])
    assert contents(collection / "out") == contents(collection / "undisturbed")


def contents(output):
    """All files below a folder."""
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_calls_from_two_working_directories_lose_no_lines(collection, monkeypatch):
    predict()
    (collection / "trip").mkdir()
    Image.new("RGB", (40, 40)).save(collection / "trip" / "e.png")
    first = lines(collection / "out")
    monkeypatch.chdir(collection / "trip")
    settings = PredictorSettings("../model", "cpu")
    engine = LocalEngine.of(settings)
    assert predict_collection(engine, ["e.png"], "../out", progress=False) == (1, 0, [])
    assert predict_collection(engine, ["../photos"], "../out", progress=False) == (0, 3, [])
    assert lines(collection / "out")[1:] == first
    assert lines(collection / "out")[0]["image"] == "../trip/e.png"


@pytest.mark.parametrize("kind", ["masks/deep/c.png", "overlays/b.jpg"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_somebody_else_has_written_stays(collection, monkeypatch, kind, when):
    """Before the first call, or corrected after it, and then the pictures are labelled with other settings."""
    if when == "after":
        predict()
    path = collection / "out" / kind
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (7, 7), 1).save(path)
    before = {file: file.read_bytes() for file in (collection / "out").rglob("*") if file.is_file()}
    monkeypatch.setattr(Predictor, "label", None)  # it is said before anything is labelled
    with pytest.raises(UsageError, match=f"--output: out/{kind}"):
        predict(window=64)
    assert {file: file.read_bytes() for file in (collection / "out").rglob("*") if file.is_file()} == before
    if when == "after":
        assert predict() == (0, 3, [])  # for what is done it is in nobody's way


def test_the_mask_of_a_picture_that_fails_now_stays_known(collection):
    predict()
    whole = (collection / "photos" / "a.png").read_bytes()
    (collection / "photos" / "a.png").write_bytes(whole[:200])
    assert len(predict().failures) == 1
    (collection / "photos" / "a.png").write_bytes(whole)
    assert predict() == (1, 2, [])


def test_a_call_that_was_killed_between_a_line_and_its_files_is_taken_up(collection, monkeypatch):
    predict()

    def killed(path):
        raise KeyboardInterrupt

    torch.manual_seed(1)
    create_model("fcn", "test_resnet", labels=LABELS).save_pretrained(collection / "model")
    with monkeypatch.context() as patch:
        patch.setattr(predicting, "settle", killed)
        with pytest.raises(KeyboardInterrupt):
            predict()
    assert not list((collection / "out").rglob("*.partial"))
    assert predict() == (3, 0, [])
    assert predict() == (0, 3, [])
    for line in lines(collection / "out"):
        assert hashlib.sha256((collection / "out" / line["mask"]).read_bytes()).hexdigest() == line["mask_sha256"]


def test_a_picture_is_never_the_output(collection):
    predict()
    with pytest.raises(UsageError, match=r"--output: out/masks/a\.png is one of the pictures"):
        planned(["out/masks/a.png"], "out")


def photos(folder, *places):
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40)).save(folder / place)


@pytest.mark.parametrize(
    ("places", "given", "named", "instead"),
    [
        (["images/a.jpg", "masks/a.png"], ["photos"], "photos/masks", "photos/images"),
        (["images/a.jpg", "Labels/a.png"], ["photos"], "photos/Labels", "photos/images"),
        (["a.jpg", "masks/a.png"], ["photos"], "photos/masks", r"photos/\*\.jpg"),
        (["x/train/a.png", "x/trainannot/a.png"], ["photos"], "photos/x/trainannot", "photos/x/train"),
        (["JPEGImages/a.jpg", "SegmentationClass/a.png"], ["photos"], "photos/SegmentationClass", "photos/JPEGImages"),
        (["leftImg8bit/a.png", "gtFine/b/a.png"], ["photos"], "photos/gtFine", "photos/leftImg8bit"),
        (["images/val/a.jpg", "ground_truth/val/a.png"], ["photos"], "photos/ground_truth", "photos/images"),
        (["images/a.jpg", "masks/m.png"], ["photos/*/*"], "photos/masks", "photos/images"),
        (["images/a.jpg", "masks/m.png"], ["photos/**/*.*g"], "photos/masks", "photos/images"),
        (["images/a.jpg", "masks/m.png"], ["photos/*"], "photos/masks", "photos/images"),
        (["images/a.jpg", "masks/m.png"], ["photos/images/a.jpg", "photos/masks/m.png"], "photos/masks", "photos/imag"),
    ],
)
def test_masks_beside_the_pictures_are_not_labelled_along(tmp_path, monkeypatch, places, given, named, instead):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", *places)
    with pytest.raises(UsageError, match=rf"^{named} holds masks.* name {instead}"):
        find_pictures(given, Path("out"))


def test_masks_that_are_named_and_folders_with_such_a_name_above_are_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "labels", "masks/a.png", "images/b.png", "holiday/c.png")
    assert set(find_pictures(["labels/masks"], Path("out"))) == {Path("labels/masks/a.png")}
    assert set(find_pictures(["labels/masks/*.png"], Path("out"))) == {Path("labels/masks/a.png")}
    found = set(find_pictures(["labels/images", "labels/holiday/c.png"], Path("out")))
    assert found == {Path("labels/images/b.png"), Path("labels/holiday/c.png")}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_and_devices_in_a_folder_are_no_pictures(folder):
    os.mkfifo(folder / "pipe.png")
    (folder / "endless.png").symlink_to("/dev/zero")
    assert len(find_pictures([str(folder)], folder / "out")) == 3


FULL = """
import resource, sys
from sanet.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("most", [200, 8000])
def test_a_full_disk_is_said_in_one_line_and_leaves_no_part(collection, most):
    """Where a file cannot grow beyond some bytes: a mask or an overlay."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(collection / "photos" / "b.jpg")
    command = ["predict", "photos", "--model", "model", "--output", "out", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", FULL, str(most), *command], capture_output=True, text=True)
    assert done.returncode == 1
    (message,) = [line for line in done.stderr.splitlines() if "sanet:" in line]
    assert "File too large" in message
    assert "Traceback" not in done.stderr
    assert {path.suffix for path in (collection / "out").rglob("*") if path.is_file()} <= {".png", ".jpg", ".jsonl"}
    assert sum(predict()[:2]) == 3
