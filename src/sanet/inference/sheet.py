"""A sheet of labelled images, each beside the same with its labels laid over, above a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sanet.inference.drawing import FONT, overlay, with_legend
from sanet.structures import LabelSet, Sample

COLUMNS, SIDE = 2, 480  # images in a row, and the longest side of each in pixels


def sheet_of(samples: Sequence[Sample], labels: LabelSet, shares: Mapping[str, float]) -> Image.Image:
    """The sheet of one image or more; the legend has the classes with a share, by name, above 0."""
    tiles = [_tile(sample, labels) for sample in samples]
    width, height = (max(tile.size[side] for tile in tiles) for side in (0, 1))
    columns = 1 if width > SIDE * COLUMNS else COLUMNS
    sheet = Image.new("RGB", (width * columns, height * -(-len(tiles) // columns)), "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * width, index // columns * height))
    return with_legend(np.array(sheet), labels, shares)


def _tile(sample: Sample, labels: LabelSet) -> Image.Image:
    factor = min(1.0, SIDE / max(sample.mask.shape))
    height, width = (max(1, round(side * factor)) for side in sample.mask.shape)
    image = np.array(Image.fromarray(_shown(sample.image)).resize((width, height), Image.Resampling.BILINEAR))
    mask = np.array(
        Image.fromarray(sample.mask.numpy().astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
    )
    tile = Image.fromarray(np.concatenate([image, overlay(image, mask, labels)], axis=1))
    font = ImageFont.truetype(FONT, 14)
    ImageDraw.Draw(tile).text((6, 4), sample.name, "white", font, stroke_width=2, stroke_fill="black")
    return tile


def _shown(image: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(C, H, W) of any kind as (H, W, 3) uint8: the first three channels, or the first as grey."""
    values = image.float() * (255 if image.is_floating_point() else 255 / max(255, int(image.max())))
    channels = values[:3] if len(values) >= 3 else values[:1].expand(3, -1, -1)
    return channels.permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
