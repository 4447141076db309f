"""From an image and some points to a figure of their pixel groups, and of what their labels rest on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sanet.data.decoding import read_image, rgb
from sanet.files import require_own, written
from sanet.insight.figure import draw, require_figure
from sanet.insight.groups import Encoding, Explainer
from sanet.models.networks import SegmentationModel
from sanet.structures import UsageError


def explain(
    model: str | Path | SegmentationModel,
    image: str | Path | Image.Image,
    points: Sequence[tuple[int, int]],
    output: str | Path,
    heads: Sequence[int] | None = None,
    save_arrays: str | Path | None = None,
    device: str | None = None,
    shorter_side: int | None = None,
    level: int | None = None,
) -> Encoding:
    """Show which pixels each head of a SANet (figure 6), or the features of any network, group with the points.

    Args:
        model: a model directory, or a model.
        image: a file or a PIL image, whose EXIF rotation is applied.
        points: column and row of each.
        output: the figure; its ending names the format.
        heads: the stages of a SANet to show; by default all.
        save_arrays: .npz file for the maps: for head s and point p, counted from 0, ``head{s}_point{p}_main``,
            ``…_distance`` and ``…_output``, of a level ``level{s}_…``, float32 of its own size; ``point{p}_grad_cam``,
            with what speaks against the class as well; ``prediction`` and ``points``.
        device: name of the device: "cpu", "cuda", "mps" or "xpu"; by default the best there is.
        shorter_side: pixels that the shorter side is resized to, as of ``Explainer``.
        level: level of the backbone whose features are shown, as of ``Explainer``.

    Raises:
        UsageError: no points, a point outside the image, a head or level that the network does not have, a network
            that takes other images than RGB, or a file that cannot be written, or that sanet did not write.
        SanetError: the image cannot be read.
    """
    if not points:
        raise UsageError("points: name one or more, each by its column and its row")
    inputs = [] if isinstance(image, Image.Image) else [image]
    format = require_figure(Path(output), inputs)
    if save_arrays is not None:
        require_own(Path(save_arrays), inputs=[*inputs, output], option="--save-arrays")
    explainer = Explainer(model, device, shorter_side, level)
    explainer.require_rgb()
    if heads is not None and not (heads and {f"head {stage}" for stage in heads} <= {*explainer.names}):
        raise UsageError(f"heads {list(heads)}: this network has {', '.join(explainer.names)}")
    pixels = rgb(image) if isinstance(image, Image.Image) else read_image(Path(image))
    encoding = explainer.encode(torch.from_numpy(pixels).permute(2, 0, 1))
    with written(Path(output)) as aside:
        draw(pixels, encoding, points, aside, heads, format)
    if save_arrays is not None:
        maps = {
            f"{group.source}{group.stage}_point{number}_{name}": getattr(group, name).numpy()
            for number, point in enumerate(points)
            for group in encoding.groups(*point)
            for name in ("main", "distance", "output")
        } | {f"point{number}_grad_cam": encoding.grad_cam(*point).numpy() for number, point in enumerate(points)}
        with written(Path(save_arrays), option="--save-arrays") as aside, aside.open("wb") as file:
            np.savez_compressed(file, prediction=encoding.prediction.numpy(), points=np.array(points), **maps)
    return encoding
