"""A network made ready for steps that several processes share: the same step, however many they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from sanet import distributed


def freeze_unused(model: nn.Module) -> list[str]:
    """Let the parameters alone that no output depends on, such as a last stage whose other scales nobody asks for.

    Processes that share a step would wait for their gradients, which never come. Returns their names.
    """
    training = model.training
    device = next(model.parameters()).device
    outputs = model.eval()(torch.zeros(1, getattr(model, "in_chans", 3), 64, 64, device=device))
    sum(output.float().sum() for output in outputs if isinstance(output, torch.Tensor)).backward()  # type: ignore[union-attr]
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    for name in unused:
        model.get_parameter(name).requires_grad_(False)
    model.zero_grad(set_to_none=True)
    model.train(training)
    return unused


def synchronize_batch_norm(module: nn.Module, gpu: bool) -> nn.Module:
    """The module with every batch norm replaced by one that shares its statistics; parameters stay the same objects.

    PyTorch's own conversion drops the activation that timm's batch norms carry, so timm's is used. PyTorch synchronises
    on GPUs only; elsewhere ``SynchronizedBatchNorm`` stands in.

    Args:
        module: a network.
        gpu: whether it trains on GPUs.
    """
    if gpu:
        converted: nn.Module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return converted
    if isinstance(module, _BatchNorm):
        return _synchronized(module)
    for name, child in module.named_children():
        setattr(module, name, synchronize_batch_norm(child, gpu))
    return module


class SynchronizedBatchNorm(_BatchNorm):
    """Batch norm with the mean and variance of all processes, in PyTorch's terms and differentiable through them."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...); B may differ between processes."""
        if not self.training:
            return super().forward(input)
        axes = (0, *range(2, input.ndim))
        channels = (1, -1, *(1 for _ in axes[1:]))
        values = input.to(torch.promote_types(input.dtype, torch.float32))  # sums of bfloat16 would be rough
        count = distributed.all_reduce_sum(values.new_tensor([input.numel() / input.shape[1]]))
        mean: Tensor = all_reduce(values.sum(axes)) / count  # type: ignore[no-untyped-call]
        centred = values - mean.view(channels)
        variance: Tensor = all_reduce(centred.square().sum(axes)) / count  # type: ignore[no-untyped-call]
        if count.item() <= 1:  # as sanet.models.norms.BatchNorm2d: the variance of one value says nothing
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.detach(), rate)
        self.running_var.lerp_(variance.detach() * count / (count - 1), rate)
        scale = self.weight / (variance + self.eps).sqrt()
        return (centred * scale.view(channels) + self.bias.view(channels)).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions."""


class SynchronizedBatchNormAct(SynchronizedBatchNorm):
    """The same with what timm's batch norm does after it: dropping out, and activation."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...)."""
        output: Tensor = self.act(self.drop(super().forward(input)))
        return output


def _synchronized(norm: _BatchNorm) -> SynchronizedBatchNorm:
    kind = SynchronizedBatchNormAct if isinstance(norm, BatchNormAct2d) else SynchronizedBatchNorm
    other = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    other.train(norm.training)
    for name, value in (*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)):
        setattr(other, name, value)
    for name, child in norm.named_children():
        setattr(other, name, child)
    return other
