"""A picture in, a mask out: NumPy or PIL on both sides of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sanet.config import InferenceConfig
from sanet.data.decoding import UNREADABLE, read_image, rgb
from sanet.inference.exported import choose_device, is_exported, open_exported
from sanet.inference.views import LogitsFunction, label_picture
from sanet.models.networks import SegmentationModel, load_model
from sanet.models.store import BUNDLED
from sanet.structures import UsageError, first_line


class Predictor:
    """Labels the pixels of pictures with a saved model.

    Args:
        model: the directory of a saved model, one of the Hugging Face hub as ``hf:OWNER/NAME``, a file that
            `sanet export` wrote, or a model, which stays on the device, in evaluation mode; a copy
            (``copy.deepcopy``) leaves it as it is. By default the package's own, for streets seen from a car, whose
            card is in its folder.
        device: such as "cpu" or "cuda"; by default a GPU where there is one.
        views: how to look at a picture: in which sizes, mirrored or not, and from where on in windows; by default in
            the size that the model is meant for.

    Attributes:
        labels: the classes that the indices of a mask stand for.
        device: where the model runs.
        logits_of: the model as a function from pictures, uint8 and on the device, to logits.
        views: as given, with the model's size where none was.

    Raises:
        SanetError: there is no model there, or it cannot be read.
        UsageError: there is no such device.
    """

    def __init__(
        self,
        model: str | Path | SegmentationModel | None = None,
        device: str | None = None,
        views: InferenceConfig = InferenceConfig(),
    ) -> None:
        model = BUNDLED["streets"] if model is None else model
        self.logits_of: LogitsFunction
        if not isinstance(model, SegmentationModel) and is_exported(model):
            exported = open_exported(model, device)
            self.logits_of, self.labels, self.device = exported, exported.labels, exported.device
            self.views = views.resolved(exported.shorter_side)
        else:
            network = model if isinstance(model, SegmentationModel) else load_model(model)
            self.device = choose_device(device)
            network.to(self.device).to(memory_format=torch.channels_last).eval()
            self.logits_of, self.labels = lambda pictures: network(pictures).logits, network.labels
            self.views = views.resolved(network.shorter_side)

    def __call__(self, image: NDArray[np.uint8] | Image.Image | str | Path | torch.Tensor) -> NDArray[Any]:
        """Label every pixel.

        Args:
            image: (H, W, 3) RGB or (H, W) grey, uint8, of any size; a tensor (3, H, W) uint8 on any device; or a file
                or a PIL image, whose EXIF rotation is applied.

        Returns:
            (H, W) class indices, uint8; uint16 for more than 256 classes.

        Raises:
            UsageError: anything else, or a picture without pixels.
            DataError: a file that cannot be read.
        """
        labels = self.label(_pixels(image).to(self.device))
        return labels.cpu().numpy().astype(np.uint8 if len(self.labels) <= 256 else np.uint16)

    @torch.inference_mode()
    def label(self, image: torch.Tensor) -> torch.Tensor:
        """(3, H, W) uint8 -> (H, W) int64 class indices, both on the model's device."""
        return label_picture(self.logits_of, image, self.views)


def _pixels(image: Any) -> torch.Tensor:
    """A picture of any of these kinds as (3, H, W) uint8."""
    if isinstance(image, (str, Path)):
        image = read_image(Path(image))
    elif isinstance(image, Image.Image):
        try:
            image = rgb(image)
        except UsageError:
            raise
        except UNREADABLE as error:  # its file is read only now
            raise UsageError(f"the picture cannot be read: {first_line(error)}") from error
    if isinstance(image, torch.Tensor):
        wanted, fits = "a tensor (3, H, W)", image.ndim == 3 and image.shape[0] == 3
    elif isinstance(image, np.ndarray):
        wanted, fits = "(H, W, 3) RGB or (H, W) grey", image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    else:
        raise UsageError(f"the picture is a {type(image).__name__}; give an array, a PIL image, a tensor or a file")
    if str(image.dtype) not in ("uint8", "torch.uint8"):
        raise UsageError(f"the picture is {image.dtype}; give uint8 from 0 to 255")
    if not fits or 0 in image.shape:
        raise UsageError(f"the picture has shape {tuple(image.shape)}; give {wanted}, with pixels")
    if isinstance(image, torch.Tensor):
        return image
    colored = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return torch.tensor(np.ascontiguousarray(colored)).permute(2, 0, 1)
