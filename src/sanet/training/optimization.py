"""SGD with the poly schedule; every parameter in exactly one group."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from sanet.models.networks import SegmentationModel


def parameter_groups(
    model: SegmentationModel, rate: float, head_lr_multiplier: float, decay: float
) -> list[dict[str, Any]]:
    """Groups for the optimiser: the backbone at ``rate``, everything else at ``rate * head_lr_multiplier``.

    Norms and biases take no weight decay.
    """
    norms_and_biases = {id(parameter) for parameter in model.parameters() if parameter.ndim < 2}
    backbone = {id(parameter) for parameter in model.backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        groups.setdefault((id(parameter) in backbone, id(parameter) in norms_and_biases), []).append(parameter)
    return [
        {
            "name": ("backbone" if is_backbone else "head") + (" norms and biases" if is_norm else ""),
            "params": parameters,
            "lr": rate if is_backbone else rate * head_lr_multiplier,
            "weight_decay": 0.0 if is_norm else decay,
        }
        for (is_backbone, is_norm), parameters in groups.items()
    ]


def create_optimizer(
    model: SegmentationModel, rate: float, head_lr_multiplier: float, momentum: float, decay: float
) -> SGD:
    """SGD over the groups of ``parameter_groups``."""
    return SGD(parameter_groups(model, rate, head_lr_multiplier, decay), momentum=momentum)


def poly_schedule(
    optimizer: torch.optim.Optimizer, total_steps: int, power: float = 0.9, warmup_steps: int = 0
) -> LambdaLR:
    """lr(step) = lr(0) * (1 - step / total_steps) ** power, after a linear rise over ``warmup_steps``."""

    def factor(step: int) -> float:
        rise: float = min(1.0, (step + 1) / (warmup_steps + 1))
        fall: float = max(0.0, 1 - step / total_steps) ** power
        return rise * fall

    return LambdaLR(optimizer, factor)
