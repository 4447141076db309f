"""Masks that lie where their images lie: GeoTIFFs in, GeoTIFFs out (extra ``geo``)."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from sanet.data.images import DAMAGED, ORIENTATION, TIFF
from sanet.structures import LabelSet, SanetError, first_line

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
    """Those whose masks can be GeoTIFFs, and what is to be said of the others that are placed; nothing without any."""
    found = {path for path in paths if is_placed(path)}
    if not found or find_spec("rasterio") is not None:
        return found, ""
    return set(), (
        f"{len(found)} images are GeoTIFFs; their masks are PNG, without coordinates. For GeoTIFFs: "
        "pip install 'sanet-segmentation[geo]'"
    )


def geotiff(mask: NDArray[np.uint8], labels: LabelSet, image: Path) -> bytes:
    """A mask (H, W) as a GeoTIFF with the transform and the coordinate system of its image, and the classes' colours.

    Raises:
        SanetError: GDAL cannot read these, or cannot write.
    """
    import rasterio
    from rasterio.io import MemoryFile

    colors = [labels.palette[place : place + 3] for place in range(0, 768, 3)]
    height, width = mask.shape
    form = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint8", "compress": "deflate"}
    try:
        with rasterio.open(image, driver="GTiff") as source:
            place = {"crs": source.crs, "transform": source.transform}
        with MemoryFile() as memory:
            with memory.open(**form, **place) as target:
                target.write(mask, 1)
                target.write_colormap(1, {value: (*color, 255) for value, color in enumerate(colors)})
            content: bytes = memory.read()
    except (rasterio.errors.RasterioError, ValueError) as error:
        raise SanetError(
            f"{image}: its place cannot be kept ({first_line(error)}); uninstall rasterio for PNG"
        ) from error
    return content
