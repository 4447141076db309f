"""The result of an experiment in cells that a reader or a spreadsheet takes, and as Markdown and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from math import isfinite, isnan
from pathlib import Path
from shlex import quote
from typing import Any

from sanet.config import DataConfig, plain
from sanet.evaluation.report import SCORE_NAMES
from sanet.experiments.config import EXPERIMENTS, ExperimentConfig
from sanet.experiments.costs import Costs
from sanet.experiments.runner import Result, RowResult
from sanet.experiments.statistics import Difference, Spread, paired_bootstrap
from sanet.experiments.tables import Row

MISSING = "—"
# With two, one difference in five between equal networks would be taken for one that is there.
RUNS_TO_JUDGE = 3


@dataclass(frozen=True)
class Claim:
    """Two rows, one of which is said to be better.

    Attributes:
        better: the row that is said to be.
        worse: the other.
        difference: of their mIoU here, in shares of 1.
        published: of their mIoU in the paper, in points; None where it says nothing in figures.
        verdict: what follows.
    """

    better: RowResult
    worse: RowResult
    difference: Difference
    published: float | None
    verdict: str

    @property
    def text(self) -> str:
        """The claim in words."""
        return f"{self.better.row.label} over {self.worse.row.label}"


def claims(result: Result) -> list[Claim]:
    """Every claim of the experiment that has both its rows, with what became of it."""
    found = []
    for better, worse in result.claims():
        difference = paired_bootstrap(better.picture_sums(), worse.picture_sums())
        ours, theirs = better.row.recipe.published.get("miou"), worse.row.recipe.published.get("miou")
        published = None if ours is None or theirs is None else ours - theirs
        judged = min(len(better.runs), len(worse.runs)) >= RUNS_TO_JUDGE
        verdict = (
            _verdict(difference, EXPERIMENTS[result.name].published) if judged else f"fewer than {RUNS_TO_JUDGE} runs"
        )
        found.append(Claim(better, worse, difference, published, verdict))
    return found


def _verdict(difference: Difference, published: bool) -> str:
    """What the interval allows to say; of a claim that is not the paper's, in other words."""
    if difference.low > 0:
        return "reproduced" if published else "better"
    if difference.high < 0:
        return "not reproduced: the other way round" if published else "worse"
    return "not reproduced: not told from chance" if published else "not told from chance"


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
        "parameters (M)",
        f"MACs (G) at {costs.height}x{costs.width}",
        "time (ms)",
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
                *(
                    [f"{cost.parameters / 1e6:.2f}", f"{cost.macs / 1e9:.2f}", f"{1e3 * cost.timing.median:.0f}"]
                    if cost
                    else [MISSING] * 3
                ),
            ]
        )
    return heading, rows


def claim_table(found: Sequence[Claim]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: the differences, their intervals, and what follows."""
    heading = ["claim", "backbone", "difference here", "95 % interval", "in the paper", "verdict"]
    return heading, [
        [
            claim.text,
            claim.better.row.config.model.backbone,
            f"{100 * claim.difference.mean:+.1f}",
            f"{100 * claim.difference.low:+.1f} to {100 * claim.difference.high:+.1f}",
            MISSING if claim.published is None else f"{claim.published:+.1f}",
            claim.verdict,
        ]
        for claim in found
    ]


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
    rows = [found.row for found in result.rows]
    configs = [row.config for row in rows]
    scored = [run for found in result.finished() for run in found.runs]
    pictures = f"the {scored[0].evaluation.protocol.pictures} pictures of " if scored else ""
    crops = _each(f"{config.augmentation.crop[0]}x{config.augmentation.crop[1]}" for config in configs)
    chosen = [config.epochs // config.validate_every for config in configs]
    looked = (
        f"Of every run the best of {_each(map(str, chosen))} checkpoints was taken by its score on this very split."
        if result.split == "val" and max(chosen) > 1
        else "No run chose anything by this split."
    )
    views = rows[0].views
    scales = f" at scales of {', '.join(f'{scale:g}' for scale in views.scales)}" if views.scales != (1.0,) else ""
    sentences = [
        f"Trained on {configs[0].data.name}, scored on {pictures}its {result.split} split{scales}"
        f"{', and mirrored' if views.mirror else ''}. Epochs: {_each(str(config.epochs) for config in configs)}; "
        f"crops: {crops}; batches: {_each(str(config.batch_size) for config in configs)}. Mean ± standard deviation "
        f"over the seeds, in per cent. {looked}",
        "A difference is between means over the seeds; its interval is the middle 95 % of a bootstrap that draws "
        "pictures, the same for both networks, and seeds. Where it lies above zero, the first is better; fewer than "
        f"{RUNS_TO_JUDGE} runs of either are not judged.",
        f"Time and MACs: one picture at one scale; the median of {_repeats(costs)} passes, the networks in turn, on "
        f"{costs.machine.name}, threads: {costs.machine.threads}, PyTorch {costs.machine.torch}, "
        f"sanet {version('sanet-segmentation')}.",
    ]
    caution = _caution(rows)
    return [sentences[0], caution, *sentences[1:]] if caution else sentences


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
    """Mean ± deviation; the mean alone of one run."""
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
    heading, *rows = [[cell.replace("|", "\\|") for cell in line] for line in (heading, *rows)]
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
