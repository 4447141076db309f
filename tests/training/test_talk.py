"""What `sanet train` says and shows: before the first step, while it trains, when it collapses, and at its end."""

import base64
import dataclasses
import io
import os
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_stops import killing

import sanet
from brightness import CLASSES, small_run, write_pictures
from miniatures import write_voc
from sanet.cli.main import command_of, main
from sanet.cli.training import Train
from sanet.evaluation.results import Example, read_scores
from sanet.inference.drawing import shares
from sanet.inference.sheet import sheet_of
from sanet.structures import Interrupted, LabelSet, Sample
from sanet.training import talk
from sanet.training.alarm import Alarm
from sanet.training.fit import train
from sanet.training.metrics import read_metrics
from sanet.training.summary import ending
from sanet.training.task import SegmentationTask


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run that validates every second epoch, in a folder whose name a shell has to quote, and what it says."""
    folder = tmp_path_factory.mktemp("talk")
    write_pictures(folder / "data", train=10, val=4)
    for kind in ("images", "masks"):
        (folder / "data" / "test" / kind).mkdir(parents=True)
        (folder / "data" / "val" / kind / "val3.png").rename(folder / "data" / "test" / kind / "test0.png")
    fast, config = sanet.OptimizerConfig(learning_rate=0.05), small_run(folder / "data", folder / "the run")
    config = dataclasses.replace(config, epochs=6, validate_every=2, optimizer=fast)
    config.save(folder / "settings.yaml")
    with redirect_stdout(io.StringIO()) as text, redirect_stderr(text):
        assert main(["train", "--config", str(folder / "settings.yaml")]) == 0
    return config, text.getvalue()


def after(word, text):
    """What stands behind the first word of the last line that has it there."""
    return [line for line in text.splitlines() if line.startswith(f"{word} ")][-1].removeprefix(word).strip()


def numbers(text):
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def assert_told(text, config, first=0):
    """From one on, each validation has a line, with the numbers of metrics.csv and of the best so far."""
    lines = [line.rpartition(";")[0] for line in text.splitlines() if line.startswith("epoch ")]
    rows = [row for row in read_metrics(Path(config.output)) if "val/miou" in row]
    assert len(lines) == len(rows[first:]) > 0
    for count, line in enumerate(lines, first + 1):
        row, values = rows[count - 1], [one[config.monitor] for one in rows[:count]]
        best = min(values) if config.monitor == "train/loss" else max(values)
        worst = min(CLASSES, key=lambda name, row=row: row[f"val/iou/{name}"])
        losses = [row[f"train/{name}"] for name in ("loss", "mask", "category", "dense")]
        place, found = [row["epoch"] + 1, config.epochs, row["step"], 2 * config.epochs], numbers(line)
        assert found[:4] + found[11:] == [*place, rows[values.index(best)]["epoch"] + 1]
        assert found[4:8] == pytest.approx(losses, abs=6e-4)
        assert found[8:10] == pytest.approx([100 * row["val/miou"], 100 * row[f"val/iou/{worst}"]], abs=0.06)
        assert found[10] == pytest.approx(100 * best if config.monitor == "val/miou" else best, rel=2e-3)
        assert f"worst {worst} " in line


def test_a_run_says_what_is_trained_and_what_validations_find(told):
    config, text = told
    parameters = sanet.load_model(Path(config.output) / "model").parameters()
    assert f" {sum(one.numel() for one in parameters) / 1e6:.2f} million" in after("network", text)
    assert numbers(after("device", text))[:2] == [torch.get_num_threads(), os.cpu_count()]
    assert after("images", text) == "train 10, val 3, test 1"
    masks = [np.array(Image.open(path)) for path in Path(config.data.root, "train", "masks").iterdir()]
    counts = [sum((mask == index).sum() for mask in masks) for index in range(2)]
    found = re.findall(r"(\w+) ([\d.]+)%", after("classes", text))
    assert found == [(CLASSES[k], f"{100 * counts[k] / sum(counts):.1f}") for k in np.argsort(counts)[::-1]]
    assert numbers(after("steps", text)) == [2, 4, 40, 40, 6, 12]
    assert after("output", text) == config.output
    assert [row["epoch"] for row in read_metrics(Path(config.output)) if "val/miou" in row] == [1, 3, 5]
    assert_told(text, config)
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f]|it/s", text) == []  # in a file there are lines only


def test_a_run_that_resumes_in_an_epoch_tells_the_rest(config, capsys, monkeypatch):
    config = dataclasses.replace(config, monitor="train/loss")
    train(dataclasses.replace(config, epochs=1))
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", killing(SegmentationTask.training_step))
        with pytest.raises(Interrupted):
            train(config, resume=True)
    capsys.readouterr()
    train(config, resume=True)
    assert_told(capsys.readouterr().out, config, first=1)


def test_lines_between_validations_have_the_loss_of_a_part_of_a_step(config, capsys, monkeypatch):
    monkeypatch.setattr(talk, "PAUSE", -1.0)
    train(dataclasses.replace(config, gradient_accumulation=2, epochs=2))
    found = re.findall(r"epoch (\d)/2, step \d/4: loss ([\d.]+);", capsys.readouterr().out)
    assert "".join(epoch for epoch, _ in found) == "11112222"
    means = np.array([float(loss) for _, loss in found]).reshape(2, 4).mean(axis=1)
    assert means == pytest.approx([row["train/loss"] for row in read_metrics(Path(config.output))], abs=1e-3)


def test_the_end_has_the_score_and_commands_that_can_be_typed(told, tmp_path, monkeypatch):
    text, run = told[1], Path(told[0].output)
    scores, epochs = read_scores(run), [row for row in read_metrics(run) if "val/miou" in row]
    score, best = scores.table.means["miou"], max(epochs, key=lambda row: row["val/miou"])
    assert numbers(after("score", text))[:3] == pytest.approx([100 * end for end in score], abs=0.06)
    assert numbers(after("kept", text)) == pytest.approx([best["epoch"] + 1, best["val/miou"]], abs=6e-5)
    assert Path(after("model", text)).is_dir()
    assert Path(after("report", text).partition(",")[0]).is_file()
    commands = [shlex.split(line)[1:] for line in text.rpartition("next:\n")[2].splitlines()]
    assert [words[0] for words in commands] == ["predict", "explain", "evaluate", "export"]
    monkeypatch.chdir(tmp_path)
    for words in commands:
        assert callable(command_of(words))
        assert words[0] == "export" or main([*words, "--device", "cpu"]) == 0
    image = Path(commands[0][1])
    assert image.stem == min(scores.image_miou, key=lambda name: scores.image_miou[name])
    assert [Image.open(one).size for one in Path("labelled").rglob(f"{image.stem}.png")] == [Image.open(image).size]


def test_no_command_is_proposed_that_cannot_work(told, tmp_path):
    """Images that are made on demand are no files, and VOC keeps the masks of its test split."""
    evaluation, blank = read_scores(Path(told[0].output)), np.zeros((8, 8), np.int64)
    write_voc(tmp_path)
    for data, name, wanted in (
        (sanet.DataConfig("scenes"), "scene-val-00000", ["evaluate", "export"]),
        (sanet.DataConfig("voc", str(tmp_path), allow_subset=True), "2007_000033", ["predict", "explain", "export"]),
    ):
        worst = [Example(name, np.zeros((8, 8, 3), np.uint8), blank, blank, 0.0)]
        text = ending(dataclasses.replace(told[0], data=data), dataclasses.replace(evaluation, worst=worst), "")
        assert [line.split()[1] for line in text.rpartition("next:\n")[2].splitlines()] == wanted


@pytest.mark.parametrize("workers", [0, 1])
def test_a_preview_shows_the_crops_of_the_first_step_and_trains_nothing(config, tmp_path, workers):
    seen = []

    def darker(batch):
        seen.append(batch._replace(image=(batch.image * torch.rand(1)).byte()))
        return seen[-1]

    config = dataclasses.replace(config, batch_transforms=(darker,), num_workers=workers, epochs=1)
    run, place = Path(config.output), tmp_path / "new" / "crops.png"
    Train(run=config, preview=str(place))()
    assert (len(seen), run.exists()) == (1, False)
    train(config)
    # Of the preview, of crops.png, and of the two steps.
    same = [(one.name, one.image.tolist(), one.mask.tolist()) for one in seen]
    assert same[0] == same[1] == same[2] != same[3]
    samples, labels = [Sample(*one) for one in zip(*seen[2], strict=True)], LabelSet(CLASSES)
    expected = np.array(sheet_of(samples, labels, shares(seen[2].mask.numpy().reshape(-1, 40), labels)))
    for found in (place, run / "crops.png"):
        assert np.array_equal(np.array(Image.open(found)), expected)
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)" alt="crops', (run / "report.html").read_text("utf-8"))
    assert np.abs(np.array(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int) - expected).mean() < 8


@pytest.mark.slow
def test_threads_are_those_that_are_asked_for_and_may_change(config, capsys, request):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    found, counting = [], lambda batch: found.append(torch.get_num_threads()) or batch
    config = dataclasses.replace(config, batch_transforms=(counting,), batch_size=16)
    train(dataclasses.replace(config, threads=2, epochs=1))
    train(dataclasses.replace(config, threads=1, epochs=2), resume=True)
    assert found == [2, 2, 1]  # for crops.png, and the steps
    assert numbers(after("steps", capsys.readouterr().out)) == [1, 10, 40, 40, 2, 2]  # of no more images than there are


HEALTHY = [590, 10, 0], [10, 380, 0], [0, 1, 9]
NO_BIRD = [590, 10, 0], [10, 380, 0], [0, 10, 0]
NO_SKY = [600, 0, 0], [390, 0, 0], [0, 0, 10]
ALL_ROAD = [600, 0, 0], [388, 2, 0], [10, 0, 0]
ALONE = [1000, 0, 0], [0, 0, 0], [0, 0, 0]  # what is everywhere in the truth, too


def alarmed(watch, matrix, losses, last=False, step=1000, every=1):
    """Warnings, each as its first line and its causes."""
    rows = [{"step": step, "train/loss": loss} for loss in losses]
    for row in rows[every - 1 :: every]:
        row["val/miou"] = 0.5
    return [one.splitlines() for one in watch.warnings(torch.tensor(matrix), rows, last)]


@pytest.mark.parametrize(
    ("matrix", "losses", "given", "settings", "told", "likeliest"),
    [
        (HEALTHY, (1.0, 0.9, 0.8), {"last": True}, {}, None, None),
        (HEALTHY, (1.0, 1.1), {}, {}, None, None),  # too early to say
        (NO_BIRD, (1.0, 0.9), {}, {}, None, None),
        (NO_BIRD, (1.0, 0.9, 0.8, 0.7), {"every": 2}, {}, None, None),  # epochs are no validations
        (ALONE, (1.0,), {}, {}, None, None),
        (ALL_ROAD, (1.0,), {"step": 120}, {}, r"road .* 99\.8 %", r"few.*\(120\).*--epochs"),
        (ALL_ROAD, (1.0,), {"step": 120}, {"budget": 60}, "road", r"few.*\(120\).*--budget"),
        (ALL_ROAD, (1.0,), {}, {}, "road", r"bird .*1\.0%.*--loss.class_weighting sqrt"),
        (NO_BIRD, (1.0, 0.9, 0.8), {}, {}, r"bird \(1\.0% of train\)\.", "bird .*--loss.class_weighting sqrt"),
        (NO_SKY, (1.0,), {"last": True}, {}, r"sky \(39\.0% of train\)\.", ""),
        (NO_BIRD, (1.0,), {"last": True, "step": 499}, {}, "bird", r"few.*\(499\)"),
        (NO_BIRD, (1.0,), {"last": True}, {"loss": sanet.LossConfig(class_weighting="sqrt")}, "bird", "bird.* log"),
        (NO_BIRD, (1.0,), {"last": True}, {"loss": sanet.LossConfig(class_weighting="log")}, "bird", "bird.*images"),
        (HEALTHY, (1.0, 0.9, 1.1), {}, {}, r"loss .* 1 .* 1\.1 ", "rate.*--optimizer.learning_rate 0.001"),
        (HEALTHY, (1.0, 0.9, 1.1), {"step": 30}, {}, "loss", r"few.*\(30\)"),
    ],
)
def test_a_collapse_is_told_once_with_its_likeliest_cause_first(matrix, losses, given, settings, told, likeliest):
    watch = Alarm(sanet.TrainConfig(**settings), LabelSet(("road", "sky", "bird")), torch.tensor((600, 390, 10)))
    found = alarmed(watch, matrix, losses, **given)
    assert len(found) == (told is not None)
    for line, *causes in found:
        assert re.search(told, line)
        assert re.search(rf"1\. .*{likeliest}", causes[0])
        assert ("--preview" in causes[-1]) == (matrix != HEALTHY)
        assert ("bird is rare" in str(causes)) == (matrix in (NO_BIRD, ALL_ROAD)) == ("rare" in str(causes))
        assert alarmed(watch, matrix, losses, **{**given, "last": True}) == []
    assert len(alarmed(watch, HEALTHY, (1.0, 0.9, 1.1))) == ("loss" not in str(told))  # other kinds are told still


def test_a_run_that_patience_ends_tells_what_was_never_predicted(config, root, capsys):
    """At its last validation, which is its second one."""
    for path in (root / "train" / "masks").iterdir():
        (mask := Image.open(path)).paste(2, (0, 40, 3, 41))
        mask.save(path)
    data, ends = dataclasses.replace(config.data, classes=(*CLASSES, "bird")), {"monitor_mode": "max", "patience": 1}
    train(dataclasses.replace(config, data=data, epochs=42, validate_every=6, monitor="train/loss", **ends))
    text = capsys.readouterr().out
    assert len(read_metrics(Path(config.output))) == 12
    assert text.index("epoch 12/42") < text.index("never predicted") < text.index("bird (")
