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


def conv_norm_relu(in_channels: int, out_channels: int, side: int) -> nn.Sequential:
    """(B, C, h, w) -> (B, C', h, w): a convolution with windows of an odd side, its batch norm, and a ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, side, padding=side // 2, bias=False),
        BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def tolerate_single_values(module: nn.Module) -> None:
    """Replace the batch norms in somebody else's network by these; their tensors and their names stay."""
    for parent in module.modules():
        for name, norm in list(parent.named_children()):
            if type(norm) in (nn.BatchNorm2d, norm_act.BatchNormAct2d):
                setattr(parent, name, _replacement(norm))


def _replacement(norm: nn.Module) -> nn.Module:
    kind = BatchNorm2d if type(norm) is nn.BatchNorm2d else BatchNormAct2d
    made: nn.Module = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)  # type: ignore[arg-type]
    if isinstance(norm, norm_act.BatchNormAct2d):
        made.drop, made.act = norm.drop, norm.act
    made.load_state_dict(norm.state_dict(), assign=True)
    return made.train(norm.training)


def _has_one_value(norm: nn.BatchNorm2d, input: Tensor) -> bool:
    return norm.training and input.numel() == input.shape[1]


def _by_running_statistics(norm: nn.BatchNorm2d, input: Tensor) -> Tensor:
    return F.batch_norm(input, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
