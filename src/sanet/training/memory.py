"""What would have fitted, after a GPU ran out of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from sanet import processes
from sanet.config import TrainConfig
from sanet.structures import Sample
from sanet.training.task import SegmentationTask

Size = tuple[int, int]
# Crops are tried in steps of this many pixels a side.
GRAIN = 32


def largest(fits: Callable[[int], bool], limit: int) -> int:
    """The largest number from 1 to ``limit`` that fits, or 0; what fits is taken to fit below as well."""
    low, high = 0, limit + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def advice(task: SegmentationTask, config: TrainConfig, batch: int, device: torch.device) -> str:
    """The largest batch at the configured crop, and the largest crop at the configured batch, each found by trying.

    Other processes of the job may be anywhere, so that none is talked to: batch norm takes its running statistics.

    Args:
        task: the network and its loss, wherever Lightning has left them.
        config: of the run.
        batch: pictures that this process computes at once.
        device: what ran out of memory.
    """
    task.zero_grad(set_to_none=True)
    task.to(device).train()
    if processes.together():
        for module in task.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
    with processes.apart():
        return _tried(task, config, batch)


def _tried(task: SegmentationTask, config: TrainConfig, batch: int) -> str:
    height, width = config.augmentation.crop
    if step_fits(task, batch, (height, width)):
        return (
            f"the GPU's memory ran out, though a step of {batch} pictures of {height}x{width} fits by itself: end what "
            "else uses the GPU and go on with --resume, or begin anew with another --output and a lower --window (now "
            f"{config.window}), the side of what is validated at once"
        )
    pictures = largest(lambda count: step_fits(task, count, (height, width)), batch - 1)
    share = largest(
        lambda steps: step_fits(task, batch, _scaled((height, width), steps)), (min(height, width) - 1) // GRAIN
    )
    crop = list(_scaled((height, width), share)) if share else None
    parts = next((parts for parts in range(1, batch + 1) if batch % parts == 0 and batch // parts <= pictures), None)
    lines = [
        f"the GPU's memory does not hold {batch} pictures of {height}x{width} at once",
        f"at this crop the largest batch that fits is {pictures}"
        + (f": --accumulate {config.accumulate * parts} computes the step in parts" if parts else ""),
        f"with this batch the largest crop that fits is {crop}" if crop else "with this batch no crop fits",
        *(["or --precision bf16-mixed, which halves most of it"] if config.precision == "32-true" else []),
        "begin anew with another --output",
    ]
    return "; ".join(lines)


def step_fits(task: SegmentationTask, count: int, crop: Size) -> bool:
    """Whether forward and backward pass of so many pictures, beside the momenta, run without running out of memory."""
    device = next(task.parameters()).device
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        _momenta = [torch.zeros_like(parameter) for parameter in task.parameters()]
        image = torch.zeros(count, 3, *crop, dtype=torch.uint8, device=device)
        mask = torch.zeros(count, *crop, dtype=torch.int64, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=task.config.precision == "bf16-mixed"):
            task.loss_of(Sample(image, mask, ("",) * count)).total.backward()  # type: ignore[no-untyped-call]
    except torch.OutOfMemoryError:
        return False
    finally:
        task.zero_grad(set_to_none=True)
    return True


def _scaled(crop: Size, steps: int) -> Size:
    """The crop with a shorter side of so many times 32 pixels, its shape kept to the next 32."""
    height, width = crop
    factor = steps * GRAIN / min(crop)
    return max(GRAIN, round(height * factor / GRAIN) * GRAIN), max(GRAIN, round(width * factor / GRAIN) * GRAIN)
