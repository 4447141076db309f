"""A configuration for somebody's images: what was measured of them decides, and every line says why.

The rules are few; `docs/data.md` says what each rests on, and which ones nothing was compared for yet.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from math import ceil, gcd, inf, isfinite, prod, sqrt
from statistics import median
from time import monotonic
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from sanet.config import TrainConfig, plain
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError
from sanet.data.report import DataReport
from sanet.data.source import Source, records_of
from sanet.data.survey import Survey, survey
from sanet.inference.device import choose_device
from sanet.settings import changed, nested, settings_of
from sanet.structures import Batch, is_live
from sanet.tables import duration
from sanet.training.fit import require_names
from sanet.training.optimization import create_optimizer
from sanet.training.run import with_known_range
from sanet.training.start import create_network
from sanet.training.task import SegmentationTask

# Sides of crops; their pixels in a step; steps of a run; and how many are timed.
SIDES, STEP_PIXELS, STEPS, TIMED = (256, 384), 8 * 256**2, (600, 4000), 5
EPOCHS, VALIDATION = 30, 0.2  # where the steps allow it; share of the time for validations
RARE, THIN = 0.05, 6.0  # of the pixels; in pixels


class Choice(NamedTuple):
    """A setting by its dotted name, its value, and why it has it."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Plan:
    """Settings with their reasons; as a text the YAML file that `sanet train --config` reads.

    Attributes:
        config: all settings.
        choices: those that were chosen.
        title: what they are for.
    """

    config: TrainConfig
    choices: list[Choice]
    title: str

    def with_choices(self, choices: Iterable[Choice]) -> Plan:
        """The plan with these settings as well."""
        more = [*choices]
        settings = changed(self.config) | {choice.name: choice.value for choice in more}
        return Plan(settings_of(TrainConfig, nested(settings)), [*self.choices, *more], self.title)

    def __str__(self) -> str:
        reasons = {choice.name: choice.reason for choice in self.choices}
        return "\n".join([f"# {self.title}", *_lines(self.config, reasons)]) + "\n"


def _lines(section: Any, reasons: Mapping[str, str], prefix: str = "") -> Iterator[str]:
    """YAML of what was chosen, its reason above it, and of what else is not as by default."""
    indent, default = "  " * prefix.count("."), type(section)()
    for item in fields(section):
        name, value = f"{prefix}{item.name}", getattr(section, item.name)
        if is_dataclass(value):
            inner = [*_lines(value, reasons, f"{name}.")]
            yield from [f"{indent}{item.name}:", *inner] if inner else []
        elif name in reasons or value != getattr(default, item.name):
            yield from [f"{indent}# {reasons[name]}"] if name in reasons else []
            text = yaml.safe_dump(
                [plain(value)], default_flow_style=True, allow_unicode=True, sort_keys=False, width=9999
            )
            yield f"{indent}{item.name}: {text.strip()[1:-1]}"


def plan(config: TrainConfig, given: Collection[str] = (), memory: float | None = None, timed: bool = True) -> Plan:
    """Choose what is not given, for the training images and this machine.

    Args:
        config: the dataset, and what is settled already.
        given: the dotted names of the latter, such as {"epochs", "model.backbone"}.
        memory: gigabytes that a step may take where it trains; by default all that there are.
        timed: take a few steps, to say how long training takes and to fit it into the memory.

    Raises:
        UsageError: a name that stands for nothing, before the data are read.
        DataError: the dataset cannot be trained on.

    Example:
        >>> import sanet
        >>> plan = sanet.plan(sanet.TrainConfig(data=sanet.DataConfig(root="photos")), timed=False)
        >>> plan.config.augmentation.crop, plan.choices[0].name
        ((64, 64), 'model.backbone')
    """
    source = data_source(with_known_range(config).data)
    require_names(config, source.labels)
    report = check_data(source, progress=is_live())
    config = replace(config, data=replace(source.settings or config.data, images=report.reading))
    if report.errors:
        raise DataError(f"the dataset has to be fixed first\n\n{report}")
    found, plan = survey(source), Plan(config, [], "")
    for rule in (_network, _crops, _weights, _length):
        choices = rule(Known(found, report, plan.config, given))
        plan = plan.with_choices(choice for choice in choices if choice.name not in given)
    height, width = found.size
    title = f"For {found.images} images of {width}x{height} and {len(report.labels)} classes."
    if timed:
        choice, text = _measured(plan.config, source.reading(report.reading), memory)
        plan, title = plan.with_choices([choice] if choice.name not in given else []), f"{title} {text}"
    return replace(plan, title=title)


class Known(NamedTuple):
    """What a rule may look at."""

    found: Survey
    report: DataReport
    config: TrainConfig
    given: Collection[str]

    def crop(self, planned: list[int]) -> list[int]:
        """The given crop, or else the planned one."""
        return [*self.config.augmentation.crop] if "augmentation.crop" in self.given else planned


def _network(known: Known) -> Iterator[Choice]:
    yield Choice("model.backbone", "tf_efficientnet_lite0", "trains without a GPU, and its weights are at hand")
    if known.config.model.name in ("sanet", "sanet_variant"):
        yield Choice(
            "model.name", "sanet_variant", "of thin things it finds in 165 steps what the paper's own reading does not"
        )
        common = int(known.report.pixels["train"].argmax())
        others = (width for index, width in enumerate(known.found.widths) if index != common and isfinite(width))
        width = median([*others] or [inf])
        if width < THIN:
            path = {"mechanism": "none", "stem": True, "path": True}
            yield Choice(
                "model.options", path, f"things are {width:.1f} pixels wide: a path down to stride 2 finds them"
            )
        else:
            what = "attention pools over 2 cells, 32 pixels at output stride 16"
            yield Choice("model.options", {"downsample": 2}, what)
        yield Choice("model.output_stride", 16, "the attention's window is chosen for it; others were not compared")


def _crops(known: Known) -> Iterator[Choice]:
    """Crops that show whole images where they are small, and lie only as the images themselves could."""
    (height, width), top, side = known.found.size, known.found.top, known.found.side
    longest = min(max(32 * round(sqrt(height * width) / 64), SIDES[0]), SIDES[1])
    planned = [min(longest, 32 * ceil(length / 32)) for length in (height, width)]
    crop = known.crop(planned if top or side else [max(planned)] * 2)
    pixels, free = crop[0] * crop[1], not (top or side)
    yield Choice(
        "augmentation.crop", crop, f"shows {min(1, pixels / (height * width)):.0%} of an image of {width}x{height}"
    )
    yield Choice(
        "augmentation.scale", [0.75, 1.33], "a narrow range, as of images from one source; others were not compared"
    )
    yield Choice("augmentation.hflip", 0.0 if side else 0.5, side or "no class keeps to one side")
    yield Choice(
        "augmentation.vflip", 0.5 if free else 0.0, top or side or "neither a class nor the light keeps to the top"
    )
    yield Choice("augmentation.turns", free and crop[0] == crop[1], top or side or "as for the flips")
    batch = min(8, max(4, 2 * round(STEP_PIXELS / (2 * pixels))))
    yield Choice("batch_size", batch, f"{batch * pixels:,} pixels a step")


def _weights(known: Known) -> Iterator[Choice]:
    pixels, names = known.report.pixels["train"], known.report.labels.names
    share, rarest = min(
        (count / pixels.sum(), name) for name, count in zip(names, pixels.tolist(), strict=True) if count
    )
    reason = f"the rarest class, {rarest}, has {share:.2%} of the pixels"
    yield Choice("loss.class_weighting", "sqrt" if share < RARE else "none", reason)
    if "optimizer.name" not in known.given:
        yield Choice("optimizer.name", "adamw", "what the figures of the plan were trained with; not compared with SGD")
        yield Choice("optimizer.learning_rate", 0.0005, "likewise; other rates were not compared")
        yield Choice("optimizer.weight_decay", 0.01, "the usual one of AdamW")
    yield Choice("schedule.name", "cosine", "falls to 0 at the end of the run; not compared with others")


def _length(known: Known) -> Iterator[Choice]:
    config, (height, width) = known.config, known.found.size
    an_epoch, images = ceil(known.found.images / config.batch_size), known.report.images
    # Without its gradients a pixel takes a third of the time.
    share = images.get("val", 0) * height * width / 3 / (known.found.images * prod(config.augmentation.crop))
    every = max(1, round(share / VALIDATION))
    if "epochs" in known.given or config.budget:
        every = gcd(every, config.epochs)
    else:
        steps = min(max(EPOCHS * an_epoch, STEPS[0]), STEPS[1])
        epochs = every * ceil(steps / an_epoch / every)
        reason = f"{epochs * an_epoch:,} steps, of {an_epoch} an epoch; from {STEPS[0]:,} to {STEPS[1]:,}"
        yield Choice("epochs", epochs, reason)
    yield Choice("validate_every", every, f"a validation takes as long as {share:.2g} epochs")


def _measured(config: TrainConfig, source: Source, memory: float | None) -> tuple[Choice, str]:
    """A few steps on noise: in how many parts they fit into the memory, and how long training takes, in words."""
    device = choose_device(None if config.accelerator in ("auto", "gpu") else config.accelerator)
    task = SegmentationTask(create_network(config, source, from_scratch=False), config, None).to(device).train()
    optimizer, crop = create_optimizer(task.model, config.optimizer), config.augmentation.crop
    images = torch.rand(config.batch_size, task.model.in_chans, *crop, device=device)
    batch = Batch(images, torch.randint(0, len(source.labels), (len(images), *crop), device=device), ())
    ends: list[float] = []
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for _ in range(TIMED + 1):
        kept.clear()
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            terms = task.loss_of(batch)
        torch.autograd.backward(terms["loss"])
        optimizer.step()
        optimizer.zero_grad()
        terms["loss"].item()  # a GPU has finished, too
        ends.append(monotonic())
    seconds, taken = (ends[-1] - ends[0]) / TIMED, sum(kept.values()) / 2**30
    have = memory or _installed(device)
    of = f" of {have:.0f}" if have < inf else ""
    parts = next(
        n for n in range(1, len(images) + 1) if len(images) % n == 0 and (taken / n < 0.8 * have or n == len(images))
    )
    steps = ceil(len(records_of(source, "train")) / config.batch_size)
    took = f"{steps * config.epochs} steps in about {duration(seconds * steps * config.epochs)}"
    if config.budget:
        took = f"about {config.budget / seconds:.0f} steps in {duration(config.budget)}"
    return (
        Choice("gradient_accumulation", parts, f"a step keeps {taken:.1f}{of} GB for its gradients"),
        f"A step takes {seconds:.2g} s on this {device.type}: {took}, validations not counted.",
    )


def _installed(device: torch.device) -> float:
    """Gigabytes; infinite where the system does not say, as Windows."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    if not hasattr(os, "sysconf"):
        return inf
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
