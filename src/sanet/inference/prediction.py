"""What a model says of one image: labels, how sure it is, shapes, and pictures of them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import cached_property
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sanet.data.formats.regions import Region, trace
from sanet.files import written
from sanet.inference.drawing import RGBImage, overlay, overlay_jpeg, palette_image, percent, shares, with_legend
from sanet.structures import LabelSet, UsageError

NEIGHBOURS = np.ones((3, 3), np.bool_)  # of a pixel, all eight
Kind = Literal["mask", "overlay", "confidence", "probabilities", "archive"]
SAVED: dict[str, Kind] = {".png": "mask", ".jpg": "overlay", ".npz": "archive"}
WIDEST = 640  # pixels, in a notebook


class Certainty(NamedTuple):
    """How sure a model is of each pixel.

    Attributes:
        confidence: (H, W) float32, the calibrated probability of the most likely class.
        entropy: (H, W) float32, of the calibrated probabilities, in nats: from 0 to ln K.
    """

    confidence: NDArray[np.float32]
    entropy: NDArray[np.float32]


class ClassSummary(NamedTuple):
    """Pixels of a class, their share in (0, 1] of those that are not ignored, and their mean confidence."""

    pixels: int
    share: float
    confidence: float


class FoundRegion(NamedTuple):
    """Pixels of one class that touch, at their corners too.

    Attributes:
        name: the class.
        area: pixels.
        box: first column and row, and those behind the last.
        center: mean column and row of its pixels, in pixels from the image's corner.
        confidence: mean of its pixels.
    """

    name: str
    area: int
    box: tuple[int, int, int, int]
    center: tuple[float, float]
    confidence: float


class Prediction(NDArrayOperatorsMixin):
    """What a model says of an image; wherever an array is wanted, its mask.

    What the mask does not tell, such as probabilities, is computed when it is first asked for, by a second pass.

    Attributes:
        mask: (H, W) class indices, uint8; uint16 for more than 256 classes; the ignore index below a threshold.
        labels: the classes.
        image: (H, W, 3) uint8, the image for people.
        features: (C,) float32, the backbone's last level, averaged over the image; None of an exported file.
        unlike: the share in [0, 1] of images such as those of val that are less unlike the training images than this
            one; None where the model does not know.
    """

    def __init__(
        self,
        mask: NDArray[Any],
        labels: LabelSet,
        image: RGBImage,
        certain: Callable[[], Certainty],
        probable: Callable[[], NDArray[np.float16]],
        features: NDArray[np.float32] | None = None,
        unlike: float | None = None,
    ) -> None:
        self.mask, self.labels, self.image = mask, labels, image
        self.features, self.unlike = features, unlike
        self._certain, self._probable = certain, probable

    @cached_property
    def certainty(self) -> Certainty:
        """Confidence and entropy."""
        return self._certain()

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(H, W) float32 in (0, 1], the calibrated probability of the most likely class."""
        return self.certainty.confidence

    @property
    def entropy(self) -> NDArray[np.float32]:
        """(H, W) float32 in nats, from 0 to ln K."""
        return self.certainty.entropy

    @cached_property
    def probabilities(self) -> NDArray[np.float16]:
        """(K, H, W) float16, calibrated."""
        return self._probable()

    @cached_property
    def classes(self) -> dict[str, ClassSummary]:
        """The classes that are present, the largest first."""
        found = {}
        for name, share in shares(self.mask, self.labels).items():
            of_class = self.mask == self.labels.names.index(name)
            pixels = int(np.count_nonzero(of_class))
            found[name] = ClassSummary(pixels, share, float(self.confidence[of_class].mean(dtype=np.float64)))
        return found

    @cached_property
    def regions(self) -> list[FoundRegion]:
        """The connected regions of all classes but the background, in the order of the classes, the largest first."""
        found = []
        for number, name in enumerate(self.labels.names):
            if number == self.labels.background:
                continue
            numbered, count = ndimage.label(self.mask == number, NEIGHBOURS)
            of_class = []
            for index, box in enumerate(ndimage.find_objects(numbered, count), 1):
                inside = numbered[box] == index
                rows, columns = np.nonzero(inside)
                (top, bottom), (left, right) = ((side.start, side.stop) for side in box)
                center = left + columns.mean() + 0.5, top + rows.mean() + 0.5
                mean = self.confidence[box][inside].mean(dtype=np.float64)
                of_class.append(
                    FoundRegion(name, len(rows), (left, top, right, bottom), (float(center[0]), float(center[1])),
                                float(mean))
                )  # fmt: skip
            found += sorted(of_class, key=lambda region: -region.area)
        return found

    def polygons(self, tolerance: float = 0.5) -> tuple[Region, ...]:
        """The outlines of the connected regions of all classes but the background, with their holes.

        Args:
            tolerance: pixels that an outline may move where it gets simpler; 0 keeps every corner.
        """
        names = {index: name for index, name in enumerate(self.labels.names) if index != self.labels.background}
        return trace(self.mask, names, tolerance)

    def overlay(self, opacity: float = 0.5, legend: bool = True) -> Image.Image:
        """The image tinted with the colours of the classes, with a legend of their shares on its right."""
        tinted = overlay(self.image, self.mask, self.labels, opacity)
        return with_legend(tinted, self.labels, shares(self.mask, self.labels)) if legend else Image.fromarray(tinted)

    def indexed(self) -> Image.Image:
        """The mask as a palette image; ignored pixels are 255 where the ignore index is no byte."""
        return palette_image(self.mask, self.labels)

    def encoded(self, kind: Kind) -> bytes:
        """The content of a file.

        Args:
            kind: "mask", a palette PNG; "overlay", a JPEG; "confidence", a grey PNG from 0 to 255; "probabilities", a
                .npy of (K, H, W) float16; or "archive", a .npz of mask, probabilities, confidence and entropy.
        """
        if kind == "overlay":
            return overlay_jpeg(self.image, self.mask, self.labels, shares(self.mask, self.labels))
        stream = BytesIO()  # Pillow does not say what is wrong with a disk
        if kind == "mask":
            self.indexed().save(stream, "PNG")
        elif kind == "confidence":
            Image.fromarray(np.rint(self.confidence * 255).astype(np.uint8)).save(stream, "PNG")
        elif kind == "probabilities":
            np.save(stream, self.probabilities)
        else:
            np.savez_compressed(stream, mask=self.mask, probabilities=self.probabilities, **self.certainty._asdict())
        return stream.getvalue()

    def save(self, path: str | Path) -> None:
        """Write a file.

        Args:
            path: ends in ``.png`` for the mask, ``.jpg`` for the overlay, or ``.npz`` for everything; see ``encoded``.

        Raises:
            UsageError: another suffix.
            SanetError: the file cannot be written.
        """
        target = Path(path)
        if target.suffix.lower() not in SAVED:
            raise UsageError(f"{target}: end it in {', '.join(SAVED)}, which says what is kept")
        content = self.encoded(SAVED[target.suffix.lower()])
        with written(target) as aside:
            aside.write_bytes(content)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.mask, dtype, copy=copy)

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        arrays = (each.mask if isinstance(each, Prediction) else each for each in inputs)
        return getattr(function, method)(*arrays, **options)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """With strides, since Pillow takes the memory of what it needs none for."""
        return {**self.mask.__array_interface__, "strides": self.mask.strides}

    def __getattr__(self, name: str) -> Any:
        """Shape, dtype and whatever else an array has, of the mask."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.mask, name)

    def __getitem__(self, place: Any) -> Any:
        return self.mask[place]

    def __len__(self) -> int:
        return len(self.mask)

    def __reduce__(self) -> tuple[Any, ...]:
        """With everything computed, since the model does not travel with it."""
        arrays = self.mask, self.labels, self.image, self.certainty, self.probabilities
        return _kept, (*arrays, self.features, self.unlike)

    def __repr__(self) -> str:
        height, width = self.mask.shape
        found = [f"{name} {percent(share)}" for name, share in shares(self.mask, self.labels).items()]
        return f"Prediction({width} x {height} pixels: {', '.join(found) or 'all ignored'})"

    def _repr_html_(self) -> str:
        shown, stream = self.overlay(), BytesIO()
        shown.thumbnail((WIDEST, WIDEST))
        shown.save(stream, "JPEG", quality=90)
        return f'<img alt="{escape(repr(self))}" src="data:image/jpeg;base64,{b64encode(stream.getvalue()).decode()}">'


def _kept(
    mask: NDArray[Any],
    labels: LabelSet,
    image: RGBImage,
    certainty: Certainty,
    probabilities: NDArray[np.float16],
    *others: Any,
) -> Prediction:
    return Prediction(mask, labels, image, lambda: certainty, lambda: probabilities, *others)
