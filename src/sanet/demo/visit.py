"""What a visitor looks at, without the page around it: one picture, seen once by each model, and its pixel groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Literal, NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sanet.inference.pictures import Mask, Picture, overlay, palette_image, shares
from sanet.insight.figure import MARKERS, draw, scaled
from sanet.insight.groups import Encoding, Explainer
from sanet.structures import Color

# Longer sides of what the page shows, in pixels; downloads have the picture's own size.
SHOWN = 960
GROUP_SHOWN = 480

Channel = Literal["attention", "main", "output"]
Download = Literal["mask", "overlay", "figure"]


class Entry(NamedTuple):
    """A line of the legend: a class that is in the prediction, and its share of the pixels, 0 to 1."""

    name: str
    color: Color
    share: float


class Seen(NamedTuple):
    """A picture as a model sees it, and the seconds that this took."""

    encoding: Encoding
    prediction: Mask
    seconds: float


@dataclass
class Visit:
    """A visitor's picture.

    Args:
        image: (H, W, 3) uint8.
        name: what the visitor calls it.

    Attributes:
        point: column and row that were clicked, if any were.
        seen: by the name of the model.
        folder: for its downloads; goes when the visit does.
    """

    image: Picture
    name: str
    point: tuple[int, int] | None = None
    seen: dict[str, Seen] = field(default_factory=dict)
    folder: TemporaryDirectory[str] = field(default_factory=TemporaryDirectory)

    def see(self, name: str, models: Mapping[str, Explainer]) -> Seen:
        """The picture through a model; the model is run the first time only."""
        if name not in self.seen:
            start = perf_counter()
            encoding = models[name].encode(torch.from_numpy(self.image).permute(2, 0, 1))
            prediction = encoding.prediction.numpy().astype(np.uint16)
            encoding = encoding._replace(prediction=torch.empty(0))  # one copy is enough, and this one is small
            self.seen[name] = Seen(encoding, prediction, perf_counter() - start)
        return self.seen[name]

    def click(self, place: tuple[int, int]) -> None:
        """Take the point of the picture that lies under a point of what is shown."""
        height, width = self.image.shape[:2]
        wide, high = _size(self.image, SHOWN)
        x, y = int((place[0] + 0.5) * width / wide), int((place[1] + 0.5) * height / high)
        self.point = (min(x, width - 1), min(y, height - 1))

    def shown(self, seen: Seen, opacity: float, hidden: Collection[str]) -> Picture:
        """The picture under its mask, as large as the page shows it, with the point marked."""
        size = _size(self.image, SHOWN)
        image = np.asarray(Image.fromarray(self.image).resize(size, Image.Resampling.BILINEAR))
        mask = np.asarray(Image.fromarray(seen.prediction).resize(size, Image.Resampling.NEAREST))
        return self._marked(_without(image, mask, seen, opacity, hidden))

    def legend(self, seen: Seen) -> list[Entry]:
        """The classes that were found, the biggest first."""
        labels = seen.encoding.labels
        found = shares(seen.prediction, labels)
        return [Entry(name, labels.colors[labels.names.index(name)], share) for name, share in found.items()]

    def groups(self, seen: Seen, channel: Channel) -> list[tuple[Picture, str]]:
        """A picture for each head of what it groups with the point, and its caption; none before a click.

        Args:
            seen: by a model.
            channel: "attention", the distance of the attention vectors, near is red; "main", the map of the main
                channel, and "output", that of the output, that are most activated at the point.
        """
        if self.point is None:
            return []
        size = _size(self.image, GROUP_SHOWN)
        grey = np.asarray(Image.fromarray(self.image).convert("L").resize(size, Image.Resampling.BILINEAR))
        pictures = []
        for group in seen.encoding.groups(*self.point):
            values = {"attention": group.distance, "main": group.main, "output": group.output}[channel]
            shade = Image.fromarray(scaled(values.numpy(), reverse=channel == "attention"))
            heat = colormaps["jet"](np.asarray(shade.resize(size, Image.Resampling.BILINEAR)))[..., :3] * 255
            blend = np.rint(0.65 * heat + 0.35 * grey[..., None]).astype(np.uint8)
            rows, columns = values.shape
            pictures.append((self._marked(blend), f"head {group.stage}, {columns} x {rows} cells"))
        return pictures

    def save(self, seen: Seen, what: Download, opacity: float, hidden: Collection[str]) -> Path:
        """Write a download in the picture's own size: the mask with its palette, the overlay, or figure 6."""
        stem = Path(self.name).stem or "picture"
        path = Path(self.folder.name) / f"{stem}-{what}.png"
        if what == "mask":
            palette_image(seen.prediction, seen.encoding.labels).save(path)
        elif what == "overlay":
            Image.fromarray(_without(self.image, seen.prediction, seen, opacity, hidden)).save(path)
        else:
            prediction = torch.from_numpy(seen.prediction.astype(np.int64))
            points = [] if self.point is None else [self.point]
            draw(self.image, seen.encoding._replace(prediction=prediction), points, path)
        return path

    def _marked(self, picture: NDArray[np.uint8]) -> Picture:
        """With a ring at the point."""
        if self.point is None:
            return picture
        image = Image.fromarray(picture)
        factor = image.width / self.image.shape[1]
        x, y = ((value + 0.5) * factor for value in self.point)
        radius = max(4.0, 0.012 * max(image.size))
        pen = ImageDraw.Draw(image)
        pen.circle((x, y), radius + 2, outline="white", width=2)
        pen.circle((x, y), radius, fill=MARKERS[0])
        return np.asarray(image)


def _without(image: Picture, mask: Mask, seen: Seen, opacity: float, hidden: Collection[str]) -> Picture:
    """The overlay, with nothing over the classes that are hidden."""
    labels = seen.encoding.labels
    indices = [labels.names.index(name) for name in hidden if name in labels.names]
    return overlay(image, np.where(np.isin(mask, indices), labels.ignore_index, mask.astype(np.int64)), labels, opacity)


def _size(image: Picture, longest: int) -> tuple[int, int]:
    """Width and height with a longer side of ``longest`` pixels."""
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))
