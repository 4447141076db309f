"""Images and masks for the tests of annotation formats, and exports made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.data.formats.catalog import annotation_format
from sanet.data.formats.regions import Annotation, trace
from sanet.data.source import Source
from sanet.structures import LabelSet

LABELS = LabelSet(("leaf", "stem", "soil"))
NUMBERS = {1: "leaf", 2: "stem", 3: "soil"}


def blobs(seed: int, size: tuple[int, int] = (60, 48)) -> np.ndarray:
    """(H, W) numbers 0 to 3 in regions of some pixels, with holes and islands."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 4, (7, 9)).astype(np.uint8)
    mask = np.array(Image.fromarray(small).resize(size, Image.Resampling.NEAREST))
    rows, columns = np.mgrid[: size[1], : size[0]]
    for number in (1, 2, 0, 3):
        x, y, radius = generator.uniform(0, size[0]), generator.uniform(0, size[1]), generator.uniform(3, 14)
        mask[np.hypot(columns - x, rows - y) < radius] = number
    return mask


def save_image(path: Path, size: tuple[int, int] = (60, 48), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_export(
    name: str, folder: Path, masks: dict[str, np.ndarray], split: str | None = None, tolerance: float = 0
) -> None:
    """An export in a format of these masks, with an image each."""
    writer, annotations = annotation_format(name), []
    writer.truth = True
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (image, mask) in enumerate(masks.items()):
        each = Annotation(image, None, mask.shape[::-1], trace(mask, NUMBERS, tolerance), split, folder)
        save_image(folder / writer.image_place(each), mask.shape[::-1], seed)
        annotations.append(each)
    writer.write(annotations, LABELS, folder)


def opened(root: Path, name: str = "auto", **settings: Any) -> Source:
    """The dataset in a folder, as every command opens it."""
    return data_source(DataConfig(name, str(root), **settings))


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def far(found: np.ndarray, wanted: np.ndarray) -> int:
    """Pixels that differ and have only neighbours of their own class: farther than one pixel from every outline."""
    padded = np.pad(wanted, 1, mode="edge")
    shifted = [
        padded[1 + y : 1 + y + wanted.shape[0], 1 + x : 1 + x + wanted.shape[1]] for y in (-1, 0, 1) for x in (-1, 0, 1)
    ]
    return int(((found != wanted) & np.all([wanted == other for other in shifted], axis=0)).sum())
