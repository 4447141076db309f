"""Joint transforms of picture and mask, over torchvision's v2 transforms.

Pictures are resized bilinearly, masks by the nearest neighbour; masks are padded with the ignore value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from sanet.structures import Sample

PADDING_GREY = 128


class RandomScale(v2.Transform):
    """Resize picture and mask by one factor, drawn uniformly from ``[low, high]``."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the factor, once for picture and mask."""
        height, width = flat_inputs[0].shape[-2:]
        factor = self.low + (self.high - self.low) * torch.rand(()).item()
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Bilinear for a picture, nearest neighbour for a mask."""
        if isinstance(inpt, tv_tensors.Mask):
            # For masks torchvision has the legacy "nearest" only, which lies half a pixel off the picture.
            mask = inpt.as_subclass(Tensor)[None]
            resized = F.resize_image(mask, params["size"], interpolation=v2.InterpolationMode.NEAREST_EXACT)
            return tv_tensors.Mask(resized[0])
        return self._call_kernel(F.resize, inpt, size=params["size"], antialias=True)


class TrainingTransform:
    """Random scale, crop, mirror and photometric jitter, in that order; see ``AugmentationConfig`` for the ranges.

    Args:
        crop: height and width of the result, in pixels.
        scale: smallest and largest factor of the random resize.
        mirror: probability of a left-right mirror.
        jitter: largest relative change of brightness, contrast and saturation, each drawn by itself.
        ignore_index: what the mask is padded with where the picture is smaller than the crop.
    """

    def __init__(
        self, crop: tuple[int, int], scale: tuple[float, float], mirror: float, jitter: float, ignore_index: int
    ) -> None:
        fill = {tv_tensors.Image: PADDING_GREY, tv_tensors.Mask: ignore_index}
        self.joint: Callable[[Any, Any], tuple[Tensor, Tensor]] = v2.Compose(
            [
                RandomScale(*scale),
                v2.RandomCrop(crop, pad_if_needed=True, fill=fill),
                v2.RandomHorizontalFlip(mirror),
                v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter),
            ]
        )

    def __call__(self, sample: Sample) -> Sample:
        """(3, H, W) and (H, W) of any size in, the crop's size out; dtypes stay."""
        image, mask = self.joint(tv_tensors.Image(sample.image), tv_tensors.Mask(sample.mask))
        return Sample(image.as_subclass(Tensor), mask.as_subclass(Tensor), sample.name)
