"""Glue between a model, its loss and Lightning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from sanet import distributed
from sanet.config import InferenceConfig, TrainConfig
from sanet.data.transforms import BATCH_TRANSFORMS, require_alike, seeded
from sanet.evaluation.confusion import ConfusionMatrix, scores_of
from sanet.evaluation.metrics import compute_metrics, create_metrics, update_metrics
from sanet.inference.views import label_image
from sanet.models.networks import SegmentationModel
from sanet.references import name_of
from sanet.structures import Batch, LabelSet, Sample, SanetError, UsageError
from sanet.training.losses import SegmentationLoss
from sanet.training.metrics import Row, score_values
from sanet.training.optimization import create_optimizer, create_schedule

# What a checkpoint keeps beside what Lightning puts there.
STATE = "sanet"


def logged_names(config: TrainConfig, labels: LabelSet) -> tuple[str, ...]:
    """Every value that ``monitor`` can choose the best checkpoint by."""
    losses = (f"train/{name}" for name in ("loss", *map(name_of, config.loss.terms)))
    metrics = (f"val/{name}" for name in config.metrics)
    return (*losses, *score_values(ConfusionMatrix(labels).scores()), *metrics)


def validates(trainer: L.Trainer) -> bool:
    """Whether an epoch of a run ends with a validation; Lightning asks the same."""
    return (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0


def with_monitor_mode(config: TrainConfig) -> TrainConfig:
    """The settings with "max" or "min" in place of "auto", whether the best monitored value is the largest or smallest.

    Raises:
        UsageError: it is a metric that does not say so, or one that cannot be used.
    """
    if config.monitor_mode != "auto":
        return config
    name = config.monitor.removeprefix("val/")
    better: bool | None = not config.monitor.startswith("train/")
    if name in config.metrics:
        better = create_metrics({name: config.metrics[name]})[name].higher_is_better
    if better is None:
        raise UsageError(
            f"--monitor {config.monitor}: the metric has no higher_is_better; add --monitor_mode max or min"
        )
    return replace(config, monitor_mode="max" if better else "min")


class SegmentationTask(L.LightningModule):
    """What Lightning calls at every step.

    Args:
        model: the network.
        config: the run.
        class_weights: (K,) factors of the classes' pixels in the loss, or None.
        share: says how much of the run's time has passed, where its schedule follows that.

    Attributes:
        counted: (K, K) int64, the confusion matrix of the last validation.
        history: a row for every finished epoch: its number, steps, learning rate, mean losses and, where it was
            validated, scores. Goes into checkpoints.

    Raises:
        UsageError: a loss term, metric or batch transform that is unknown, or does not have its options.
    """

    def __init__(
        self,
        model: SegmentationModel,
        config: TrainConfig,
        class_weights: Tensor | None,
        share: Callable[[], float] | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer images to validate than processes
        self.model = model
        self.config, self.share = config, share
        self.loss = SegmentationLoss(config.loss, model.labels, class_weights)
        self.batch_transforms = [BATCH_TRANSFORMS.build(entry) for entry in config.batch_transforms]
        self.confusion = ConfusionMatrix(model.labels)
        self.counted = self.confusion.counts
        self.metrics = create_metrics(config.metrics)
        self.moved = nn.ModuleList(self.metrics.values())  # to the device of the task
        self.loss_names = tuple(f"train/{name}" for name in ("loss", *self.loss.names))
        self.inference = InferenceConfig(window=config.window)
        self.history: list[Row] = []
        # Sums of the losses of this epoch's batches in this process, and the number of those.
        self.sums, self.batches = torch.zeros(len(self.loss_names), dtype=torch.float64), 0

    def loss_of(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch, and its terms."""
        output = self.model(batch.image.contiguous(memory_format=torch.channels_last))
        terms: dict[str, Tensor] = self.loss(output, batch, self.global_step)
        return terms

    def on_train_start(self) -> None:
        """Take the rate of this step: a resumed run may have become longer or shorter."""
        self.follow_schedule()

    def follow_schedule(self) -> None:
        """Take the rates that the schedule has now for the next step."""
        for configured in self.trainer.lr_scheduler_configs:
            if isinstance(scheduler := configured.scheduler, LambdaLR):
                groups = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
                for group, rate, factor in groups:
                    group["lr"] = rate * factor(scheduler.last_epoch)

    def on_train_epoch_start(self) -> None:
        """Start the means of the losses again; not called for an epoch that a resume continues."""
        self.sums, self.batches = torch.zeros_like(self.sums), 0

    def on_train_batch_start(self, batch: Sample, batch_index: int) -> None:
        """Let what a network draws, as for dropout, follow from (seed, epoch, batch, process) alone."""
        key = (self.config.seed, self.current_epoch, batch_index, distributed.rank())
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))

    def training_step(self, batch: Sample, batch_index: int) -> Tensor:
        """The loss of a batch.

        Raises:
            SanetError: the loss is not finite, in whichever process; nothing has been updated with it.
        """
        transformed = self.transformed(batch, batch_index)
        terms = self.loss_of(transformed)
        # All processes ask, since one that stopped alone would leave the others waiting for its gradients.
        if distributed.all_reduce_sum((~torch.isfinite(terms["loss"].detach())).long()):
            raise self._not_finite(terms, transformed, batch_index)
        self.sums += torch.stack([*terms.values()]).detach().cpu()
        self.batches += 1
        self.log("loss", terms["loss"], prog_bar=True, logger=False, batch_size=len(transformed.mask))
        return terms["loss"]

    def transformed(self, batch: Sample, batch_index: int) -> Batch:
        """The batch with masks of int64, which are narrow until here to be moved faster, and its transforms."""
        transformed = Batch(batch.image, batch.mask.long(), tuple(batch.name))
        if self.batch_transforms:
            with seeded(self.config.seed, self.current_epoch, batch_index, distributed.rank(), device=self.device):
                for transform in self.batch_transforms:
                    before, transformed = transformed, transform(transformed)
                    require_alike(transform, before, transformed)
        return transformed

    def _not_finite(self, terms: dict[str, Tensor], batch: Batch, batch_index: int) -> SanetError:
        parts = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
        own = None if torch.isfinite(terms["loss"]) else f"({parts}), images {', '.join(batch.name)}"
        found = "; ".join(share for share in distributed.all_gather(own) if share)
        return SanetError(
            f"the loss is not finite in epoch {self.current_epoch + 1}, batch {batch_index} {found}. Checkpoints are "
            "as before; lower optimizer.learning_rate, or add schedule.warmup_steps or optimizer.clip_norm, and "
            "start again with another output"
        )

    def validation_step(self, batch: Sample, batch_index: int) -> None:
        """Count the pixels of whole images at their original size."""
        for image, mask in zip(batch.image, batch.mask, strict=True):
            prediction = label_image(lambda images: self.model(images).logits, image, self.inference)
            self.confusion.update(mask, prediction)
            update_metrics(self.metrics, prediction, mask)

    def on_train_epoch_end(self) -> None:
        """Close the epoch's row: mean losses and, after a validation, the scores of the images of all processes.

        Here, since Lightning does not validate at all in a process that has no image to validate.
        """
        row = dict(zip(self.loss_names, (self._mean_sums() / self.batches).tolist(), strict=True))
        if validates(self.trainer):
            self.counted = distributed.all_reduce_sum(self.confusion.counts).cpu()
            row |= score_values(scores_of(self.counted, self.model.labels))
            self.confusion.reset()
            row |= {f"val/{name}": value for name, value in compute_metrics(self.metrics).items()}
            self.log("val/miou", row["val/miou"], prog_bar=True)
        self.log_dict({name: value for name, value in row.items() if name != "val/miou"})
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.history.append({"epoch": self.current_epoch, "step": self.global_step, "learning_rate": rate, **row})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what has been logged, and which part of a step one batch is."""
        checkpoint[STATE] = {
            "history": self.history,
            "sums": self._mean_sums().tolist(),
            "batches": self.batches,
            "processes": distributed.world_size(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what has been logged."""
        state = checkpoint[STATE]
        self.history, self.batches = list(state["history"]), state["batches"]
        self.sums = torch.tensor(state["sums"], dtype=torch.float64)

    def _mean_sums(self) -> Tensor:
        """The mean over all processes of their sums; every one of them has as many batches."""
        sums = self.sums.to(self.device) if distributed.is_distributed() else self.sums
        return distributed.all_reduce_sum(sums).cpu() / distributed.world_size()

    def configure_optimizers(self) -> Any:
        """The optimiser, and its schedule over all steps of the run."""
        optimizer = create_optimizer(self.model, self.config.optimizer)
        steps = 0 if self.share else int(self.trainer.estimated_stepping_batches)
        schedule = create_schedule(optimizer, steps, self.config.schedule, self.share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
