"""One training run, from a configuration to a directory."""

from __future__ import annotations

import csv
import logging
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from sanet.config import CHECKPOINTS, CONFIG, METRICS, MODEL, TrainConfig, plain
from sanet.data.catalog import Source, data_source
from sanet.data.doctor import examine
from sanet.data.files import DataError, FileSource
from sanet.data.loading import evaluation_loader, training_loader
from sanet.data.transforms import TrainingTransform
from sanet.evaluation.evaluate import evaluate
from sanet.evaluation.results import Evaluation
from sanet.models.networks import SegmentationModel, create_model
from sanet.structures import SanetError, UsageError, choose
from sanet.training.losses import class_weights
from sanet.training.metrics import read_metrics
from sanet.training.task import SegmentationTask, logged_names

# What may differ when a run goes on: where and how long it trains, not what is trained.
MAY_CHANGE = {"output", "epochs", "workers", "accelerator"}

# Advice about settings that are chosen on purpose, and what Lightning says of itself.
EXPECTED_WARNINGS = (
    ".*num_workers",
    ".*log_every_n_steps",
    "Experiment logs directory",
    "Checkpoint directory .* exists and is not empty",
    "The dirpath has changed",
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
        DataError: the data set has faults; all of them are listed.
        UsageError: the configuration names something that does not exist, or changes what a resumed run is.
        SanetError: the run directory is not empty, there is nothing to resume, or the loss stops being finite.
    """
    if config.accelerator == "gpu" and not torch.accelerator.is_available():
        raise UsageError('accelerator "gpu": PyTorch finds none here; choose "cpu" or "auto"')
    directory = Path(config.output)
    checkpoint = _checkpoint_to_resume(config) if resume else None
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
    (directory / MODEL / "README.md").unlink(missing_ok=True)  # the mixin keeps an old card, with old scores
    model.save_pretrained(directory / MODEL, model_card_kwargs=_card(config, evaluation))
    return Run(directory, evaluation)


def checked_pixels(source: Source) -> Tensor:
    """(K,) int64 pixels of each class in the training split, once the data set is found to be whole.

    Raises:
        DataError: it has no training or validation split, or faults, of which the message lists all.
    """
    missing = [split for split in ("train", "val") if split not in source.splits]
    if missing:
        raise DataError(
            f"the data set has no {' and no '.join(missing)} (found: {', '.join(source.splits) or 'none'}); a split "
            "needs pictures, masks and, in layouts with lists, its list"
        )
    if isinstance(source, FileSource):
        diagnosis = examine(source)
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


def _checkpoint_to_resume(config: TrainConfig) -> Path:
    """The last checkpoint, once it is certain that the run can go on from it as it began."""
    directory = Path(config.output)
    path = directory / CHECKPOINTS / "last.ckpt"
    if not path.exists():
        raise SanetError(f"there is no {path} to resume from; delete {directory} and start without resume")
    stored = yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8"))
    wanted = plain(asdict(config))
    wanted["data"]["root"] = stored["data"]["root"]  # the data may have moved
    changed = [name for name in wanted if name not in MAY_CHANGE and wanted[name] != stored.get(name)]
    if changed:
        raise UsageError(f"{', '.join(changed)}: cannot change when a run goes on; start a new one with another output")
    done = torch.load(path, map_location="cpu", weights_only=True)["epoch"] + 1
    if config.epochs < done:
        raise UsageError(f"epochs {config.epochs}: {done} are done already")
    return path


def _refuse_used(directory: Path) -> None:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    begun = (directory / CHECKPOINTS / "last.ckpt").exists()
    remedy = f"go on with it: sanet train --resume {quote(str(directory))}" if begun else "delete it"
    raise SanetError(f"{directory} is not empty; choose another output, or {remedy}")


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


def _fit(task: SegmentationTask, config: TrainConfig, source: Source, checkpoint: Path | None) -> Path:
    """Let Lightning train; returns the path of the best checkpoint."""
    directory = Path(config.output)
    changes = config.augmentation
    transform = TrainingTransform(
        changes.crop, changes.scale, changes.mirror, changes.jitter, source.labels.ignore_index
    )
    best = BestCheckpoint(
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
    return directory / CHECKPOINTS / "best.ckpt"


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, which would forget the best score of a run whose directory was moved."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Every path is that of this directory; before the first validation there is none."""
        score = state_dict["best_model_score"]
        here: dict[str, Any] = {"dirpath": self.dirpath}
        if score is not None:
            path = str(Path(str(self.dirpath)) / "best.ckpt")
            here |= {"best_model_path": path, "kth_best_model_path": path, "best_k_models": {path: score}}
        super().load_state_dict({**state_dict, **here})


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
