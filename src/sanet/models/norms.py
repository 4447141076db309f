"""Batch norms that one value per channel does not stop, as behind a global pooling in a batch of one."""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers import norm_act
from torch import Tensor, nn


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that uses its running statistics where a batch has one value per channel.

    The variance of one value says nothing, and PyTorch refuses to train on it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return _by_running_statistics(self, input) if _has_one_value(self, input) else super().forward(input)


class BatchNormAct2d(norm_act.BatchNormAct2d):
    """The same of timm's batch norm, which drops out and activates as well."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        if _has_one_value(self, x):
            alone: Tensor = self.act(self.drop(_by_running_statistics(self, x)))
            return alone
        output: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return output


TOLERANT: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: BatchNorm2d,
    norm_act.BatchNormAct2d: BatchNormAct2d,
}


def conv_norm_relu(in_channels: int, out_channels: int, side: int) -> nn.Sequential:
    """(B, C, h, w) -> (B, C', h, w): a convolution with windows of an odd side, its batch norm, and a ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, side, padding=side // 2, bias=False),
        BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def tolerate_single_values(module: nn.Module) -> None:
    """Make the batch norms in somebody else's network these; their tensors and their names stay."""
    for norm in module.modules():
        # What they hold is the same, so that none is built anew.
        norm.__class__ = TOLERANT.get(type(norm), type(norm))


def _has_one_value(norm: nn.BatchNorm2d, input: Tensor) -> bool:
    return norm.training and input.numel() == input.shape[1]


def _by_running_statistics(norm: nn.BatchNorm2d, input: Tensor) -> Tensor:
    return F.batch_norm(input, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
