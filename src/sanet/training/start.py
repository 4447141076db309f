"""The network of a run, and the weights that it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanet import distributed
from sanet.config import MODEL, TrainConfig
from sanet.data.source import Source
from sanet.models.networks import SegmentationModel, create_model, load_model
from sanet.record import differences, enumerated
from sanet.structures import SanetError, UsageError, say
from sanet.training.callbacks import MovingAverage
from sanet.training.checkpoints import SUFFIX, read_checkpoint

# What Lightning puts before the names of the network's tensors in a checkpoint.
PREFIX = "model."


def create_network(config: TrainConfig, source: Source, from_scratch: bool) -> SegmentationModel:
    """The network of a run, for the classes and the images of a source; weights come later unless it is from scratch.

    Raises:
        UsageError: another number of channels than the images have; see also ``create_model``.
        SanetError: see ``init_from``.
    """
    settings, images = config.model, source.images
    if images.of_values and settings.in_chans not in (3, images.channels):
        raise UsageError(f"model.in_chans {settings.in_chans}: data.images.channels {images.channels} decides it")
    model = create_model(
        settings.name,
        settings.backbone,
        labels=source.labels,
        output_stride=settings.output_stride,
        pretrained_backbone=settings.pretrained_backbone and from_scratch and settings.init_from is None,
        in_chans=images.channels or settings.in_chans,
        value_range=settings.value_range,
        images=images,
        **settings.options,
    )
    if settings.init_from is not None and from_scratch:
        init_from(model, settings.init_from, settings.strict)
    return model.to(memory_format=torch.channels_last)


def init_from(model: nn.Module, source: str, strict: bool) -> None:
    """Give a network the weights of another.

    Args:
        model: is changed.
        source: run directory, directory of a saved model, ``hf:OWNER/NAME``, or checkpoint of a run.
        strict: all tensors have to fit; else those that fit are taken, and the others named on stderr.

    Raises:
        SanetError: the source cannot be read, a tensor does not fit and ``strict`` is on, or none fits.
    """
    found = read_weights(source)
    own = model.state_dict()
    differing = differences(own, found)
    if differing and strict:
        raise SanetError(
            f"the weights of {source} are not those of this network: {enumerated(differing)}. With "
            "--model.strict false it starts from the others"
        )
    fitting = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise SanetError(f"none of the weights of {source} fits this network: {enumerated(differing)}")
    model.load_state_dict({**own, **fitting})
    if differing and distributed.is_main_process():
        say(f"{source}: {len(fitting)} tensors kept; dropped: {'; '.join(differing)}", error=True)


def require_fitting(model: nn.Module, checkpoint: Path) -> None:
    """Raise a SanetError where a checkpoint is of another network."""
    differing = differences(model.state_dict(), network_weights(read_checkpoint(checkpoint)))
    if differing:
        raise SanetError(f"{checkpoint} is of another network: {enumerated(differing)}")


def read_weights(source: str) -> dict[str, Tensor]:
    """The tensors of a network by name, without running anything that comes with them."""
    path = Path(source)
    if path.suffix == SUFFIX:
        return network_weights(read_checkpoint(path))
    return dict(load_model(path / MODEL if (path / MODEL).is_dir() else source).state_dict())


def network_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's tensors in a checkpoint: their moving average where the run has one."""
    average: dict[str, Tensor] | None = checkpoint.get("callbacks", {}).get(MovingAverage.__name__)
    state = checkpoint["state_dict"].items()
    return average or {name.removeprefix(PREFIX): value for name, value in state if name.startswith(PREFIX)}
