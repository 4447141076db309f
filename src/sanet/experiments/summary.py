"""The result of an experiment in cells that a reader or a spreadsheet takes, and as Markdown and CSV."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from importlib.metadata import version
from math import isfinite, isnan
from pathlib import Path
from shlex import quote
from typing import Any

from sanet.config import DataConfig, plain
from sanet.evaluation.report import SCORE_NAMES
from sanet.experiments.claims import INTERVAL, MISSING, RUNS_TO_JUDGE, Claim, claim_table
from sanet.experiments.config import ExperimentConfig
from sanet.experiments.costs import Costs, RowCost
from sanet.experiments.runner import Result
from sanet.evaluation.repeated import Spread
from sanet.experiments.tables import Row

# In per cent, by the runs of each network: docs/results/coverage.csv, by benchmarks/coverage.py.
COVERAGE = {3: 86, 5: 91, 10: 93}


def table(result: Result, costs: Costs) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the table: scores over the seeds, the paper's beside them, and costs."""
    paper = [row.row.recipe.published.get("miou") for row in result.rows]
    heading = [
        "network",
        "backbone",
        "stride",
        f"mIoU on {result.split}",
        "pixel accuracy",
        "mean class accuracy",
        "runs",
        *(["mIoU in the paper"] if any(paper) else []),
        *(["parameters (M)", f"MACs (G) at {costs.height}x{costs.width}", "time (ms)"] if costs.rows else []),
    ]
    rows = []
    for found, published in zip(result.rows, paper, strict=True):
        model, cost = found.row.config.model, costs.rows.get(found.row.name)
        spreads = [found.spread(name) for name in ("miou", "pixel_accuracy", "mean_accuracy")] if found.runs else []
        rows.append(
            [
                found.row.label,
                model.backbone,
                str(model.output_stride),
                *([spread_text(spread) for spread in spreads] or [MISSING] * 3),
                f"{len(found.runs)} of {result.config.seeds}" if found.failures else str(len(found.runs)),
                *([f"{published:.1f}" if published else MISSING] if any(paper) else []),
                *(_cost_cells(cost) if costs.rows else []),
            ]
        )
    return heading, rows


def _cost_cells(cost: RowCost | None) -> list[str]:
    if cost is None:
        return [MISSING] * 3
    return [f"{cost.parameters / 1e6:.2f}", f"{cost.macs / 1e9:.2f}", f"{1e3 * cost.timing.median:.0f}"]


def class_table(result: Result) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: IoU of every class, the mean over the seeds, in per cent."""
    finished = result.finished()
    names = finished[0].runs[0].evaluation.labels.names if finished else ()
    rows = []
    for found in finished:
        values = [[run.evaluation.scores.class_iou[name] for run in found.runs] for name in names]
        means = [Spread.of(entry).mean for entry in values]
        rows.append([found.row.label, *(f"{100 * mean:.1f}" if isfinite(mean) else MISSING for mean in means)])
    return ["IoU", *names], rows


def preface(result: Result, costs: Costs) -> list[str]:
    """What a reader has to know before the figures, a sentence or two each."""
    sentences = [
        "Not finished: something stopped it, and the same command goes on." if result.stopped else "",
        _training(result),
        _arguments([found.row for found in result.rows]),
        _caution([found.row for found in result.rows]),
        _differences(result),
        f"Time and MACs: one picture at one scale; the median of {_repeats(costs)} passes, the networks in turn, on "
        f"{costs.machine.name}, threads: {costs.machine.threads}, PyTorch {costs.machine.torch}, "
        f"sanet {version('sanet-segmentation')}."
        if costs.rows
        else "Time and MACs: not measured.",
    ]
    return [sentence for sentence in sentences if sentence]


def _training(result: Result) -> str:
    """On what the rows were trained and scored, how, and how often."""
    configs = [found.row.config for found in result.rows]
    scored = [run for found in result.finished() for run in found.runs]
    pictures = f"the {scored[0].evaluation.protocol.pictures} pictures of " if scored else ""
    crops = _each(f"{config.augmentation.crop[0]}x{config.augmentation.crop[1]}" for config in configs)
    chosen = [config.epochs // config.validate_every for config in configs]
    looked = (
        f"Of every run the best of {_each(map(str, chosen))} checkpoints was taken by its score on this very split."
        if result.split == "val" and max(chosen) > 1
        else "No run chose anything by this split."
    )
    views = result.rows[0].row.views
    scales = f" at scales of {', '.join(f'{scale:g}' for scale in views.scales)}" if views.scales != (1.0,) else ""
    return (
        f"Trained on {configs[0].data.name}, scored on {pictures}its {result.split} split{scales}"
        f"{', and mirrored' if views.flip else ''}. Epochs: {_each(str(config.epochs) for config in configs)}; "
        f"crops: {crops}; batches: {_each(str(config.batch_size) for config in configs)}. "
        f"{'Mean ± standard deviation over the seeds' if several_seeds(result) else 'One seed'}, in per cent. {looked}"
    )


def _arguments(rows: Sequence[Row]) -> str:
    """Which arguments the networks have that are not their recipes', if any have some."""
    labels: dict[str, list[str]] = {}
    for row in rows:
        if row.recipe.label not in (known := labels.setdefault(row.arguments(), [])):
            known.append(row.recipe.label)
    of_all = len(labels) == 1
    texts = [
        arguments if of_all else f"{', '.join(labels[arguments])}: {arguments}" for arguments in labels if arguments
    ]
    return f"Arguments of {'every network' if of_all else 'networks'}, {'; '.join(texts)}." if texts else ""


def several_seeds(result: Result) -> bool:
    """Whether any row has more than one run, and so a deviation."""
    return any(len(found.runs) > 1 for found in result.rows)


def _differences(result: Result) -> str:
    """What differences and their intervals are, and how far to trust them."""
    few = f"Fewer than {RUNS_TO_JUDGE} runs of either network have no interval, and are not judged."
    if max(len(found.runs) for found in result.rows) < RUNS_TO_JUDGE:
        return f"A difference is between means over the seeds. {few}"
    held = ", ".join(f"{share} % with {runs} seeds" for runs, share in COVERAGE.items())
    return (
        f"A difference is between means over the seeds; beside it stands the {INTERVAL}, which draws pictures, the "
        "same for both networks, and seeds. Where that lies above zero, the first is better. It is narrower than a "
        f"confidence interval of 95 %: where seeds alone differ, it held the true difference in {held} (simulated). "
        "Each claim is judged by itself: the more of them, the likelier that one misses by chance. "
        f"{few}"
    )


def _caution(rows: Sequence[Row]) -> str:
    """What keeps figures here from being compared with the paper's, if there are any."""
    published = [row for row in rows if row.recipe.published]
    if not published:
        return ""
    where = _each(row.recipe.where for row in published)
    if any(row.moved() for row in published):
        return (
            f"The paper's figures ({where}) are those of {published[0].recipe.config.data.name}, its own backbones and "
            "schedule: compare differences between rows with them, not scores."
        )
    return f"The paper's figures: {where}."


def _each(values: Iterable[str]) -> str:
    """All different ones, in their order."""
    return ", ".join(dict.fromkeys(values))


def _repeats(costs: Costs) -> int:
    return max((cost.timing.repeats for cost in costs.rows.values()), default=0)


def spread_text(spread: Spread) -> str:
    """Mean ± deviation; the mean alone of one run; a dash where there was nothing to score."""
    if isnan(spread.mean):
        return MISSING
    return f"{spread.mean:.1f}" if isnan(spread.deviation) else f"{spread.mean:.1f} ± {spread.deviation:.1f}"


def command(result: Result) -> str:
    """What makes this again, in a folder of one's own."""
    config = replace(result.config, output=ExperimentConfig().output)
    if config.data.root is not None:
        config = replace(config, data=replace(config.data, root="DIR"))
    words = ["sanet", "experiment", result.name]
    for prefix, given, default in (("data.", config.data, DataConfig()), ("", config, ExperimentConfig())):
        for item in fields(given):
            value = getattr(given, item.name)
            if value != getattr(default, item.name) and item.name != "data":
                text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
                words += [f"--{prefix}{item.name}", quote(text)]
    return " ".join(words)


def markdown(result: Result, costs: Costs, found: Sequence[Claim]) -> str:
    """The whole result, for a terminal, a README or a pull request."""
    failed = [f"- {failure}" for failure in result.failures()]
    parts = [
        f"# {result.title}",
        f"```\n{command(result)}\n```",
        "\n\n".join(preface(result, costs)),
        _pipes(*table(result, costs)),
        _pipes(*claim_table(found)) if found else "",
        _pipes(*class_table(result)),
        "\n".join(["Not finished; the same command tries again:", "", *failed]) if failed else "",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _pipes(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heading, *rows = [[re.sub(r"\||<|\](?=\()", r"\\\g<0>", cell) for cell in line] for line in (heading, *rows)]
    widths = [max(len(row[column]) for row in [heading, *rows]) for column in range(len(heading))]
    lines = [heading, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) + " |"
                     for line in lines)  # fmt: skip


def write_runs(path: Path, result: Result, costs: Costs) -> None:
    """A line for every run, as CSV: scores in [0, 1], the paper's too, seconds, and where the run lies."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for found in result.finished():
            for run in found.runs:
                scores, cost = run.evaluation.scores, costs.rows.get(found.row.name)
                published = found.row.recipe.published.get("miou")
                record: dict[str, Any] = {
                    "row": found.row.name,
                    "network": found.row.config.model.name,
                    "backbone": found.row.config.model.backbone,
                    "seed": run.seed,
                    "split": result.split,
                    **{name: getattr(scores, name) for name in SCORE_NAMES if getattr(scores, name) is not None},
                    **{f"iou {name}": value for name, value in scores.class_iou.items()},
                    "published_miou": published / 100 if published else None,
                    "parameters": cost.parameters if cost else None,
                    "macs": cost.macs if cost else None,
                    "seconds": cost.timing.median if cost else None,
                    "run": run.directory.name,
                }
                if writer is None:
                    writer = csv.DictWriter(file, list(record))
                    writer.writeheader()
                writer.writerow(record)
