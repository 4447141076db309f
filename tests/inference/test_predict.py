"""Prediction for files: what is written, what is kept, and what is never replaced."""

import csv
import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import full_disk
from sanet import files
from sanet.cli.main import main
from sanet.config import InferenceConfig, OutputConfig
from sanet.inference import predict as predicting
from sanet.inference.predict import Engine, predict_collection
from sanet.inference.predictor import Predictor
from sanet.models.networks import load_model
from sanet.models.unlike import UNLIKE, FeatureStatistics
from sanet.structures import LabelSet, SanetError, UsageError

# Labels three batches slowly and stands still in the fourth, so that it is always killed in the middle.
SLOWLY = """
import itertools, time
from sanet.inference.predict import Engine, predict_collection
engine = Engine("model", "cpu")
network, forward = engine.predictor.network, engine.predictor.network.forward
pauses = itertools.chain([0.1] * 3, itertools.repeat(600))
network.forward = lambda images: (time.sleep(next(pauses)), forward(images))[1]
predict_collection(engine, ["photos"], "out", progress=False)
"""


def predict(output="out", model="model", inputs=("photos",), engine=Engine, **options):
    return predict_collection(engine(str(model), "cpu", InferenceConfig(**options)), inputs, output, progress=False)


def lines(output=Path("out")):
    return [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]


def images(output=Path("out")):
    return [line["image"] for line in lines(output)]


def times(output):
    """When each mask and overlay was written."""
    return {path: path.stat().st_mtime_ns for path in output.rglob("*.*") if path.suffix in {".png", ".jpg"}}


def contents(output):
    """All files below a folder that are not of ``files``'."""
    paths = [path for path in output.rglob("*") if path.is_file() and not files.hidden(path)]
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


def test_a_folder(collection):
    assert predict() == (3, 0, [])
    predictor = Predictor("model", "cpu")
    found = {line["image"]: line for line in lines()}
    assert set(found) == {f"../photos/{name}" for name in ("a.png", "b.jpg", "deep/c.bmp")}
    for image, line in found.items():
        picture = Image.open(Path("out") / image).convert("RGB")
        mask = Image.open(Path("out") / line["mask"])
        assert mask.mode == "P"
        assert mask.size == picture.size
        assert np.array_equal(np.array(mask), predictor(picture))
        assert mask.getpalette()[:9] == [value for color in predictor.labels.colors for value in color]
        for index, name in enumerate(predictor.labels.names):
            assert line["shares"].get(name, 0) == pytest.approx(float((np.array(mask) == index).mean()), abs=1e-6)
        overlay = Image.open(Path("out") / line["overlay"])
        assert overlay.width >= picture.width
        assert overlay.height >= picture.height


def test_images_unlike_those_of_training_are_named(collection, capsys):
    """Those beyond the held-out ones, in one line; every image's share is kept; older models say nothing."""
    assert predict() == (3, 0, [])
    assert not any("unlike" in line for line in lines())
    model, predictor = load_model("model"), Predictor("model", "cpu")
    usual = np.concatenate([predictor(path).features[None] for path in ("photos/a.png", "photos/b.jpg")])
    noise = np.random.default_rng(0).normal(1, 0.2, (2, 20, usual.shape[1]))
    model.statistics = FeatureStatistics.of(*(np.concatenate([usual, usual.mean(0) * each]) for each in noise))
    model.save_pretrained("knows")
    Image.fromarray(np.full((50, 60, 3), (255, 0, 255), np.uint8)).save("photos/flat.png")
    capsys.readouterr()
    assert predict("new", "knows") == (4, 0, [])
    found = {Path(line["image"]).name: line["unlike"] for line in lines(Path("new"))}
    knowing = Predictor("knows", "cpu")
    for path in ("a.png", "b.jpg", "deep/c.bmp", "flat.png"):
        assert found[Path(path).name] == pytest.approx(knowing(f"photos/{path}").unlike, abs=1e-4)
    far = [name for name, unlike in found.items() if unlike >= UNLIKE]
    assert "flat.png" in far
    assert "a.png" not in far
    (warning,) = capsys.readouterr().err.splitlines()
    assert [name for name in found if name in warning] == far
    copy = pickle.loads(pickle.dumps(knowing(Path("photos/flat.png"))))
    assert copy.unlike == knowing("photos/flat.png").unlike
    assert np.array_equal(copy.features, knowing("photos/flat.png").features)


def test_a_corrupt_image_is_reported_tried_again_and_the_rest_is_done(collection):
    complete = Path("photos/b.jpg").read_bytes()
    Path("photos/b.jpg").write_bytes(complete[:300])
    labelled, kept, failures = predict()
    assert (labelled, kept, len(failures)) == (2, 0, 1)
    assert "photos/b.jpg" in failures[0]
    assert ["error" in line for line in lines()] == [False, True, False]
    assert predict() == (0, 2, failures)
    Path("photos/b.jpg").write_bytes(complete)
    assert predict() == (1, 2, [])
    assert not any("error" in line for line in lines())


def test_an_image_longer_than_a_jpeg_can_be_has_a_smaller_overlay(collection):
    Image.new("RGB", (66000, 33)).save("strip.png")
    assert predict(inputs=["strip.png"]).failures == []
    assert Image.open("out/masks/strip.png").size == (66000, 33)
    assert max(Image.open("out/overlays/strip.jpg").size) == 65500


def test_results_inside_the_folder_are_not_labelled_again(collection):
    assert predict("photos/labelled") == (3, 0, [])
    assert predict("photos/labelled") == (0, 3, [])


def test_what_is_done_is_kept(collection):
    assert predict() == (3, 0, [])
    before, text = times(Path("out")), Path("out/predictions.jsonl").read_bytes()
    assert len(before) == 6
    assert predict() == (0, 3, [])
    assert times(Path("out")) == before
    assert Path("out/predictions.jsonl").read_bytes() == text


def test_new_images_are_added_and_lines_keep_the_order(collection):
    Path("photos/a.png").rename("a.png")
    assert predict() == (2, 0, [])
    Path("a.png").rename("photos/a.png")
    assert predict() == (1, 2, [])
    assert images() == ["../photos/a.png", "../photos/b.jpg", "../photos/deep/c.bmp"]


def test_another_model_or_other_settings_label_again(collection, models):
    predict()
    assert predict(model=models[1]) == (3, 0, [])
    assert predict(model=models[1], window=64) == (3, 0, [])
    assert predict(model=models[2], window=64) == (3, 0, [])
    assert predict(model=models[2], window=64) == (0, 3, [])


def test_a_second_call_into_the_same_output_keeps_what_the_first_has_done(collection, monkeypatch):
    """From another working directory, too."""
    predict()
    first = lines()
    Path("holiday").mkdir()
    Path("photos/a.png").rename("holiday/d.png")
    monkeypatch.chdir("holiday")
    assert predict("../out", "../model", ["d.png"]) == (1, 0, [])
    assert predict("../out", "../model", ["../photos"]) == (0, 2, [])
    monkeypatch.chdir(collection)
    assert images() == ["../photos/a.png", "../holiday/d.png", "../photos/b.jpg", "../photos/deep/c.bmp"]
    assert lines()[2:] == first[1:]
    Path("out/masks/a.png").unlink()
    assert predict() == (0, 2, [])
    assert images() == ["../holiday/d.png", "../photos/b.jpg", "../photos/deep/c.bmp"]


def test_a_mask_is_of_one_image_only(collection):
    """Two images of one name: the later one takes the place, and the line, of the earlier one."""
    predict()
    Path("other").mkdir()
    Image.new("RGB", (40, 40)).save("other/a.png")
    assert predict(inputs=["other"]) == (1, 0, [])
    assert images() == ["../photos/b.jpg", "../photos/deep/c.bmp", "../other/a.png"]
    assert predict() == (1, 2, [])


def test_one_call_at_a_time_writes_into_an_output(collection):
    with files.locked(Path("out")), pytest.raises(SanetError, match="out is in use"):
        predict()
    assert predict() == (3, 0, [])
    assert not list(Path("out").glob("*lock*"))


@pytest.mark.parametrize("output", ["notes.txt", "notes.txt/out"])
def test_an_output_that_cannot_be_written_is_named_before_the_work(collection, output):
    Path("notes.txt").write_text("no folder")
    with pytest.raises(UsageError, match=r"--output: .*notes\.txt"):
        predict(output)
    assert Path("notes.txt").read_text() == "no folder"


def test_a_changed_image_is_labelled_again(collection):
    predict()
    image = Path("photos/a.png")
    Image.fromarray(255 - np.array(Image.open(image))).save(image)
    assert predict() == (1, 2, [])
    os.utime(image, ns=(0, 0))
    assert predict() == (1, 2, [])


@pytest.mark.parametrize("lost", ["masks/a.png", "overlays/deep/c.jpg"])
def test_a_result_that_is_gone_is_made_again(collection, lost):
    predict()
    Path("out", lost).unlink()
    assert predict() == (1, 2, [])
    assert Path("out", lost).exists()


@pytest.mark.parametrize("foreign", ["[1]\n", '{"image": ["photos"]}\n', "my notes\n"])
def test_a_file_of_other_lines_is_somebodys_own(collection, foreign):
    predict()
    path = Path("out/predictions.jsonl")
    for text in (path.read_text() + foreign, foreign, foreign.strip()):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"--output: line \d of out/predictions\.jsonl"):
            predict()
        assert path.read_text() == text


def test_a_torn_line_counts_for_nothing(collection):
    predict()
    path = Path("out/predictions.jsonl")
    first, second, third = path.read_text().splitlines()
    path.write_text(f"{first}\n{second}\n{third[:50]}")
    assert predict() == (1, 2, [])
    assert path.read_text().splitlines()[:2] == [first, second]
    assert lines()[2] == json.loads(third)


@pytest.mark.parametrize("kind", ["masks/deep/c.png", "overlays/b.jpg"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_somebody_else_has_written_stays(collection, monkeypatch, kind, when):
    """Before the first call, or corrected after it, and then the images are labelled with other settings."""
    if when == "after":
        predict()
    path = Path("out", kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (7, 7), 1).save(path)
    before = contents(Path("out"))
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "_labelled", None)  # it is said before anything is labelled
        with pytest.raises(UsageError, match=f"--output: out/{kind}"):
            predict(window=64)
    assert contents(Path("out")) == before
    if when == "after":
        assert predict() == (0, 3, [])  # for what is done it is in nobody's way


def test_the_mask_of_an_image_that_fails_now_stays_known(collection):
    predict()
    complete = Path("photos/a.png").read_bytes()
    Path("photos/a.png").write_bytes(complete[:200])
    assert len(predict().failures) == 1
    Path("photos/a.png").write_bytes(complete)
    assert predict() == (1, 2, [])


def test_an_image_is_never_the_output(collection):
    predict()
    with pytest.raises(UsageError, match=r"--output: out/masks/a\.png is read"):
        predict(inputs=["out/masks/a.png"])


def test_more_classes_than_a_palette_holds_are_refused(collection):
    engine = Engine("model", "cpu")
    engine.predictor.labels = LabelSet(tuple(map(str, range(257))), ignore_index=-1)
    with pytest.raises(UsageError, match="257"):
        predict_collection(engine, ["photos"], "out")


def test_a_call_that_breaks_off_keeps_the_lines_of_what_it_did_not_reach(collection):
    """The settings change, and the first image of the second call is labelled before it breaks off."""
    predict()
    before = lines()

    class Broken(Engine):
        def results(self, jobs):
            yield next(super().results(jobs))
            raise SanetError("broken")

    with pytest.raises(SanetError, match="broken"):
        predict(engine=Broken, window=64)
    assert lines()[:3] == before
    assert [line["fingerprint"] != before[0]["fingerprint"] for line in lines()] == [False, False, False, True]
    assert predict() == (1, 2, [])


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
def test_a_line_never_speaks_of_a_file_that_is_not_in_its_place(collection, models, monkeypatch, moment):
    """A call is killed before it gives the first or the second file its place, or after that."""
    predict()
    calls = []

    def killed(path, root):
        calls.append(path)
        if len(calls) == moment:
            raise KeyboardInterrupt
        files.accept(path, root)

    with monkeypatch.context() as patch:
        patch.setattr(predicting, "accept", killed)
        with pytest.raises(KeyboardInterrupt):
            predict(model=models[1])
    masks = {path.name: path.read_bytes() for path in Path("out/masks").rglob("*.png")}
    for model in ("model", models[1]):  # whichever of them is asked for next
        shutil.rmtree("again", ignore_errors=True)
        shutil.copytree("out", "again")
        kept = predict("again", model).kept
        assert kept == (2 if model == "model" else 0) - (moment > 2) * (1 if model == "model" else -1)
        assert predict("undisturbed", model).failures == []
        assert contents(Path("again")).keys() == contents(Path("undisturbed")).keys()
        for path in Path("again/masks").rglob("*.png"):
            assert path.read_bytes() == Path("undisturbed", path.relative_to("again")).read_bytes()
    assert len(masks) == 3
    assert not list(Path("again").rglob("*.partial"))


@pytest.mark.slow
def test_a_call_that_was_killed_is_taken_up(collection):
    rng = np.random.default_rng(0)
    for index in range(30):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(f"photos/{index}.png")
    process = subprocess.Popen([sys.executable, "-c", SLOWLY])
    path = Path("out/predictions.jsonl")
    until = time.monotonic() + 60
    while not (path.exists() and path.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.wait()
    for result in times(Path("out")):
        Image.open(result).load()  # is complete
    done = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    before = {mask: mask.stat().st_mtime_ns for mask in (Path("out", line["mask"]) for line in done)}
    assert 3 <= len(before) < 33
    labelled, kept, failures = predict()
    assert (labelled + kept, failures) == (33, [])
    assert len(done) - 1 <= kept <= len(done)  # of the last line the overlay may not be in its place
    assert sum(mask.stat().st_mtime_ns == time for mask, time in before.items()) >= kept
    assert predict("undisturbed") == (33, 0, [])
    assert contents(Path("out")) == contents(Path("undisturbed"))


@pytest.mark.slow
@pytest.mark.parametrize("most", [300, 8000])
def test_a_full_disk_is_said_in_one_line_and_leaves_no_part(collection, most):
    """Where a file cannot grow beyond some bytes: a mask or an overlay."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save("photos/b.jpg")
    full_disk.assert_said_in_one_line(
        most, "predict", "photos", "--model", "model", "--output", "out", "--device", "cpu"
    )
    assert sum(predict()[:2]) == 3


def test_everything_else_that_can_be_written(collection):
    """Files of each kind, of the pixels that the predictor says; regions of all images in one table; and resuming."""
    outputs = OutputConfig(False, True, True, True, 0.5, 0.4)
    engine = Engine("model", "cpu", outputs=outputs, batch=2)
    assert predict_collection(engine, ["photos"], "out", progress=False) == (3, 0, [])
    assert not Path("out/overlays").exists()
    predictor, expected = Predictor("model", "cpu"), []
    for line in lines():
        assert "overlay" not in line
        found = predictor(Path("out") / line["image"], threshold=0.4)
        assert np.array_equal(np.array(Image.open(Path("out") / line["mask"])), found)
        np.testing.assert_allclose(np.load(Path("out") / line["probabilities"]), found.probabilities, atol=2e-3)
        grey = np.array(Image.open(Path("out") / line["confidence"]))
        np.testing.assert_allclose(grey / 255, found.confidence, atol=0.0021)
        expected += [[line["image"], region.name, region.area / 4, region.box[2] / 2] for region in found.regions]
    with open("out/regions.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[:4] == ["image", "class", "area", "left"]
    assert [[*row[:2], float(row[2]), float(row[5])] for row in rows] == expected
    assert predict_collection(engine, ["photos"], "out", progress=False) == (0, 3, [])
    # In pixels now, for which nothing has to be labelled again; more kinds of files have to be made.
    again = Engine("model", "cpu", outputs=OutputConfig(False, True, True, True, None, 0.4))
    assert predict_collection(again, ["photos"], "out", progress=False) == (0, 3, [])
    assert "area (pixels)" in Path("out/regions.csv").read_text()
    more = Engine("model", "cpu", outputs=OutputConfig(True, True, True, True, None, 0.4))
    assert predict_collection(more, ["photos"], "out", progress=False) == (3, 0, [])
    with pytest.raises(UsageError, match="regions"):
        OutputConfig(pixel_size=2.0)


def test_areas_and_places_of_large_images_keep_all_their_digits(tmp_path):
    line = {"image": "a.png", "regions": [["road", 1234567, 0, 10, 123456, 20, 100000.5, 15.5, 0.5]]}
    predicting._write_regions(tmp_path, [line], None)
    with (tmp_path / "regions.csv").open(newline="") as file:
        _, row = csv.reader(file)
    assert row[2:] == ["1234567", "0", "10", "123456", "20", "100000.5", "15.5", "0.5000"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_no_utf_8_text_is_in_the_table_as_it_is(collection):
    os.rename("photos/a.png", b"photos/\xff.png")
    engine = Engine("model", "cpu", outputs=OutputConfig(False, regions=True))
    assert predict_collection(engine, ["photos"], "out", progress=False) == (3, 0, [])
    assert b"\n../photos/\xff.png," in Path("out/regions.csv").read_bytes()


def test_blank_lines_of_a_list_on_stdin_are_no_images(collection, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("photos/a.png\n\nphotos/b.jpg\n\n"))
    assert main(["predict", "-", "--model", "model", "--device", "cpu", "--output", "out"]) == 0
    assert images() == ["../photos/a.png", "../photos/b.jpg"]


def test_images_in_batches_are_those_one_by_one(collection):
    for number in range(5):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40 + number // 3, 3), np.uint8)).save(
            f"photos/x{number}.png"
        )
    Path("photos/x2.png").write_bytes(b"no image")
    found = {}
    for batch in (1, 3):
        engine = Engine("model", "cpu", batch=batch)
        outcome = predict_collection(engine, ["photos"], f"out{batch}", progress=False)
        assert (outcome.labelled, len(outcome.failures)) == (7, 1)
        found[batch] = {path.name: np.array(Image.open(path)) for path in sorted(Path(f"out{batch}").rglob("*.png"))}
    assert found[1].keys() == found[3].keys()
    assert all((found[1][name] == found[3][name]).mean() > 0.999 for name in found[1])
