"""How long networks take, side by side: in turn, round after round, so that a busy machine slows all of them alike."""

from __future__ import annotations

import platform
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sanet.structures import SanetError, first_line

WARM_UP = 3
Key = TypeVar("Key", bound=Hashable)


class Timing(NamedTuple):
    """Of whole forward passes, uint8 images to logits of their size.

    Attributes:
        median: seconds.
        low: 10th percentile, in seconds.
        high: 90th percentile, in seconds.
        repeats: passes that were timed.
    """

    median: float
    low: float
    high: float
    repeats: int


class Machine(NamedTuple):
    """Where times were taken.

    Attributes:
        name: of the processor or the GPU.
        threads: of the CPU.
        torch: version.
    """

    name: str
    threads: int
    torch: str


def machine_of(device: torch.device) -> Machine:
    """The machine that this runs on, by the name of its GPU or of its processor."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else platform.processor() or platform.machine()
    return Machine(name, torch.get_num_threads(), torch.__version__)


def in_turn(
    passes: Mapping[Key, Callable[[], float]], repeats: int, progress: bool = True
) -> tuple[dict[Key, Timing], dict[Key, str]]:
    """Time all passes in turn, after ``WARM_UP`` rounds.

    Args:
        passes: each runs once and returns the seconds that it took.
        repeats: timed rounds.
        progress: show a bar.

    Returns:
        The timings, and for passes that failed their error; they are left out of the rounds after that.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in passes}
    problems: dict[Key, str] = {}
    for number in tqdm(range(WARM_UP + repeats), "time", unit=" rounds", disable=not progress):
        for key in [key for key in passes if key not in problems]:
            try:
                taken = passes[key]()
            except (SanetError, RuntimeError) as error:
                problems[key] = f"not timed: {first_line(error)}"
            else:
                if number >= WARM_UP:
                    seconds[key].append(taken)
    timings = {}
    for key in passes.keys() - problems.keys():
        low, median, high = np.percentile(seconds[key], [10, 50, 90]).tolist()
        timings[key] = Timing(median, low, high, len(seconds[key]))
    return timings, problems


@torch.inference_mode()
def time_pass(model: nn.Module, images: Tensor, dtype: torch.dtype = torch.float32) -> float:
    """Seconds from images (B, 3, H, W) uint8 that are on the device to logits that are ready there.

    Args:
        model: the network, on the device.
        images: the batch.
        dtype: float32, or what autocast computes in where that is safe.
    """
    images = images.to(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        _wait_for(images.device)
        start = perf_counter()
        model(images)
        _wait_for(images.device)
        return perf_counter() - start


def _wait_for(device: torch.device) -> None:
    """Until a GPU has finished what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
