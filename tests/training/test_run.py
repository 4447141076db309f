"""What a run's directory records, and what may differ when it resumes."""

import dataclasses
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import sanet
from brightness import small_run, write_pictures
from sanet import references
from sanet.config import ScheduleConfig
from sanet.evaluation.results import read_scores
from sanet.settings import key_of, plain, with_newer_fields, within
from sanet.structures import SanetError, UsageError
from sanet.training.fit import train
from sanet.training.run import COPYING, RECORD, changed


def own_term(output, batch, context):
    return output.mask.square().mean()


LAB = "def flat(progress):\n    return 1.0\n"


@pytest.fixture
def lab(tmp_path, monkeypatch):
    (tmp_path / "run_lab.py").write_text(LAB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(references, "_opened", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path / "run_lab.py"
    sys.modules.pop("run_lab", None)


def lab_run(**changes):
    """A run with a module of one's own, with relative paths."""
    config = small_run("data", "run")
    return dataclasses.replace(config, schedule=ScheduleConfig("run_lab:flat"), **changes)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with such a run of one epoch, for tests to copy."""
    folder = tmp_path_factory.mktemp("first")
    write_pictures(folder / "data")
    (folder / "run_lab.py").write_text(LAB)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(references, "_opened", {})
        patch.setattr(sys, "path", [*sys.path])
        references.use("run_lab")
        train(lab_run(epochs=1))
    sys.modules.pop("run_lab", None)
    return folder


@pytest.fixture
def begun(first, root, tmp_path, lab):
    shutil.copytree(first / "run", tmp_path / "run")
    references.use("run_lab")
    return lab_run(epochs=2)


def test_a_run_records_what_ran(first, begun):
    stored = yaml.safe_load((first / "run" / "config.yaml").read_text())
    assert stored["output"] == str(first / "run")
    assert stored["data"]["root"] == str(first / "data")
    assert stored["schedule"]["name"] == "run_lab:flat"
    record = json.loads((first / "run" / RECORD).read_text())
    assert record["modules"] == ["run_lab"]
    assert record["code"] == references.digests()
    assert {"torch", "timm", "lightning", "torchvision", "sanet-segmentation"} <= record["versions"].keys()
    assert record["data"].keys() == {"train", "val"}
    assert record["data"]["train"] != record["data"]["val"]
    assert [note.partition(" as ")[0] for note in record["notes"]] == ["the masks are files such"]
    assert record[COPYING] == read_scores(first / "run").facts[COPYING]
    assert (record[COPYING]["images"], record[COPYING]["training images"]) == (3, 10)
    assert 0 < record[COPYING]["miou"] < 1


def test_copying_is_scored_once(begun, tmp_path, monkeypatch):
    before = (tmp_path / "run" / RECORD).read_text()
    monkeypatch.delattr("sanet.training.run.copy_nearest")
    train(begun, resume=True)
    assert json.loads((tmp_path / "run" / RECORD).read_text())[COPYING] == json.loads(before)[COPYING]
    assert COPYING in read_scores(tmp_path / "run").facts


def test_objects_from_python_are_recorded_by_their_names(config):
    config = dataclasses.replace(config, epochs=1, loss=sanet.LossConfig({"mask": 1.0, own_term: 0.5}))
    train(config)
    stored = yaml.safe_load((Path(config.output) / "config.yaml").read_text())
    assert stored["loss"]["terms"] == {"mask": 1.0, f"{__name__}:own_term": 0.5}
    train(dataclasses.replace(config, epochs=2), resume=True)


def test_resuming_asks_for_the_modules_again(begun, monkeypatch):
    monkeypatch.setattr(references, "_opened", {})
    with pytest.raises(UsageError, match="--import run_lab"):
        train(begun, resume=True)
    references.use("run_lab")
    train(begun, resume=True)


def test_other_code_is_refused_unless_it_is_trusted(begun, lab, capsys):
    lab.write_text("def flat(progress):\n    return 0.5\n")
    with pytest.raises(UsageError, match=r"run_lab.*--trust_changes"):
        train(begun, resume=True)
    train(begun, resume=True, trust_changes=True)
    assert "run_lab" in capsys.readouterr().err
    train(begun, resume=True)  # it is what the run now records


@pytest.mark.parametrize("change", ["mask", "name"])
def test_other_data_is_refused(begun, root, change):
    path = root / "train" / "masks" / "train0.png"
    if change == "mask":
        mask = np.array(Image.open(path))
        mask[10, 10] = 1 - mask[10, 10]
        Image.fromarray(mask).save(path)
    else:
        for kind in ("images", "masks"):
            (root / "train" / kind / "train0.png").rename(root / "train" / kind / "trainA.png")
    with pytest.raises(UsageError, match="train"):
        train(begun, resume=True)


def test_the_data_may_move(begun, root, tmp_path):
    root.rename(tmp_path / "moved")
    data = dataclasses.replace(begun.data, root="moved")
    train(dataclasses.replace(begun, data=data), resume=True)
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["data"]["root"] == str(tmp_path / "moved")


def test_other_versions_are_named_and_go_on(begun, tmp_path, capsys):
    place = tmp_path / "run" / RECORD
    record = json.loads(place.read_text())
    record["versions"]["timm"] = "0.1"
    place.write_text(json.dumps(record, indent=1) + "\n")
    from sanet.files import note

    note(place, place)
    train(begun, resume=True)
    assert "timm 0.1 is now" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "{}", '{"format": 1}', "{"])
def test_a_run_of_an_older_version_cannot_be_resumed(begun, tmp_path, content):
    (tmp_path / "run" / RECORD).unlink()
    if content is not None:
        (tmp_path / "run" / RECORD).write_text(content)
    with pytest.raises(SanetError, match=r"init_from|cannot be read") as refused:
        train(begun, resume=True)
    assert "\n" not in str(refused.value)


@dataclass(frozen=True)
class Section:
    old: int = within(1, 0, 9)
    new: float | None = within(0.5, 0, 1, before=None)


@dataclass(frozen=True)
class Settings:
    name: str = "x"
    extra: tuple[int, ...] = field(default=(), metadata={"before": ()})
    section: Section = field(default_factory=Section)


def test_a_field_that_was_added_later_means_what_was_done_before():
    was = Settings(section=Section(old=2, new=None))
    assert key_of(was) == {"name": "x", "section": {"old": 2}}
    assert key_of(Settings()) == {"name": "x", "section": {"old": 1, "new": 0.5}}
    stored = {"name": "x", "section": {"old": 2}}
    assert with_newer_fields(Settings, stored) == plain(was)
    assert with_newer_fields(Settings, plain(Settings())) == plain(Settings())
    assert stored == {"name": "x", "section": {"old": 2}}


def test_settings_that_differ_are_named_with_their_sections(config):
    stored = plain(config)
    assert changed(config, stored) == []
    other = dataclasses.replace(
        config, seed=3, optimizer=sanet.OptimizerConfig(learning_rate=1.0), epochs=9, patience=2, accelerator="cpu"
    )
    assert changed(other, stored) == ["optimizer.learning_rate", "seed"]
