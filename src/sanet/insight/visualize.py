"""The same images under several networks, as figures 5 and 7."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from tqdm import tqdm

from sanet.config import InferenceConfig, MaskFormat
from sanet.data.decoding import read_labels, shape_text, stored_in_color
from sanet.data.values import coding_of, color_coding
from sanet.files import written
from sanet.inference.drawing import IGNORED, WRONG, Mask, RGBImage, error_map, overlay, shares
from sanet.inference.predictor import Predictor
from sanet.insight.figure import WIDTH, require_figure
from sanet.models.store import short_names
from sanet.structures import Color, LabelSet, UsageError, printable

TITLE = 32  # characters that fit above an image


@rc_context({"text.parse_math": False})  # a dollar sign in a name is one
def visualize(
    images: Sequence[str | Path],
    models: Sequence[str | Path],
    output: str | Path,
    masks: Sequence[str | Path] = (),
    mask_format: MaskFormat = "auto",
    device: str | None = None,
    inference: InferenceConfig = InferenceConfig(),
    progress: bool = True,
) -> None:
    """Draw a row for each image, itself and every model's prediction; with masks, a second row of the errors.

    Args:
        images: files.
        models: model directories or exported files; their names are the columns.
        output: the figure; its ending names the format.
        masks: ground truth of the images, in their order; its classes are those of the models.
        mask_format: "index", "color" or "auto", as of a dataset.
        device: name of the device: "cpu", "cuda", "mps" or "xpu"; by default the best there is.
        inference: inference settings of all models.
        progress: show a bar.

    Raises:
        UsageError: no images, no models, masks of another number or size than the images, or, with masks, models of
            different classes; an output that cannot be written, or that sanet did not write.
        DataError: a file that cannot be read, or a mask with a value that is no class.
    """
    format = require_figure(Path(output), [*images, *masks])
    if not images or not models:
        raise UsageError("name one image or more, and one model or more")
    if masks and len(masks) != len(images):
        raise UsageError(f"{len(masks)} masks for {len(images)} images: one for each, in the same order")
    named = zip(short_names(models), models, strict=True)
    predictors = {name: Predictor(model, device, inference) for name, model in named}
    if masks and len({predictor.labels.names for predictor in predictors.values()}) > 1:
        raise UsageError("the models have different classes, so that the masks cannot be those of all")
    first = next(iter(predictors.values()))
    decoded = [first.shown(first.seen(first.pixels(Path(image)))) for image in images]
    lines = 2 if masks else 1
    heights = [image.shape[0] / image.shape[1] for image in decoded for _ in range(lines)]
    size = (WIDTH * (1 + len(models)), WIDTH * sum(heights) + 0.3 * len(heights) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    panes = figure.subplots(len(heights), 1 + len(models), squeeze=False, height_ratios=heights)
    legend: dict[tuple[str, Color], None] = {}
    for row, image in enumerate(tqdm(decoded, "visualize", unit=" images", disable=not progress)):
        truth = _read_mask(masks[row], first.labels, mask_format, image) if masks else None
        block = panes[lines * row : lines * (row + 1)]
        legend |= _draw_image(block, Path(images[row]), image, predictors, truth)
    if masks:
        legend |= {("wrong", WRONG): None, ("not labelled", IGNORED): None}
    handles = [
        Patch(facecolor="#{:02x}{:02x}{:02x}".format(*color), edgecolor="grey", label=name) for name, color in legend
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(2, 3 * (1 + len(models)) // 2), frameon=False)
    with written(Path(output)) as aside:
        figure.savefig(aside, dpi=110, format=format)


def _draw_image(
    panes: NDArray[Any], path: Path, image: RGBImage, predictors: dict[str, Predictor], truth: Mask | None
) -> dict[tuple[str, Color], None]:
    """Fill one row of panes, or two with ground truth; returns the entries of the legend, each with its colour."""
    legend: dict[tuple[str, Color], None] = {}

    def draw_mask(pane: Axes, mask: Mask, labels: LabelSet, title: str) -> None:
        _show(pane, overlay(image, mask, labels, 0.7), title)
        legend.update({(name, labels.colors[labels.names.index(name)]): None for name in shares(mask, labels)})

    _show(panes[0, 0], image, printable(path.name))
    if truth is not None:
        draw_mask(panes[1, 0], truth, next(iter(predictors.values())).labels, "ground truth")
    for column, (model, predictor) in enumerate(predictors.items(), 1):
        mask, labels = predictor(path).mask, predictor.labels
        draw_mask(panes[0, column], mask, labels, model)
        if truth is not None:
            scored = truth != labels.ignore_index
            wrong = f"{(mask != truth)[scored].mean():.1%}" if scored.any() else "—"
            _show(panes[1, column], error_map(image, truth, mask, labels), f"wrong: {wrong}")
    return legend


def _read_mask(path: str | Path, labels: LabelSet, mask_format: MaskFormat, image: RGBImage) -> Mask:
    in_color = mask_format == "color" or (mask_format == "auto" and stored_in_color(Path(path)))
    mask = read_labels(Path(path), labels, color_coding(labels) if in_color else coding_of(labels))
    if mask.shape != image.shape[:2]:
        raise UsageError(f"{path} is {shape_text(mask)}, its image {shape_text(image)}")
    return mask


def _show(pane: Axes, image: RGBImage, title: str) -> None:
    pane.imshow(image, interpolation="nearest")
    pane.set_title(textwrap.fill(title, TITLE), fontsize="medium")
    pane.set_axis_off()
