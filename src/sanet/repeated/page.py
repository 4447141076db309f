"""A table of repeated runs as one HTML page: a chart, the tables, and the same images under all networks."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from math import isfinite
from pathlib import Path

import numpy as np

from sanet.data.catalog import data_source
from sanet.evaluation.page import data_url, environment, thumbnail
from sanet.inference.drawing import colorize
from sanet.inference.predictor import Predictor
from sanet.repeated.costs import Costs
from sanet.repeated.result import Repeated
from sanet.repeated.table import class_cells, comparison_cells, preface, score_cells
from sanet.tables import percent

EXAMPLES, WIDTH = 4, 320
Panels = list[tuple[str, str]]


def write_page(path: Path, result: Repeated, costs: Costs | None) -> None:
    """Everything that ``table.md`` says, with a chart, and some images; no other file, script or network is needed."""
    labels = data_source(result.config.data).labels
    text = environment(Path(__file__).parent).get_template("repeat.html.jinja").render(
        title=result.config.title,
        preface=preface(result, costs),
        failures=result.failures(),
        chart=chart(result),
        scores=score_cells(result, costs),
        comparisons=comparison_cells(result),
        classes=class_cells(result),
        legend=zip(labels.names, labels.colors, strict=True),
        examples=[] if result.stopped else examples(result),
    )  # fmt: skip
    path.write_text(text, encoding="utf-8")


def chart(result: Repeated) -> str:
    """MIoU of every row, mean ± deviation, and every difference with its interval, as the URL of a PNG."""
    from matplotlib.figure import Figure

    rows = [(found.label, found.spread("miou")) for found in result.finished()]
    pairs = result.comparisons()
    figure = Figure(figsize=(7, 1.2 + 0.32 * (len(rows) + len(pairs))), layout="constrained")
    heights = [len(rows), len(pairs)] if pairs else [len(rows)]
    axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for place, (_, spread) in enumerate(rows):
        error = spread.deviation if isfinite(spread.deviation) else None
        axes[0].errorbar(spread.mean, place, xerr=error, fmt="o", color="C0", capsize=3)
    axes[0].set(xlabel="mIoU in per cent, mean ± standard deviation", yticks=range(len(rows)))
    axes[0].set(yticklabels=[label for label, _ in rows])
    for place, pair in enumerate(pairs):
        low, mean, high = (100 * value for value in (pair.difference.low, pair.difference.mean, pair.difference.high))
        axes[1].errorbar(mean, place, xerr=[[mean - low], [high - mean]] if pair.judged else None, fmt="o", color="C1",
                         capsize=3)  # fmt: skip
    if pairs:
        axes[1].axvline(0, color="grey", linewidth=1)
        axes[1].set(xlabel="difference of mIoU in points, with its interval", yticks=range(len(pairs)))
        axes[1].set(yticklabels=[f"{pair.first} - {pair.second}" for pair in pairs])
    for axis, count in zip(axes, heights, strict=True):
        axis.set_ylim(count - 0.5, -0.5)
        axis.spines[["top", "right"]].set_visible(False)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=160)
    return f"data:image/png;base64,{b64encode(stream.getvalue()).decode()}"


def examples(result: Repeated) -> list[tuple[str, Panels]]:
    """Some images of the split: as they are, their labels, and what every network made of them."""
    dataset = data_source(result.config.data).open(result.split)
    finished = [(found, *found.model) for found in result.finished() if found.model]
    predictors = [Predictor(model, "cpu", result.config.inference) for _, _, model in finished]
    shown = []
    for index in np.linspace(0, len(dataset) - 1, min(EXAMPLES, len(dataset))).round().astype(int).tolist():
        sample = dataset[index]
        image, mask = sample.image.permute(1, 2, 0).numpy(), sample.mask.numpy()
        if image.shape[-1] != 3 or image.dtype != np.uint8:
            return []  # nothing that a page can show
        panels = [("image", data_url(thumbnail(image, WIDTH), "JPEG"))]
        masks = [("labels", mask)]
        for (found, seed, _), predictor in zip(finished, predictors, strict=True):
            miou = found.runs[seed].image_miou[str(sample.name)]
            masks.append((f"{found.label}, {percent(miou)}", predictor(image).mask))
        labels = dataset.labels
        panels += [(text, data_url(colorize(thumbnail(found, WIDTH), labels), "PNG")) for text, found in masks]
        shown.append((str(sample.name), panels))
    return shown
