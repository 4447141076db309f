"""Results that lie where their images lie: GeoTIFFs in, GeoTIFFs out (extra ``geo``)."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from sanet.data.decoding import ORIENTATION
from sanet.data.images import DAMAGED, TIFF
from sanet.inference.prediction import Kind, Prediction
from sanet.structures import SanetError, first_line

# Scale, tie points, transformation, and keys of the coordinate system.
PLACED = (33550, 33922, 34264, 34735)


def is_placed(path: Path) -> bool:
    """Whether an image says where on earth its pixels are, in the order in which they are stored."""
    try:
        if not path.is_file():  # a pipe would keep its reader waiting
            return False
        with path.open("rb") as file:
            if file.read(4) not in TIFF:
                return False
        with tifffile.TiffFile(path) as tiff:
            page: Any = tiff.pages[0]
            turned = page.tags.get(ORIENTATION)
            return any(tag in page.tags for tag in PLACED) and (turned is None or turned.value == 1)
    except DAMAGED:  # predicting says what is wrong with it
        return False


def placed(paths: Iterable[Path]) -> tuple[set[Path], str]:
    """Those whose results can be GeoTIFFs, and what is to be said of the others that are placed, if any."""
    found = {path for path in paths if is_placed(path)}
    if not found or find_spec("rasterio") is not None:
        return found, ""
    return set(), (
        f"{len(found)} images are GeoTIFFs; what is written of them has no coordinates. For GeoTIFFs: "
        "pip install 'sanet-segmentation[geo]'"
    )


def geotiff(prediction: Prediction, kind: Kind, image: Path) -> bytes:
    """A GeoTIFF with the transform and the coordinate system of its image.

    Args:
        prediction: of the image.
        kind: "mask", uint8 with the classes' colours; "confidence", or "probabilities", a band for each class with its
            name: both float32, from 0 to 1.
        image: a GeoTIFF.

    Raises:
        SanetError: GDAL cannot read these, or cannot write.
    """
    import rasterio
    from rasterio.io import MemoryFile

    values = np.asarray(prediction.indexed()) if kind == "mask" else getattr(prediction, kind)
    bands = values.reshape(-1, *values.shape[-2:])
    (count, height, width), dtype = bands.shape, "uint8" if kind == "mask" else "float32"
    form = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": dtype, "compress": "deflate"}
    names = ("label",) if kind == "mask" else ("confidence",) if count == 1 else prediction.labels.names
    try:
        with rasterio.open(image, driver="GTiff") as source:
            place = {"crs": source.crs, "transform": source.transform}
        with MemoryFile() as memory:
            with memory.open(**form, **place) as target:
                for number, (band, name) in enumerate(zip(bands, names, strict=True), 1):
                    target.write(band.astype(dtype), number)
                    target.set_band_description(number, name)
                if kind == "mask":
                    colors = [prediction.labels.palette[start : start + 3] for start in range(0, 768, 3)]
                    target.write_colormap(1, {value: (*color, 255) for value, color in enumerate(colors)})
            content: bytes = memory.read()
    except (rasterio.errors.RasterioError, ValueError) as error:
        raise SanetError(
            f"{image}: its place cannot be kept ({first_line(error)}); uninstall rasterio for PNG"
        ) from error
    return content
