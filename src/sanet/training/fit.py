"""One training run, from a configuration to a directory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from math import isnan
from pathlib import Path
from time import monotonic
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import DataLoader

from sanet import distributed
from sanet.config import CHECKPOINTS, CROPS, MODEL, InferenceConfig, TrainConfig
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError
from sanet.data.loading import Batching, evaluation_loader, training_loader
from sanet.data.source import Source
from sanet.data.transforms import BATCH_TRANSFORMS, TRANSFORMS, Augmentation
from sanet.evaluation.calibration import statistics_of, temperature_of
from sanet.evaluation.evaluate import evaluate
from sanet.evaluation.metrics import METRICS
from sanet.evaluation.results import TRAINED, Evaluation
from sanet.files import written_folder
from sanet.inference.predictor import Predictor
from sanet.models.networks import HEADS, SegmentationModel
from sanet.models.store import escaped
from sanet.models.unlike import FeatureStatistics
from sanet.reading import ImageReading
from sanet.references import Reference, name_of
from sanet.structures import Batch, LabelSet, Sample, UsageError, choose, is_live, say
from sanet.tables import duration
from sanet.training.alarm import Alarm
from sanet.training.callbacks import CALLBACKS, LOGGERS, create_callbacks, create_loggers
from sanet.training.checkpoints import AtomicCheckpointIO, CheckpointFolder, read_checkpoint
from sanet.training.clock import Clock
from sanet.training.cluster import Cluster, joined
from sanet.training.failures import explained
from sanet.training.losses import LOSSES, absent_terms, class_weights
from sanet.training.metrics import read_metrics
from sanet.training.optimization import OPTIMIZERS, SCHEDULES
from sanet.training.run import (
    TENSORBOARD,
    Position,
    copying_of,
    keep,
    kept_copying,
    locked_run,
    position_in,
    record_of,
    refuse_used,
    require_same,
    with_known_range,
)
from sanet.training.saving import Saving, kept, stoppable
from sanet.training.sharing import freeze_unused, synchronize_batch_norm
from sanet.training.start import create_network, network_weights, require_fitting
from sanet.training.summary import first_crops, opening, save_crops, trained
from sanet.training.talk import Bar, Talk
from sanet.training.task import SegmentationTask, logged_names, with_monitor_mode


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        directory: holds config.yaml, metrics.csv, checkpoints/, model/ (the best), scores.json and report.html; and
            plan.yaml where a plan chose the settings.
        evaluation: of the best checkpoint on the validation split.
        chosen: which epoch that is, and by what.
    """

    directory: Path
    evaluation: Evaluation
    chosen: str

    def __repr__(self) -> str:
        return f"Run({self.directory}: {self.chosen}; {self.evaluation!r})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self.directory))}: {escape(self.chosen)}</p>{self.evaluation._repr_html_()}"


def train(config: TrainConfig, resume: bool = False, trust_changes: bool = False, plan: str = "") -> Run:
    """Train a network, keep the best and the newest checkpoints, and report on the best.

    Started by torchrun or srun, every process calls this, and together they take the steps that one would.

    Args:
        config: everything that decides the outcome.
        resume: resume from the newest complete checkpoint in ``config.output``.
        trust_changes: resume also with other code or data than the run began with.
        plan: text of the plan that the configuration is of, to be kept with the run.

    Raises:
        DataError: the dataset has faults; all of them are listed.
        UsageError: the configuration names something that does not exist, or changes what a resumed run is.
        Interrupted: SIGTERM or Ctrl-C; a checkpoint has been written.
        SanetError: the run directory is not empty or in use, there is nothing to resume, the loss stops being finite,
            memory or disk are full, or a process that loads images was killed.
    """
    config, begun = with_monitor_mode(config), monotonic()
    directory = Path(config.output)
    with joined(config.accelerator) as cluster, stoppable(partial(kept, directory)), locked_run(directory):
        if not resume:
            distributed.broadcast_from_main(lambda: refuse_used(config))
        config = distributed.broadcast_from_main(lambda: with_known_range(config))
        source = data_source(config.data)
        config = replace(config, data=source.settings or config.data)
        position = distributed.broadcast_from_main(lambda: position_in(config)) if resume else None
        config, source, pixels, images = _checked(config, source, cluster)
        record = distributed.broadcast_from_main(lambda: record_of(source))
        if resume:
            distributed.broadcast_from_main(lambda: require_same(config, record, trust_changes))
        validation = evaluation_loader(source.open("val"), config.num_workers)
        clock = Clock(config, begun, cast(Sequence[Sample], validation.dataset))
        task = _task(config, source, pixels, clock, resume)
        model = task.model
        if not cluster.alone:
            freeze_unused(model)
            synchronize_batch_norm(model, cluster.device.type == "cuda")
        if position:
            require_fitting(model, position.checkpoint)
        loader = _loader(config, source, position)
        alarm = Alarm(config, source.labels, pixels)
        trainer = _trainer(config, cluster, position, clock, alarm)
        distributed.broadcast_from_main(lambda: keep(config, record | copying_of(config, source, resume), plan))
        if not resume:
            distributed.broadcast_from_main(lambda: save_crops(first_crops(task, loader), directory / CROPS))
        if distributed.is_main_process():
            say(opening(task, loader, cluster.device, pixels, images))
        with explained(config, loader.batch_size):
            trainer.fit(
                task,
                loader,
                validation,
                ckpt_path=position.checkpoint if position else None,
                weights_only=True,
            )
        return _finish(task, config, source, str(cluster.device), trained(task, images["train"], clock.elapsed))


def preview(config: TrainConfig, path: Path) -> None:
    """Write the first batch of a run as it sees it, labels laid over, and train nothing; see ``train``."""
    with joined(config.accelerator) as cluster:
        config, source, pixels, _ = _checked(config, data_source(config.data), cluster)
        task = _task(config, source, pixels, Clock(config, monotonic()), resume=False)
        loader = _loader(config, source, None)
        distributed.broadcast_from_main(lambda: save_crops(first_crops(task, loader), path, "--preview"))


def _checked(
    config: TrainConfig, source: Source, cluster: Cluster
) -> tuple[TrainConfig, Source, Tensor, dict[str, int]]:
    """Settings and source with the range of values that was found; pixels of each class, and images by split."""
    require_names(config, source.labels)
    if config.precision == "16-mixed" and cluster.device.type == "cpu":
        raise UsageError('precision "16-mixed": only on GPUs; choose "bf16-mixed" or "32-true"')
    if cluster.device.type == "xpu":
        raise UsageError('accelerator "xpu": Lightning does not train there; choose "cpu"')
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    pixels, images, reading = distributed.broadcast_from_main(lambda: checked_pixels(source))
    return replace(config, data=replace(config.data, images=reading)), source.reading(reading), pixels, images


def _task(config: TrainConfig, source: Source, pixels: Tensor, clock: Clock, resume: bool) -> SegmentationTask:
    L.seed_everything(config.seed, verbose=False)
    model = create_network(config, source, from_scratch=not resume)
    _require_terms(config, model)
    weights = class_weights(pixels, config.loss.class_weighting)
    return SegmentationTask(model, config, weights, None if config.budget is None else lambda: clock.share)


def require_names(config: TrainConfig, labels: LabelSet) -> None:
    """Raise a UsageError for a name that stands for nothing, before the data are read."""
    choose("monitored value", config.monitor, logged_names(config, labels))
    chosen = [(HEADS, config.model.name), *((LOSSES, term) for term in config.loss.terms)]
    chosen += [(OPTIMIZERS, config.optimizer.name), (SCHEDULES, config.schedule.name)]
    for kind, entries in (
        (TRANSFORMS, config.transforms),
        (BATCH_TRANSFORMS, config.batch_transforms),
        (METRICS, config.metrics.values()),
        (CALLBACKS, config.callbacks),
        (LOGGERS, config.loggers),
    ):
        chosen += [(kind, Reference.of(kind.word, entry).name) for entry in entries]
    for kind, name in chosen:
        kind.find(name)


def _finish(task: SegmentationTask, config: TrainConfig, source: Source, device: str, how: str) -> Run:
    """Calibrate and score the best checkpoint, and save its network."""
    directory = Path(config.output)
    folder = CheckpointFolder(directory / CHECKPOINTS, config.monitor_mode)
    best = distributed.broadcast_from_main(folder.best)
    task.model.load_state_dict(network_weights(read_checkpoint(best)))
    inference = InferenceConfig(window=config.window)
    train, val = source.open("train"), source.open("val")

    def learnt() -> tuple[float, FeatureStatistics | None]:
        predictor = Predictor(task.model, device, inference)
        return temperature_of(predictor, val), statistics_of(predictor, train, val)

    task.model.temperature, task.model.statistics = distributed.broadcast_from_main(learnt)
    evaluation = evaluate(
        task.model,
        config.data,
        "val",
        output=directory,
        inference=inference,
        device=device,
        metrics=config.metrics,
        history=read_metrics(directory),
        progress=distributed.is_main_process() and is_live(),
        num_workers=config.num_workers,
        facts={"model": str(directory), TRAINED: how, **kept_copying(directory)},
    )
    (epoch, value) = next(
        (row["epoch"], row[config.monitor]) for row in task.history if folder.path(int(row["step"])) == best
    )
    why = f"the last, since {config.monitor} was never a number" if isnan(value) else ""
    chosen = f"epoch {epoch + 1:.0f}, {why or f'chosen by {config.monitor} {value:.4f}'}"
    # All processes wait for the files, which any of them may read next.
    distributed.broadcast_from_main(
        lambda: _save_model(task.model, directory / MODEL, _card(config, evaluation, chosen))
    )
    return Run(directory, evaluation, chosen)


def _save_model(model: SegmentationModel, place: Path, card: dict[str, Any]) -> None:
    """Aside first, since the folder means that the run is finished; it takes the place of an older one of ours."""
    with written_folder(place) as aside:
        try:
            model.save_pretrained(aside, model_card_kwargs=card)
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from error


def checked_pixels(source: Source) -> tuple[Tensor, dict[str, int], ImageReading]:
    """(K,) int64 pixels of each class in the training split, once the dataset is found to be complete.

    Beside them the number of images by split, and how images are read, with their range.

    Raises:
        DataError: it has no training or validation split, or faults, of which the message lists all.
    """
    missing = [split for split in ("train", "val") if split not in source.splits]
    if missing:
        raise DataError(
            f"the dataset has no {' and no '.join(missing)} (found: {', '.join(source.splits) or 'none'}); a split "
            "needs images, masks and, in layouts with lists, its list"
        )
    report = check_data(source, progress=source.reads_files and is_live())
    if report.errors:
        raise DataError(f"the dataset has to be fixed first\n\n{report}")
    if source.reads_files:
        print(report)
    return torch.from_numpy(report.pixels["train"]), report.images, report.reading


def _require_terms(config: TrainConfig, model: SegmentationModel) -> None:
    """Say which terms of the loss the network does not predict; a UsageError where it has no other."""
    with torch.no_grad():
        output = model.eval()(torch.zeros(1, model.in_chans, 64, 64))
    model.train()
    absent, name = absent_terms(config.loss, output), name_of(config.model.name)
    if all(term in absent or not config.loss.term(term)[0] for term in config.loss.terms):
        raise UsageError(f"loss.terms: network {name!r} predicts no {' and no '.join(absent)}; name another term")
    if absent and distributed.is_main_process():
        say(f"loss: {' and '.join(absent)} stay 0, since network {name!r} does not predict them")


def _loader(config: TrainConfig, source: Source, position: Position | None) -> DataLoader[Batch]:
    transform = Augmentation(config.augmentation, config.transforms, source.labels.ignore_index)
    done = (position.epochs, position.batches) if position else (0, 0)
    batching = Batching(config.batch_size, config.gradient_accumulation, done)
    return training_loader(source.open("train"), transform, batching, config.num_workers, config.seed)


def _trainer(config: TrainConfig, cluster: Cluster, position: Position | None, clock: Clock, alarm: Alarm) -> L.Trainer:
    directory, epochs = Path(config.output), config.epochs if config.budget is None else -1
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    return L.Trainer(
        accelerator=cluster.device.type,
        devices=cluster.processes,
        num_nodes=cluster.machines,
        # Buffers are the same everywhere, since batch norm is synchronised; the confusion matrix must not be.
        strategy="auto"
        if cluster.alone
        else DDPStrategy(broadcast_buffers=False, find_unused_parameters=config.freeze_backbone_epochs > 0),
        use_distributed_sampler=False,
        precision=config.precision,
        gradient_clip_val=config.optimizer.clip_norm,
        max_epochs=position.epochs if position and position.stopped else epochs,
        accumulate_grad_batches=config.gradient_accumulation,
        check_val_every_n_epoch=config.validate_every,
        num_sanity_val_steps=0,
        logger=[TensorBoardLogger(directory, name="", version=TENSORBOARD), *create_loggers(config)],
        callbacks=[
            *create_callbacks(config),
            clock,
            Talk(config, clock, alarm),
            Saving(config, CheckpointFolder(directory / CHECKPOINTS, config.monitor_mode)),
            LearningRateMonitor("epoch"),
            Bar(clock),
        ],
        plugins=[AtomicCheckpointIO()],
        enable_checkpointing=True,
        enable_model_summary=False,
    )


def _card(config: TrainConfig, evaluation: Evaluation, chosen: str) -> dict[str, Any]:
    settings, scores = config.model, evaluation.scores
    rows = "\n".join(f"| {escaped(name)} | {iou:.3f} |" for name, iou in scores.class_iou.items())
    names = (name_of(settings.name), settings.backbone, name_of(config.data.name))
    network, backbone, data = map(escaped, names)
    length = f"{config.epochs} epochs" if config.budget is None else f"for {duration(config.budget)}"
    further = "".join(f", {escaped(name)} {value:.3f}" for name, value in evaluation.metrics.items())
    return {
        "model_name": f"{network} on {data}",
        "details": f"Network {network}, backbone {backbone}, output stride {settings.output_stride}; trained "
        f"{length} on {data}.\n\n"
        f"On its validation split, after {chosen}: mIoU {scores.miou:.3f}, pixel accuracy "
        f"{scores.pixel_accuracy:.3f}{further}.\n\n"
        f"| class | IoU |\n|---|---|\n{rows}\n",
    }
