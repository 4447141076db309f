"""Accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sanet.deploy.profile import Profile
from sanet.files import written


def plot(profile: Profile, paths: Sequence[Path]) -> None:
    """Draw the known mIoU over MACs and, where it was measured, over latency, with a colour for each network."""
    published = [profile.published(cost) for cost in profile.costs]
    points = [
        (cost, cost.macs / 1e9, known.macs, known.miou)
        for cost, known in zip(profile.costs, published, strict=True)
        if known.miou is not None and cost.macs is not None
    ]
    timed = any(cost.timing for cost, *_ in points)
    figure = Figure(figsize=(11.0, 4.2) if timed else (6.4, 4.2), layout="constrained")
    panes: list[Axes] = figure.subplots(1, 2 if timed else 1, squeeze=False, sharey=True)[0].tolist()
    height, width = profile.config.sizes[0]
    panes[0].set_xlabel(f"MACs (G), one image of {height}x{width}; hollow: as published")
    panes[0].set_ylabel("published mIoU (%)")
    for number, (cost, macs, published_macs, miou) in enumerate(points):
        color = f"C{number}"
        panes[0].plot(macs, miou, "o", color=color, label=profile.label(cost))
        if published_macs is not None:
            panes[0].plot([macs, published_macs], [miou, miou], color=color, linewidth=1)
            panes[0].plot(published_macs, miou, "o", color=color, markerfacecolor="white")
        if cost.timing is not None:
            low, median, high = (1e3 * seconds for seconds in (cost.timing.low, cost.timing.median, cost.timing.high))
            panes[1].errorbar(median, miou, xerr=[[median - low], [high - median]], fmt="o", color=color, capsize=3)
    if timed:
        panes[1].set_xlabel(f"latency (ms) of a batch of {profile.config.batch}, 10th to 90th percentile")
    for pane in panes:
        pane.grid(color="#e8e8e8")
        pane.set_axisbelow(True)
        pane.spines[["top", "right"]].set_visible(False)
        pane.margins(0.12)
    figure.legend(loc="outside right upper", frameon=False)
    for path in paths:
        with written(path) as aside:
            figure.savefig(aside, dpi=160, format=path.suffix[1:])
