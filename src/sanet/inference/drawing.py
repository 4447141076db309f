"""Masks made visible: palette images, overlays, legends and error maps, with NumPy and PIL alone.

Images are (H, W, 3) uint8 RGB; masks are (H, W) integers, class indices or the label set's ``ignore_index``.
Every function raises ValueError for a mask that holds anything else, or whose size is not the image's.
What takes more than a byte for each value is computed in bands of rows, so that the largest images need little memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sanet.structures import Color, LabelSet

Mask = NDArray[np.integer[Any]]
RGBImage = NDArray[np.uint8]

IGNORED: Color = (255, 255, 255)
WRONG: Color = (255, 45, 85)
# Pillow's own has no letters outside ASCII.
FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"
# No side of a JPEG can have more pixels.
LONGEST_JPEG = 65500
LARGEST_OVERLAY = 2**26  # pixels of a file, the legend left out
BAND = 256  # rows


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
    for rows in _bands(indices):
        np.putmask(indices[rows], indices[rows] == classes, ignored)
    image = Image.fromarray(indices.astype(np.uint8, copy=False))
    image.putpalette(labels.palette)
    return image


def colorize(mask: Mask, labels: LabelSet) -> RGBImage:
    """(H, W, 3) uint8: every pixel in the colour of its class, ignored ones white as in ``palette_image``."""
    return _color_table(labels)[_indices(mask, labels)]


def overlay(image: RGBImage, mask: Mask, labels: LabelSet, opacity: float = 0.5) -> RGBImage:
    """(H, W, 3) uint8: the image tinted with the colours of the classes, more strongly along their contours.

    Ignored pixels show the image as it is.

    An opacity of 0 gives the image, and 1 the colours of ``colorize`` wherever there is a class.

    Raises:
        ValueError: an opacity outside 0 to 1.
    """
    _check_size(image, mask)
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity {opacity}: from 0 to 1")
    indices, colors = _indices(mask, labels), _color_table(labels).astype(np.float32)
    contours = _contours(indices)
    blend = np.empty_like(image)
    for rows in _bands(image):
        # A contour in the class's own colour keeps 0 and 1 exact, and never passes for a class of another colour.
        weight = np.where(contours[rows], 1 - (1 - opacity) ** 3, opacity).astype(np.float32)
        weight[indices[rows] == len(labels)] = 0
        pixels = image[rows].astype(np.float32)
        blend[rows] = np.rint(pixels + weight[..., None] * (colors[indices[rows]] - pixels))
    return blend


def overlay_jpeg(image: RGBImage, mask: Mask, labels: LabelSet, shares: Mapping[str, float]) -> bytes:
    """A file of the overlay with its legend; of images of more than ``LARGEST_OVERLAY`` pixels one in so many."""
    step, stream = ceil((mask.size / LARGEST_OVERLAY) ** 0.5), BytesIO()
    picture = with_legend(overlay(image[::step, ::step], mask[::step, ::step], labels), labels, shares)
    picture.thumbnail((LONGEST_JPEG, LONGEST_JPEG))  # smaller images stay as they are
    picture.save(stream, "JPEG", quality=92)
    return stream.getvalue()


def shares(mask: Mask, labels: LabelSet) -> dict[str, float]:
    """Share in (0, 1] of the labelled pixels, by name, of the classes that are present; the biggest first."""
    indices = _indices(mask, labels)
    bands = [np.bincount(indices[rows].ravel(), minlength=len(labels) + 1) for rows in _bands(mask)]
    return shares_of(np.sum(bands, axis=0)[: len(labels)], labels)


def shares_of(counts: NDArray[np.int64], labels: LabelSet) -> dict[str, float]:
    """The same, of the pixels (K,) of every class."""
    return {labels.names[k]: float(counts[k] / counts.sum()) for k in np.argsort(-counts, kind="stable") if counts[k]}


def with_legend(picture: RGBImage, labels: LabelSet, shares: Mapping[str, float] | None) -> Image.Image:
    """The image, untouched, with a legend on its right: colour, name and share, the biggest first.

    The text grows with the image. Where the legend is taller than the image, the rest stays white. A name in a
    script that the font does not have, which are Latin, Greek, Cyrillic and a few more, is written as its number.
    Classes of share 0 are left out. Without shares, as for a film, there are all classes in their order.
    """
    given = dict.fromkeys(labels.names, 1.0) if shares is None else shares
    entries = sorted(((share, name) for name, share in given.items() if share > 0), key=lambda entry: -entry[0])
    if not entries:
        return Image.fromarray(picture)
    height, width = picture.shape[:2]
    # As much as can be read well, and of very many classes less, so that they need no more room than the image.
    em = max(12, round(min(0.028, 0.2 / len(entries) ** 0.5) * (width * height) ** 0.5))
    line, font = round(1.7 * em), ImageFont.truetype(FONT, em)
    columns = -(-len(entries) // max(12, (height - em) // line))
    rows = -(-len(entries) // columns)
    texts = ["" if shares is None else percent(share) for share, _ in entries]
    names = [name if _has_glyphs(font, name) else f"class {labels.names.index(name)}" for _, name in entries]
    name_width = max(map(font.getlength, names))
    column_width = round(3 * em + name_width + max(font.getlength(text) for text in texts))
    size = (width + em + columns * (column_width + em), max(height, rows * line + em))
    canvas = Image.new("RGB", size, "white")
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for place, ((_, name), shown, text) in enumerate(zip(entries, names, texts, strict=True)):
        left = width + em + place // rows * (column_width + em)
        middle = em // 2 + place % rows * line + line // 2
        box = (left, middle - em // 2, left + em, middle + em // 2)
        draw.rectangle(box, labels.colors[labels.names.index(name)], "#999999", max(1, em // 16))
        draw.text((left + 1.5 * em, middle), shown, "#1b1f24", font, "lm")
        draw.text((left + column_width, middle), text, "#1b1f24", font, "rm")
    return canvas


def _has_glyphs(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether a font has every character; one that it does not have is drawn as that of no character."""
    none = bytes(font.getmask("\uffff"))
    return all(bytes(font.getmask(character)) != none for character in text)


def error_map(image: RGBImage, truth: Mask, prediction: Mask, labels: LabelSet) -> RGBImage:
    """(H, W, 3) uint8: wrong pixels ``WRONG``, ignored ones white, correct ones the image in dark grey."""
    _check_size(image, truth)
    _check_size(image, prediction)
    wanted, found = _indices(truth, labels), _indices(prediction, labels)
    # Grey between 20 and 150, so that neither of the two flat colours can be taken for the image.
    grey = Image.fromarray(image).convert("L").point([20 + value * 130 // 255 for value in range(256)])
    errors = np.array(grey.convert("RGB"))
    errors[wanted != found] = WRONG
    errors[wanted == len(labels)] = IGNORED
    return errors


def _color_table(labels: LabelSet) -> RGBImage:
    return np.array([*labels.colors, IGNORED], dtype=np.uint8)


def _bands(array: Mask) -> Iterator[slice]:
    return (slice(top, min(top + BAND, len(array))) for top in range(0, len(array), BAND))


def _indices(mask: Mask, labels: LabelSet) -> NDArray[np.uint32]:
    """The mask with K for ignored pixels, so that it can index a table of K + 1 entries, in few bytes."""
    classes = len(labels)
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"the mask has shape {mask.shape}; give (H, W)")
    indices = np.empty(mask.shape, np.min_scalar_type(classes))
    for rows in _bands(mask):
        ignored = mask[rows] == labels.ignore_index
        values = np.where(ignored, 0, mask[rows])
        if not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"the mask has values from {values.min()} to {values.max()}; classes are 0 to {classes - 1} and "
                f"{labels.ignore_index} is ignored"
            )
        indices[rows] = np.where(ignored, classes, values)
    return indices


def _check_size(image: RGBImage, mask: Mask) -> None:
    if image.shape != (*mask.shape, 3):
        raise ValueError(f"the image has shape {image.shape} and the mask {mask.shape}; give (H, W, 3) and (H, W)")


def _contours(indices: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Pixels beside another region, in a line whose width follows the size of the image."""
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
