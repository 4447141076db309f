"""TIFFs of more pixels than Pillow decodes: GDAL reads their windows, and writes their masks, from top to bottom.

Needs rasterio (extra ``geo``). With the height of the image only the memory for its overlay grows, up to ``SEEN``
pixels.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from importlib.util import find_spec
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any, cast

import numpy as np
import tifffile
import torch
from torch import Tensor

from sanet.config import OutputConfig
from sanet.data.decoding import ORIENTATION, DataError
from sanet.data.images import DAMAGED, TIFF, pages_of, require_finite
from sanet.files import beside
from sanet.inference.drawing import overlay_jpeg, shares_of
from sanet.inference.journal import Job, Line, version
from sanet.inference.predictor import Predictor
from sanet.inference.views import probabilities_of, score_blocks
from sanet.reading import FAR_OUTSIDE, ImageReading
from sanet.structures import first_line

LARGE = 2**30 // 6  # pixels
SEEN = 2**24  # pixels of the overlay
CACHE = 256  # megabytes that GDAL keeps of files; else it is a twentieth of the machine's memory
FORM = {"driver": "GTiff", "count": 1, "dtype": "uint8", "compress": "deflate", "tiled": True, "bigtiff": "if_safer"}
OF_IMAGE = ("width", "height", "crs", "transform")
GREY, COLOURS = 1, 2  # TIFF's photometric interpretations


def is_large(path: Path, predictor: Predictor, least: int = LARGE) -> bool:
    """Whether ``label_large`` is for an image: it has more pixels, which GDAL reads as others do, and is seen once."""
    if find_spec("rasterio") is None or not path.is_file():  # a pipe would keep its reader waiting
        return False
    with suppress(*DAMAGED):  # who reads it whole says what is wrong with it
        with path.open("rb") as start:
            if start.read(4) not in TIFF:
                return False
        with tifffile.TiffFile(path) as file:
            page, *others = pages_of(file)
            settings, size = predictor.inference, (page.imagelength, page.imagewidth)
            once, turned = not settings.several and settings.factors(*size) == (1.0,), page.tags.get(ORIENTATION)
            upright = not others and page.photometric in (GREY, COLOURS) and (turned is None or turned.value == 1)
            return (
                size[0] * size[1] > max(least, settings.window**2)
                and once
                and upright
                and _fits(page, predictor.images)
            )
    return False


def _fits(page: Any, images: ImageReading) -> bool:
    if images.of_values:
        return page.samplesperpixel == images.channels and page.dtype.kind in "uif"
    return page.samplesperpixel in (1, 3) and page.dtype == np.uint8 and page.bitspersample == 8


class _Rows:
    """An opened file in the place of a tensor (1, C, H, W); the rows that were read last are kept."""

    def __init__(self, file: Any, predictor: Predictor) -> None:
        self.file, self.device = file, predictor.device
        self.shape = (1, predictor.in_chans, file.height, file.width)
        self.held, self.values = slice(0, 0), torch.empty(0)

    def __getitem__(self, place: tuple[Any, slice, slice]) -> Tensor:
        _, rows, columns = place
        if not self.held.start <= rows.start < rows.stop <= self.held.stop:
            try:
                values = self.file.read(window=((rows.start, rows.stop), (0, self.file.width)))
            except OSError as error:  # what is wrong with a file that is written is another thing
                raise DataError(str(error.__cause__ or error)) from error
            require_finite(values, f"rows from {rows.start}")
            self.values = torch.from_numpy(values if values.dtype == np.uint8 else values.astype(np.float32))
            self.held = rows
        inside = slice(rows.start - self.held.start, rows.stop - self.held.start)
        return self.values[None, :, inside, columns].expand(-1, self.shape[1], -1, -1).to(self.device)


@torch.inference_mode()
def label_large(predictor: Predictor, job: Job, outputs: OutputConfig) -> Line:
    """Label an image and write the files of its job: the mask as a TIFF in tiles, and a smaller overlay.

    Returns:
        What ``predictions.jsonl`` says of it; ``outside`` is of the pixels of the overlay.
    """
    import rasterio

    line = {"image": job.image, **version(job.image)}
    labels, settings, (logits_of, features) = predictor.labels, predictor.inference, predictor.watched()
    ignored = labels.ignore_index if 0 <= labels.ignore_index <= 255 else 255
    counts, masks, parts = np.zeros(256, np.int64), [], []  # the latter two are of fewer pixels
    colors = np.reshape(labels.palette, (256, 3)).tolist()
    try:
        with (
            warnings.catch_warnings(action="ignore", category=rasterio.errors.NotGeoreferencedWarning),
            rasterio.Env(GDAL_CACHEMAX=CACHE),
            rasterio.open(job.image, driver="GTiff") as file,
            beside(Path(job.main)) as aside,
            rasterio.open(aside, "w", **FORM, **{name: file.profile[name] for name in OF_IMAGE}) as target,
        ):
            target.write_colormap(1, {value: (*color, 255) for value, color in enumerate(colors)})
            image, step = _Rows(file, predictor), ceil((file.width * file.height / SEEN) ** 0.5)
            blocks = score_blocks(lambda part: logits_of(predictor.seen(part)), cast(Any, image), settings)
            for top, row in groupby(blocks, lambda block: block[0].start):
                found = []
                for *_, scores in row:
                    found.append(scores[0].max(dim=0).indices)
                    if outputs.threshold is not None:
                        sure = probabilities_of(scores, settings, predictor.temperature)[0].amax(dim=0)
                        found[-1][sure < outputs.threshold] = ignored
                mask = torch.cat(found, dim=1).to(torch.uint8).cpu().numpy()
                target.write(mask, 1, window=((top, top + len(mask)), (0, file.width)))
                counts += np.bincount(mask.ravel(), minlength=256)
                seen = image[..., top : top + len(mask), :][0, :, -top % step :: step, ::step]
                masks.append(mask[-top % step :: step, ::step].copy())
                parts.append(seen.clone())
    except (DataError, rasterio.errors.RasterioIOError) as error:
        return {"image": job.image, "error": f"{job.image}: {first_line(error)}; replace it or remove it"}
    line["shares"], stored = shares_of(counts[: len(labels)], labels), torch.cat(parts, dim=1)
    outside = round(predictor.images.outside(stored), 6) if predictor.images.of_values else 0.0
    line |= {"outside": outside} if outside > FAR_OUTSIDE else {}
    if "overlay" in job.files:
        shown = predictor.shown(predictor.seen(stored))
        with beside(Path(job.files["overlay"])) as aside:
            aside.write_bytes(overlay_jpeg(shown, np.concatenate(masks), labels, line["shares"]))
    if features and predictor.statistics is not None:
        mean = torch.stack(features).mean(dim=(0, 1), dtype=torch.float32).cpu().numpy()
        line["unlike"] = round(predictor.statistics.unlike(mean), 4)
    return line
