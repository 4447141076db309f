"""One training run, from a configuration to a directory."""

from __future__ import annotations

import csv
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from sanet.config import TrainConfig
from sanet.data.catalog import Source, data_source
from sanet.data.doctor import examine
from sanet.data.files import DataError, FileSource
from sanet.data.loading import evaluation_loader, training_loader
from sanet.data.transforms import TrainingTransform
from sanet.evaluation.evaluate import evaluate
from sanet.evaluation.results import Evaluation
from sanet.models.networks import SegmentationModel, create_model
from sanet.structures import SanetError, choose
from sanet.training.losses import class_weights
from sanet.training.metrics import METRICS, read_metrics
from sanet.training.task import SegmentationTask, logged_names

CONFIG, CHECKPOINTS, MODEL = "config.yaml", "checkpoints", "model"

# Advice about settings that are chosen on purpose, and what Lightning says of itself.
EXPECTED_WARNINGS = (
    ".*num_workers",
    ".*log_every_n_steps",
    "Experiment logs directory",
    "Checkpoint directory .* exists and is not empty",
    ".*LeafSpec",
)


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        directory: holds config.yaml, metrics.csv, checkpoints/, model/ (the best), scores.json and report.html.
        evaluation: of the best checkpoint on the validation split.
    """

    directory: Path
    evaluation: Evaluation


def train(config: TrainConfig, resume: bool = False) -> Run:
    """Train a network, keep the best and the last checkpoint, and report on the best.

    Args:
        config: everything that decides the outcome.
        resume: go on from the last checkpoint in ``config.output``.

    Raises:
        SanetError: the run directory is not empty, there is nothing to resume, the data set has faults (all of
            them are listed), or the loss stops being finite.
        ValueError: the configuration names something that does not exist.
    """
    directory = Path(config.output)
    checkpoint = _last_checkpoint(directory) if resume else None
    if not resume:
        _refuse_used(directory)
    source = data_source(config.data)
    choose("monitored value", config.monitor, logged_names(source.labels))
    pixels = checked_pixels(source)
    L.seed_everything(config.seed, verbose=False)
    model = _create(config, source, from_scratch=checkpoint is None)
    task = SegmentationTask(model, config, class_weights(pixels, config.loss.class_balance))
    directory.mkdir(parents=True, exist_ok=True)
    config.save(directory / CONFIG)
    best = _fit(task, config, source, checkpoint)
    task.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    evaluation = evaluate(
        model,
        config.data,
        "val",
        output=directory,
        window=task.window,
        device="cpu" if config.accelerator == "cpu" else None,
        history=read_metrics(directory),
    )
    model.save_pretrained(directory / MODEL, model_card_kwargs=_card(config, evaluation))
    return Run(directory, evaluation)


def checked_pixels(source: Source) -> Tensor:
    """(K,) int64 pixels of each class in the training split, once the data set is found to be whole.

    Raises:
        DataError: the data set has faults; the message lists all of them.
    """
    if isinstance(source, FileSource):
        diagnosis = examine(source, ("train", "val"))
        if diagnosis.errors:
            raise DataError(f"the data set has to be mended first\n\n{diagnosis}")
        print(diagnosis)
        return torch.from_numpy(diagnosis.pixels["train"])
    dataset = source.open("train")
    classes = len(source.labels)
    return sum(
        (torch.bincount(dataset[index].mask.flatten(), minlength=classes)[:classes] for index in range(len(dataset))),
        start=torch.zeros(classes, dtype=torch.int64),
    )


def _last_checkpoint(directory: Path) -> Path:
    path = directory / CHECKPOINTS / "last.ckpt"
    if not path.exists():
        raise SanetError(f"there is no {path} to resume from; start without resume")
    return path


def _refuse_used(directory: Path) -> None:
    if directory.exists() and any(directory.iterdir()):
        raise SanetError(
            f"{directory} is not empty; choose another output, or go on with it: sanet train --resume {directory}"
        )


def _create(config: TrainConfig, source: Source, from_scratch: bool) -> SegmentationModel:
    settings = config.model
    model = create_model(
        settings.name,
        settings.backbone,
        labels=source.labels,
        output_stride=settings.output_stride,
        pretrained_backbone=settings.pretrained_backbone and from_scratch,
        **settings.options,
    )
    return model.to(memory_format=torch.channels_last)


def _fit(task: SegmentationTask, config: TrainConfig, source: Source, checkpoint: Path | None) -> str:
    """Let Lightning train; returns the path of the best checkpoint."""
    directory = Path(config.output)
    changes = config.augmentation
    transform = TrainingTransform(
        changes.crop, changes.scale, changes.mirror, changes.jitter, source.labels.ignore_index
    )
    best = ModelCheckpoint(
        directory / CHECKPOINTS,
        filename="best",
        monitor=config.monitor,
        mode=config.monitor_mode,
        # After validation and the mean of the losses, so that either can be monitored.
        every_n_epochs=config.validate_every,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        directory / CHECKPOINTS, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        L.Trainer(
            accelerator=config.accelerator,
            devices=1,
            precision=config.precision,
            max_epochs=config.epochs,
            check_val_every_n_epoch=config.validate_every,
            num_sanity_val_steps=0,
            logger=[
                _metrics_logger(directory, checkpoint),
                TensorBoardLogger(directory, name="", version="tensorboard"),
            ],
            callbacks=[best, last, LearningRateMonitor("epoch"), ProgressBar(refresh_rate=5)],
            enable_model_summary=False,
        ).fit(
            task,
            training_loader(source.open("train"), transform, config.batch_size, config.workers, config.seed),
            evaluation_loader(source.open("val"), config.workers),
            ckpt_path=checkpoint,
            weights_only=True,
        )
    return best.best_model_path


class ProgressBar(TQDMProgressBar):
    """Lightning's, without the version number of a logger that has none."""

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Any:
        """What stands at the end of the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


def _metrics_logger(directory: Path, checkpoint: Path | None) -> CSVLogger:
    """Writes metrics.csv; keeps the rows up to the checkpoint, which Lightning would delete."""
    path = directory / METRICS
    rows = []
    if checkpoint is not None and path.exists():
        resumed_step = torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if float(row["step"]) < resumed_step]
    logger = CSVLogger(directory, name="", version="", flush_logs_every_n_steps=1)
    if rows:
        writer = logger.experiment
        writer.metrics_keys = list(rows[0])
        writer.metrics = rows
        writer.save()
    return logger


def _card(config: TrainConfig, evaluation: Evaluation) -> dict[str, Any]:
    settings, scores = config.model, evaluation.scores
    rows = "\n".join(f"| {name} | {iou:.3f} |" for name, iou in scores.class_iou.items())
    return {
        "model_name": f"{settings.name} on {config.data.name}",
        "details": f"Network `{settings.name}`, backbone `{settings.backbone}`, output stride "
        f"{settings.output_stride}; trained {config.epochs} epochs on `{config.data.name}`.\n\n"
        f"On its validation split: mIoU {scores.miou:.3f}, pixel accuracy {scores.pixel_accuracy:.3f}.\n\n"
        f"| class | IoU |\n|---|---|\n{rows}\n",
    }
