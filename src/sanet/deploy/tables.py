"""Profiles for people and programs: Markdown, which reads well in a terminal too, and CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

from sanet.deploy.profile import Profile
from sanet.deploy.timing import WARM_UP, Timing
from sanet.files import written
from sanet.structures import SanetError

MISSING = "—"
WIDTH = 110
# A difference from a published figure that wants an explanation, in per cent.
TOLERANCE = 1.0


class Comparison(NamedTuple):
    """A published figure beside the one found here.

    Attributes:
        label: which network.
        figure: what was counted, and its unit.
        published: the figure.
        found: the figure here.
        difference: of the one here from the published one, in per cent of that.
        note: the configuration's word on the network.
    """

    label: str
    figure: str
    published: float
    found: float
    difference: float
    note: str


def render(profile: Profile) -> str:
    """What was measured and how, the costs, and published figures beside them; as Markdown."""
    compared = comparisons(profile)
    problems = {profile.label(cost): cost.problem for cost in profile.costs if cost.problem}
    parts = [_describe(profile), _cost_table(profile), _bullets(problems)]
    if compared:
        header = ("network", "figure", "published", "here", "difference")
        rows = [
            (row.label, row.figure, f"{row.published:g}", f"{row.found:.2f}", f"{row.difference:+.1f} %")
            for row in compared
        ]
        unexplained = "no reason is given in the configuration (published: note)."
        far = {row.label: row.note or unexplained for row in compared if abs(row.difference) > TOLERANCE}
        parts += [
            markdown_table(header, rows, texts=2),
            f"More than {TOLERANCE:g} % apart:" if far else "",
            _bullets(far),
        ]
    return "\n\n".join(part for part in parts if part)


def comparisons(profile: Profile) -> list[Comparison]:
    """Every published cost beside what was counted here."""
    found = []
    for cost in profile.costs:
        published = profile.published(cost)
        for figure, theirs, number, unit in (
            ("parameters (M)", published.parameters, cost.parameters, 1e6),
            ("MACs (G)", published.macs, cost.macs, 1e9),
        ):
            if theirs is not None and number is not None:
                ours = number / unit
                difference = 100 * (ours - theirs) / theirs
                found.append(Comparison(profile.label(cost), figure, theirs, ours, difference, published.note))
    return found


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """A pipe table whose columns are aligned as they stand: the first ``texts`` to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    rule = [
        f":{'-' * (width - 1)}" if column < texts else f"{'-' * (width - 1)}:" for column, width in enumerate(widths)
    ]
    lines = []
    for row in (header, rule, *rows):
        cells = zip(row, widths, strict=True)
        aligned = [
            cell.ljust(width) if column < texts else cell.rjust(width) for column, (cell, width) in enumerate(cells)
        ]
        lines.append(f"| {' | '.join(aligned)} |")
    return "\n".join(lines)


def records(profile: Profile) -> list[dict[str, Any]]:
    """A flat row for every cost, as the CSV file has it; None where there is no figure."""
    return [
        {
            "network": cost.network,
            "backbone": cost.backbone,
            "output_stride": profile.config.output_stride,
            "num_classes": profile.config.num_classes,
            "height": cost.height,
            "width": cost.width,
            "batch": profile.config.batch,
            "parameters": cost.parameters,
            "macs": cost.macs,
            "activation_bytes": cost.activations,
            **_timing_record(profile, cost.timing),
            "miou": profile.published(cost).miou,
            "published_parameters_m": profile.published(cost).parameters,
            "published_macs_g": profile.published(cost).macs,
            "problem": cost.problem,
        }
        for cost in profile.costs
    ]


def files_in(folder: Path) -> list[Path]:
    """What ``write`` writes, at most."""
    return [folder / name for name in ("profile.csv", "profile.md", "accuracy-cost.png", "accuracy-cost.svg")]


def write(profile: Profile, folder: Path) -> list[Path]:
    """Write profile.csv, profile.md and, where accuracies are known, a plot as PNG and SVG.

    Returns:
        The files.

    Raises:
        UsageError: somebody's file is in the way.
        SanetError: the folder cannot be written to, or there is something to plot and no matplotlib.
    """
    table, text, *pictures = files_in(folder)
    rows = records(profile)
    with written(table) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with written(text) as aside:
        aside.write_text(f"{render(profile)}\n", encoding="utf-8")
    if all(profile.published(cost).miou is None for cost in profile.costs if cost.macs is not None):
        return [table, text]
    try:
        from sanet.deploy.plot import plot
    except ImportError as error:
        raise SanetError(
            f"{table} and {text} are written; the plot needs an extra: "
            f"pip install 'sanet-segmentation[figures]' ({error})"
        ) from error
    plot(profile, pictures)
    return [table, text, *pictures]


def _describe(profile: Profile) -> str:
    config, machine = profile.config, profile.machine
    batch = "one picture" if config.batch == 1 else f"a batch of {config.batch}"
    common = [
        *([f"backbone {config.backbones[0]}"] if len(config.backbones) == 1 else []),
        *([f"pictures of {_size(*config.sizes[0])}"] if len(config.sizes) == 1 else []),
        f"output stride {config.output_stride}",
        f"{config.num_classes} classes",
    ]
    sentences = [
        f"Measured with {', '.join(common)}.",
        "MACs: multiply-accumulates in the convolutions and matrix products of one picture.",
        f"Memory: what a training pass over {batch} keeps for the way back, in float32, parameters left out.",
    ]
    if machine is not None:
        threads = "1 CPU thread" if machine.threads == 1 else f"{machine.threads} CPU threads"
        sentences.append(
            f"Latency of {batch}, from uint8 to logits of its size: median and 10th to 90th percentile of "
            f"{config.repeats} passes after {WARM_UP} to warm up, the networks in turn; {config.precision}, "
            f"{machine.name}, {threads}, PyTorch {machine.torch}."
        )
    return fill(" ".join(sentences), WIDTH, break_on_hyphens=False)


def _cost_table(profile: Profile) -> str:
    """A row for every cost; what is the same for all of them, or was not asked for, has no column."""
    config, costs, timings = profile.config, profile.costs, [cost.timing for cost in profile.costs]
    texts = {"network": [cost.network for cost in costs]}
    if len(config.backbones) > 1:
        texts["backbone"] = [cost.backbone for cost in costs]
    if len(config.sizes) > 1:
        texts["height x width"] = [_size(cost.height, cost.width) for cost in costs]
    figures = {
        "parameters (M)": [_number(cost.parameters, 1e6) for cost in costs],
        "MACs (G)": [_number(cost.macs, 1e9) for cost in costs],
        "memory (MiB)": [_number(cost.activations, 2**20, 0) for cost in costs],
    }
    if profile.machine is not None:
        figures["latency (ms)"] = [_number(timing and timing.median, 1e-3) for timing in timings]
        figures["10-90 % (ms)"] = [
            MISSING if timing is None else f"{_number(timing.low, 1e-3)} - {_number(timing.high, 1e-3)}"
            for timing in timings
        ]
        figures["pictures/s"] = [_number(timing and config.batch / timing.median, 1) for timing in timings]
    accuracies = [profile.published(cost).miou for cost in costs]
    if any(accuracy is not None for accuracy in accuracies):
        figures["mIoU (%)"] = [_number(accuracy, 1, 1) for accuracy in accuracies]
    columns = texts | figures
    return markdown_table(list(columns), list(zip(*columns.values(), strict=True)), len(texts))


def _timing_record(profile: Profile, timing: Timing | None) -> dict[str, Any]:
    names = ("latency_s", "latency_low_s", "latency_high_s", "repeats", "pictures_per_s")
    if timing is None or profile.machine is None:
        return dict.fromkeys((*names, "precision", "device", "threads", "torch"))
    figures = (timing.median, timing.low, timing.high, timing.repeats, profile.config.batch / timing.median)
    return {
        **dict(zip(names, figures, strict=True)),
        "precision": profile.config.precision,
        "device": profile.machine.name,
        "threads": profile.machine.threads,
        "torch": profile.machine.torch,
    }


def _number(value: float | None, unit: float, digits: int = 2) -> str:
    return MISSING if value is None else f"{value / unit:.{digits}f}"


def _size(height: int, width: int) -> str:
    return f"{height}x{width}"


def _bullets(entries: Mapping[str, str]) -> str:
    return "\n".join(
        fill(f"- {name}: {text}", WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
        for name, text in entries.items()
    )
