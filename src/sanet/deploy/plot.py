"""Accuracy against cost, as a picture; the one file that needs matplotlib (extra ``figures``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from sanet.deploy.config import Published
from sanet.deploy.profile import Profile
from sanet.deploy.timing import Timing
from sanet.files import written

COLOR, FAINT = "#0072B2", "#8c8c8c"
# Where a name may stand around its point, in typographic points, and how it is aligned there. Lines are horizontal, so
# above and below come first.
SIDES = ((0, 6, "center", "bottom"), (0, -6, "center", "top"), (7, 0, "left", "center"), (-7, 0, "right", "center"))


class _Point(NamedTuple):
    name: str
    miou: float
    macs: float
    published: Published
    timing: Timing | None


def plot(profile: Profile, paths: Sequence[Path]) -> None:
    """Draw the known mIoU over MACs and, where it was measured, over latency.

    Args:
        profile: with accuracies in its configuration.
        paths: of the picture, which is drawn once for each; their endings name the formats.
    """
    points = [
        _Point(profile.label(cost), published.miou, cost.macs / 1e9, published, cost.timing)
        for cost, published in ((cost, profile.published(cost)) for cost in profile.costs)
        if published.miou is not None and cost.macs is not None
    ]
    timed = [point for point in points if point.timing is not None]
    figure = Figure(figsize=(11.0, 4.2) if timed else (6.4, 4.2), layout="constrained")
    panes: list[Axes] = figure.subplots(1, 2 if timed else 1, squeeze=False, sharey=True)[0].tolist()
    height, width = profile.config.sizes[0]
    panes[0].set_xlabel(f"MACs (G), one picture of {height}x{width}")
    panes[0].set_ylabel("published mIoU (%)")
    _draw_macs(panes[0], points)
    if timed:
        batch = f"a batch of {profile.config.batch}" if profile.config.batch > 1 else "one picture"
        panes[1].set_xlabel(f"latency (ms), {batch}, median and 10th to 90th percentile")
        _draw_latency(panes[1], timed)
    for pane, drawn in zip(panes, (points, timed), strict=False):
        pane.grid(color="#e8e8e8")
        pane.set_axisbelow(True)
        pane.spines[["top", "right"]].set_visible(False)
        pane.margins(0.12)
        # Settles where the axes are, which the names have to fit into.
        figure.draw_without_rendering()
        _write_names(pane, [point.name for point in drawn])
    for path in paths:
        with written(path) as aside:
            figure.savefig(aside, dpi=160, format=path.suffix[1:])


def _draw_macs(pane: Axes, points: Sequence[_Point]) -> None:
    theirs = [(point.published.macs, point.miou) for point in points if point.published.macs is not None]
    for point in points:
        if point.published.macs is not None:
            pane.plot([point.published.macs, point.macs], [point.miou] * 2, color=FAINT, linewidth=1, zorder=1)
    if theirs:
        pane.scatter(*zip(*theirs, strict=True), facecolor="white", edgecolor=FAINT, label="MACs as published")
    pane.scatter([point.macs for point in points], [point.miou for point in points], color=COLOR, label="counted here")
    if theirs:
        pane.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize="small")


def _draw_latency(pane: Axes, points: Sequence[_Point]) -> None:
    times = 1e3 * np.array(
        [(point.timing.low, point.timing.median, point.timing.high) for point in points if point.timing]
    )
    low, median, high = times.T
    accuracies = [point.miou for point in points]
    pane.errorbar(median, accuracies, xerr=(median - low, high - median), fmt="none", ecolor=FAINT, capsize=3, zorder=1)
    pane.scatter(median, accuracies, color=COLOR)


def _write_names(pane: Axes, names: Sequence[str]) -> None:
    """Each beside its point, the last that were drawn, on the first side where nothing is in the way."""
    places = np.asarray(pane.collections[-1].get_offsets())
    taken = [
        Bbox.from_extents(x - 6, y - 6, x + 6, y + 6)
        for collection in pane.collections
        for x, y in pane.transData.transform(np.asarray(collection.get_offsets()))
    ]
    for name, place in zip(names, places, strict=True):
        text = pane.annotate(name, place, (0, 0), textcoords="offset points", fontsize="small")
        text.set_in_layout(False)
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])
        for x, y, horizontal, vertical in SIDES:
            text.xyann = (x, y)
            text.set(horizontalalignment=horizontal, verticalalignment=vertical)
            box = text.get_window_extent()
            inside = pane.bbox.x0 < box.x0 and box.x1 < pane.bbox.x1 and pane.bbox.y0 < box.y0 and box.y1 < pane.bbox.y1
            if inside and not box.count_overlaps(taken):
                break
        taken.append(text.get_window_extent())
