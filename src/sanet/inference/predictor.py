"""A picture in, a mask out: NumPy or PIL on both sides of the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sanet.config import ViewsConfig
from sanet.data.decoding import rgb
from sanet.inference.exported import choose_device, is_exported, open_exported
from sanet.inference.views import LogitsFunction, label_picture
from sanet.models.networks import SegmentationModel, load_model
from sanet.models.own import OWN_MODEL, views_of
from sanet.structures import UsageError


class Predictor:
    """Labels the pixels of pictures with a saved model.

    Args:
        model: the directory of a saved model, the name of one on the Hugging Face hub, a file that `sanet export`
            wrote, or a model, which is put onto the device and into evaluation mode; by default the package's own,
            for streets seen from a car, whose card is ``OWN_MODEL / "README.md"``.
        device: such as "cpu" or "cuda"; by default a GPU where there is one.
        views: how to look at a picture: in which sizes, mirrored or not, and from where on in windows; by default in
            its own size, and with the package's own model in the size that it knows.

    Attributes:
        labels: the classes that the indices of a mask stand for.
        device: where the model runs.
        logits_of: the model as a function from pictures, uint8 and on the device, to logits.
        views: as given.

    Raises:
        SanetError: there is no model there, or it cannot be read.
        UsageError: there is no such device.
    """

    def __init__(
        self,
        model: str | Path | SegmentationModel | None = None,
        device: str | None = None,
        views: ViewsConfig | None = None,
    ) -> None:
        model = OWN_MODEL if model is None else model
        self.logits_of: LogitsFunction
        if not isinstance(model, SegmentationModel) and is_exported(model):
            exported = open_exported(model, device)
            self.logits_of, self.labels, self.device = exported, exported.labels, exported.device
        else:
            network = model if isinstance(model, SegmentationModel) else load_model(model)
            self.device = choose_device(device)
            network.to(self.device).to(memory_format=torch.channels_last).eval()
            self.logits_of, self.labels = lambda pictures: network(pictures).logits, network.labels
        self.views = views_of(model) if views is None else views

    def __call__(self, image: NDArray[np.uint8] | Image.Image) -> NDArray[np.uint8 | np.uint16]:
        """Label every pixel.

        Args:
            image: (H, W, 3) RGB or (H, W) grey, uint8, of any size; or a PIL image, whose EXIF rotation is applied.

        Returns:
            (H, W) class indices, uint8; uint16 for more than 256 classes.

        Raises:
            UsageError: an array of another shape or dtype.
        """
        pixels = torch.tensor(_rgb(image)).permute(2, 0, 1).to(self.device)
        return self.label(pixels).cpu().numpy().astype(np.uint8 if len(self.labels) <= 256 else np.uint16)

    @torch.inference_mode()
    def label(self, image: torch.Tensor) -> torch.Tensor:
        """(3, H, W) uint8 -> (H, W) int64 class indices, both on the model's device."""
        return label_picture(self.logits_of, image, self.views)


def _rgb(image: NDArray[np.uint8] | Image.Image) -> NDArray[np.uint8]:
    if isinstance(image, Image.Image):
        return rgb(image)
    if image.dtype != np.uint8:
        raise UsageError(f"the picture is {image.dtype}; give uint8 from 0 to 255")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"the picture has shape {image.shape}; give (H, W, 3) RGB or (H, W) grey")
    return np.ascontiguousarray(image)
