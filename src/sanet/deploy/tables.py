"""Profiles for people and programs: Markdown, which reads well in a terminal too, CSV, and a plot."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from sanet.deploy.profile import WARM_UP, Cost, Profile
from sanet.files import written
from sanet.tables import MISSING, markdown_table

WIDTH = 110


def render(profile: Profile) -> str:
    """What was measured and how, and the costs with published figures beside them; as Markdown."""
    problems = {profile.label(cost): cost.problem for cost in profile.costs}
    notes = {profile.label(cost): profile.published(cost).note for cost in profile.costs}
    rows = [_cells(profile, cost) for cost in profile.costs]
    table = markdown_table(list(rows[0]), [list(row.values()) for row in rows])
    return "\n\n".join(part for part in (_describe(profile), table, _bullets(problems), _bullets(notes)) if part)


def difference(found: float, published: float) -> float:
    """Of what was counted from the published figure, in per cent of that."""
    return 100 * (found - published) / published


def records(profile: Profile) -> list[dict[str, Any]]:
    """A flat row for every cost, as the CSV file has it; None where there is no figure."""
    return [_record(profile, cost) for cost in profile.costs]


def _record(profile: Profile, cost: Cost) -> dict[str, Any]:
    config, published, timing = profile.config, profile.published(cost), cost.timing
    machine = profile.machine if timing else None
    return {
        "network": cost.network,
        "backbone": cost.backbone,
        "output_stride": config.output_stride,
        "num_classes": config.num_classes,
        "height": cost.height,
        "width": cost.width,
        "batch": config.batch,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "activation_bytes": cost.activations,
        "latency_s": timing and timing.median,
        "latency_low_s": timing and timing.low,
        "latency_high_s": timing and timing.high,
        "repeats": timing and timing.repeats,
        "images_per_s": timing and config.batch / timing.median,
        "precision": timing and config.precision,
        "device": machine and machine.name,
        "threads": machine and machine.threads,
        "torch": machine and machine.torch,
        "miou": published.miou,
        "published_parameters_m": published.parameters,
        "published_macs_g": published.macs,
        "problem": cost.problem,
    }


def files_in(folder: Path) -> list[Path]:
    """What ``write`` writes, at most."""
    return [folder / name for name in ("profile.csv", "profile.md", "accuracy-cost.png", "accuracy-cost.svg")]


def write(profile: Profile, folder: Path) -> list[Path]:
    """Write profile.csv, profile.md and, where accuracies are known, a plot as PNG and SVG.

    Returns:
        The files.

    Raises:
        UsageError: a file that sanet did not write is in the way.
        SanetError: the folder cannot be written to.
    """
    table, text, *plots = files_in(folder)
    rows = records(profile)
    with written(table) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with written(text) as aside:
        aside.write_text(f"{render(profile)}\n", encoding="utf-8")
    if all(profile.published(cost).miou is None for cost in profile.costs if cost.macs is not None):
        return [table, text]
    from sanet.deploy.plot import plot

    plot(profile, plots)
    return [table, text, *plots]


def _describe(profile: Profile) -> str:
    config, machine = profile.config, profile.machine
    sizes = ", ".join(f"{height}x{width}" for height, width in config.sizes)
    text = (
        f"Backbone {', '.join(config.backbones)}; images of {sizes}; output stride {config.output_stride}; "
        f"{config.num_classes} classes; batch size {config.batch}. MACs: multiply-accumulates in the convolutions and "
        "matrix products of one image. Memory: what a training pass over a batch keeps for the backward pass, in "
        "float32, parameters left out."
    )
    if config.published:
        text += " In brackets: the published figure, and the difference from it."
    if machine is not None:
        text += (
            " Latency: of a batch, from uint8 to logits of its size; median and 10th to 90th percentile of "
            f"{config.repeats} passes after {WARM_UP} to warm up, the networks in turn; {config.precision}, "
            f"{machine.name}, CPU threads: {machine.threads}, PyTorch {machine.torch}."
        )
    return fill(text, WIDTH, break_on_hyphens=False)


def _cells(profile: Profile, cost: Cost) -> dict[str, str]:
    """A row of the table: what was not measured for any of them has no column."""
    published, timing = profile.published(cost), cost.timing
    cells = {
        "network": profile.label(cost),
        "parameters (M)": _number(cost.parameters, 1e6, published=published.parameters),
        "MACs (G)": _number(cost.macs, 1e9, published=published.macs),
        "memory (MiB)": _number(cost.activations, 2**20, 0),
    }
    if profile.machine is not None:
        cells["latency (ms)"] = _number(timing and timing.median, 1e-3)
        cells["10-90 % (ms)"] = f"{1e3 * timing.low:.2f} - {1e3 * timing.high:.2f}" if timing else MISSING
        cells["images/s"] = _number(timing and profile.config.batch / timing.median)
    if any(entry.miou is not None for entry in profile.config.published.values()):
        cells["mIoU (%)"] = _number(published.miou, digits=1)
    return cells


def _number(value: float | None, unit: float = 1, digits: int = 2, published: float | None = None) -> str:
    """What was counted, and the published figure beside it."""
    if value is None:
        return MISSING
    beside = f" ({published:g}, {difference(value / unit, published):+.1f} %)" if published is not None else ""
    return f"{value / unit:.{digits}f}{beside}"


def _bullets(entries: Mapping[str, str]) -> str:
    lines = [f"- {name}: {text}" for name, text in entries.items() if text]
    return "\n".join(
        fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False) for line in lines
    )
