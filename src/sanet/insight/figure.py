"""Pixel groups as a figure, laid out as figure 6."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sanet.files import require_own
from sanet.inference.drawing import RGBImage, overlay
from sanet.insight.groups import Encoding
from sanet.structures import UsageError

# Distinct on any image, and for most colour-blind readers.
MARKERS = ("#0072b2", "#f0e442", "#cc79a7", "#009e73", "#d55e00", "#56b4e9")
ROWS = {
    "head": ("main channel", "attention channel\n(distance)", "output"),
    "level": ("feature map", "features\n(distance)", "output"),
}
WIDTH = 3.0  # inches of one image
LONGEST = 1000  # pixels of it that are drawn, about: more are not visible


def draw(
    image: RGBImage,
    encoding: Encoding,
    points: Sequence[tuple[int, int]],
    path: str | Path,
    stages: Sequence[int] | None = None,
    format: str | None = None,
) -> None:
    """Draw the groups of some points, three rows for each head and a column for each point, as the paper does.

    A last row has their Grad-CAM. For a single point, the heads stand side by side, or the three maps of a single one,
    and its Grad-CAM in the first row.

    Args:
        image: (H, W, 3) uint8.
        encoding: of the image.
        points: x and y of each.
        path: of the figure; its ending names the format.
        stages: heads to show; by default all. A level is always shown.
        format: such as "png"; by default the ending of the path.

    Raises:
        UsageError: a point outside the image.
    """
    groups = [encoding.groups(*point) for point in points]
    wanted = [maps.source == "level" or stages is None or maps.stage in stages for maps in encoding.heads]
    heads = [index for index, shown in enumerate(wanted) if shown]
    one, flat = len(points) == 1, len(points) == len(heads) == 1
    # Each block is three rows of panes; a column of it shows a head's group with a point.
    blocks = [[(number, head) for number in range(len(points))] for head in heads]
    if one:
        blocks = [[(0, head) for head in heads]]
    height, width = encoding.size
    rows, columns = 2 if flat else 1 + 3 * len(blocks) + (not one), max(2 + one, len(blocks[0]))
    figure = Figure(figsize=(WIDTH * columns + 1.4, WIDTH * height / width * rows + 0.8), layout="constrained")
    panes = figure.subplots(rows, columns, squeeze=False)
    for pane in panes.flat:
        pane.set_axis_off()
    _draw_labels(panes[0], image, encoding, points)
    for top, block in enumerate(blocks):
        for column, (number, head) in enumerate(block):
            group = groups[number][head]
            cells = panes[1] if flat else panes[1 + 3 * top : 4 + 3 * top, column]
            cells[0].set_title(f"{group.name}, map {group.channel}", fontsize="medium")
            maps = group.main, group.distance, group.output
            for pane, values, name in zip(cells, maps, ROWS[group.source], strict=True):
                # Near is red, as what is activated is.
                _shade(pane, scaled(values.numpy(), reverse=values is group.distance), encoding.size)
                _mark(pane, points[number], number)
                if column == 0:
                    pane.text(-0.04, 0.5, name, transform=pane.transAxes, rotation=90, ha="right", va="center")
    for number, (pane, point) in enumerate(zip(panes[0, 2:] if one else panes[-1], points, strict=False)):
        _shade(pane, scaled(encoding.grad_cam(*point).relu().numpy(), reverse=False), encoding.size)
        _mark(pane, point, number)
        pane.set_title("Grad-CAM", fontsize="medium")
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "jet"), ax=panes[1:, :], shrink=0.6, aspect=30)
    bar.set_ticks([0, 1], labels=["far,\nnot active", "near,\nactive"])
    figure.savefig(path, dpi=110, bbox_inches="tight", format=format)


def require_figure(path: Path, inputs: Iterable[str | Path]) -> str:
    """The format of a figure, if it can be written there; to be called before the work.

    Raises:
        UsageError: an unknown format, an input of the command, or a file that sanet did not write.
    """
    format, known = path.suffix[1:].lower(), FigureCanvasBase.get_supported_filetypes()
    if format not in known:
        raise UsageError(f"{path}: a figure ends in {', '.join(f'.{ending}' for ending in sorted(known))}")
    require_own(path, inputs=inputs)
    return format


def _draw_labels(panes: Iterable[Axes], image: RGBImage, encoding: Encoding, points: Sequence[tuple[int, int]]) -> None:
    height, width = encoding.size
    step = max(1, max(height, width) // LONGEST)
    small, mask = image[::step, ::step], encoding.prediction.numpy()[::step, ::step]
    shown = {"image": small, "prediction": overlay(small, mask, encoding.labels)}
    for pane, (title, pixels) in zip(panes, shown.items(), strict=False):
        pane.imshow(pixels, extent=(0, width, height, 0))
        pane.set_title(title, fontsize="medium")
        for number, point in enumerate(points):
            _mark(pane, point, number)


def _shade(pane: Axes, shades: NDArray[np.float32], size: tuple[int, int]) -> None:
    pane.imshow(shades, cmap="jet", vmin=0, vmax=1, extent=(0, size[1], size[0], 0), interpolation="bilinear")


def _mark(pane: Axes, point: tuple[int, int], number: int) -> None:
    x, y = point[0] + 0.5, point[1] + 0.5
    color = MARKERS[number % len(MARKERS)]
    pane.plot(x, y, "o", color=color, markeredgecolor="white", markeredgewidth=1.5, markersize=9)


def scaled(values: NDArray[np.float32], reverse: bool) -> NDArray[np.float32]:
    """From 0 for the least to 1 for the most, or the other way round."""
    low, high = float(values.min()), float(values.max())
    shares: NDArray[np.float32] = (values - low) / (high - low if high > low else 1)
    return 1 - shares if reverse else shares
