"""Where a model is wrong, as one HTML page that needs no other file, script or network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import maximum_filter, minimum_filter

from sanet.evaluation.page import data_url, environment
from sanet.evaluation.report import panels_of
from sanet.files import written
from sanet.inference.drawing import FONT, IGNORED, WRONG, RGBImage, colorize
from sanet.insight.error_counts import Errors
from sanet.insight.suspects import ODDS, Suspect
from sanet.structures import LabelSet

EM = 15  # pixels, of the numbers of regions


def write_page(path: Path, found: Errors, labels: LabelSet, facts: Mapping[str, Any]) -> None:
    """Write the page; ``facts`` stand beside its protocol."""
    tables = found.rates.tables()
    text = environment(Path(__file__).parent).get_template("errors.html.jinja").render(
        title=f"Errors: {found.protocol.data} · {found.protocol.split}",
        found=found,
        legend=[*zip(labels.names, labels.colors, strict=True)],
        special=[("wrong", WRONG), ("not labelled", IGNORED)],
        tables=tables,
        longest=max([rate for rows in tables.values() for *_, rate in rows if rate], default=1),
        totals=dict(zip(labels.names, found.confusion.sum(axis=1).tolist(), strict=True)),
        confusions=[(each, panels_of(each.example, labels) if each.example else {}) for each in found.confusions],
        suspects=[(each, _panels(each, labels)) for each in found.suspects if each.example],
        odds=ODDS,
        examples={what: [(each, panels_of(each, labels)) for each in some] for what, some in found.examples.items()},
        protocol={**found.protocol.shown(), **facts},
    )  # fmt: skip
    with written(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _panels(suspect: Suspect, labels: LabelSet) -> dict[str, str]:
    """The image, its labels and the prediction as data URLs, with the outlines and the numbers of the regions."""
    if suspect.example is None or suspect.marks is None:
        return {}
    _, image, *masks, _ = suspect.example
    truth, prediction = (data_url(_outlined(colorize(mask, labels), suspect.marks), "PNG") for mask in masks)
    return {"image": data_url(_outlined(image, suspect.marks), "JPEG"), "labels": truth, "prediction": prediction}


def _outlined(picture: RGBImage, marks: NDArray[np.int64]) -> RGBImage:
    """The picture with a line between white ones along the rim of every region, and its number beside it."""
    drawn, font = picture.copy(), ImageFont.truetype(FONT, EM)
    for size, color in ((5, IGNORED), (3, WRONG)):
        drawn[maximum_filter(marks, size) != minimum_filter(marks, size)] = color
    canvas = Image.fromarray(drawn)
    for number in range(1, int(marks.max()) + 1):
        rows, columns = np.nonzero(marks == number)
        if len(rows):  # a region may be too small to be seen
            place = min(int(columns[0]), canvas.width - EM), max(int(rows[0]) - EM // 2, EM)
            ImageDraw.Draw(canvas).text(place, str(number), WRONG, font, "ls", stroke_width=2, stroke_fill=IGNORED)
    return np.array(canvas)
