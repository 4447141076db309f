"""Pages that need no other file, no script and no network: their common look, their numbers and their pictures."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from math import ceil, floor, isfinite, log10
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from sanet.evaluation.protocol import plain_text
from sanet.inference.pictures import LONGEST_JPEG, Mask, Picture

HERE = Path(__file__).parent


def environment(*folders: Path) -> Environment:
    """Templates of these folders, which may extend ``page.html.jinja``."""
    environment = Environment(
        loader=FileSystemLoader([*folders, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{share:.1%}" if isfinite(share) else number(share)
    environment.filters["number"] = number
    environment.filters["plain"] = plain_text
    environment.filters["rgb"] = lambda color: f"rgb({color[0]},{color[1]},{color[2]})"
    environment.tests["finite"] = isfinite
    return environment


def number(share: float) -> str:
    """In per cent, or a dash where there is nothing to score."""
    return f"{100 * share:.1f}" if isfinite(share) else "—"


def smaller_picture(image: Picture, width: int) -> Picture:
    """(H, W, 3) uint8, no wider than that."""
    return np.array(Image.fromarray(image).resize(_size(image, width), Image.Resampling.LANCZOS))


def smaller_mask(mask: Mask, width: int) -> Mask:
    """(H, W) class indices, no wider than that; no index is mixed from others."""
    return np.array(Image.fromarray(mask.astype(np.int32)).resize(_size(mask, width), Image.Resampling.NEAREST))


def _size(array: Mask, width: int) -> tuple[int, int]:
    factor = min(1.0, width / array.shape[1], LONGEST_JPEG / array.shape[0])
    return max(1, round(array.shape[1] * factor)), max(1, round(array.shape[0] * factor))


def data_url(picture: Picture, kind: str) -> str:
    """The picture as a data URL, kind "JPEG" for photographs, "PNG" for masks."""
    stream = BytesIO()
    # Without chroma subsampling the edges of flat colours stay sharp.
    options: dict[str, Any] = {"quality": 85, "subsampling": 0} if kind == "JPEG" else {"optimize": True}
    Image.fromarray(picture).save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{b64encode(stream.getvalue()).decode()}"


def ticks(low: float, high: float) -> list[float]:
    """Some six round numbers from ``low`` or just below it to ``high`` or just above it."""
    rough = (high - low if high > low else 1) / 6
    magnitude = 10 ** floor(log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    first, last = floor(low / step), ceil(high / step)
    # Rounded, or 3 * 0.1 would be written 0.30000000000000004.
    return [round(count * step, 12) for count in range(first, max(first + 1, last) + 1)]
