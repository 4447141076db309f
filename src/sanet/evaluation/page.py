"""Pages that need no other file, no script and no network: their common look, their numbers and their images."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from sanet.evaluation.protocol import plain_text
from sanet.inference.drawing import LONGEST_JPEG, RGBImage
from sanet.tables import percent

HERE = Path(__file__).parent


@cache
def environment(*folders: Path) -> Environment:
    """Templates of these folders, which may extend ``page.html.jinja``."""
    loader = FileSystemLoader([*folders, HERE])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": lambda share: percent(share) + "%" * isfinite(share),
        "number": percent,
        "plain": plain_text,
        "rgb": lambda color: f"rgb{tuple(color)}",
    }
    environment.tests["finite"] = isfinite
    return environment


def thumbnail(array: NDArray[Any], width: int) -> NDArray[Any]:
    """An image (H, W, 3) uint8, or class indices (H, W), none of which is mixed from others; no wider than that."""
    factor = min(1.0, width / array.shape[1], LONGEST_JPEG / array.shape[0])
    size = max(1, round(array.shape[1] * factor)), max(1, round(array.shape[0] * factor))
    if array.ndim == 3:
        return np.array(Image.fromarray(array).resize(size, Image.Resampling.LANCZOS))
    return np.array(Image.fromarray(array.astype(np.int32)).resize(size, Image.Resampling.NEAREST))


def data_url(picture: RGBImage, kind: str) -> str:
    """The image as a data URL, kind "JPEG" for photographs, "PNG" for masks."""
    stream = BytesIO()
    # Without chroma subsampling the edges of flat colours stay sharp.
    options: dict[str, Any] = {"quality": 85, "subsampling": 0} if kind == "JPEG" else {"optimize": True}
    Image.fromarray(picture).save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{b64encode(stream.getvalue()).decode()}"
