"""The optimiser, every parameter in exactly one group, and the schedule of its learning rates."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import signature
from math import cos, pi
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from sanet.config import OptimizerConfig, ScheduleConfig
from sanet.models.networks import SegmentationModel
from sanet.references import Kind
from sanet.structures import UsageError

# A class, or a function, that is called with parameter groups.
OPTIMIZERS = Kind("optimizer.name", {"sgd": SGD, "adamw": AdamW}, {"torch.optim": "torch.optim:Optimizer"})
MOMENTUM = 0.9  # of "sgd", by default


def parameter_groups(model: SegmentationModel, settings: OptimizerConfig) -> list[dict[str, Any]]:
    """Groups for the optimiser: the backbone at its learning rate, everything else at its multiple.

    Norms and biases take no weight decay. With a ``layer_decay`` d below 1 the rate of a block of the backbone is
    multiplied by d for each block behind it, and once more.
    """
    depths = _depths(model.backbone) if settings.layer_decay < 1 else {}
    blocks = max(depths.values(), default=0) + 1
    inside = {id(parameter): depths.get(name, 0) for name, parameter in model.backbone.named_parameters()}
    groups: dict[tuple[int | None, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        groups.setdefault((inside.get(id(parameter)), parameter.ndim < 2), []).append(parameter)
    found = []
    for (depth, is_norm), parameters in groups.items():
        factor = settings.head_lr_multiplier if depth is None else 1.0
        if depths and depth is not None:
            factor = settings.layer_decay ** (blocks - depth)
        part = "head" if depth is None else "backbone" + (f" block {depth}" if depths else "")
        found.append(
            {
                "name": part + (" norms and biases" if is_norm else ""),
                "params": parameters,
                "lr": settings.learning_rate * factor,
                "weight_decay": 0.0 if is_norm else settings.weight_decay,
            }
        )
    return found


def _depths(backbone: nn.Module) -> dict[str, int]:
    """By a parameter's name the number of its block, from 0: an entry of the outermost sequence that it lies in."""
    blocks: dict[str, int] = {}
    found = {}
    for name, _ in backbone.named_parameters():
        numbered = re.match(r".*?\.\d+(?=\.)", name)
        block = numbered[0] if numbered else name.rpartition(".")[0]
        found[name] = blocks.setdefault(block, len(blocks))
    return found


def create_optimizer(model: SegmentationModel, settings: OptimizerConfig) -> Optimizer:
    """The optimiser over the groups of ``parameter_groups``.

    Raises:
        UsageError: an unknown name, or options that it does not have.
    """
    defaults = {"momentum": MOMENTUM} if settings.name == "sgd" else {}
    reference = {"name": settings.name, "options": {**defaults, **settings.options}}
    optimizer = OPTIMIZERS.build(reference, parameter_groups(model, settings), lr=settings.learning_rate)
    if not isinstance(optimizer, Optimizer):
        raise UsageError(f"optimizer.name {settings.name!r}: it makes a {type(optimizer).__name__}, and no Optimizer")
    return optimizer


def poly(progress: float, power: float = 0.9) -> float:
    """(1 - progress) ** power."""
    fall: float = max(0.0, 1 - progress) ** power
    return fall


def cosine(progress: float, floor: float = 0.0) -> float:
    """Half a wave, from 1 to ``floor``."""
    return floor + (1 - floor) * (1 + cos(pi * min(progress, 1.0))) / 2


def constant(progress: float) -> float:
    """1."""
    return 1.0


# Functions from the share of the steps that is done to a factor of the learning rates; or classes of PyTorch's kind.
SCHEDULES = Kind(
    "schedule.name",
    {"poly": poly, "cosine": cosine, "constant": constant},
    {"torch.optim.lr_scheduler": "torch.optim.lr_scheduler:LRScheduler"},
)


def create_schedule(
    optimizer: Optimizer, total_steps: int, settings: ScheduleConfig, share: Callable[[], float] | None = None
) -> LRScheduler:
    """The schedule over all steps of a run, after a linear rise over ``warmup_steps``.

    With ``share``, which says how much of the run's time has passed, it follows that in place of the steps.

    A class is built with the optimiser, its options and, where it takes them and they are not given, ``total_steps``;
    it has to bring its own warm-up.

    Raises:
        UsageError: an unknown name, options that it does not have, or a warm-up or a time for a class.
    """
    reference = {"name": settings.name, "options": settings.options}
    made = SCHEDULES.find(settings.name)
    if isinstance(made, type):
        if share:
            raise UsageError(f"budget: schedule {settings.name!r} counts steps; choose poly, cosine or constant")
        if settings.warmup_steps:
            raise UsageError("schedule.warmup_steps: a class of schedules has its own; leave it out")
        takes = "total_steps" in signature(made).parameters and "total_steps" not in settings.options
        schedule: LRScheduler = SCHEDULES.build(reference, optimizer, **({"total_steps": total_steps} if takes else {}))
        return schedule
    fall: Callable[[float], float] = SCHEDULES.build(reference)

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / (settings.warmup_steps + 1)) * fall(share() if share else step / total_steps)

    return LambdaLR(optimizer, factor)
