"""What networks cost: parameters, multiply-accumulates, memory for training, and time.

Counting runs on the meta device, where tensors have shapes and no values: it takes no memory and seconds. Only timing
computes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from sanet.deploy.config import ProfileConfig, Published
from sanet.deploy.timing import Machine, Timing, in_turn, machine_of, time_pass
from sanet.inference.predictor import Predictor
from sanet.models.networks import HEADS, SegmentationModel, create_model
from sanet.references import name_of
from sanet.structures import SanetError, UsageError, first_line

DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


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
        UsageError: an unknown network, no GPU where one was chosen, or not one of the networks can be built.
    """
    for network in config.networks:
        HEADS.find(network)
    device = _find_device(config) if config.time else None
    costs = [
        cost
        for network in config.networks
        for backbone in config.backbones
        for cost in count(name_of(network), backbone, config)
    ]
    if all(cost.problem for cost in costs):
        raise UsageError("; ".join(dict.fromkeys(cost.problem for cost in costs)))
    if device is None:
        return Profile(config, costs)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads or threads)
    try:
        return Profile(config, time_passes(costs, config, device, progress), machine_of(device))
    finally:
        torch.set_num_threads(threads)


def count(network: str, backbone: str, config: ProfileConfig) -> list[Cost]:
    """Everything but time, for every size of the configuration."""
    costs = [Cost(network, backbone, height, width) for height, width in config.sizes]
    try:
        with torch.device("meta"):
            model = _build(network, backbone, config)
    except (SanetError, RuntimeError) as error:
        return [replace(cost, problem=first_line(error)) for cost in costs]
    return [_count_at_size(model, cost, config.batch) for cost in costs]


def _build(network: str, backbone: str, config: ProfileConfig) -> SegmentationModel:
    chosen = next(given for given in config.networks if name_of(given) == network)
    return create_model(chosen, backbone, config.num_classes, output_stride=config.output_stride)


def _count_at_size(model: SegmentationModel, cost: Cost, batch: int) -> Cost:
    """The cost with its figures, from a model without values."""
    images = torch.empty(batch, 3, cost.height, cost.width, device="meta")
    try:
        macs, activations = count_macs(model, images[:1]), count_activations(model, images)
    except (SanetError, RuntimeError) as error:
        return replace(cost, problem=first_line(error))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return replace(cost, parameters=parameters, macs=macs, activations=activations)


def count_macs(model: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of a forward pass in evaluation mode, (B, 3, H, W) -> their number for all B."""
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    # A multiplication and an addition are two of its operations.
    operations: int = counter.get_total_flops()
    return operations // 2


def count_activations(model: nn.Module, images: Tensor) -> int:
    """Bytes that autograd keeps from a training pass for the backward pass.

    Every storage counts once, however many operations keep it, and as a whole. Parameters and buffers do not count:
    they are in memory anyway.

    Args:
        model: the network.
        images: (B, 3, H, W).
    """
    own = {tensor.untyped_storage() for tensor in chain(model.parameters(), model.buffers())}
    # Held until the pass is over: a storage that is freed may have its place taken by the next.
    kept: set[torch.UntypedStorage] = set()
    model.train()
    with saved_tensors_hooks(lambda tensor: kept.add(tensor.untyped_storage()), lambda _: torch.empty(0)):
        model(images)
    return sum(storage.nbytes() for storage in kept - own)


def time_passes(costs: list[Cost], config: ProfileConfig, device: torch.device, progress: bool = True) -> list[Cost]:
    """Time all networks in turn; for that they have to be in memory together.

    They run as ``Predictor`` runs them: in evaluation and inference mode, channels last.

    Args:
        costs: what to time; those with a problem are left as they are.
        config: how.
        device: where.
        progress: show a bar.

    Returns:
        The costs with their ``timing``, or with a ``problem`` where a network could not be run.
    """

    @cache
    def prepared(network: str, backbone: str) -> SegmentationModel:
        model = _build(network, backbone, config)
        Predictor(model, str(device))  # puts the model itself where it runs, and how
        return model

    def once(cost: Cost) -> float:
        images = torch.randint(0, 256, (config.batch, 3, cost.height, cost.width), dtype=torch.uint8, device=device)
        return time_pass(prepared(cost.network, cost.backbone), images, DTYPES[config.precision])

    passes = {cost: partial(once, cost) for cost in costs if not cost.problem}
    timings, problems = in_turn(passes, config.repeats, progress)
    return [
        replace(cost, timing=timings.get(cost), problem=problems.get(cost, cost.problem)) if cost in passes else cost
        for cost in costs
    ]


def _find_device(config: ProfileConfig) -> torch.device:
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise UsageError('accelerator "gpu": PyTorch finds none here; choose "cpu" or "auto"')
    return torch.device("cuda" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
