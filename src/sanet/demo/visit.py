"""A visitor's image without the page around it: labelled once by each model, pixel groups, a brush, and downloads."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor

from sanet.data.decoding import rgb
from sanet.inference.drawing import Mask, RGBImage, overlay, palette_image, shares
from sanet.inference.views import resized_bands
from sanet.insight.figure import MARKERS, draw, scaled
from sanet.insight.groups import BAND, Encoding, Explainer
from sanet.serve.limits import opened
from sanet.structures import UsageError

# Longer sides of what the page shows, in pixels; downloads have the size of the image.
SHOWN, GROUP_SHOWN = 960, 640
BRUSH = 12  # pixels of what is shown, as in brush.js
SURE = "viridis"  # of confidence, from dark to bright

Layer = Literal["mask", "confidence", "image"]
Channel = Literal["attention", "main", "output"]
Download = Literal["mask", "overlay", "figure"]


def read_upload(path: Path, name: str, folder: Path, largest_megapixels: float) -> RGBImage:
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


@dataclass(frozen=True)
class Result:
    """What a model makes of an image.

    Attributes:
        model: name of the model.
        encoding: of the image; its prediction is left out.
        prediction: (H, W) class indices, uint8 or uint16.
        seconds: duration.
        confidence: (H, W) float16, calibrated probability of the predicted class.
        unlike: as of ``Prediction``.
    """

    model: str
    encoding: Encoding
    prediction: Mask
    seconds: float
    confidence: NDArray[np.float16]
    unlike: float | None = None

    @cached_property
    def shown(self) -> Mask:
        """The prediction in the size that the page shows."""
        return _resized(self.prediction, SHOWN, Image.Resampling.NEAREST)

    @cached_property
    def sure(self) -> NDArray[np.uint8]:
        """The confidence in the size that the page shows, 255 for 1."""
        return _resized(np.rint(self.confidence * 255.0).astype(np.uint8), SHOWN)

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of the pixels, 0 to 1, of every class that was found, the largest first."""
        return shares(self.prediction, self.encoding.labels)

    def overlay(self, image: RGBImage, mask: Mask, opacity: float, hidden: Collection[str]) -> RGBImage:
        """The mask over an image of its size; nothing is drawn over the classes that are hidden."""
        labels = self.encoding.labels
        indices = [labels.names.index(name) for name in hidden if name in labels.names]
        mask = np.where(np.isin(mask, indices), labels.ignore_index, mask.astype(np.int64))
        return overlay(image, mask, labels, opacity)


@dataclass
class Visit:
    """An image of a visitor.

    Args:
        image: (H, W, 3) uint8.
        name: file name, as the visitor has it.
        folder: folder for its downloads, which are deleted with the visit; by default the system's temporary one.

    Attributes:
        point: column and row that were clicked, if any were.
        results: by the name of the model.
        truth: bool, what the visitor brushed, in the size that the page shows.
    """

    image: RGBImage
    name: str
    folder: str | None = None
    point: tuple[int, int] | None = None
    results: dict[str, Result] = field(default_factory=dict)
    truth: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self._downloads = TemporaryDirectory(dir=self.folder)
        self._shown = _resized(self.image, SHOWN)
        self._grey = _resized(np.asarray(Image.fromarray(self._shown).convert("L")), GROUP_SHOWN)
        self.truth = np.zeros(self._shown.shape[:2], np.bool_)

    @property
    def closed(self) -> bool:
        """Whether the visitor has left."""
        return not self.image.size

    def close(self) -> None:
        """Forget the image and what the models made of it, also where somebody still holds the visit."""
        self._downloads.cleanup()
        self.image = self._shown = self._grey = np.empty((0, 0, 3), np.uint8)
        self.results = {}

    def result(self, name: str, models: Mapping[str, Explainer]) -> Result:
        """What a model makes of the image; it runs the first time only."""
        if name not in self.results:
            start = perf_counter()
            network, outputs = models[name].network, []
            with network.register_forward_hook(lambda *call: outputs.append(call[-1])):
                encoding = models[name].encode(torch.from_numpy(self.image).permute(2, 0, 1))
            confidence = _confidence(outputs[0].logits / network.temperature, encoding.size)
            known, features = network.statistics, outputs[0].features
            unlike = known.unlike(features[0].cpu().numpy()) if known else None
            dtype = np.uint16 if len(encoding.labels) > 256 else np.uint8
            prediction: Mask = encoding.prediction.numpy().astype(dtype)
            # One copy of the prediction is enough, and this one is small.
            encoding = encoding._replace(prediction=torch.empty(0))
            self.results[name] = Result(name, encoding, prediction, perf_counter() - start, confidence, unlike)
        return self.results[name]

    def click(self, place: tuple[int, int]) -> None:
        """Choose the point of the image that lies under a point of what is shown."""
        height, width = self.image.shape[:2]
        high, wide = self._shown.shape[:2]
        x, y = int((place[0] + 0.5) * width / wide), int((place[1] + 0.5) * height / high)
        self.point = (min(max(x, 0), width - 1), min(max(y, 0), height - 1))

    def brush(self, stroke: Sequence[tuple[float, float]]) -> None:
        """Add a stroke to the truth, and what the truth then encloses.

        Args:
            stroke: its points, as shares, 0 to 1, of width and height.
        """
        high, wide = self.truth.shape
        places = [(x * wide, y * high) for x, y in stroke]
        canvas = Image.fromarray(self.truth.astype(np.uint8))
        pen = ImageDraw.Draw(canvas)
        pen.line(places, 1, BRUSH, "curve")
        for place in (places[0], places[-1]):
            pen.circle(place, BRUSH / 2, 1)
        self.truth = ndimage.binary_fill_holes(np.asarray(canvas))

    def iou(self, result: Result, name: str) -> float:
        """IoU, 0 to 1, of where a model finds a class with the truth, of which there is some."""
        found = result.shown == result.encoding.labels.names.index(name)
        return float((found & self.truth).sum() / (found | self.truth).sum())

    def overlay(self, result: Result, opacity: float, hidden: Collection[str], layer: Layer = "mask") -> RGBImage:
        """The image under a layer, as large as the page shows it, with the point and the outline of the truth."""
        if layer == "confidence":
            picture = _tinted(self._shown.mean(axis=2, keepdims=True), result.sure, SURE, opacity)
        else:
            picture = result.overlay(self._shown, result.shown, opacity if layer == "mask" else 0, hidden)
        for inner, color in ((ndimage.binary_dilation(self.truth, iterations=2), 0), (self.truth, 255)):
            picture[inner & ~ndimage.binary_erosion(inner, iterations=4)] = color
        return self._marked(picture)

    def groups(self, result: Result, channel: Channel) -> list[tuple[RGBImage, str]]:
        """An image for each head of what it groups with the point, and its caption; none before a click.

        Red is near in the attention channel, or active in the map of the main channel or of the output that is most
        activated at the point.
        """
        if self.point is None:
            return []
        high, wide = self._grey.shape
        images = []
        for group in result.encoding.groups(*self.point):
            values = {"attention": group.distance, "main": group.main, "output": group.output}[channel]
            shade = Image.fromarray(scaled(values.numpy(), reverse=channel == "attention"))
            shades = np.asarray(shade.resize((wide, high), Image.Resampling.BILINEAR))
            blend = _tinted(self._grey[..., None], shades, "jet", 0.65)
            rows, columns = values.shape
            images.append((self._marked(blend), f"{group.name}, {columns} x {rows} cells"))
        return images

    def save(self, result: Result, what: Download, opacity: float, hidden: Collection[str]) -> Path:
        """Write a download: the mask with its palette or the overlay, in the size of the image, or figure 6.

        A mask of more than 256 classes, which no palette has, is a greyscale PNG of 16 bits.
        """
        stem = Path(self.name).stem[:60] or "image"
        model = re.sub(r"[^\w.-]", "-", result.model)[-60:]
        path = Path(self._downloads.name) / f"{stem}-{model}-{what}.png"
        labels = result.encoding.labels
        if what == "mask":
            mask = result.prediction
            (palette_image(mask, labels) if len(labels) <= 256 else Image.fromarray(mask)).save(path)
        elif what == "overlay":
            Image.fromarray(result.overlay(self.image, result.prediction, opacity, hidden)).save(path)
        else:
            encoding = result.encoding._replace(prediction=torch.from_numpy(result.prediction))
            draw(self.image, encoding, [self.point] if self.point else [], path)
        return path

    def _marked(self, image: NDArray[np.uint8]) -> RGBImage:
        """With a dot at the point."""
        if self.point is None:
            return image
        canvas = Image.fromarray(image)
        factor = canvas.width / self.image.shape[1]
        x, y = ((value + 0.5) * factor for value in self.point)
        radius = max(4.0, 0.012 * max(canvas.size))
        pen = ImageDraw.Draw(canvas)
        pen.circle((x, y), radius + 2, outline="white", width=2)
        pen.circle((x, y), radius, fill=MARKERS[0])
        return np.asarray(canvas)


def _confidence(logits: Tensor, size: tuple[int, int]) -> NDArray[np.float16]:
    """(1, K, h, w) calibrated logits -> (H, W), the largest probability."""
    bands = resized_bands(torch.split(logits, BAND, dim=2), logits.shape[2], size)
    return torch.cat([band[0].softmax(dim=0).amax(dim=0).half().cpu() for band in bands]).numpy()


def _tinted(image: NDArray[Any], shades: NDArray[Any], colors: str, opacity: float) -> RGBImage:
    """An image under the colours of shades (H, W)."""
    tint: NDArray[np.float64] = 255 * colormaps[colors](shades)[..., :3]
    return np.rint(opacity * tint + (1 - opacity) * image).astype(np.uint8)


def _resized(array: Mask, longest: int, how: Image.Resampling = Image.Resampling.BILINEAR) -> NDArray[Any]:
    """To a longer side of ``longest`` pixels."""
    height, width = array.shape[:2]
    factor = longest / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(array).resize(size, how))
