import json
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from sanet.cli import renamed
from sanet.cli.main import COMMANDS, command_of, main
from sanet.cli.parsing import settings_in
from sanet.config import TrainConfig
from sanet.models.networks import create_model
from sanet.structures import LabelSet


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / "data" / split / kind).mkdir(parents=True)
        for index in range(4):
            mask = np.zeros((40, 48), np.uint8)
            mask[:, int(rng.integers(10, 40)) :] = 1
            image = np.repeat((60 + 120 * mask)[..., None], 3, axis=2).astype(np.uint8) + index + 10 * (split == "val")
            Image.fromarray(image).save(tmp_path / "data" / split / "images" / f"{split}{index}.png")
            Image.fromarray(mask).save(tmp_path / "data" / split / "masks" / f"{split}{index}.png")
    return tmp_path / "data"


def data_options(root):
    return ["--data.name", "folder", "--data.root", str(root), "--data.classes", "[dark, light]"]


def train_options(root, output):
    return [
        "train", *data_options(root), "--output", str(output), "--model.backbone", "test_resnet",
        "--model.output_stride", "8", "--model.pretrained_backbone", "false", "--augmentation.crop", "[40, 40]",
        "--epochs", "2", "--batch_size", "2", "--num_workers", "0", "--accelerator", "cpu",
    ]  # fmt: skip


def refused(arguments, capsys):
    """The message of a command line that is not understood."""
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_reads_without_torch(command):
    code = (
        "import sys; from sanet.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, check=True)
    assert "usage: sanet" in done.stdout
    assert "<" not in done.stdout.replace("<class", "")
    if not command:
        assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["train", "--data.rot", "x"], "did you mean data.root?"),
        (["train", "--epoch", "3"], "did you mean epochs?"),
        (["train", "--optimizer.learning_rat", "3"], "did you mean optimizer.learning_rate?"),
        (["predict", "x.png", "--modle", "m"], "did you mean model?"),
        (["trian"], "did you mean 'train'?"),
        (["train", "--data.name", "scens"], "did you mean 'scenes'?"),
        (["train", "--model.name", "sanett"], "did you mean 'sanet'?"),
        (["train", "--epochs", "0"], "epochs 0: from 1 to 100000"),
        (["train", "--epochs", "many"], "many"),
        (["train", "--augmentation.crop", "[16, 16]"], "augmentation.crop 16: from 32 to"),
        (["explain", "streets"], "sanet explain: the following arguments are required: IMAGE, --point"),
        (["explain", "streets", "a.png", "--point", "3", "x"], "point"),
        (["explain", "streets", "a.png", "--point", "3"], "--point"),
        (["grouping", "streets", "--points", "0"], "points 0: from 1 to"),
        (["explain", "own", "a.png", "--point", "3", "4"], "streets"),
        (["predict", "x.png", "--workers", "2"], "--engine ray"),
        (["demo", "--largest_megapixels", "179"], "largest_megapixels 179: from 1e-06 to 178"),
        (["train", "--data.name", "camvid"], "data.root must name the folder"),
        (["train", "--data.name", "folder"], "data.root must name the folder"),
        (["train", "--data.name", "scenes", "--data.root", "photos"], "data.root photos: "),
    ],
)
def test_mistakes_are_answered_in_one_line_with_the_remedy(arguments, answer, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused(arguments, capsys)
    assert answer in message
    assert len(message.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("old", renamed.COMMANDS)
def test_an_old_command_is_answered_with_the_new_one(old, capsys):
    assert old not in COMMANDS
    assert renamed.COMMANDS[old] in refused([old, "x"], capsys)


# Where an option was that is no setting of training.
COMMAND_OF = {
    **{"arrays": "explain", "largest_loss": "export", "mirror": "predict", "mirrors": "check-data"},
    **{"models": "compare", "out": "explain", "recipe": "check-data", "truth": "visualize"},
    "accelerator": "profile",
}


@pytest.mark.parametrize("old", renamed.OPTIONS)
def test_an_old_option_or_key_is_answered_with_the_new_one(old, tmp_path, capsys):
    command, new = COMMAND_OF.get(old, "train"), renamed.OPTIONS[old]
    for spelled in {old, old.replace("_", "-")}:
        assert new in refused([command, f"--{spelled}", "0.5"], capsys)
    if command == "train":
        known = {*settings_in(COMMANDS["train"]), "optimizer.options.momentum"}
        assert any(new.split()[0].rstrip(",").startswith(name) for name in known)
        section, _, key = old.rpartition(".")
        (tmp_path / "c.yaml").write_text(f"{section}: {{{key}: 0.5}}" if section else f"{key}: 0.5")
        said = refused(["train", "--config", str(tmp_path / "c.yaml")], capsys)
        assert new in said
        assert "c.yaml" in said


def test_a_misspelt_key_of_a_yaml_file_is_answered_with_the_nearest(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("data: {rot: here}")
    assert "did you mean data.root?" in refused(["train", "--config", str(tmp_path / "c.yaml")], capsys)


def test_yaml_and_dotted_options_fill_the_same_dataclasses(root, tmp_path):
    settings = {
        "data": {"name": "folder", "root": str(root), "classes": ["dark", "light"]},
        "model": {"backbone": "test_resnet", "output_stride": 8, "pretrained_backbone": False,
                  "options": {"groups": 1}},
        "augmentation": {"crop": [40, 40]},
        "epochs": 1, "batch_size": 2, "num_workers": 0, "accelerator": "cpu",
    }  # fmt: skip
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    output = tmp_path / "run"
    options = ["--config", str(tmp_path / "c.yaml"), "--output", str(output), "--optimizer.options.momentum", "0.8"]
    assert main(["train", *options]) == 0
    resolved = yaml.safe_load((output / "config.yaml").read_text())
    assert resolved["optimizer"]["options"] == {"momentum": 0.8}
    assert resolved["model"]["options"] == {"groups": 1}
    assert resolved["augmentation"]["crop"] == [40, 40]
    assert resolved["loss"]["terms"] == TrainConfig().loss.terms
    assert json.loads((output / "model" / "config.json").read_text())["options"]["groups"] == 1


def test_the_command_line_wins_over_a_file_wherever_it_stands(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("{epochs: 7, batch_size: 4, loss: {terms: {mask: 1}}, optimizer: {options: {nesterov: true}}}")
    given = ["--epochs", "3", "--batch-size", "2", "--optimizer.options.momentum", "0.8"]
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(COMMANDS["train"], "__call__", lambda self: taken.append(self.run))
        main(["train", *given, "--config", str(path)])
        main(["train", f"--config={path}", *given])
    assert taken[0] == taken[1]
    assert (taken[0].epochs, taken[0].batch_size, taken[0].loss.terms) == (3, 2, {"mask": 1})
    assert taken[0].optimizer.options == {"nesterov": True, "momentum": 0.8}


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_run_brings_its_dataset_wherever_it_is_named(place, tmp_path):
    """Also one of an earlier version, under the names of then."""
    (tmp_path / "config.yaml").write_text("{data: {name: voc, root: here, partial: true}, window: 64, epochs: 3}")
    given = ["--split", "val", "--flip=true", "--device", "cpu"]
    given.insert(place if place < 3 else len(given), str(tmp_path))
    settings = command_of(["evaluate", *given])
    assert (settings.data.name, settings.data.root, settings.data.allow_subset) == ("voc", "here", True)
    assert (settings.inference.window, settings.inference.flip, settings.split) == (64, True, "val")
    assert command_of(["evaluate", *given, "--data.root", "there"]).data.root == "there"
    assert command_of(["evaluate", *given, "--data.name", "scenes"]).data.root is None


def test_a_run_that_resumes_has_all_its_settings(tmp_path):
    options = {"schedule.options": "{power: 0.5}", "metrics": "{x: 'a:B'}", "transforms": "[{name: a:C}]", "ema": "0.9"}
    given = ["train", *(word for name, value in options.items() for word in (f"--{name}", value))]
    config = command_of(given).run
    config.save(tmp_path / "config.yaml")
    assert command_of(["train", "--resume", str(tmp_path)]).run == config


def test_train_evaluate_predict(root, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(train_options(root, run)) == 0
    assert str(run / "report.html") in capsys.readouterr().out
    # The data set of the run is the default of its evaluation.
    assert main(["evaluate", str(run), "--split", "val"]) == 0
    assert "mean IoU" in capsys.readouterr().out
    found, logged = (json.loads((folder / "scores.json").read_text()) for folder in (run / "val", run))
    for part in ("protocol", "scores", "confusion", "image_miou"):
        assert found[part] == logged[part], part
    assert found["protocol"]["split"] == "val"
    assert main(["compare", str(run), str(run / "val")]) == 0
    assert "mean IoU" in capsys.readouterr().out
    views = ["--scales", "[1, 1.5]", "--flip", "true", "--output", str(tmp_path / "views")]
    assert main(["evaluate", str(run), "--split", "val", *views]) == 0
    assert main(["compare", str(run), str(tmp_path / "views")]) == 0
    assert "scales 1, 1.5, flip yes" in capsys.readouterr().out
    output = tmp_path / "out"
    assert main(["predict", str(root / "val" / "images"), "--model", str(run), "--output", str(output)]) == 0
    assert len(list((output / "masks").iterdir())) == 4
    assert main(["predict", str(root / "val" / "images"), "--model", str(run), "--output", str(output)]) == 0
    assert "labelled: 0, existed already: 4" in capsys.readouterr().out
    (root / "val" / "images" / "val0.png").write_bytes(b"no picture")
    capsys.readouterr()
    assert main(["predict", str(root / "val" / "images"), "--model", str(run), "--output", str(output)]) == 1
    assert "val0.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "runs/mistyped", "--data.name", "folder", "--data.root", "none", "--data.classes", "[a, b]"],
        ["predict", "a.png", "--model", "runs/mistyped"],
        ["explain", "runs/mistyped", "a.png", "--point", "1", "1"],
        ["visualize", "a.png", "--models", "runs/a", "runs/mistyped"],
        ["grouping", "runs/mistyped"],
        ["demo", "runs/mistyped"],
        ["export", "runs/mistyped"],
    ],
    ids=lambda command: command[0],
)
def test_a_mistyped_run_is_answered_with_those_that_are_there(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sanet.models.store.hf_hub_download", None)
    for name in ("a", "b"):
        (tmp_path / "runs" / name / "model").mkdir(parents=True)
    (tmp_path / "a.png").touch()
    assert main(command) == 1
    error = capsys.readouterr().err
    assert re.search(r"runs/mistyped.* runs: a[,;] b\b", error)
    assert error.count("\n") == 1


def test_resume_takes_the_configuration_of_the_run(root, tmp_path):
    run = tmp_path / "run"
    assert main(train_options(root, run)) == 0
    assert main(["train", "--resume", str(run), "--epochs", "4"]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["epochs"] == 4
    assert "step-00000008.ckpt" in {path.name for path in (run / "checkpoints").iterdir()}


@pytest.mark.parametrize("text", ["", "data: [", "epochs: 3", "[1]"])
def test_a_run_with_a_damaged_configuration_is_named(text, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(text)
    for arguments in (["evaluate", str(tmp_path)], ["train", "--resume", str(tmp_path)]):
        assert main(arguments) == 1
        assert str(tmp_path / "config.yaml") in capsys.readouterr().err


def test_models_of_one_folder_have_scores_of_their_own(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        create_model("fcn", "test_resnet", labels=LabelSet(("dark", "light"))).save_pretrained(name)
        assert main(["evaluate", name, "--split", "val", *data_options(root), "--device", "cpu"]) == 0
    assert {path.parent.name for path in tmp_path.glob("*/scores.json")} == {"scores-a-val", "scores-b-val"}


def test_a_download_that_is_not_known_lists_what_there_is(tmp_path, capsys):
    message = refused(["download", "vok", "--root", str(tmp_path)], capsys)
    assert "did you mean 'voc'?" in message


def test_check_data_tells_by_its_exit_status(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["check-data", str(root)]) == 0
    shown = capsys.readouterr().out
    assert f"sanet train --data.root {root}" in shown
    assert Image.open("data-check.png").width > 100
    assert main(["check-data", *data_options(root)]) == 0
    (root / "train" / "images" / "train1.png").unlink()
    assert main(["check-data", *data_options(root)]) == 1
    assert "train1" in capsys.readouterr().out


def test_scores_of_other_classes_are_not_compared(root, tmp_path, capsys):
    create_model("fcn", "test_resnet", labels=LabelSet(("light", "dark"))).save_pretrained(tmp_path / "model")
    options = ["--split", "val", "--output", str(tmp_path / "out")]
    assert main(["evaluate", str(tmp_path / "model"), *data_options(root), *options]) == 1
    assert "light, dark" in capsys.readouterr().err
