"""Weights to start from, and how they differ from those of a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sanet import distributed
from sanet.config import MODEL
from sanet.models.networks import load_model
from sanet.record import differences, enumerated
from sanet.structures import SanetError, say
from sanet.training.callbacks import MovingAverage
from sanet.training.checkpoints import SUFFIX, read_checkpoint

# What Lightning puts before the names of the network's tensors in a checkpoint.
PREFIX = "model."


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
