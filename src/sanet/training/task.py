"""Glue between a model, its loss and Lightning."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor

from sanet.config import TrainConfig
from sanet.evaluation.confusion import ConfusionMatrix, Scores
from sanet.inference.views import label_picture
from sanet.models.networks import SegmentationModel
from sanet.structures import LabelSet, Sample, SanetError
from sanet.training.losses import LossTerms, SegmentationLoss
from sanet.training.optimization import create_optimizer, poly_schedule

# In the order of LossTerms.
LOSS_NAMES = ("train/loss", "train/mask", "train/category", "train/dense")


def score_values(scores: Scores) -> dict[str, float]:
    """What validation logs."""
    values = {
        "val/miou": scores.miou,
        "val/pixel_accuracy": scores.pixel_accuracy,
        "val/mean_accuracy": scores.mean_accuracy,
        "val/frequency_weighted_iou": scores.frequency_weighted_iou,
        **{f"val/iou/{name}": value for name, value in scores.class_iou.items()},
    }
    if scores.miou_without_background is not None:
        values["val/miou_without_background"] = scores.miou_without_background
    return values


def logged_names(labels: LabelSet) -> tuple[str, ...]:
    """Every value that ``monitor`` can choose the best checkpoint by."""
    return (*LOSS_NAMES, *score_values(ConfusionMatrix(labels).scores()))


class SegmentationTask(L.LightningModule):
    """What Lightning calls at every step.

    Args:
        model: the network.
        config: the run.
        class_weights: (K,) factors of the classes' pixels in the loss, or None.
    """

    def __init__(self, model: SegmentationModel, config: TrainConfig, class_weights: Tensor | None) -> None:
        super().__init__()
        self.model = model
        self.config = config
        settings = config.loss
        self.loss = SegmentationLoss(
            len(model.labels),
            model.labels.ignore_index,
            settings.alpha,
            settings.beta,
            settings.category_target,
            class_weights,
        )
        self.confusion = ConfusionMatrix(model.labels)
        # Whole pictures at validation take no more pixels than a batch of crops at training.
        height, width = config.augmentation.crop
        self.window = int((config.batch_size * height * width) ** 0.5)

    def training_step(self, batch: Sample, batch_index: int) -> Tensor:
        """The loss of a batch, its parts logged.

        Raises:
            SanetError: the loss is not finite; nothing has been updated with it.
        """
        output = self.model(batch.image.contiguous(memory_format=torch.channels_last))
        terms: LossTerms = self.loss(output, batch.mask)
        if not torch.isfinite(terms.total):
            parts = ", ".join(f"{name} {value:.4g}" for name, value in terms._asdict().items())
            raise SanetError(
                f"the loss is not finite in epoch {self.current_epoch}, batch {batch_index} ({parts}), pictures "
                f"{', '.join(batch.name)}. Checkpoints are as they were before; lower "
                "optimizer.learning_rate, or add optimizer.warmup_steps, and start again with another output"
            )
        values = dict(zip(LOSS_NAMES, terms, strict=True))
        self.log("loss", terms.total, prog_bar=True, logger=False, batch_size=len(batch.mask))
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(batch.mask))
        return terms.total

    def validation_step(self, batch: Sample, batch_index: int) -> None:
        """Count the pixels of whole pictures at their original size."""
        for image, mask in zip(batch.image, batch.mask, strict=True):
            prediction = label_picture(lambda pictures: self.model(pictures).logits, image, self.window)
            self.confusion.update(mask, prediction)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the whole split."""
        values = score_values(self.confusion.scores())
        self.confusion.reset()
        self.log("val/miou", values.pop("val/miou"), prog_bar=True)
        self.log_dict(values)

    def configure_optimizers(self) -> Any:
        """SGD with the poly schedule over all steps of the run."""
        settings = self.config.optimizer
        optimizer = create_optimizer(
            self.model, settings.learning_rate, settings.head_factor, settings.momentum, settings.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = poly_schedule(optimizer, steps, settings.power, settings.warmup_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
