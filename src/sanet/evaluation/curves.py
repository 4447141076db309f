"""Learning curves and reliability diagrams, as images in a page."""

from __future__ import annotations

from io import StringIO
from math import isfinite, nan
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

# Text stays text, the same numbers make the same file, and grey can be read on white and on black.
GREY = "#808890"
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "sanet", "font.size": 8}
STYLE |= dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), GREY)


def learning_curves(history: list[dict[str, float]], score_names: dict[str, str]) -> Markup | None:
    """Losses, and scores of the validation split, over the epochs, as inline SVG; None where there are no values.

    ``history`` has a run's "epoch" and any of "train/…" and "val/KEY", missing or NaN where unknown; ``score_names``
    says what the scores are called, by KEY.
    """
    values: dict[str, dict[float, float]] = {}
    for row in history:
        for key, value in row.items():
            if isfinite(value) and isfinite(row.get("epoch", nan)):
                values.setdefault(key, {})[row["epoch"] + 1] = value
    losses = {key: points for key, points in values.items() if key.startswith("train/")}
    scores = {name: values[f"val/{key}"] for key, name in score_names.items() if f"val/{key}" in values}
    charts = [(title, series) for title, series in (("losses", losses), ("validation scores", scores)) if series]
    if not charts:
        return None
    with rc_context(STYLE):
        figure, panes = _figure(len(charts))
        for axes, (title, series) in zip(panes, charts, strict=True):
            for name, points in series.items():
                best = max(points, key=lambda epoch: points[epoch])
                share = f"{name} best {points[best]:.1%}, epoch {best:g}"
                label = share if series is scores else f"{name} {points[max(points)]:.3g}"
                axes.plot([*points], [*points.values()], marker=".", label=label)
            axes.set(title=title, xlabel="epoch")
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if series is scores:
                axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.legend(frameon=False, labelcolor="linecolor")
        return _svg(figure)


def reliability_diagram(counts: NDArray[np.float64]) -> Markup:
    """The share of pixels that is correct over their confidence, and how many there are, as inline SVG.

    ``counts`` is what ``calibration.reliability`` counts.
    """
    pixels, confidence, correct = counts[:, counts[0] > 0]
    width = 1 / counts.shape[1]
    with rc_context(STYLE):
        figure, (axes,) = _figure(1)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        places = (np.flatnonzero(counts[0] > 0) + 0.5) * width
        axes.bar(places, pixels / pixels.sum(), 0.9 * width, color="C0", alpha=0.25, label="share of the pixels")
        axes.plot(confidence / pixels, correct / pixels, "o-", color="C1", label="correct")
        axes.set(title="reliability", xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        axes.legend(frameon=False, loc="upper left")
        return _svg(figure)


def _figure(count: int) -> tuple[Figure, list[Axes]]:
    """Panes beside each other, with fixed margins: matplotlib's own layout draws everything once more."""
    figure = Figure(figsize=(4.8 * count, 2.9))
    margins = {"left": 0.11 / count, "right": 1 - 0.04 / count, "bottom": 0.15, "top": 0.91, "wspace": 0.16}
    return figure, [*figure.subplots(1, count, squeeze=False, gridspec_kw=margins)[0]]


def _svg(figure: Figure) -> Markup:
    stream = StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    return Markup(svg[svg.index("<svg") :])
