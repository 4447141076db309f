"""A table of repeated runs as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

from sanet.config import TrainConfig
from sanet.evaluation.repeated import COVERAGE, RUNS_TO_JUDGE, Spread
from sanet.references import name_of
from sanet.repeated.costs import Costs
from sanet.repeated.result import Repeated
from sanet.structures import printable
from sanet.tables import MISSING, duration, markdown_table, percent

INTERVAL = "middle 95 % of the bootstrap"
# What may have been published of a row beside the IoU of classes.
SCORES = {
    "miou": "mIoU",
    "miou_with_background": "mIoU with background",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
}
FIGURES = SCORES | {"parameters": "parameters (M)", "macs": "MACs (G)"}
Cells = tuple[list[str], list[list[str]]]


def score_cells(result: Repeated, costs: Costs | None) -> Cells:
    """Header and rows: scores over the seeds, published ones beside them, and costs; then the rows that are quoted."""
    published, metrics = result.published(), result.metrics()
    known = [name for name in FIGURES if any(name in figures for _, figures in published)]
    scores = [name for name in SCORES if name != "miou_with_background" or name in known]
    header = ["row", "network", "backbone", "stride", f"mIoU on {result.split}", *(SCORES[name] for name in scores[1:])]
    header += [*metrics, "runs", *(f"published {FIGURES[name]}" for name in known)]
    header += ["parameters (M)", f"MACs (G) at {costs.size}", "time (ms)"] if costs else []
    rows = []
    for found in result.rows:
        model = found.config.model
        cells = [found.label, printable(name_of(model.name)), model.backbone, str(model.output_stride)]
        cells += [spread_text(found.spread(name)) for name in scores]
        cells += [spread_text(found.spread(name), ".4g", ".2g") for name in metrics]
        cells.append(f"{len(found.runs)} of {result.config.seeds}" if found.failures else str(len(found.runs)))
        cells += [_number(found.published.get(name, nan), ".1f") for name in known]
        if costs:
            parameters, macs, seconds = costs.rows.get(found.name, (nan, nan, nan))
            cells += [_number(parameters / 1e6, ".2f"), _number(macs / 1e9, ".2f"), _number(1e3 * seconds, ".0f")]
        rows.append(cells)
    before = header.index("runs") + 1
    for label, figures in published[len(result.rows) :]:
        quoted = [_number(figures.get(name, nan), ".1f") for name in known]
        rows.append([label, *[MISSING] * (before - 1), *quoted, *[MISSING] * (len(header) - before - len(known))])
    return header, rows


def comparison_cells(result: Repeated) -> Cells:
    """Header and rows: the differences, their intervals, and what follows."""
    header = ["difference", "mIoU", INTERVAL, "published", "verdict"]
    rows = []
    for found in result.comparisons():
        mean, low, high = (_number(100 * value, "+.1f") for value in found.difference)
        interval = f"{low} to {high}" if found.judged else MISSING
        published = MISSING if found.published is None else f"{found.published:+.1f}"
        rows.append([f"{found.first} - {found.second}", mean, interval, published, found.verdict])
    return header, rows


def class_cells(result: Repeated) -> Cells:
    """Header and rows: IoU of every class, the mean over the seeds, in per cent; and what was published of it."""
    finished, published = result.finished(), result.published()
    names = next(iter(finished[0].runs.values())).labels.names if finished else ()
    rows = []
    for found in finished:
        values = [[run.scores.class_iou[name] for run in found.runs.values()] for name in names]
        rows.append([found.label, *(percent(Spread.of(entry).mean) for entry in values)])
    for number, (label, figures) in enumerate(published):
        if not figures.keys().isdisjoint(names):
            called = f"{label}, published" if number < len(result.rows) else label
            rows.append([called, *(_number(figures.get(name, nan), ".1f") for name in names)])
    return ["IoU", *names], rows


def preface(result: Repeated, costs: Costs | None) -> list[str]:
    """What a reader has to know before the figures, a sentence or two each."""
    configs = [found.config for found in result.rows]
    images = [next(iter(found.runs.values())).protocol for found in result.finished()]
    inference = result.config.inference
    scales = (
        f", at scales of {', '.join(f'{scale:g}' for scale in inference.scales)}" if inference.scales != (1.0,) else ""
    )
    looked = max(config.epochs // config.validate_every for config in configs) > 1 and result.split == "val"
    count = f"the {images[0].images} images of " if images else ""
    known = any(figures for _, figures in result.published())
    sentences = [
        "Not finished: something stopped it, and the same command resumes." if result.stopped else "",
        f"Trained on {result.config.data.name}, scored on {count}its "
        f"{result.split} split{scales}{', and flipped' if inference.flip else ''}. "
        f"Epochs: {_each(_epochs(config) for config in configs)}; crops: "
        f"{_each('x'.join(map(str, config.augmentation.crop)) for config in configs)}; batches: "
        f"{_each(config.batch_size for config in configs)}. Mean ± standard deviation over the seeds, in per cent. "
        + ("Of every run the best checkpoint by this very split was taken." if looked else
           "No run chose anything by this split."),
        "Figures that are published or quoted are their authors' and were not measured here." if known else "",
        _differences(result),
        f"Time and MACs: one image at one scale, the networks in turn, on {costs.machine.name}, threads: "
        f"{costs.machine.threads}, PyTorch {costs.machine.torch}." if costs else "",
    ]  # fmt: skip
    return [sentence for sentence in sentences if sentence]


def _epochs(config: TrainConfig) -> str:
    return f"{config.epochs}" if config.budget is None else f"as many as fit into {duration(config.budget)}"


def _differences(result: Repeated) -> str:
    """What differences and their intervals are, and how far to trust them."""
    few = f"Rows with fewer than {RUNS_TO_JUDGE} runs have no interval, and are not judged."
    if not result.config.comparisons:
        return ""
    if max(len(found.runs) for found in result.rows) < RUNS_TO_JUDGE:
        return f"A difference is between means over the seeds. {few}"
    shares = ", ".join(f"{share} % with {runs} seeds" for runs, share in COVERAGE.items())
    return (
        f"A difference is between means over the seeds; beside it stands the {INTERVAL}, which draws images, the same "
        "for both rows, and seeds. It is narrower than a confidence interval of 95 %: where seeds alone differ, it "
        f"included the true difference in {shares} (simulated). Each difference is judged by itself: the more of them, "
        f"the likelier that one misses by chance. {few}"
    )


def spread_text(spread: Spread, mean: str = ".1f", deviation: str = ".1f") -> str:
    """Mean ± deviation in these formats; the mean alone of one run; a dash where there was nothing to score."""
    if isnan(spread.mean) or isnan(spread.deviation):
        return _number(spread.mean, mean)
    return f"{spread.mean:{mean}} ± {spread.deviation:{deviation}}"


def write_markdown(path: Path, result: Repeated, costs: Costs | None) -> None:
    """The whole result, for a terminal, a README or a pull request."""
    compared, failed = comparison_cells(result), [f"- {failure}" for failure in result.failures()]
    parts = [
        f"# {result.config.title}",
        "\n\n".join(preface(result, costs)),
        _pipes(score_cells(result, costs)),
        _pipes(compared) if compared[1] else "",
        _pipes(class_cells(result)),
        "\n".join(["Not finished; the same command tries again:", "", *failed]) if failed else "",
    ]
    path.write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")


def _pipes(cells: Cells) -> str:
    header, rows = cells
    return markdown_table(_escaped(header), [_escaped(row) for row in rows])


def _escaped(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|").replace("<", "\\<") for cell in cells]


def write_runs(path: Path, result: Repeated, costs: Costs | None) -> None:
    """A line for every run, as CSV: scores in [0, 1], seconds, and where the run lies."""
    records: list[dict[str, Any]] = []
    for found in result.finished():
        parameters, macs, seconds = costs.rows.get(found.name, (None,) * 3) if costs else (None,) * 3
        for seed, run in found.runs.items():
            scores = {name: value for name, value in asdict(run.scores).items() if isinstance(value, float)}
            records.append(
                {
                    "row": found.name,
                    "network": name_of(found.config.model.name),
                    "backbone": found.config.model.backbone,
                    "seed": seed,
                    "split": result.split,
                    **scores,
                    **{f"metric {name}": run.metrics.get(name) for name in result.metrics()},
                    **{f"iou {name}": value for name, value in run.scores.class_iou.items()},
                    "published_miou": found.published.get("miou", 0) / 100 or None,
                    "parameters": parameters,
                    "macs": macs,
                    "seconds": seconds,
                    "run": found.directory_of(seed).name,
                }
            )
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def _number(value: float, form: str) -> str:
    return f"{value:{form}}" if isfinite(value) else MISSING


def _each(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
