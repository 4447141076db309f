"""What a run's steps and validations take, when it will end, and a run that ends with its budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from statistics import median
from time import monotonic, process_time
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from sanet import distributed
from sanet.config import TrainConfig
from sanet.inference.views import label_image
from sanet.structures import Sample
from sanet.training.task import SegmentationTask, validates

# Steps that are not measured, since the first ones wait for the images and for memory.
WARM_UP = 3
# What the end of a run takes: a validation, the temperature of the best epoch, the features of its images and its
# scores, which count more, as validations; and the seconds of the report.
VALIDATIONS, REPORT = 5.5, 4.0
# Images whose validation is measured before the first step.
MEASURED = 4


class Clock(Callback):
    """Measures a run, and ends one that has a budget: its learning rates follow ``share``.

    The time of processes that were killed counts up to their last checkpoint, from which the run resumes.

    Args:
        config: of the run.
        begun: when this process began with it, by ``monotonic``.
        images: that this process validates.

    Attributes:
        share: of the time between the first step and the last one, in [0, 1]; 0 without a budget.
        steps: that were measured.
        spent: seconds that those took.
        busy: seconds of all cores together that this process computed for in them.
        validation: seconds of one, 0 while unknown.
    """

    def __init__(self, config: TrainConfig, begun: float, images: Sequence[Sample] = ()) -> None:
        self.config, self.begun, self.images = config, begun, images
        self.first: float | None = None  # seconds before the first step
        self.share, self.validation, self.validated = 0.0, 0.0, begun
        self.steps, self.spent, self.busy = -WARM_UP, 0.0, 0.0
        self.mark, self.step = (begun, 0.0), 0

    @property
    def elapsed(self) -> float:
        """Seconds of the run until now."""
        return monotonic() - self.begun

    def left(self, trainer: L.Trainer) -> float:
        """Seconds to its end; NaN before a step has been measured."""
        if self.config.budget is not None:
            return self.config.budget - self.elapsed
        steps = int(trainer.estimated_stepping_batches) - trainer.global_step
        an_epoch = -(-int(trainer.num_training_batches) // self.config.gradient_accumulation)
        validations = steps / (an_epoch * self.config.validate_every) + VALIDATIONS - 1
        return self.spent / self.steps * steps + self.validation * validations if self.steps > 0 else float("nan")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """With a budget, find out what a validation takes, which has to fit behind the last step."""
        self.step = trainer.global_step
        self.first = self.elapsed if self.first is None else self.first
        if self.config.budget is None:
            return
        task, images = cast(SegmentationTask, pl_module), self.images
        model, times = deepcopy(task.model).eval(), [0.0]
        for index in range(min(MEASURED, len(images))):
            start = monotonic()
            with torch.no_grad():
                label_image(lambda batch: model(batch).logits, images[index].image.to(task.device), task.inference)
            times.append(monotonic() - start)
        self.validation = len(images) * median(times[1:] or times)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure from here; with a budget, go on behind the time that a validation took."""
        self.mark = monotonic(), process_time()
        if self.config.budget is not None:
            trainer.check_val_every_n_epoch = self.config.validate_every
            self._follow(self.config.budget, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure a step; and end the run when its time is over, at the same step in all processes."""
        if trainer.global_step == self.step:  # a part of a step
            return
        now, self.step, self.steps = (monotonic(), process_time()), trainer.global_step, self.steps + 1
        if self.steps > 0:
            self.spent += now[0] - self.mark[0]
            self.busy += now[1] - self.mark[1]
        self.mark = now
        if self.config.budget is not None:
            fits, ends = self._follow(self.config.budget, pl_module), batch_idx + 1 == trainer.num_training_batches
            if self.share >= 1:
                trainer.should_stop, trainer.check_val_every_n_epoch = True, 1
            elif ends and validates(trainer) and not fits:
                trainer.check_val_every_n_epoch = trainer.current_epoch + 2  # which this epoch is not

    def _follow(self, budget: float, module: L.LightningModule) -> bool:
        """Bring ``share`` and the rates up to date, and say whether a validation fits; as the first process sees it."""

        def now() -> tuple[float, bool]:
            elapsed, first = self.elapsed, self.first or 0.0
            last = budget - VALIDATIONS * self.validation - REPORT
            fits = elapsed + self.validation <= last and monotonic() - self.validated >= 3 * self.validation
            return min(1.0, max(self.share, (elapsed - first) / max(last - first, 1e-9))), fits

        self.share, fits = distributed.broadcast_from_main(now)
        cast(SegmentationTask, module).follow_schedule()
        return fits

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure it."""
        self.validated = monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure it."""
        self.validation, self.validated = monotonic() - self.validated, monotonic()

    def state_dict(self) -> dict[str, Any]:
        """How much of the time has passed."""
        return {"elapsed": self.elapsed, "first": self.first, "share": self.share}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.begun -= state_dict["elapsed"]
        self.first, self.share = state_dict["first"], state_dict["share"]
