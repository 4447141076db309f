"""Masks made visible: palette images, overlays, legends and error maps, with NumPy and PIL alone.

Pictures are (H, W, 3) uint8 RGB; masks are (H, W) integers, class indices or the label set's ``ignore_index``.
Every function raises ValueError for a mask that holds anything else, or whose size is not the picture's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sanet.structures import Color, LabelSet

Mask = NDArray[np.integer[Any]]
Picture = NDArray[np.uint8]

IGNORED: Color = (255, 255, 255)
WRONG: Color = (255, 45, 85)
# Pillow's own has no letters outside ASCII.
FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"
# No side of a JPEG can have more pixels.
LONGEST_JPEG = 65500


def palette_image(mask: Mask, labels: LabelSet) -> Image.Image:
    """A mode "P" image whose pixel values are the class indices and whose palette shows the classes' colours.

    Ignored pixels keep ``ignore_index`` where it fits in a byte and become 255 where it does not; both are white.

    Raises:
        ValueError: more than 256 classes, or ignored pixels but no index left for them.
    """
    indices, classes = _indices(mask, labels), len(labels)
    ignored = labels.ignore_index if 0 <= labels.ignore_index <= 255 else 255
    if classes > 256 or (ignored < classes and bool((indices == classes).any())):
        raise ValueError(f"a palette image has 256 indices, too few for {classes} classes and the ignored pixels")
    image = Image.fromarray(np.where(indices == classes, ignored, indices).astype(np.uint8))
    image.putpalette(labels.palette)
    return image


def colorize(mask: Mask, labels: LabelSet) -> Picture:
    """(H, W, 3) uint8: every pixel in the colour of its class, ignored ones white as in ``palette_image``."""
    return np.array([*labels.colors, IGNORED], dtype=np.uint8)[_indices(mask, labels)]


def overlay(image: Picture, mask: Mask, labels: LabelSet, opacity: float = 0.5) -> Picture:
    """(H, W, 3) uint8: the picture tinted with the colours of the classes, more strongly along their contours.

    Ignored pixels show the picture as it is.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W).
        labels: the classes.
        opacity: of the tint; 0 gives the picture, 1 the colours of ``colorize`` wherever there is a class.

    Raises:
        ValueError: an opacity outside 0 to 1.
    """
    _check_size(image, mask)
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity}: from 0 to 1")
    indices = _indices(mask, labels)
    # A contour in the class's own colour keeps 0 and 1 exact, and never passes for a class of another colour.
    weight = np.where(_contours(indices), 1 - (1 - opacity) ** 3, opacity).astype(np.float32)
    weight[indices == len(labels)] = 0
    blend = image + weight[..., None] * (colorize(mask, labels) - image.astype(np.float32))
    return np.rint(blend).astype(np.uint8)


def shares(mask: Mask, labels: LabelSet) -> dict[str, float]:
    """Share in (0, 1] of the labelled pixels, by name, of the classes that are present; the biggest first."""
    counts = np.bincount(_indices(mask, labels).ravel(), minlength=len(labels))[: len(labels)]
    order = [index for index in np.argsort(-counts, kind="stable") if counts[index]]
    return {labels.names[index]: float(counts[index] / counts.sum()) for index in order}


def with_legend(picture: Picture, labels: LabelSet, shares: Mapping[str, float]) -> Image.Image:
    """The picture, untouched, with a legend on its right: colour, name and share, the biggest first.

    The text grows with the picture. Where the legend is taller than the picture, the rest stays white. A name in a
    script that the font does not have, which are Latin, Greek, Cyrillic and a few more, is written as its number.

    Args:
        picture: (H, W, 3) uint8, such as an overlay.
        labels: the classes.
        shares: share of the pixels by class name, as from ``shares``; classes of share 0 are left out.
    """
    entries = sorted(((share, name) for name, share in shares.items() if share > 0), key=lambda entry: -entry[0])
    image = Image.fromarray(picture)
    if not entries:
        return image
    em = max(12, round(0.028 * (image.width * image.height) ** 0.5))
    line, font = round(1.7 * em), ImageFont.truetype(FONT, em)
    columns = -(-len(entries) // max(12, (image.height - em) // line))
    rows = -(-len(entries) // columns)
    texts = [percent(share) for share, _ in entries]
    names = [name if _has_glyphs(font, name) else f"class {labels.names.index(name)}" for _, name in entries]
    name_width = max(map(font.getlength, names))
    column_width = round(3 * em + name_width + max(font.getlength(text) for text in texts))
    size = (image.width + em + columns * (column_width + em), max(image.height, rows * line + em))
    canvas = Image.new("RGB", size, "white")
    canvas.paste(image)
    draw = ImageDraw.Draw(canvas)
    for place, ((_, name), shown, text) in enumerate(zip(entries, names, texts, strict=True)):
        left = image.width + em + place // rows * (column_width + em)
        middle = em // 2 + place % rows * line + line // 2
        box = (left, middle - em // 2, left + em, middle + em // 2)
        draw.rectangle(box, labels.colors[labels.names.index(name)], "#999999", max(1, em // 16))
        draw.text((left + 1.5 * em, middle), shown, "#1b1f24", font, "lm")
        draw.text((left + column_width, middle), text, "#1b1f24", font, "rm")
    return canvas


def _has_glyphs(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether a font has a glyph for every character; one that it does not have is drawn as that of no character."""
    none = bytes(font.getmask("\uffff"))
    return all(bytes(font.getmask(character)) != none for character in text)


def error_map(image: Picture, truth: Mask, prediction: Mask, labels: LabelSet) -> Picture:
    """(H, W, 3) uint8: wrong pixels ``WRONG``, ignored ones white, correct ones the picture in dark grey."""
    _check_size(image, truth)
    _check_size(image, prediction)
    wanted, found = _indices(truth, labels), _indices(prediction, labels)
    # Grey between 20 and 150, so that neither of the two flat colours can be taken for the picture.
    grey = (20 + image @ np.array([0.299, 0.587, 0.114]) * (130 / 255)).astype(np.uint8)
    errors = np.repeat(grey[..., None], 3, axis=2)
    errors[wanted != found] = WRONG
    errors[wanted == len(labels)] = IGNORED
    return errors


def _indices(mask: Mask, labels: LabelSet) -> NDArray[np.int64]:
    """The mask with K for ignored pixels, so that it can index a table of K + 1 entries."""
    classes = len(labels)
    indices = mask.astype(np.int64)
    ignored = indices == labels.ignore_index
    indices[ignored] = 0
    if indices.ndim != 2 or indices.size == 0:
        raise ValueError(f"the mask has shape {mask.shape}; give (H, W)")
    if not 0 <= indices.min() <= indices.max() < classes:
        raise ValueError(
            f"the mask has values from {indices.min()} to {indices.max()}; classes are 0 to {classes - 1} "
            f"and {labels.ignore_index} is ignored"
        )
    indices[ignored] = classes
    return indices


def _check_size(image: Picture, mask: Mask) -> None:
    if image.shape != (*mask.shape, 3):
        raise ValueError(f"the picture has shape {image.shape} and the mask {mask.shape}; give (H, W, 3) and (H, W)")


def _contours(indices: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pixels beside another region, in a line whose width follows the size of the picture."""
    reach = max(1, round(indices.size**0.5 / 600))
    contours = np.zeros(indices.shape, dtype=np.bool_)
    for regions, marks in ((indices, contours), (indices.T, contours.T)):
        differs = regions[reach:] != regions[:-reach]
        marks[reach:] |= differs
        marks[:-reach] |= differs
    return contours


def percent(share: float) -> str:
    """Of a share in (0, 1]: "12.3%", and never "0.0%"."""
    return "<0.1%" if share < 0.0005 else f"{share:.1%}"
