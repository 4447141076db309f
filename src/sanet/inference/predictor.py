"""An image in, a mask out: NumPy or PIL on both sides of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sanet.config import InferenceConfig
from sanet.data.decoding import UNREADABLE, read_image, rgb
from sanet.data.images import array_of, shown, stored_values, tensor_of
from sanet.inference.device import choose_device
from sanet.inference.exported import ExportedModel, is_exported, open_exported
from sanet.inference.views import LogitsFunction, label_image
from sanet.models.networks import SegmentationModel, load_model
from sanet.models.store import BUNDLED
from sanet.structures import UsageError, first_line

INTEGERS = ("uint8", "uint16", "uint32", "int16", "int32", "int64")


class Predictor:
    """Labels the pixels of images with a saved model.

    Args:
        model: directory of a saved model, one of the Hugging Face hub as ``hf:OWNER/NAME``, a file that
            `sanet export` wrote, or a model, which stays on the device, in evaluation mode; a copy
            (``copy.deepcopy``) leaves it as it is. By default the bundled one, for streets seen from a car.
        device: name of the device: "cpu", "cuda", "mps" or "xpu"; by default the best there is.
        inference: sliding window, multi-scale and flip; by default at the size that the model is meant for.

    Attributes:
        labels: the classes that the indices of a mask stand for.
        device: where the model runs.
        in_chans: C, channels of the images.
        images: how image files are read, and which of their values are black and white.
        logits_of: the model as a function from images, on the device, to logits.
        inference: as given, with the model's size where none was.

    Raises:
        SanetError: there is no model there, or it cannot be read.
        UsageError: there is no such device.
    """

    def __init__(
        self,
        model: str | Path | SegmentationModel | None = None,
        device: str | None = None,
        inference: InferenceConfig = InferenceConfig(),
    ) -> None:
        model = BUNDLED["streets"] if model is None else model
        self.logits_of: LogitsFunction
        self._labels_file: ExportedModel | None = None
        if not isinstance(model, SegmentationModel) and is_exported(model):
            exported = open_exported(model, device)
            self.logits_of, self.labels, self.device = exported, exported.labels, exported.device
            self.inference = inference.resolved(exported.shorter_side)
            self.in_chans, self.value_range, self.images = exported.in_chans, 255, exported.reading
            self._labels_file = exported if exported.gives_labels else None
            if self.images.of_values:
                self.logits_of = lambda images: exported(self.images.stored(images))
        else:
            network = model if isinstance(model, SegmentationModel) else load_model(model)
            self.device = choose_device(device)
            network.to(self.device).to(memory_format=torch.channels_last).eval()
            self.logits_of, self.labels = lambda images: network(images).logits, network.labels
            self.inference = inference.resolved(network.shorter_side)
            self.in_chans, self.value_range, self.images = network.in_chans, network.value_range, network.images

    def __call__(self, image: NDArray[Any] | Image.Image | str | Path | torch.Tensor) -> NDArray[Any]:
        """Label every pixel.

        Args:
            image: (H, W, C), or (H, W) grey, uint8, of any size; a tensor (C, H, W) uint8 on any device; or a file or
                a PIL image, whose EXIF rotation is applied. For a model of another range of values any integers; for
                one of stored values these, integers or floats, as a file would have them.

        Returns:
            (H, W) class indices, uint8; uint16 for more than 256 classes.

        Raises:
            UsageError: anything else, or an image without pixels.
            DataError: a file that cannot be read.
        """
        labels = self.label(self.seen(self._pixels(image).to(self.device)))
        return labels.cpu().numpy().astype(np.uint8 if len(self.labels) <= 256 else np.uint16)

    @torch.inference_mode()
    def label(self, image: torch.Tensor) -> torch.Tensor:
        """(C, H, W), as ``seen`` gives it -> (H, W) int64 class indices, both on the model's device."""
        if self._labels_file is not None:
            return self._labels_file.label(image, self.inference)
        return label_image(self.logits_of, image, self.inference)

    def seen(self, image: torch.Tensor) -> torch.Tensor:
        """(C, H, W) as stored -> as the network takes it, which differs for models of stored values only."""
        return self.images.scaled(image) if self.images.of_values else image

    def read(self, path: Path) -> NDArray[Any]:
        """(H, W, C) of a file, as this model wants it; a DataError where it cannot be."""
        return stored_values(path, self.images) if self.images.of_values else read_image(path)

    def shown(self, stored: NDArray[Any]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 for people, of what ``read`` gives: of stored values the first channels, as they are seen."""
        return shown(self.seen(tensor_of(stored))) if self.images.of_values else stored

    def _pixels(self, image: Any) -> torch.Tensor:
        """An image of any of these kinds as (C, H, W)."""
        if isinstance(image, (str, Path)):
            image = self.read(Path(image))
        elif isinstance(image, Image.Image):
            try:
                image = array_of(image) if self.images.of_values else rgb(image)
            except UsageError:
                raise
            except UNREADABLE as error:  # its file is read only now
                raise UsageError(f"the image cannot be read: {first_line(error)}") from error
        if not isinstance(image, (np.ndarray, torch.Tensor)):
            raise UsageError(f"the image is a {type(image).__name__}; give an array, a PIL image, a tensor or a file")
        dtype, shape = str(image.dtype).removeprefix("torch."), tuple(image.shape)
        if self.images.of_values:
            return self._stored(image)
        allowed = INTEGERS if self.value_range > 255 else INTEGERS[:1]
        if dtype not in allowed:
            raise UsageError(f"the image is {dtype}; give {' or '.join(allowed)}, from 0 to {self.value_range}")
        if isinstance(image, np.ndarray):
            if image.ndim == 2:
                image = np.broadcast_to(image[..., None], (*shape, self.in_chans))
            # A copy, since PyTorch takes neither what is read-only nor what goes backwards.
            copy = image.astype(np.int64 if self.value_range > 255 else np.uint8, order="C")
            image = torch.from_numpy(np.moveaxis(copy, -1, 0) if copy.ndim == 3 else copy)
        if image.ndim != 3 or image.shape[0] != self.in_chans or 0 in image.shape:
            raise UsageError(
                f"the image has shape {shape}; give (H, W, {self.in_chans}), (H, W) grey, or a tensor "
                f"({self.in_chans}, H, W), with pixels"
            )
        return torch.as_tensor(image)

    def _stored(self, image: NDArray[Any] | torch.Tensor) -> torch.Tensor:
        """(C, H, W) float32 of an array (H, W, C), or (H, W) of one channel, or of a tensor (C, H, W)."""
        if isinstance(image, np.ndarray):
            image = tensor_of(image[..., None] if image.ndim == 2 else image) if image.dtype.kind in "buif" else image
        wanted = f"(H, W, {self.in_chans}), or a tensor ({self.in_chans}, H, W), of the values that files store"
        if not isinstance(image, torch.Tensor) or image.is_complex():
            raise UsageError(f"the image is {image.dtype}; give integers or floats {wanted}")
        if image.ndim != 3 or image.shape[0] != self.in_chans or 0 in image.shape:
            raise UsageError(f"the image has shape {tuple(image.shape)} as (C, H, W); give {wanted}")
        if not (values := image.float()).isfinite().all():
            raise UsageError("the image has values that are infinite or no numbers; put numbers in their place")
        return values
