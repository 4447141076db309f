"""The same pictures under several networks, as figures 5 and 7; needs matplotlib (extra ``figures``)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from tqdm import tqdm

from sanet.config import InferenceConfig, MaskFormat
from sanet.data.decoding import read_image, read_labels, shape_text
from sanet.data.values import MaskCoding
from sanet.files import written
from sanet.inference.pictures import IGNORED, WRONG, Mask, Picture, error_map, overlay, shares
from sanet.inference.predictor import Predictor
from sanet.insight.figure import require_figure
from sanet.models.store import short_names
from sanet.structures import Color, LabelSet, UsageError, printable

WIDTH = 3.0  # inches of one picture
TITLE = 32  # digits that fit above it


@rc_context({"text.parse_math": False})  # a dollar sign in a name is one
def compare_pictures(
    pictures: Sequence[str | Path],
    models: Sequence[str | Path],
    output: str | Path,
    truth: Sequence[str | Path] = (),
    mask_format: MaskFormat = "index",
    device: str | None = None,
    views: InferenceConfig = InferenceConfig(),
    progress: bool = True,
) -> None:
    """Draw a row for each picture, itself and every model's prediction; with a truth, a second row of the errors.

    Args:
        pictures: files.
        models: model directories or exported files; their names are the columns.
        output: the figure; its ending names the format.
        truth: masks of the pictures, in their order; their classes are those of the models.
        mask_format: "index" or "color", as of a data set.
        device: such as "cpu" or "cuda"; by default a GPU where there is one.
        views: how the models look at a picture.
        progress: show a bar.

    Raises:
        UsageError: no pictures, no models, masks of another number or size than the pictures, or, with masks, models of
            different classes; an output that cannot be written, or that is somebody's own.
        DataError: a file that cannot be read, or a mask with something that is no class.
    """
    format = require_figure(Path(output), [*pictures, *truth])
    predictors = _opened(pictures, models, truth, device, views)
    labels = next(iter(predictors.values())).labels
    lines = 2 if truth else 1
    images = [read_image(Path(picture)) for picture in pictures]
    heights = [image.shape[0] / image.shape[1] for image in images for _ in range(lines)]
    size = (WIDTH * (1 + len(models)), WIDTH * sum(heights) + 0.3 * len(heights) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    panes = figure.subplots(len(heights), 1 + len(models), squeeze=False, height_ratios=heights)
    found: dict[tuple[str, Color], None] = {}
    for row, image in enumerate(tqdm(images, "compare", unit=" pictures", disable=not progress)):
        right = _truth(truth[row], labels, mask_format, image) if truth else None
        _show(panes[lines * row, 0], image, printable(Path(pictures[row]).name))
        if right is not None:
            _show(panes[lines * row + 1, 0], overlay(image, right, labels, 0.7), "truth")
            found |= _entries(right, labels)
        for column, (name, predictor) in enumerate(predictors.items(), 1):
            mask = predictor(image)
            found |= _entries(mask, predictor.labels)
            _show(panes[lines * row, column], overlay(image, mask, predictor.labels, 0.7), name)
            if right is not None:
                scored = right != labels.ignore_index
                wrong = f"{(mask != right)[scored].mean():.1%}" if scored.any() else "—"
                _show(panes[lines * row + 1, column], error_map(image, right, mask, labels), f"wrong: {wrong}")
    if truth:
        found |= {("wrong", WRONG): None, ("not labelled", IGNORED): None}
    handles = [
        Patch(facecolor="#{:02x}{:02x}{:02x}".format(*color), edgecolor="grey", label=name) for name, color in found
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(2, 3 * (1 + len(models)) // 2), frameon=False)
    with written(Path(output)) as aside:
        figure.savefig(aside, dpi=110, format=format)


def _entries(mask: Mask, labels: LabelSet) -> dict[tuple[str, Color], None]:
    """Of the legend: every class that is in a mask, in the colour that it has there."""
    return {(name, labels.colors[labels.names.index(name)]): None for name in shares(mask, labels)}


def _opened(
    pictures: Sequence[str | Path],
    models: Sequence[str | Path],
    truth: Sequence[str | Path],
    device: str | None,
    views: InferenceConfig,
) -> dict[str, Predictor]:
    """The models by name, if all that is named goes together."""
    if not pictures or not models:
        raise UsageError("name one picture or more, and one model or more")
    if truth and len(truth) != len(pictures):
        raise UsageError(f"{len(truth)} masks for {len(pictures)} pictures: one for each, in the same order")
    named = zip(short_names(models), models, strict=True)
    predictors = {name: Predictor(model, device, views) for name, model in named}
    if truth and len({predictor.labels.names for predictor in predictors.values()}) > 1:
        raise UsageError("the models have different classes, so one truth cannot be that of all")
    return predictors


def _truth(path: str | Path, labels: LabelSet, mask_format: MaskFormat, image: Picture) -> Mask:
    mask = read_labels(Path(path), labels, MaskCoding(format=mask_format))
    if mask.shape != image.shape[:2]:
        raise UsageError(f"{path} is {shape_text(mask)}, its picture {shape_text(image)}")
    return mask


def _show(pane: Axes, picture: Picture, title: str) -> None:
    pane.imshow(picture, interpolation="nearest")
    pane.set_title(textwrap.fill(title, TITLE), fontsize="medium")
    pane.set_axis_off()
