"""A sheet of training images with their labels laid over: people see in a moment what no count says."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from PIL import Image

from sanet.data.report import DataReport
from sanet.data.source import Source, read_sample, records_of
from sanet.inference.sheet import sheet_of
from sanet.structures import Sample, SanetError


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
    pixels = report.pixels[split]
    shares = dict(zip(source.labels.names, (pixels / max(1, pixels.sum())).tolist(), strict=True))
    return sheet_of([samples[index] for index in chosen], source.labels, shares)
