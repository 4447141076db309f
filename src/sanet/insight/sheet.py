"""A sheet of training images with their labels laid over: people see in a moment what no count says."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sanet.data.report import DataReport
from sanet.data.source import Source, read_sample, records_of
from sanet.inference.drawing import FONT, overlay, with_legend
from sanet.structures import Sample, SanetError

COLUMNS, SIDE = 2, 480  # images in a row, and the longest side of each in pixels


def data_sheet(source: Source, report: DataReport, count: int = 4) -> Image.Image | None:
    """Images from a split, each beside the same with its labels, above a legend; None where none can be read.

    Args:
        source: the dataset.
        report: of it; gives the shares of the classes, and the range of values.
        count: number of images.
    """
    source = source.reading(report.reading)
    split = "train" if "train" in source.splits else source.splits[0]
    records = records_of(source, split)
    samples: list[Sample] = []
    for index in np.linspace(0, len(records) - 1, min(len(records), 4 * count)).round().astype(int).tolist():
        with suppress(SanetError):  # the report lists it
            samples.append(read_sample(source, records[index]))
    if not samples:
        return None
    # Those in which most classes are seen, in their order.
    seen = [len(np.unique(sample.mask.numpy())) for sample in samples]
    chosen = sorted(sorted(range(len(samples)), key=lambda index: -seen[index])[:count])
    tiles = [_tile(samples[index], source) for index in chosen]
    width, height = (max(tile.size[side] for tile in tiles) for side in (0, 1))
    columns = 1 if width > SIDE * COLUMNS else COLUMNS
    sheet = Image.new("RGB", (width * columns, height * -(-len(tiles) // columns)), "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * width, index // columns * height))
    pixels = report.pixels[split]
    shares = dict(zip(source.labels.names, (pixels / max(1, pixels.sum())).tolist(), strict=True))
    return with_legend(np.array(sheet), source.labels, {name: share for name, share in shares.items() if share})


def _tile(sample: Sample, source: Source) -> Image.Image:
    factor = min(1.0, SIDE / max(sample.mask.shape))
    height, width = (max(1, round(side * factor)) for side in sample.mask.shape)
    image = np.array(Image.fromarray(_shown(sample.image)).resize((width, height), Image.Resampling.BILINEAR))
    mask = np.array(
        Image.fromarray(sample.mask.numpy().astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
    )
    tile = Image.fromarray(np.concatenate([image, overlay(image, mask, source.labels)], axis=1))
    font = ImageFont.truetype(FONT, 14)
    ImageDraw.Draw(tile).text((6, 4), sample.name, "white", font, stroke_width=2, stroke_fill="black")
    return tile


def _shown(image: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(C, H, W) of any kind as (H, W, 3) uint8: the first three channels, or the first as grey."""
    values = image.float() * (255 if image.is_floating_point() else 255 / max(255, int(image.max())))
    channels = values[:3] if len(values) >= 3 else values[:1].expand(3, -1, -1)
    return channels.permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
