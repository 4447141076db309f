"""From a picture and some points to a figure of their pixel groups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sanet.data.decoding import read_image, rgb
from sanet.files import written
from sanet.insight.groups import Encoding, Explainer
from sanet.models.networks import SegmentationModel
from sanet.structures import SanetError, UsageError


def explain(
    model: str | Path | SegmentationModel,
    picture: str | Path | Image.Image,
    points: Sequence[tuple[int, int]],
    output: str | Path,
    heads: Sequence[int] | None = None,
    arrays: str | Path | None = None,
    device: str | None = None,
    shorter_side: int | None = None,
) -> Encoding:
    """Show which pixels each head of a SANet groups with the points (figure 6).

    Args:
        model: a model directory, or a model.
        picture: a file or a PIL image, whose EXIF rotation is applied.
        points: column and row of each.
        output: the figure; its ending names the format.
        heads: the stages to show, all by default.
        arrays: an .npz file for the maps: for head s and point p, counted from 0, ``head{s}_point{p}_main``,
            ``…_distance`` and ``…_output``, float32 of the head's own size; ``prediction`` and ``points``.
        device: such as "cpu" or "cuda"; by default a GPU where there is one.
        shorter_side: pixels of the shorter side that the picture is seen with, as of ``Explainer``.

    Raises:
        UsageError: no points, a point outside the picture, a head that the network does not have, no SANet, or a file
            that cannot be written, or that is somebody's own.
        SanetError: the picture cannot be read, or matplotlib is missing.
    """
    try:
        from sanet.insight.figure import draw, require_figure, require_place
    except ImportError as error:
        raise SanetError(f"figures need an extra: pip install 'sanet-segmentation[figures]' ({error})") from error
    if not points:
        raise UsageError("points: name one or more, each by its column and its row")
    inputs = [] if isinstance(picture, Image.Image) else [picture]
    format = require_figure(Path(output), inputs)
    if arrays is not None:
        require_place(Path(arrays), [*inputs, output], "--arrays")
    explainer = Explainer(model, device, shorter_side)
    explainer.require_heads()
    if heads is not None and not (heads and set(heads) <= set(explainer.stages)):
        raise UsageError(f"heads {list(heads)}: one or more of {', '.join(map(str, explainer.stages))}")
    image = rgb(picture) if isinstance(picture, Image.Image) else read_image(Path(picture))
    encoding = explainer.encode(torch.from_numpy(image).permute(2, 0, 1))
    with written(Path(output)) as aside:
        draw(image, encoding, points, aside, heads, format)
    if arrays is not None:
        _keep(Path(arrays), encoding, points)
    return encoding


def _keep(path: Path, encoding: Encoding, points: Sequence[tuple[int, int]]) -> None:
    maps = {
        f"head{group.stage}_point{number}_{name}": getattr(group, name).numpy()
        for number, point in enumerate(points)
        for group in encoding.groups(*point)
        for name in ("main", "distance", "output")
    }
    with written(path, option="--arrays") as aside, aside.open("wb") as file:
        np.savez_compressed(file, prediction=encoding.prediction.numpy(), points=np.array(points), **maps)
