"""What a run may add to the plain loop: references, moving averages, freezing, patience, clipping."""

import csv
import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torchmetrics import Metric

import sanet
from brightness import assert_same_weights, checkpoint, small_run, weights, write_pictures
from gloo import run_in_processes
from sanet.structures import Batch, SanetError, UsageError
from sanet.training.fit import train
from sanet.training.metrics import read_metrics
from sanet.training.saving import out_of_patience
from sanet.training.task import SegmentationTask, with_monitor_mode

JACCARD = {
    "name": "torchmetrics.classification:MulticlassJaccardIndex",
    "options": {"num_classes": 2, "ignore_index": 255},
}


class Darkest(Metric):
    """The share of pixels that are labelled dark."""

    def __init__(self):
        super().__init__()
        self.add_state("counts", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction, mask):
        assert prediction.dtype == mask.dtype == torch.int64
        assert prediction.shape == mask.shape == mask.shape[-2:]
        self.counts += torch.tensor([(prediction == 0).sum(), mask.numel()])

    def compute(self):
        return self.counts[0] / self.counts[1]


class Diary(Callback):
    """Counts batches; what it counted survives a resume."""

    def __init__(self):
        self.count = 0

    def on_train_batch_end(self, *_):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state_dict):
        self.count = state_dict["count"]


class Hoarder(Callback):
    """Wants to keep what only unpickling could read."""

    def state_dict(self):
        return {"where": Path("x"), "what": Hoarder}


def shifted(batch):
    assert isinstance(batch, Batch)
    assert batch.mask.dtype == torch.int64
    return batch._replace(image=batch.image + torch.randint(0, 20, (1,)).to(batch.image))


def only_mask(output, batch, context):
    return output.mask.abs().mean() * (1 + context.step)


class Weighed(nn.Module):
    """A term with an option."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, output, batch, context):
        return self.factor * output.mask.abs().mean()


@pytest.fixture
def stopped(monkeypatch):
    """Trains until a SIGTERM in a step, and resumes."""
    import os
    import signal

    def run(config, at):
        real, calls = SegmentationTask.training_step, 0

        def step(task, batch, index):
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(task, batch, index)

        with monkeypatch.context() as patch:
            patch.setattr(SegmentationTask, "training_step", step)
            with pytest.raises(sanet.structures.Interrupted):
                train(config)
        return train(config, resume=True)

    return run


@pytest.mark.slow
def test_a_run_with_everything_resumes_in_an_epoch_to_the_last_bit(config, tmp_path, stopped):
    config = dataclasses.replace(
        config,
        optimizer=sanet.OptimizerConfig("adamw", 1e-3, layer_decay=0.9, clip_norm=1.0, options={"betas": [0.9, 0.99]}),
        schedule=sanet.config.ScheduleConfig("torch.optim.lr_scheduler:OneCycleLR", options={"max_lr": 0.01}),
        loss=sanet.LossConfig({"ohem": 0.5, "dice": 1.0, only_mask: 0.1, Weighed: {"options": {"factor": 2.0}}}),
        transforms=({"name": "torchvision.transforms.v2:RandomRotation", "options": {"degrees": 30}},),
        batch_transforms=(shifted,),
        metrics={"jaccard": JACCARD, "darkest": Darkest},
        monitor="val/jaccard",
        callbacks=(Diary,),
        loggers=({"name": "lightning.pytorch.loggers:CSVLogger", "options": {"save_dir": str(tmp_path / "csv")}},),
        freeze_backbone_epochs=1,
        ema=0.9,
        patience=3,
    )  # fmt: skip
    unbroken = train(dataclasses.replace(config, output=str(tmp_path / "unbroken")))
    broken = stopped(config, at=3)
    found, expected = checkpoint(broken.directory), checkpoint(unbroken.directory)
    assert_same_weights(found["state_dict"], expected["state_dict"])
    assert_same_weights(weights(broken.directory), weights(unbroken.directory))
    assert found["callbacks"]["Diary"] == expected["callbacks"]["Diary"] == {"count": 6}
    assert found["lr_schedulers"] == expected["lr_schedulers"]
    rows = read_metrics(broken.directory)
    assert rows == read_metrics(unbroken.directory)
    assert {"train/ohem", "train/dice", "val/jaccard", "val/darkest"} <= rows[0].keys()
    assert any(name.endswith(":only_mask") for name in rows[0])
    for row in rows:
        # Both are means of the same IoU of two classes.
        assert row["val/jaccard"] == pytest.approx(row["val/miou"], abs=1e-4)
        assert 0 <= row["val/darkest"] <= 1
    with next((tmp_path / "csv").rglob("metrics.csv")).open() as file:
        assert "val/darkest" in next(csv.reader(file))


def test_the_moving_average_is_what_is_validated_and_kept(config):
    run = train(dataclasses.replace(config, ema=0.5, epochs=2))
    content = checkpoint(run.directory, "best")
    own = {name.removeprefix("model."): value for name, value in content["state_dict"].items()}
    average, kept = content["callbacks"]["MovingAverage"], weights(run.directory)
    assert_same_weights(kept, average)
    assert any(not torch.equal(own[name], average[name]) for name in average)
    row = max(read_metrics(run.directory), key=lambda row: row["val/miou"])
    assert run.evaluation.scores.miou == pytest.approx(row["val/miou"], abs=1e-7)


def test_an_average_is_that_of_the_weights_after_every_step(config, monkeypatch):
    seen = []
    real = SegmentationTask.on_train_batch_start

    def start(task, batch, index):
        seen.append({name: value.clone() for name, value in task.model.named_parameters()})
        return real(task, batch, index)

    monkeypatch.setattr(SegmentationTask, "on_train_batch_start", start)
    run = train(dataclasses.replace(config, ema=0.75, epochs=2))
    end = checkpoint(run.directory)
    seen.append({name: end["state_dict"][f"model.{name}"] for name in seen[0]})
    for name, expected in seen[0].items():
        for state in seen[1:]:
            expected = 0.75 * expected + 0.25 * state[name]
        torch.testing.assert_close(end["callbacks"]["MovingAverage"][name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("epochs", [2, -1])
def test_a_frozen_backbone_stays_as_it_is_its_statistics_included(config, tmp_path, monkeypatch, epochs):
    states = {}
    real = SegmentationTask.on_train_epoch_end

    def end(task):
        states[task.current_epoch] = {name: value.clone() for name, value in task.model.state_dict().items()}
        return real(task)

    monkeypatch.setattr(SegmentationTask, "on_train_epoch_end", end)
    train(dataclasses.replace(config, freeze_backbone_epochs=epochs))

    def moved(one, other, part):
        return [name for name in one if name.startswith(part) and not torch.equal(one[name], other[name])]

    assert moved(states[0], states[1], "backbone.") == []
    assert moved(states[0], states[1], "head.")
    later = moved(states[1], states[2], "backbone.")
    assert (later == []) == (epochs == -1)
    assert epochs == -1 or any("running_mean" in name for name in later)


def test_patience_ends_a_run_and_a_resume_does_not_begin_it_again(config):
    config = dataclasses.replace(config, epochs=8, patience=2, optimizer=sanet.OptimizerConfig(learning_rate=1e-12))
    train(config)
    rows = read_metrics(Path(config.output))
    assert len(rows) == 3  # nothing is learnt, so the first is the best
    train(config, resume=True)
    assert read_metrics(Path(config.output)) == rows
    train(dataclasses.replace(config, patience=4), resume=True)
    assert len(read_metrics(Path(config.output))) == 5


@pytest.mark.parametrize(
    ("values", "mode", "over"),
    [
        ([0.1, 0.2, 0.3], "max", False),
        ([0.3, 0.2, 0.3], "max", True),  # as good is not better
        ([0.3, 0.2], "max", False),
        ([0.3, 0.2, 0.1], "min", False),
        ([math.nan, math.nan, math.nan], "max", True),
        ([math.nan, 0.1], "max", False),
        ([], "max", False),
    ],
)
def test_patience_counts_validations_without_a_better_value(values, mode, over):
    config = sanet.TrainConfig(patience=2, monitor="val/x", monitor_mode=mode)
    history = [{"val/miou": 0.0, "val/x": value} for value in values]
    assert out_of_patience([{"train/loss": 1.0}, *history, {"train/loss": 1.0}], config) is over
    assert not out_of_patience(history, dataclasses.replace(config, patience=None))


def test_gradients_are_clipped(config, monkeypatch):
    norms = []

    real = torch.optim.SGD.step

    def step(optimizer, *arguments, **options):
        result = real(optimizer, *arguments, **options)
        grads = [p.grad.norm() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.stack(grads).norm().item())
        return result

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    train(dataclasses.replace(config, epochs=1, optimizer=sanet.OptimizerConfig(clip_norm=0.01)))
    assert norms
    assert max(norms) == pytest.approx(0.01, rel=1e-3)


def test_batch_transforms_draw_the_same_whatever_came_before(config, tmp_path):
    torch.manual_seed(5)
    one = train(dataclasses.replace(config, batch_transforms=(shifted,), epochs=1))
    torch.rand(7)
    other = train(dataclasses.replace(config, batch_transforms=(shifted,), epochs=1, output=str(tmp_path / "other")))
    plain = train(dataclasses.replace(config, epochs=1, output=str(tmp_path / "plain")))
    assert_same_weights(weights(one.directory), weights(other.directory))
    assert read_metrics(one.directory) != read_metrics(plain.directory)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"precision": "16-mixed"}, "16-mixed"),
        ({"monitor": "val/darkes", "metrics": {"darkest": Darkest}}, "val/darkest"),
        ({"metrics": {"miou": Darkest}}, "val/miou"),
        ({"metrics": {"x": Diary}}, "metrics.x"),
        ({"metrics": {"x": "torchmetrics.text:BERTScore"}}, "not open"),
        ({"metrics": {"x": {"name": JACCARD["name"], "options": {"num_clases": 2}}}}, "num_clases|num_classes"),
        ({"callbacks": ("lightning.pytorch.callbacks:Trainer",)}, "callbacks"),
        ({"callbacks": (Darkest,)}, "Callback"),
        ({"callbacks": (Hoarder,)}, "Hoarder"),
        ({"loggers": ("lightning.pytorch.loggers:CSVLoger",)}, "CSVLogger"),
        ({"transforms": ("torchvision.transforms.v2:Normalize",)}, "transforms"),
        ({"batch_transforms": (lambda batch: batch.image,)}, "lambda"),
        ({"loss": sanet.LossConfig({"maks": 1.0})}, "mask"),
        ({"loss": sanet.LossConfig({"mask": {"options": {"smoothing": 0.1}}})}, "smoothing"),
        ({"loss": sanet.LossConfig({"mask": 1.0, "os:system": 1.0})}, "not open"),
        ({"optimizer": sanet.OptimizerConfig("torch.hub:load")}, "not open"),
        ({"optimizer": sanet.OptimizerConfig(options={"beta": 1})}, "beta"),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)),
)
def test_what_does_not_exist_is_named(config, changes, named):
    with pytest.raises(SanetError, match=named):
        train(dataclasses.replace(config, **changes))
    assert not (Path(config.output) / "model").exists()


def test_a_logger_whose_package_is_missing_is_named(config):
    with pytest.raises(UsageError, match="wandb"):
        train(dataclasses.replace(config, loggers=("lightning.pytorch.loggers:WandbLogger",)))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_with_all_of_it(tmp_path):
    write_pictures(tmp_path / "data", train=16, val=3)
    alone = dataclasses.replace(
        small_run(tmp_path / "data", tmp_path / "alone"),
        loss=sanet.LossConfig({"mask": 1.0, "dice": 1.0, "focal": 0.5}),
        metrics={"jaccard": JACCARD, "darkest": Darkest},
        callbacks=(Diary,),
        batch_size=16,
        freeze_backbone_epochs=1,
        ema=0.5,
        patience=3,
        optimizer=sanet.OptimizerConfig(clip_norm=1.0),
    )
    together = dataclasses.replace(alone, output=str(tmp_path / "together"))
    train(alone)
    run_in_processes(2, lambda: train(together) and None)
    for name, value in weights(Path(alone.output)).items():
        torch.testing.assert_close(weights(Path(together.output))[name], value, rtol=1e-3, atol=1e-5, msg=name)
    for row, expected in zip(*(read_metrics(Path(run.output)) for run in (together, alone)), strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=2e-3)


class Wrong(Metric):
    """The share of pixels that are labelled wrongly: the fewer, the better."""

    higher_is_better = False

    def __init__(self, always=None):
        super().__init__()
        self.always = always
        self.add_state("counts", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction, mask):
        labelled = mask != 255
        self.counts += torch.stack([((prediction != mask) & labelled).sum(), labelled.sum()])

    def compute(self):
        return self.counts[0] / self.counts[1] if self.always is None else torch.tensor(self.always)


def test_a_metric_says_itself_which_values_are_better(config):
    fast = sanet.OptimizerConfig(learning_rate=0.05)
    run = train(dataclasses.replace(config, metrics={"wrong": Wrong}, monitor="val/wrong", optimizer=fast, epochs=6))
    values = [row["val/wrong"] for row in read_metrics(run.directory)]
    assert len(set(values)) > 1
    assert run.evaluation.metrics["wrong"] == pytest.approx(min(values))
    assert f"epoch {values.index(min(values)) + 1}, chosen by val/wrong" in run.chosen
    assert run.chosen in (run.directory / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("val/miou", "max"), ("train/loss", "min"), ("train/mask", "min"), ("val/wrong", "min"), ("val/jaccard", "max")],
)
def test_losses_are_best_when_low_and_scores_when_high(monitor, mode):
    config = sanet.TrainConfig(monitor=monitor, metrics={"wrong": Wrong, "jaccard": JACCARD})
    assert with_monitor_mode(config).monitor_mode == mode
    for stated in ("max", "min"):
        assert with_monitor_mode(dataclasses.replace(config, monitor_mode=stated)).monitor_mode == stated


def test_a_run_that_stated_the_mode_resumes_without_it(config):
    train(dataclasses.replace(config, monitor_mode="max"))
    resumed = train(dataclasses.replace(config, epochs=4), resume=True)
    assert "chosen by val/miou" in resumed.chosen
    assert "monitor_mode: max" in (resumed.directory / "config.yaml").read_text()


def test_a_metric_that_does_not_say_which_values_are_better_needs_a_mode(config):
    config = dataclasses.replace(config, metrics={"darkest": Darkest}, monitor="val/darkest", epochs=1)
    with pytest.raises(UsageError, match="--monitor_mode"):
        train(config)
    assert not Path(config.output, "checkpoints").exists()
    train(dataclasses.replace(config, monitor_mode="min"))


def test_a_monitored_value_that_is_no_number_is_said_and_never_the_best(config, capsys):
    metrics = {"nothing": {"name": Wrong, "options": {"always": math.nan}}}
    run = train(dataclasses.replace(config, metrics=metrics, monitor="val/nothing", epochs=2))
    error = capsys.readouterr().err
    assert error.count("val/nothing is not a number after epoch") == 2
    assert "the newest checkpoint is taken" in error
    assert run.chosen.startswith("epoch 2, the last")


def test_terms_that_a_network_does_not_predict_are_said(config, capsys):
    fcn = dataclasses.replace(config, model=dataclasses.replace(config.model, name="fcn"), epochs=1)
    train(fcn)
    assert "category and dense stay 0" in capsys.readouterr().out
    alone = dataclasses.replace(fcn, loss=sanet.LossConfig({"dense": 1.0, "mask": 0.0}), output=f"{fcn.output}-2")
    with pytest.raises(UsageError, match="predicts no dense"):
        train(alone)
    train(dataclasses.replace(config, output=f"{fcn.output}-3", epochs=1))
    assert "stay 0" not in capsys.readouterr().out


def test_a_metric_that_fails_is_named_before_the_first_step(config):
    class Broken(Wrong):
        def compute(self):
            raise KeyError("typo")

    with pytest.raises(
        SanetError, match=r"metrics\.broken: KeyError: 'typo' \(.*test_options\.py, line \d+: raise KeyError"
    ):
        train(dataclasses.replace(config, metrics={"broken": Broken}))
    assert not Path(config.output, "checkpoints").exists()
