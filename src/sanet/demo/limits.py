"""Which files the page opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sanet.data.decoding import rgb
from sanet.serve.limits import opened
from sanet.structures import UsageError


def read_upload(path: Path, name: str, folder: Path, largest_megapixels: float) -> NDArray[np.uint8]:
    """A visitor's image, upright, as (H, W, 3) uint8 RGB.

    No file outside the folder of uploads and examples is opened, or known to exist, whatever path the browser names.
    Errors have the name that the visitor gave the file, and nothing of the path.

    Raises:
        UsageError: no upload, no image, one of another format, or one that is too large.
    """
    if not (path.resolve().is_relative_to(folder.resolve()) and path.is_file()):
        raise UsageError("upload the image as a file")
    with opened(path, name, largest_megapixels) as image:
        return rgb(image)
