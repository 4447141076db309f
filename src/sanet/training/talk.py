"""What a run says while it trains: a bar in a terminal or a notebook, and lines that a file can hold as well."""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import isfinite, isnan
from time import localtime, monotonic, strftime, time
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from tqdm import tqdm

from sanet import distributed
from sanet.config import TrainConfig
from sanet.structures import is_live, say
from sanet.tables import duration, percent
from sanet.training.alarm import Alarm
from sanet.training.clock import Clock
from sanet.training.metrics import Row
from sanet.training.saving import out_of_patience
from sanet.training.task import SegmentationTask, validates

# Steps that are measured before the end of the run is estimated, and seconds between lines where there is no bar.
ENOUGH, PAUSE = 10, 60.0
# Below that share of the processor time of its threads, on a machine with more to do than it has cores, it is busy.
STARVED = 0.75


class Bar(TQDMProgressBar):
    """Lightning's, where one can be seen, with the time that is left of the run."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(refresh_rate=5 if is_live() else 0)
        self.clock = clock

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Any:
        """What stands at the end of the bar; a logger without a version number shows none."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        left = self.clock.left(trainer)
        return metrics if isnan(left) else {**metrics, "left": duration(left)}

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Count epochs as the lines do."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}")


class Talk(Checkpoint):
    """Says how fast a run is, what each validation found, and what goes wrong; in the first process.

    A ``Checkpoint``, since Lightning calls those after the task has closed the row of an epoch.

    Args:
        config: of the run.
        clock: measures it.
        alarm: notices a collapse.
    """

    def __init__(self, config: TrainConfig, clock: Clock, alarm: Alarm) -> None:
        self.config, self.clock, self.alarm = config, clock, alarm
        self.told, self.said = False, monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Estimate the end once; then, where there is no bar, a line a minute."""
        if not self.told and self.clock.steps >= ENOUGH:
            self._estimate(trainer)
        elif not is_live() and monotonic() - self.said > PAUSE:
            # Lightning's is the share of a part in its step.
            loss = float(cast(Mapping[str, float], outputs)["loss"]) * self.config.gradient_accumulation
            self._line(f"{self._place(trainer)}: loss {loss:.3f}; {self._left(trainer)}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what a validation found, and whether that looks like a collapse."""
        if not validates(trainer):
            return
        task = cast(SegmentationTask, pl_module)
        rows = [row for row in task.history if "val/miou" in row]
        self._line(f"{self._place(trainer)}: {_losses(rows[-1])}; {self._scores(rows)}; {self._left(trainer)}")
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        last |= out_of_patience(task.history, self.config)  # which stops it after this
        for warning in self.alarm.warnings(task.counted, task.history, last):
            self._line(warning)

    def _scores(self, rows: list[Row]) -> str:
        row, monitor = rows[-1], self.config.monitor
        classes = {name.removeprefix("val/iou/"): iou for name, iou in row.items() if name.startswith("val/iou/")}
        worst = sorted((iou, name) for name, iou in classes.items() if isfinite(iou))
        sign = 1 if self.config.monitor_mode == "max" else -1
        best = max(rows, key=lambda one: -float("inf") if isnan(one[monitor]) else sign * one[monitor])
        value = f"{percent(best[monitor])} %" if monitor == "val/miou" else f"{monitor} {best[monitor]:.4g}"
        found = f"mIoU {percent(row['val/miou'])} %"
        found += "".join(f", worst {name} {percent(iou)} %" for iou, name in worst[:1])
        return f"{found}; best {value} in epoch {best['epoch'] + 1:.0f}"

    def _place(self, trainer: L.Trainer) -> str:
        if self.config.budget is not None:
            return f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}"
        steps = int(trainer.estimated_stepping_batches)
        return f"epoch {trainer.current_epoch + 1}/{self.config.epochs}, step {trainer.global_step}/{steps}"

    def _left(self, trainer: L.Trainer) -> str:
        left = self.clock.left(trainer)
        return "time left not known yet" if isnan(left) else f"{duration(left)} left"

    def _estimate(self, trainer: L.Trainer) -> None:
        self.told, left = True, self.clock.left(trainer)
        uncounted = "" if self.clock.validation else ", without the validations"
        end = strftime("%H:%M", localtime(time() + left))
        self._line(
            f"{self.clock.spent / self.clock.steps:.2g} s a step; ends at about {end}, in {duration(left)}{uncounted}"
        )
        threads, load = torch.get_num_threads(), load_average()
        got = self.clock.busy / (self.clock.spent * threads)
        if load > (os.cpu_count() or 1) and got < STARVED and trainer.strategy.root_device.type == "cpu":
            self._line(
                f"warning: this machine is busy: a load of {load:.1f} on {os.cpu_count()} cores; training gets "
                f"{got:.0%} of the time of its {threads} threads. End other programs, or resume with fewer --threads"
            )

    def _line(self, text: str) -> None:
        self.said = monotonic()
        if distributed.is_main_process():
            with tqdm.external_write_mode():  # above the bar, if there is one
                say(text)


def load_average() -> float:
    """Programs that wanted to compute at a time in the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _losses(row: Row) -> str:
    terms = {name.removeprefix("train/"): loss for name, loss in row.items() if name.startswith("train/")}
    parts = ", ".join(f"{name} {loss:.3f}" for name, loss in terms.items() if name != "loss")
    return f"loss {terms['loss']:.3f} ({parts})" if len(terms) > 2 else f"loss {terms['loss']:.3f}"
