"""What a run adds to Lightning's loop: a moving average of the weights, a frozen backbone, and parts of one's own."""

from __future__ import annotations

from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from sanet.config import TrainConfig
from sanet.references import Kind, name_of
from sanet.structures import UsageError
from sanet.training.task import SegmentationTask

CALLBACKS = Kind("callbacks", {}, {"lightning.pytorch.callbacks": "lightning.pytorch.callbacks:Callback"})
LOGGERS = Kind("loggers", {}, {"lightning.pytorch.loggers": "lightning.pytorch.loggers:Logger"})


def create_callbacks(config: TrainConfig) -> list[Callback]:
    """The callbacks that the settings ask for.

    Raises:
        UsageError: an unknown callback, or options that it does not have.
    """
    callbacks: list[Callback] = []
    if config.freeze_backbone_epochs:
        callbacks.append(FrozenBackbone(config.freeze_backbone_epochs))
    if config.ema is not None:
        callbacks.append(MovingAverage(config.ema))
    return callbacks + [_built(CALLBACKS, entry, Callback) for entry in config.callbacks]


def create_loggers(config: TrainConfig) -> list[Logger]:
    """The loggers that the settings ask for.

    Raises:
        UsageError: an unknown logger, options that it does not have, or a package that is not installed.
    """
    return [_built(LOGGERS, entry, Logger) for entry in config.loggers]


def _built(kind: Kind, entry: Any, wanted: type) -> Any:
    try:
        built = kind.build(entry)
    except ModuleNotFoundError as error:
        raise UsageError(f"{kind.word}: {error}; install it, or the extra that has it: wandb or mlflow") from error
    if not isinstance(built, wanted):
        raise UsageError(f"{kind.word} {name_of(built)}: it is no {wanted.__name__} of Lightning")
    return built


class FrozenBackbone(Callback):
    """Leaves the backbone as it is, its batch norms' statistics included.

    Args:
        epochs: how many at the start; -1 for all.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.trainable: list[nn.Parameter] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Before processes are connected, which from then on wait for every gradient that is computed."""
        backbone = cast(SegmentationTask, pl_module).model.backbone
        self.trainable = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
        if self.epochs < 0:
            self._apply(pl_module, frozen=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """As ``on_train_epoch_start``, which is not called for an epoch that a resume continues."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Freeze, or thaw."""
        self._apply(pl_module, frozen=self.epochs < 0 or trainer.current_epoch < self.epochs)

    def _apply(self, module: L.LightningModule, frozen: bool) -> None:
        cast(SegmentationTask, module).model.backbone.train(not frozen)
        for parameter in self.trainable:
            parameter.requires_grad_(not frozen)


class MovingAverage(Callback):
    """Exponential moving average of the network's weights and statistics; it is what validation sees.

    Args:
        decay: share of the average that a step keeps.
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.average: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the weights as they are, or with the average that was loaded."""
        self.steps = trainer.global_step
        self.average = {
            name: self.average.get(name, value).detach().clone().to(value.device)
            for name, value in _tensors(pl_module).items()
        }

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Follow the weights after every step."""
        if trainer.global_step == self.steps:  # a part of a step
            return
        self.steps = trainer.global_step
        for name, value in _tensors(pl_module).items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - self.decay)
            else:
                self.average[name].copy_(value)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the network be the average."""
        self._swap(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let it be itself again."""
        self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, module: L.LightningModule) -> None:
        for name, value in _tensors(module).items():
            own = value.clone()
            value.copy_(self.average[name])
            self.average[name].copy_(own)

    def state_dict(self) -> dict[str, Any]:
        """The average; see ``network_weights``."""
        return self.average

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up."""
        self.average = dict(state_dict)


def _tensors(module: L.LightningModule) -> dict[str, Tensor]:
    return cast(SegmentationTask, module).model.state_dict()
