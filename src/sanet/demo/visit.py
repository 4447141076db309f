"""What a visitor looks at, without the page around it: one picture, seen once by each model, and its pixel groups."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
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


@dataclass(frozen=True)
class Seen:
    """A picture as a model sees it.

    Attributes:
        model: its name.
        encoding: of the picture, less its prediction.
        prediction: (H, W) class indices, uint8 or uint16.
        seconds: that this took.
    """

    model: str
    encoding: Encoding
    prediction: Mask
    seconds: float

    @cached_property
    def shown(self) -> Mask:
        """The prediction in the size that the page shows."""
        size = _size(self.prediction, SHOWN)
        return np.asarray(Image.fromarray(self.prediction).resize(size, Image.Resampling.NEAREST))

    @cached_property
    def legend(self) -> list[Entry]:
        """The classes that were found, the biggest first."""
        labels = self.encoding.labels
        found = shares(self.prediction, labels)
        return [Entry(name, labels.colors[labels.names.index(name)], share) for name, share in found.items()]


@dataclass
class Visit:
    """A visitor's picture.

    Args:
        image: (H, W, 3) uint8.
        name: what the visitor calls it.
        folder: for its downloads, which go when the visit does; in the system's place by default.

    Attributes:
        point: column and row that were clicked, if any were.
        seen: by the name of the model.
    """

    image: Picture
    name: str
    folder: str | None = None
    point: tuple[int, int] | None = None
    seen: dict[str, Seen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._downloads = TemporaryDirectory(dir=self.folder)

    @cached_property
    def _shown(self) -> Picture:
        size = _size(self.image[..., 0], SHOWN)
        return np.asarray(Image.fromarray(self.image).resize(size, Image.Resampling.BILINEAR))

    @cached_property
    def _grey(self) -> NDArray[np.uint8]:
        size = _size(self.image[..., 0], GROUP_SHOWN)
        return np.asarray(Image.fromarray(self._shown).convert("L").resize(size, Image.Resampling.BILINEAR))

    def see(self, name: str, models: Mapping[str, Explainer]) -> Seen:
        """The picture through a model; the model is run the first time only."""
        if name not in self.seen:
            start = perf_counter()
            encoding = models[name].encode(torch.from_numpy(self.image).permute(2, 0, 1))
            many = len(encoding.labels) > 256
            prediction: Mask = encoding.prediction.numpy().astype(np.uint16 if many else np.uint8)
            # One copy of the prediction is enough, and this one is small.
            encoding = encoding._replace(prediction=torch.empty(0))
            self.seen[name] = Seen(name, encoding, prediction, perf_counter() - start)
        return self.seen[name]

    def click(self, place: tuple[int, int]) -> None:
        """Take the point of the picture that lies under a point of what is shown."""
        height, width = self.image.shape[:2]
        wide, high = _size(self.image[..., 0], SHOWN)
        x, y = int((place[0] + 0.5) * width / wide), int((place[1] + 0.5) * height / high)
        self.point = (min(max(x, 0), width - 1), min(max(y, 0), height - 1))

    def shown(self, seen: Seen, opacity: float, hidden: Collection[str]) -> Picture:
        """The picture under its mask, as large as the page shows it, with the point marked."""
        return self._marked(_without(self._shown, seen.shown, seen, opacity, hidden))

    def groups(self, seen: Seen, channel: Channel) -> list[tuple[Picture, str]]:
        """A picture for each head of what it groups with the point, and its caption; none before a click.

        Args:
            seen: by a model.
            channel: "attention", the distance of the attention vectors, near is red; "main", the map of the main
                channel, and "output", that of the output, that are most activated at the point.
        """
        if self.point is None:
            return []
        size = _size(self.image[..., 0], GROUP_SHOWN)
        pictures = []
        for group in seen.encoding.groups(*self.point):
            values = {"attention": group.distance, "main": group.main, "output": group.output}[channel]
            shade = Image.fromarray(scaled(values.numpy(), reverse=channel == "attention"))
            heat = colormaps["jet"](np.asarray(shade.resize(size, Image.Resampling.BILINEAR)))[..., :3] * 255
            blend = np.rint(0.65 * heat + 0.35 * self._grey[..., None]).astype(np.uint8)
            rows, columns = values.shape
            pictures.append((self._marked(blend), f"head {group.stage}, {columns} x {rows} cells"))
        return pictures

    def save(self, seen: Seen, what: Download, opacity: float, hidden: Collection[str]) -> Path:
        """Write a download: the mask with its palette or the overlay, in the picture's own size, or figure 6.

        A mask of more than 256 classes, which no palette has, is a greyscale PNG of 16 bits.
        """
        stem = Path(self.name).stem[:60] or "picture"
        model = re.sub(r"[^\w.-]", "-", seen.model)[-60:]
        path = Path(self._downloads.name) / f"{stem}-{model}-{what}.png"
        path.parent.mkdir(exist_ok=True)  # folders that were empty for long are deleted
        labels = seen.encoding.labels
        if what == "mask":
            whole = palette_image(seen.prediction, labels) if len(labels) <= 256 else Image.fromarray(seen.prediction)
            whole.save(path)
        elif what == "overlay":
            Image.fromarray(_without(self.image, seen.prediction, seen, opacity, hidden)).save(path)
        else:
            prediction = torch.from_numpy(seen.prediction.astype(np.int64))
            points = [] if self.point is None else [self.point]
            draw(self.image, seen.encoding._replace(prediction=prediction), points, path)
        return path

    def _marked(self, picture: NDArray[np.uint8]) -> Picture:
        """With a dot at the point."""
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


def _size(plane: Mask, longest: int) -> tuple[int, int]:
    """Width and height with a longer side of ``longest`` pixels."""
    height, width = plane.shape
    factor = longest / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))
