"""The result of an experiment in cells that a reader or a spreadsheet takes, and as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from pathlib import Path
from typing import Any

from sanet.evaluation.report import SCORE_NAMES
from sanet.experiments.costs import Costs
from sanet.experiments.runner import Result, RowResult
from sanet.experiments.statistics import Difference, Spread, paired_bootstrap

MISSING = "—"


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
        return f"{label(self.better)} over {self.worse.row.recipe.label}"


def label(result: RowResult) -> str:
    """What a row is called."""
    return result.row.recipe.label


def claims(result: Result) -> list[Claim]:
    """Every claim of the experiment that has both its rows, with what became of it."""
    found = []
    for better, worse in result.claims():
        difference = paired_bootstrap(better.picture_sums(), worse.picture_sums())
        ours, theirs = better.row.recipe.published.get("miou"), worse.row.recipe.published.get("miou")
        published = None if ours is None or theirs is None else ours - theirs
        verdict = _verdict(difference, better, worse)
        found.append(Claim(better, worse, difference, published, verdict))
    return found


def _verdict(difference: Difference, better: RowResult, worse: RowResult) -> str:
    """What pictures and seeds allow to say; of a claim that is not the paper's, in other words."""
    papers = better.row.recipe.where != "none"
    apart = better.spread("miou").apart(worse.spread("miou"))
    if min(len(better.runs), len(worse.runs)) < 2:
        return "one run: nothing is said"
    if difference.low > 0 and apart:
        return "reproduced" if papers else "better"
    if difference.high < 0 and apart:
        return "not reproduced: the other way round" if papers else "worse"
    return "not reproduced: within chance" if papers else "level, within chance"


def table(result: Result, costs: Costs) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of the table: scores over the seeds, the paper's beside them, and costs."""
    heading = [
        "network",
        "backbone",
        f"mIoU on {result.split}",
        "pixel accuracy",
        "mean class accuracy",
        "runs",
        "mIoU in the paper",
        "parameters (M)",
        f"MACs (G) at {costs.height}x{costs.width}",
        "time (ms)",
    ]
    rows = []
    for found in result.rows:
        model, published = found.row.config.model, found.row.recipe.published
        cost = costs.rows.get(found.row.name)
        scores = [spread_text(found.spread(name)) if found.runs else MISSING
                  for name in ("miou", "pixel_accuracy", "mean_accuracy")]  # fmt: skip
        rows.append(
            [
                label(found),
                model.backbone,
                *scores,
                f"{len(found.runs)} of {result.config.seeds}" if found.failures else str(len(found.runs)),
                f"{published['miou']:.1f}" if "miou" in published else MISSING,
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
    heading = ["claim", "backbone", "difference here", "95 % over pictures", "in the paper", "verdict"]
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
        rows.append([label(found), *(f"{100 * mean:.1f}" if isfinite(mean) else MISSING for mean in means)])
    return ["IoU", *names], rows


def preface(result: Result, costs: Costs) -> list[str]:
    """What a reader has to know before the figures, a sentence or two each."""
    row = result.rows[0].row
    config = row.config
    scored = [run for found in result.finished() for run in found.runs]
    pictures = f"{scored[0].evaluation.protocol.pictures} pictures of " if scored else ""
    sentences = [
        f"Trained on {config.data.name}, scored on {pictures}its {result.split} split. Epochs: {config.epochs}, crops: "
        f"{config.augmentation.crop[0]}x{config.augmentation.crop[1]}, batches: {config.batch_size}. Mean ± standard "
        f"deviation over seeds: {result.config.seeds}; in per cent. Nothing was chosen by looking at this split.",
        "A difference is between means over seeds; its interval is that of a paired bootstrap over the pictures. A "
        "claim counts as reproduced if that interval is above zero and mean ± deviation of the two do not touch.",
        f"Time: one picture, median of {_repeats(costs)} passes, the networks in turn, on {costs.machine.name}, "
        f"{costs.machine.threads} thread{'s' if costs.machine.threads > 1 else ''}, PyTorch {costs.machine.torch}.",
    ]
    if row.moved():
        sentences.insert(
            1,
            f"The paper's figures are those of {row.recipe.config.data.name} and of its own backbones and schedule: "
            "compare differences between rows with them, not scores.",
        )
    return sentences


def _repeats(costs: Costs) -> int:
    return max((cost.timing.repeats for cost in costs.rows.values()), default=0)


def spread_text(spread: Spread) -> str:
    """Mean ± deviation; the mean alone of one run."""
    return f"{spread.mean:.1f}" if isnan(spread.deviation) else f"{spread.mean:.1f} ± {spread.deviation:.1f}"


def command(result: Result) -> str:
    """What makes this again."""
    config = result.config
    words = [f"sanet experiment {result.name} --data.name {config.data.name}"]
    if config.data.root is not None:
        words.append("--data.root DIR")
    words.append(f"--seeds {config.seeds}")
    if config.epochs is not None:
        words.append(f"--epochs {config.epochs}")
    if config.crop is not None:
        words.append(f'--crop "[{config.crop[0]},{config.crop[1]}]"')
    if config.backbones:
        words.append(f'--backbones "[{",".join(config.backbones)}]"')
    if not config.pretrained_backbone:
        words.append("--pretrained_backbone false")
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
        "\n".join(["Failed; the same command tries again:", "", *(f"- {failure}" for failure in failed)])
        if failed
        else "",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _pipes(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in [heading, *rows]) for column in range(len(heading))]
    lines = [heading, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) + " |"
                     for line in lines)  # fmt: skip


def write_runs(path: Path, result: Result, costs: Costs) -> None:
    """A line for every run, as CSV: scores in [0, 1], seconds, and where the run lies."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for found in result.finished():
            for run in found.runs:
                scores, cost = run.evaluation.scores, costs.rows.get(found.row.name)
                record: dict[str, Any] = {
                    "row": found.row.name,
                    "network": found.row.config.model.name,
                    "backbone": found.row.config.model.backbone,
                    "seed": run.seed,
                    "split": result.split,
                    **{name: getattr(scores, name) for name in SCORE_NAMES if getattr(scores, name) is not None},
                    **{f"iou {name}": value for name, value in scores.class_iou.items()},
                    "published_miou": found.row.recipe.published.get("miou"),
                    "parameters": cost.parameters if cost else None,
                    "macs": cost.macs if cost else None,
                    "seconds": cost.timing.median if cost else None,
                    "run": run.directory.name,
                }
                if writer is None:
                    writer = csv.DictWriter(file, list(record))
                    writer.writeheader()
                writer.writerow(record)
