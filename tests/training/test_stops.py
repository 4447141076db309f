"""Stops outside the steps of training, and what is left where a run hardly began."""

import dataclasses
import errno
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

import sanet
from brightness import assert_same_weights, checkpoint, weights
from sanet import files
from sanet.cli.main import main
from sanet.config import CHECKPOINTS, CONFIG
from sanet.structures import Interrupted, SanetError, UsageError
from sanet.training import fit, run, saving
from sanet.training.checkpoints import AtomicCheckpointIO, CheckpointFolder, read_checkpoint
from sanet.training.fit import train
from sanet.training.metrics import read_metrics
from sanet.training.task import SegmentationTask, with_monitor_mode


def killing(real, number=signal.SIGTERM):
    def call(*arguments, **options):
        os.kill(os.getpid(), number)
        return real(*arguments, **options)

    return call


@pytest.mark.slow
@pytest.mark.parametrize("place", ["checked_pixels", "create_network", "evaluate"])
def test_a_stop_before_or_after_training_has_the_status(config, monkeypatch, place):
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(fit, place, killing(getattr(fit, place)))
        with pytest.raises(Interrupted, match="stopped by SIGTERM") as stop:
            train(config)
    assert stop.value.status == 75
    assert signal.getsignal(signal.SIGTERM) == before
    begun = place == "evaluate"
    assert Path(config.output).exists() == begun
    train(config, resume=begun)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal(config, monkeypatch, number):
    """A second SIGTERM changes nothing; a second Ctrl-C ends at once."""
    real, calls = SegmentationTask.training_step, 0

    def step(task, batch, index):
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        return real(task, batch, index)

    monkeypatch.setattr(SegmentationTask, "training_step", step)
    with pytest.raises(Interrupted if number == signal.SIGTERM else KeyboardInterrupt):
        train(config)
    assert CheckpointFolder(Path(config.output) / CHECKPOINTS).listed()


def test_a_stop_in_the_only_step_of_an_epoch_can_be_gone_on_from(config, tmp_path, monkeypatch):
    config = dataclasses.replace(config, batch_size=8, epochs=2)
    unbroken = train(dataclasses.replace(config, output=str(tmp_path / "unbroken"))).directory
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", killing(SegmentationTask.training_step))
        with pytest.raises(Interrupted):
            train(config)
    train(config, resume=True)
    assert_same_weights(weights(Path(config.output)), weights(unbroken))
    assert read_metrics(Path(config.output)) == read_metrics(unbroken)


def test_what_was_killed_before_its_first_checkpoint_begins_anew(config):
    def left(stored):
        shutil.rmtree(config.output, ignore_errors=True)
        (Path(config.output) / run.TENSORBOARD).mkdir(parents=True)
        (Path(config.output) / CHECKPOINTS).mkdir()
        with_monitor_mode(stored).save(Path(config.output) / CONFIG)  # as a run stores it
        files.note(Path(config.output) / CONFIG, Path(config.output) / CONFIG)

    left(dataclasses.replace(config, seed=1))
    with pytest.raises(SanetError, match=r"not empty; .* delete it"):
        train(config)
    left(config)
    (Path(config.output) / "notes.txt").touch()
    with pytest.raises(SanetError, match=r"not empty; .* delete it"):
        train(config)
    left(config)
    with (Path(config.output) / CONFIG).open("a") as file:
        file.write("# my own\n")
    with pytest.raises(UsageError, match=r"--output: .*config\.yaml is there already"):
        train(config)
    left(config)
    train(config)


def test_what_a_run_did_not_write_survives_it(config):
    """In the folder of checkpoints whatever its name is; elsewhere the run that would replace it is refused first."""
    train(config)
    output = Path(config.output)
    (output / "checkpoints" / "best.ckpt").write_bytes(b"mine")
    longer = dataclasses.replace(config, epochs=4)
    for path in ("model/notes.txt", "model/README.md", "report.html", "config.yaml"):
        before = (output / path).read_bytes() if (output / path).exists() else None
        (output / path).write_bytes((before or b"") + b"# mine")
        with pytest.raises(UsageError, match=rf"--output: .*{path} is there already"):
            train(longer, resume=True)
        assert (output / path).read_bytes() == (before or b"") + b"# mine"
        (output / path).unlink() if before is None else (output / path).write_bytes(before)
    train(longer, resume=True)
    assert (output / "checkpoints" / "best.ckpt").read_bytes() == b"mine"


def test_a_model_is_there_whole_or_not_at_all(config, monkeypatch):
    real = sanet.models.networks.SegmentationModel.save_pretrained

    def torn(model, place, **options):
        real(model, place, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sanet.models.networks.SegmentationModel, "save_pretrained", torn)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert not (Path(config.output) / "model").exists()
    train(config, resume=True)
    train(config, resume=True)  # the model of before is replaced
    assert not list(Path(config.output).glob("*.partial"))


def test_a_longer_run_takes_the_rates_of_its_own_schedule(config, tmp_path):
    train(dataclasses.replace(config, epochs=1))
    rates = []
    real = SegmentationTask.training_step

    def step(task, batch, index):
        rates.append(task.optimizers().param_groups[0]["lr"])
        return real(task, batch, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", step)
        train(dataclasses.replace(config, epochs=2), resume=True)
    # Two of four steps are done; the first schedule had ended at 0.
    assert rates == pytest.approx([0.01 * (1 - step / 4) ** 0.9 for step in (2, 3)])


@pytest.mark.parametrize("place", ["write_metrics", "on_train_epoch_end"])
def test_a_full_disk_is_named_whatever_is_being_written(config, monkeypatch, place):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving if place == "write_metrics" else SegmentationTask, place, full)
    with pytest.raises(SanetError, match=r"cannot be written to \(No space left on device\).*make room"):
        train(config)


def test_a_loader_that_dies_during_a_save_is_not_a_full_disk(tmp_path, monkeypatch):
    def dies(*_):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, tmp_path / "x.ckpt")


def test_a_monitored_value_that_is_never_a_number_takes_the_newest(tmp_path, capsys):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.path(step).write_bytes(bytes([step]))
        folder.add(step, float("nan"))
    assert folder.best() == folder.path(2)
    assert "never a number" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"0", b"a0", b"\x80\x02}q\x01(h\x63", b"]h", b""])
def test_bytes_that_are_no_checkpoint(tmp_path, content):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(SanetError, match=r"x\.ckpt"):
        read_checkpoint(tmp_path / "x.ckpt")


def test_a_checkpoint_of_another_version(config):
    train(dataclasses.replace(config, epochs=1))
    folder = CheckpointFolder(Path(config.output) / CHECKPOINTS)
    content = checkpoint(Path(config.output))
    torch.save({"state_dict": content["state_dict"]}, folder.newest())
    folder.add(content["global_step"], None)
    with pytest.raises(SanetError, match="no checkpoint that this version"):
        train(config, resume=True)


def test_a_run_that_is_stopped_names_the_command_that_resumes_it(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(SegmentationTask, "training_step", killing(SegmentationTask.training_step))
    output = tmp_path / "the run"
    options = [
        "train", "--data.name", "folder", "--data.root", str(root),
        "--data.classes", "[dark, light]", "--model.backbone", "test_resnet", "--model.pretrained_backbone", "false",
        "--augmentation.crop", "[40, 40]", "--epochs", "5", "--batch_size", "4", "--num_workers", "0",
        "--accelerator", "cpu", "--output", str(output),
    ]  # fmt: skip
    assert main(options) == 75
    said = capsys.readouterr().err
    monkeypatch.undo()
    assert f"sanet train --resume '{output}'" in said
    assert main(["train", "--resume", str(output)]) == 0
