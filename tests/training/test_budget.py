"""Runs that end with their time: the schedule, validations, stops, and several processes."""

import dataclasses
import shutil
from itertools import pairwise
from math import isnan
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import ClassVar

import pytest
from lightning.pytorch.callbacks import Callback
from test_stops import killing
from torch import nn

import sanet
from brightness import checkpoint
from gloo import run_in_processes
from sanet.cli.main import command_of
from sanet.evaluation.results import read_scores
from sanet.structures import Interrupted, UsageError
from sanet.training import clock, fit
from sanet.training.fit import train
from sanet.training.metrics import read_metrics
from sanet.training.task import SegmentationTask, validates


class Steps(Callback):
    """Notes of every batch the step, the time, and the rate of the backbone."""

    found: ClassVar = []

    def on_train_batch_start(self, trainer, *_):
        self.found.append((trainer.global_step, monotonic(), trainer.optimizers[0].param_groups[0]["lr"]))
        assert monotonic() - self.found[0][1] < 120, "it should have ended long ago"


@pytest.fixture
def config(config):
    return dataclasses.replace(config, callbacks=(Steps,))


def steps_of(config, resume=False):
    """The steps, times and rates of a run."""
    Steps.found.clear()
    train(config, resume)
    return tuple(zip(*Steps.found, strict=True)) or ((), (), ())


def stopped(config, monkeypatch, place):
    """What the newest checkpoint holds of a run that SIGTERM stops."""
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, place, killing(getattr(SegmentationTask, place)))
        with pytest.raises(Interrupted):
            train(config)
    return checkpoint(Path(config.output))


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2])
def test_a_run_ends_with_its_budget_and_its_schedule_with_it(config, every):
    begun, run = monotonic(), Path(config.output)
    steps, times, rates = steps_of(dataclasses.replace(config, budget="20s", validate_every=every, epochs=2))
    assert monotonic() - begun < 20 + 15
    assert ([*steps], [*rates]) == ([*range(len(steps))], sorted(rates, reverse=True))
    assert rates[-1] < 0.05 * rates[0]
    middle = next(rate for rate, time in zip(rates, times, strict=True) if 2 * time > times[0] + times[-1])
    assert middle / rates[0] == pytest.approx(0.5**0.9, abs=0.1)
    rows = read_metrics(run)
    validated = [row["epoch"] for row in rows if "val/miou" in row]
    assert validated[-1] == rows[-1]["epoch"] > 2
    assert {(epoch + 1) % every for epoch in validated[:-1]} == {0}
    assert [(run / name).exists() for name in ("model/README.md", "report.html")] == [True, True]
    assert read_scores(run).scores.miou == pytest.approx(max(row.get("val/miou", 0) for row in rows), abs=1e-7)


@pytest.mark.parametrize("parts", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_budget_for_nothing_gives_a_model_of_one_step_and_is_over(config, parts):
    config, run = dataclasses.replace(config, budget=1, gradient_accumulation=parts), Path(config.output)
    assert steps_of(config)[0] == (0,) * parts
    (row,) = rows = read_metrics(run)
    assert (row["step"], row["val/miou"]) == (1, pytest.approx(read_scores(run).scores.miou, abs=1e-7))
    shutil.rmtree(run / "model")
    assert (steps_of(config, resume=True)[0], read_metrics(run)) == ((), rows)
    assert sanet.load_model(run / "model")
    with pytest.raises(UsageError, match="budget: cannot change"):
        train(dataclasses.replace(config, budget=60), resume=True)


@pytest.mark.slow
def test_a_run_that_resumes_has_spent_what_it_had_spent(config, monkeypatch):
    config = dataclasses.replace(config, budget=3010)
    with monkeypatch.context() as patch:
        patch.setattr(fit, "monotonic", lambda: monotonic() - 3000)  # as if it had begun then
        assert 3000 < stopped(config, monkeypatch, "training_step")["callbacks"]["Clock"]["elapsed"] < 3015
    begun = monotonic()
    assert steps_of(config, resume=True)[0][0] == 1
    assert monotonic() - begun < 10 + 15
    assert 3000 < checkpoint(Path(config.output))["callbacks"]["Clock"]["elapsed"] < 3025


def test_a_stop_in_the_last_validation_loses_no_step(config, monkeypatch):
    config = dataclasses.replace(config, budget=1, batch_size=2)  # five steps an epoch
    assert stopped(config, monkeypatch, "validation_step")["global_step"] == 1
    steps, _, rates = steps_of(config, resume=True)
    assert (steps, rates) == ((1,), (0.0,))  # an epoch that has begun goes on; to learn there is no time left
    assert "val/miou" in read_metrics(Path(config.output))[-1]


@pytest.mark.slow
def test_two_processes_have_the_same_rates_and_end_at_the_same_step(config):
    one, other = run_in_processes(2, lambda: steps_of(dataclasses.replace(config, budget=15)))
    assert (one[0], one[2]) == (other[0], other[2])
    assert one[2][-1] < 0.2 * one[2][0]


def test_a_budget_is_seconds_or_has_a_unit_and_a_schedule_over_time(config, tmp_path):
    for given, seconds in (("90s", 90), ("20m", 1200), ("1.5h", 5400), (30, 30), (None, None)):
        read, place = sanet.TrainConfig(budget=given), tmp_path / "settings.yaml"
        read.save(place)
        assert read.budget == seconds
        assert command_of(["train", "--config", str(place)]).run == read
        assert command_of(["train", "--budget", "null" if given is None else str(given)]).run == read
    for given in ("x", "0", "-1", -1, 0, "", "20 minutes", "1e3m", "nan", True, [1], "٣s"):
        with pytest.raises(UsageError, match="budget"):
            sanet.TrainConfig(budget=given)
    schedule = sanet.config.ScheduleConfig("torch.optim.lr_scheduler:OneCycleLR", options={"max_lr": 0.01})
    with pytest.raises(UsageError, match=r"budget: .*OneCycleLR.*poly"):
        train(dataclasses.replace(config, budget=60, schedule=schedule))


def simulated(monkeypatch, step, validation, length, **settings):
    """By a clock that nothing else moves: when a run ends and validates, what is left, and shares for its rates."""
    now, validations, left, shares = [0.0], [], [], []
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    config = sanet.TrainConfig(epochs=100, **settings)
    parts, watch, module = config.gradient_accumulation, clock.Clock(config, 0.0), SimpleNamespace(model=nn.Identity())
    module.follow_schedule = lambda: shares.append(watch.share)
    trainer = SimpleNamespace(global_step=0, current_epoch=0, num_training_batches=length * parts, should_stop=False)
    trainer.estimated_stepping_batches, trainer.check_val_every_n_epoch = 100 * length, config.validate_every
    watch.on_train_start(trainer, module)
    while not trainer.should_stop and (config.budget or trainer.current_epoch < 100):
        left.append((now[0], watch.left(trainer)))
        watch.on_train_epoch_start(trainer, module)
        for index in range(length * parts):
            now[0] += step / parts
            trainer.global_step += (index + 1) % parts == 0
            watch.on_train_batch_end(trainer, module, None, None, index)
            if trainer.should_stop:
                break
        if validates(trainer):
            watch.on_validation_start(trainer, module)
            validations.append(now[0])
            now[0] += validation
            watch.on_validation_end(trainer, module)
        trainer.current_epoch += 1
    return now[0], validations, left, shares


@pytest.mark.parametrize(("length", "parts", "every"), [(4, 1, 1), (4, 2, 1), (1, 1, 1), (5, 1, 2)])
def test_the_time_that_is_left_is_that_of_all_steps_and_validations(monkeypatch, length, parts, every):
    end, _, left, _ = simulated(monkeypatch, 2.0, 3.0, length, gradient_accumulation=parts, validate_every=every)
    assert isnan(left[0][1])
    for now, seconds in left[12:]:
        assert seconds == pytest.approx(end - now + 4.5 * 3.0, abs=3.0)


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize(("step", "validation", "length"), [(1, 0.2, 10), (0.1, 2, 3), (1, 40, 95), (1, 40, 97)])
def test_validations_take_a_quarter_of_the_time_and_go_on_to_the_end(monkeypatch, step, validation, length, every):
    end, found, _, shares = simulated(monkeypatch, step, validation, length, validate_every=every, budget=1200)
    assert end + 4.5 * validation + 4 == pytest.approx(1200, abs=2 * step)  # with the scores and the report
    assert shares[-2] > 1 - 2 * step / 1000  # what the last step follows
    assert validation * (len(found) - 2) <= end / 4
    pauses = [later - one - validation for one, later in pairwise(found)]
    longest = 3 * validation + (every + 1) * step * length
    assert all(pause <= longest for pause in [*pauses[:-1], pauses[-1] - validation])
