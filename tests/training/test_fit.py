import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sanet
from brightness import CLASSES, assert_same_weights, checkpoint, weights
from sanet.data.decoding import DataError
from sanet.structures import SanetError, UsageError
from sanet.training.fit import train
from sanet.training.metrics import read_metrics
from sanet.training.task import SegmentationTask


def test_a_run_directory_holds_what_it_promises(config):
    run = train(config)
    names = {path.name for path in run.directory.iterdir()}
    assert {"config.yaml", "metrics.csv", "checkpoints", "model", "report.html", "scores.json", "tensorboard"} <= names
    kept = {path.name for path in (run.directory / "checkpoints").iterdir()}
    assert kept >= {"index.json", "step-00000005.ckpt", "step-00000006.ckpt"}
    assert len(kept) <= 4  # the best besides
    model = sanet.load_model(run.directory / "model")
    assert model.labels.names == CLASSES
    rows = read_metrics(run.directory)
    for name in ("train/loss", "train/mask", "train/category", "train/dense", "val/miou", "val/iou/light"):
        assert [row["epoch"] for row in rows if name in row] == [0, 1, 2], name
    best = max(row["val/miou"] for row in rows if "val/miou" in row)
    assert run.evaluation.scores.miou == pytest.approx(best, abs=1e-7)
    assert f"mIoU {best:.3f}" in (run.directory / "model" / "README.md").read_text()


def test_the_written_configuration_repeats_the_run_exactly(config, tmp_path):
    first = train(config)
    from sanet.cli.main import main

    again = tmp_path / "again"
    assert main(["train", "--config", str(first.directory / "config.yaml"), "--output", str(again)]) == 0
    assert_same_weights(weights(first.directory), weights(again))


def test_workers_do_not_change_the_outcome(config, tmp_path):
    here = train(config)
    there = train(dataclasses.replace(config, num_workers=2, output=str(tmp_path / "workers")))
    assert_same_weights(checkpoint(here.directory)["state_dict"], checkpoint(there.directory)["state_dict"])


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(config, tmp_path, monkeypatch):
    unbroken = train(config)
    broken = dataclasses.replace(config, output=str(tmp_path / "broken"))
    begin = SegmentationTask.on_train_epoch_start

    def pull_the_plug(task):
        begin(task)
        if task.current_epoch == 2:
            raise ConnectionError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "on_train_epoch_start", pull_the_plug)
        with pytest.raises(ConnectionError):
            train(broken)
    resumed = train(broken, resume=True)
    last, expected = checkpoint(resumed.directory), checkpoint(unbroken.directory)
    assert_same_weights(last["state_dict"], expected["state_dict"])
    assert last["lr_schedulers"][0]["last_epoch"] == expected["lr_schedulers"][0]["last_epoch"] == 6
    logged, wanted = read_metrics(resumed.directory), read_metrics(unbroken.directory)
    assert logged == wanted


def test_a_run_interrupted_before_its_first_validation_goes_on(config, monkeypatch):
    config = dataclasses.replace(config, epochs=4, validate_every=2)

    def pull_the_plug(task):
        if task.current_epoch == 1:
            raise ConnectionError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "on_train_epoch_start", pull_the_plug)
        with pytest.raises(ConnectionError):
            train(config)
    run = train(config, resume=True)
    values = [row["val/miou"] for row in read_metrics(run.directory) if "val/miou" in row]
    assert len(values) == 2
    assert run.evaluation.scores.miou == pytest.approx(max(values), abs=1e-7)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU here, which this must not find")
def test_a_gpu_that_is_not_there_is_named_before_anything_is_made(config):
    with pytest.raises(UsageError, match='accelerator "gpu"'):
        train(dataclasses.replace(config, accelerator="gpu"))
    assert not sanet.config.Path(config.output).exists()


def test_a_loss_that_is_not_finite_stops_before_the_update(config, monkeypatch):
    kept, real_step = {}, SegmentationTask.training_step

    def step(task, batch, index):
        if task.current_epoch == 2:
            kept.update({name: value.clone() for name, value in task.state_dict().items()})
            task.loss.weights[0] = math.inf
        return real_step(task, batch, index)

    monkeypatch.setattr(SegmentationTask, "training_step", step)
    with pytest.raises(SanetError, match=r"not finite in epoch 3, batch 0 .*train\d") as stop:
        train(config)
    assert "learning_rate" in str(stop.value)
    last = checkpoint(sanet.config.Path(config.output))
    assert last["epoch"] == 1
    weights_then = {name: value for name, value in kept.items() if "num_batches" not in name and "running" not in name}
    for name, value in weights_then.items():
        if name in last["state_dict"]:
            assert torch.equal(value, last["state_dict"][name]), name


@pytest.mark.parametrize(("monitor", "mode", "best"), [("val/iou/dark", "min", min), ("train/loss", "max", max)])
def test_the_best_is_chosen_by_the_value_that_is_asked_for(config, monitor, mode, best):
    run = train(dataclasses.replace(config, monitor=monitor, monitor_mode=mode))
    values = [row[monitor] for row in read_metrics(run.directory) if monitor in row]
    assert checkpoint(run.directory, "best", mode)["epoch"] == values.index(best(values))


def test_the_last_epoch_is_validated(config):
    run = train(dataclasses.replace(config, epochs=4, validate_every=2))
    assert [row["epoch"] for row in read_metrics(run.directory) if "val/miou" in row] == [1, 3]
    with pytest.raises(UsageError, match="must divide epochs 3"):
        dataclasses.replace(config, validate_every=2)


def test_class_balance_and_fcn_train(config, tmp_path):
    for network in ("sanet", "fcn"):
        changed = dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, name=network),
            loss=sanet.LossConfig(class_weighting="sqrt"),
            epochs=1,
            output=str(tmp_path / network),
        )
        assert math.isfinite(read_metrics(train(changed).directory)[-1]["train/loss"])


def test_a_batch_of_one_trains(config):
    run = train(dataclasses.replace(config, batch_size=1, epochs=1))
    assert math.isfinite(read_metrics(run.directory)[-1]["train/loss"])


def test_training_learns(config):
    scores = train(dataclasses.replace(config, epochs=12)).evaluation.scores
    assert scores.miou > 0.8


def test_a_used_directory_is_refused(config):
    output = sanet.config.Path(config.output)
    output.mkdir()
    (output / "precious.txt").write_text("mine")
    with pytest.raises(SanetError, match="not empty"):
        train(config)
    assert [path.name for path in output.iterdir()] == ["precious.txt"]


def test_there_must_be_something_to_resume(config):
    with pytest.raises(SanetError, match="without a checkpoint to resume from"):
        train(config, resume=True)


def test_a_start_that_failed_can_be_mended(config):
    output = sanet.config.Path(config.output)
    output.mkdir()
    (output / "config.yaml").write_text("epochs: 3")
    with pytest.raises(SanetError, match="is there already"):
        train(config)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": sanet.ModelConfig(name="fcn", backbone="test_resnet", output_stride=8)}, "model"),
        ({"optimizer": sanet.OptimizerConfig(learning_rate=0.5)}, "optimizer"),
        ({"loss": sanet.LossConfig(class_weighting="log"), "monitor": "train/loss"}, "loss.class_weighting, monitor"),
        ({"epochs": 1}, "3 are done already"),
    ],
)
def test_a_run_goes_on_as_it_began(config, changes, named):
    train(config)
    written = (sanet.config.Path(config.output) / "config.yaml").read_text()
    with pytest.raises(UsageError, match=named):
        train(dataclasses.replace(config, **changes), resume=True)
    assert (sanet.config.Path(config.output) / "config.yaml").read_text() == written


def test_a_moved_run_goes_on_with_its_best(config, tmp_path):
    first = train(dataclasses.replace(config, monitor="train/loss", monitor_mode="max"))
    epoch = checkpoint(first.directory, "best")["epoch"]
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    first.directory.rename(moved)
    longer = dataclasses.replace(config, monitor="train/loss", monitor_mode="max", output=str(moved), epochs=5)
    train(longer, resume=True)
    values = [row["train/loss"] for row in read_metrics(moved) if "train/loss" in row]
    assert len(values) == 5
    assert values.index(max(values)) == epoch == 0
    assert checkpoint(moved, "best")["epoch"] == epoch
    assert "trained 5 epochs" in (moved / "model" / "README.md").read_text()


def test_every_fault_of_the_data_is_listed_before_anything_is_made(config, root):
    (root / "train" / "masks" / "train0.png").unlink()
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(root / "val" / "masks" / "val1.png")
    with pytest.raises(DataError) as faults:
        train(config)
    assert "train0" in str(faults.value)
    assert "val1" in str(faults.value)
    assert not sanet.config.Path(config.output).exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": sanet.ModelConfig(name="sanet", backbone="resnet50000")}, "resnet50000"),
        ({"model": sanet.ModelConfig(name="sant", backbone="test_resnet")}, "did you mean 'sanet'"),
        ({"data": sanet.DataConfig("scens")}, "did you mean 'scenes'"),
        ({"monitor": "val/mIoU"}, "did you mean 'val/miou'"),
    ],
)
def test_unknown_names_are_answered_with_the_choices(config, changes, named):
    with pytest.raises(UsageError, match=named):
        train(dataclasses.replace(config, **changes))
    assert not sanet.config.Path(config.output).exists()


def test_nothing_to_train_on_is_named_before_the_first_step(config):
    for path in (Path(config.data.root) / "train" / "masks").iterdir():
        Image.fromarray(np.full(np.array(Image.open(path)).shape, 255, np.uint8)).save(path)
    balanced = dataclasses.replace(config, loss=sanet.LossConfig(class_weighting="sqrt"))
    with pytest.raises(DataError, match="train without a labelled pixel"):
        train(balanced)
    assert not Path(config.output).exists()
