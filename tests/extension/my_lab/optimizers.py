"""An optimiser: Lion (Chen et al., 2023)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class Lion(Optimizer):
    """Steps of the sign of an interpolated momentum.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        weight_decay: decoupled, as in AdamW.
        betas: of the step, and of the momentum.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "betas": tuple(betas)})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step over all groups."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            first, second = group["betas"]
            for weight in (weight for weight in group["params"] if weight.grad is not None):
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(group["lr"] * torch.lerp(weight.grad, momentum, first).sign())
                momentum.lerp_(weight.grad, 1 - second)
        return loss
