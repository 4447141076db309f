"""Where models run."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import torch

from sanet.models.networks import SegmentationModel, load_model
from sanet.structures import UsageError

KINDS = ("cpu", "cuda", "mps", "xpu")


def choose_device(name: str | None = None) -> torch.device:
    """The device of a name, such as "cpu", "cuda:1", "mps" or "xpu"; by default the best there is.

    Raises:
        UsageError: there is no such device here.
    """
    if name is None:
        best = torch.accelerator.current_accelerator(check_available=True)
        return best if best is not None and best.type in KINDS else torch.device("cpu")
    try:
        device = torch.device(name)
        if device.type not in KINDS:
            raise RuntimeError(f"choices: {', '.join(KINDS)}")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without it
        raise UsageError(f"device {name!r} cannot be used: {error}") from error
    return device


def prepared(model: str | Path | SegmentationModel, device: torch.device) -> SegmentationModel:
    """A saved model, or a copy of one, where and how it runs: on the device, channels last, in evaluation mode."""
    network = deepcopy(model) if isinstance(model, SegmentationModel) else load_model(model)
    network.to(device).to(memory_format=torch.channels_last)
    return network.eval()
