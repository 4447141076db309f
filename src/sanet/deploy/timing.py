"""How long networks take, side by side: in turn, round after round, so that a busy machine hits all of them alike."""

from __future__ import annotations

import platform
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
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
    """Of whole forward passes, uint8 pictures to logits of their size.

    Attributes:
        median: seconds.
        low: seconds that a tenth of the passes stays below.
        high: seconds that nine tenths stay below.
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
    """The one that this runs on."""
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
    """Time all passes in turn, ``WARM_UP`` rounds that do not count first.

    Args:
        passes: each runs once and returns the seconds that it took.
        repeats: rounds that count.
        progress: show a bar.

    Returns:
        The timings, and for passes that raised what they raised; they are left out of the rounds after that.
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
    return {key: _summarise(taken) for key, taken in seconds.items() if key not in problems}, problems


@torch.inference_mode()
def time_pass(model: nn.Module, images: Tensor, bfloat16: bool = False) -> float:
    """Seconds from pictures (B, 3, H, W) uint8 that are on the device to logits that are ready there."""
    device = images.device
    images = images.to(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        if device.type != "cuda":
            start = perf_counter()
            model(images)
            return perf_counter() - start
        begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        begun.record()
        model(images)
        done.record()
        torch.cuda.synchronize(device)
        milliseconds: float = begun.elapsed_time(done)
        return milliseconds / 1000


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """As many threads of the CPU inside, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _summarise(seconds: list[float]) -> Timing:
    low, median, high = np.percentile(seconds, [10, 50, 90]).tolist()
    return Timing(median, low, high, len(seconds))
