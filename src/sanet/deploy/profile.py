"""What networks cost: parameters, multiply-accumulates, memory for training, and time.

Counting runs on the meta device, where tensors have shapes and no values: it takes no memory and seconds. Only timing
computes; the networks take turns, round after round, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, product
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from sanet.deploy.config import ProfileConfig, Published
from sanet.inference.device import choose_device, prepared
from sanet.models.networks import HEADS, SegmentationModel, create_model
from sanet.references import name_of
from sanet.structures import SanetError, UsageError, first_line

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
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


@dataclass(frozen=True)
class Cost:
    """What one network costs over one backbone at one size of images.

    Attributes:
        network: name of the network.
        backbone: a timm model name.
        height: of the images, in pixels.
        width: of the images, in pixels.
        parameters: their number.
        macs: multiply-accumulates in the convolutions and matrix products of one image.
        activations: bytes that a training pass over the batch keeps for the backward pass, parameters and buffers left
            out, in float32.
        timing: of the batch, or None where it was not measured.
        problem: why figures are missing; empty where nothing went wrong.
    """

    network: str
    backbone: str
    height: int
    width: int
    parameters: int | None = None
    macs: int | None = None
    activations: int | None = None
    timing: Timing | None = None
    problem: str = ""


@dataclass(frozen=True)
class Profile:
    """The outcome of ``profile``.

    Attributes:
        config: what was measured.
        costs: in the order of the configuration's networks, backbones and sizes.
        machine: where times were taken, or None where none were.
    """

    config: ProfileConfig
    costs: list[Cost]
    machine: Machine | None = None

    def published(self, cost: Cost) -> Published:
        """The published figures of a network; empty where there are none."""
        known = self.config.published
        return known.get(f"{cost.network}/{cost.backbone}") or known.get(cost.network) or Published()

    def label(self, cost: Cost) -> str:
        """The network, and whatever else distinguishes it from the others."""
        backbone = f"/{cost.backbone}" if len(self.config.backbones) > 1 else ""
        size = f" {cost.height}x{cost.width}" if len(self.config.sizes) > 1 else ""
        return f"{cost.network}{backbone}{size}"


def profile(config: ProfileConfig, progress: bool = True) -> Profile:
    """Count every network over every backbone at every size, and time them if ``config.time`` says so.

    A network that cannot be built over a backbone says so in its row, and the others are measured all the same.

    Args:
        config: what to measure.
        progress: show a bar while passes are timed.

    Raises:
        UsageError: an unknown network, no such device, or not one of the networks can be built.
    """
    for network in config.networks:
        HEADS.find(network)
    device = choose_device(config.device) if config.time else None
    rows = product(map(name_of, config.networks), config.backbones, config.sizes)
    costs = [_count(Cost(name, backbone, *size), config) for name, backbone, size in rows]
    if all(cost.problem for cost in costs):
        raise UsageError("; ".join(dict.fromkeys(cost.problem for cost in costs)))
    if device is None:
        return Profile(config, costs)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads or threads)
    try:
        return Profile(config, _time(costs, config, device, progress), machine_of(device))
    finally:
        torch.set_num_threads(threads)


def _count(cost: Cost, config: ProfileConfig) -> Cost:
    """The cost with everything but time."""
    try:
        with torch.device("meta"):
            model = _build(cost.network, cost.backbone, config)
        images = torch.empty(config.batch, 3, cost.height, cost.width, device="meta")
        macs, activations = count_macs(model, images[:1]), count_activations(model, images)
    except (SanetError, RuntimeError) as error:
        return replace(cost, problem=first_line(error))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return replace(cost, parameters=parameters, macs=macs, activations=activations)


def _build(network: str, backbone: str, config: ProfileConfig) -> SegmentationModel:
    chosen = next(given for given in config.networks if name_of(given) == network)
    return create_model(chosen, backbone, config.num_classes, output_stride=config.output_stride)


def count_macs(model: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of a forward pass in evaluation mode, (B, 3, H, W) -> their number for all B."""
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    # A multiplication and an addition are two of its operations.
    operations: int = counter.get_total_flops()
    return operations // 2


def count_activations(model: nn.Module, images: Tensor) -> int:
    """Bytes that autograd keeps from a training pass over images (B, 3, H, W) for the backward pass.

    Every storage counts once, however many operations keep it, and as a whole. Parameters and buffers do not count:
    they are in memory anyway.
    """
    own = {tensor.untyped_storage() for tensor in chain(model.parameters(), model.buffers())}
    # Held until the pass is over: a storage that is freed may have its place taken by the next.
    kept: set[torch.UntypedStorage] = set()
    model.train()
    with saved_tensors_hooks(lambda tensor: kept.add(tensor.untyped_storage()), lambda _: torch.empty(0)):
        model(images)
    return sum(storage.nbytes() for storage in kept - own)


def _time(costs: list[Cost], config: ProfileConfig, device: torch.device, progress: bool) -> list[Cost]:
    """The costs with their timing, or with a problem where a network could not be run; all networks are in memory."""

    @cache
    def built(network: str, backbone: str) -> SegmentationModel:
        return prepared(_build(network, backbone, config), device)

    def once(cost: Cost) -> float:
        images = torch.randint(0, 256, (config.batch, 3, cost.height, cost.width), dtype=torch.uint8, device=device)
        return time_pass(built(cost.network, cost.backbone), images, DTYPES[config.precision])

    passes = {cost: partial(once, cost) for cost in costs if not cost.problem}
    timings, problems = in_turn(passes, config.repeats, progress)
    return [replace(cost, timing=timings.get(cost), problem=problems.get(cost, cost.problem)) for cost in costs]


def in_turn(
    passes: Mapping[Key, Callable[[], float]], repeats: int, progress: bool = True
) -> tuple[dict[Key, Timing], dict[Key, str]]:
    """Time all passes, each of which returns its seconds, in turn: ``WARM_UP`` rounds and then as many as asked for.

    Returns:
        The timings, and for passes that failed their error; they are left out of the rounds after that.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in passes}
    problems: dict[Key, str] = {}
    for _ in tqdm(range(WARM_UP + repeats), "time", unit=" rounds", disable=not progress):
        for key in [key for key in passes if key not in problems]:
            try:
                seconds[key].append(passes[key]())
            except (SanetError, RuntimeError) as error:
                problems[key] = f"not timed: {first_line(error)}"
    timings = {}
    for key in passes.keys() - problems.keys():
        low, median, high = np.percentile(seconds[key][WARM_UP:], [10, 50, 90]).tolist()
        timings[key] = Timing(median, low, high, repeats)
    return timings, problems


@torch.inference_mode()
def time_pass(model: nn.Module, images: Tensor, dtype: torch.dtype = torch.float32) -> float:
    """Seconds from images (B, 3, H, W) uint8 that are on the device to logits that are ready there.

    Args:
        model: the network, on the device.
        images: the batch.
        dtype: float32, or what autocast computes in where that is safe.
    """

    def synchronize() -> None:
        if images.device.type != "cpu":
            torch.accelerator.synchronize(images.device)

    images = images.to(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        synchronize()
        start = perf_counter()
        model(images)
        synchronize()
        return perf_counter() - start


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
