"""Pixel groups: what the two channels of a SANet's heads hold (figure 6), or any network's features; and Grad-CAM.

A head's attention channel gives every pixel a vector of K values; pixels whose vectors are near belong to one group.
"We use L2 distance to show the attention maps of the attention channel within SA module, and select the most activated
feature map channels for the outputs of the main channel" (section 4.3). The features of a level of the backbone group
pixels in the same way, once they have length 1, so that near means a small angle.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanet.config import InferenceConfig
from sanet.inference.device import choose_device, prepared
from sanet.inference.views import resized, resized_bands
from sanet.models.networks import SegmentationModel
from sanet.models.sanet import SANetHead, SqueezeAttention, resize
from sanet.structures import LabelSet, UsageError

# Larger images are resized to this number of pixels: the maps are of the whole image, which a window does not have.
LARGEST = 1024**2
BAND = 64  # rows of logits that are resized to the image at a time
DEEPEST = 4

Source = Literal["head", "level"]


class HeadMaps(NamedTuple):
    """What one squeeze-and-attention module made of an image, equation (4), or a level of the backbone.

    Attributes:
        stage: 1 to 4; the stem, of a backbone that has it as a level, is 0.
        main: (K, h, w) float32, X_res; or the features (C, h, w), of length 1 in every cell.
        attention: (K, h, w) float32, X_attn; or the same features.
        output: (K, h, w) float32, X_attn * X_res + X_attn; or the logits of the network in this size.
        source: "head" or "level".
    """

    stage: int
    main: Tensor
    attention: Tensor
    output: Tensor
    source: Source = "head"


class PixelGroup(NamedTuple):
    """What a head, or a level of the backbone, groups with a point.

    Attributes:
        stage: 1 to 4; the stem is 0.
        channel: k of the map of the main channel, or of the features, that is most activated at the point. Only the
            maps of head 4 stand for classes, where the dense prediction adds them to it; those of the others are mixed.
        main: (h, w), that map.
        distance: (h, w), L2 distance of the attention vectors, or of the features, from the point's; 0 in its own cell.
        output: (h, w), the map of the output that is most activated at the point.
        source: "head" or "level".
    """

    stage: int
    channel: int
    main: Tensor
    distance: Tensor
    output: Tensor
    source: Source = "head"

    @property
    def name(self) -> str:
        """Such as "head 4"."""
        return f"{self.source} {self.stage}"


class Encoding(NamedTuple):
    """An image that went through a network once; any number of points can be asked for after that.

    Attributes:
        size: H and W of the image.
        input_size: H and W of the network's input, which the image was resized to.
        labels: the classes.
        prediction: (H, W) int64 class indices.
        heads: the maps of each head, the first stage first, and of the level, if any; their sizes differ.
        grad_cam: by column and row of a point (h, w) float32, what the class predicted there rests on in the deepest
            features that the head reads: each map times the mean of the gradient of the class's logit, summed
            (Selvaraju et al., "Grad-CAM", ICCV 2017). It is positive where they speak for the class; Grad-CAM itself
            sets the rest to 0.
    """

    size: tuple[int, int]
    input_size: tuple[int, int]
    labels: LabelSet
    prediction: Tensor
    heads: list[HeadMaps]
    grad_cam: Callable[[int, int], Tensor]

    def groups(self, x: int, y: int) -> list[PixelGroup]:
        """The pixel groups of a point, one for each of ``heads``.

        Args:
            x: column of the point, 0 to W - 1.
            y: row of the point, 0 to H - 1.

        Raises:
            UsageError: a point outside the image.
        """
        height, width = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(f"point {x} {y} lies outside the image, which is {width} wide and {height} high")
        found = []
        for maps in self.heads:
            rows, columns = maps.main.shape[-2:]
            row, column = y * rows // height, x * columns // width
            channel = int(maps.main[:, row, column].argmax())
            distance = (maps.attention - maps.attention[:, row, column, None, None]).norm(dim=0)
            output = maps.output[int(maps.output[:, row, column].argmax())]
            found.append(PixelGroup(maps.stage, channel, maps.main[channel], distance, output, maps.source))
        return found


class Explainer:
    """Shows what a network makes of an image: its labels, which pixels belong together, and what a label rests on.

    Args:
        model: a model directory, one of the Hugging Face hub as ``hf:OWNER/NAME``, or a model, of which a copy is used.
        device: name of the device: "cpu", "cuda", "mps" or "xpu"; by default the best there is.
        shorter_side: pixels that the shorter side of every image is resized to, 0 for none; by default the side that
            the model was trained for.
        level: level of the backbone whose features group pixels as well, 4 for the deepest; by default that one for a
            network without squeeze-and-attention heads, and none beside them.

    Attributes:
        network: the model, on the device and in evaluation mode.
        stages: of what groups pixels, in its order.
        names: of the same, such as "head 1" and "level 4".
        shorter_side: as given, or the model's; 0 for the size of the image.

    Raises:
        UsageError: a level that the backbone does not have.
    """

    def __init__(
        self,
        model: str | Path | SegmentationModel,
        device: str | None = None,
        shorter_side: int | None = None,
        level: int | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.network = prepared(model, self.device).requires_grad_(False)
        self._inference = InferenceConfig(shorter_side=shorter_side).resolved(self.network.shorter_side)
        self.shorter_side = self._inference.shorter_side
        head, levels = self.network.head, len(self.network.backbone.levels)
        found = head.attention if isinstance(head, SANetHead) else ()
        # Of a variant without attention that channel is empty.
        self._modules = [module for module in found if isinstance(module, SqueezeAttention) and len(module.attention)]
        heads = tuple(head.numbers) if isinstance(head, SANetHead) and self._modules else ()
        self._levels = () if heads and level is None else (DEEPEST if level is None else level,)
        if not {*self._levels} <= {*range(DEEPEST + 1 - levels, DEEPEST + 1)}:
            raise UsageError(f"level {level}: {DEEPEST + 1 - levels} to {DEEPEST}, which is the deepest")
        self.stages = (*heads, *self._levels)
        self.names = (*(f"head {stage}" for stage in heads), *(f"level {stage}" for stage in self._levels))

    def require_rgb(self) -> None:
        """Raise a UsageError if the network takes other images than RGB of 8 bits, as files are read here."""
        channels, largest = self.network.in_chans, self.network.value_range
        if (channels, largest) != (3, 255):
            raise UsageError(f"the network takes images of {channels} channels up to {largest}, not RGB of 8 bits")

    def fitted(self, image: Tensor) -> Tensor:
        """The network's input (1, C, h, w) of an image (C, H, W)."""
        height, width = image.shape[-2:]
        factor = min(self._inference.factors(height, width)[0], sqrt(LARGEST / (height * width)))
        return resized(image[None].to(self.device), factor)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Encoding:
        """Run the network once.

        Args:
            image: (C, H, W), as the network takes it, of any size; beyond ``LARGEST`` pixels it is resized to that
                number, and a side of less than 32 pixels to 32.
        """
        size, images = (image.shape[-2], image.shape[-1]), self.fitted(image)
        inputs: dict[nn.Module, Tensor] = {}
        features: list[Tensor] = []
        with ExitStack() as hooks:
            hooks.enter_context(self.network.backbone.register_forward_hook(lambda *given: features.extend(given[2])))
            for module in self._modules:
                hooks.enter_context(
                    module.register_forward_pre_hook(lambda module, given: inputs.update({module: given[0]}))
                )
            logits = self.network(images).logits
        heads = []
        for stage, module in zip(self.stages, self._modules, strict=False):
            main, attention = (way(inputs[module])[0].float().cpu() for way in (module.main, module.attend))
            heads.append(HeadMaps(stage, main, attention, attention * main + attention))
        for stage in self._levels:
            unit = F.normalize(features[stage - DEEPEST - 1][0].float(), dim=0).cpu()
            heads.append(HeadMaps(stage, unit, unit, resize(logits.float(), unit.shape[-2:])[0].cpu(), "level"))
        # In bands: the logits of a photograph at its own size can take gigabytes.
        bands = resized_bands(logits.split(BAND, dim=2), logits.shape[2], size)
        prediction = torch.cat([band[0].argmax(dim=0).cpu() for band in bands])
        rows, columns = images.shape[-2:]
        grad_cam = partial(self._grad_cam, images, size)
        return Encoding(size, (rows, columns), self.network.labels, prediction, heads, grad_cam)

    def _grad_cam(self, images: Tensor, size: tuple[int, int], x: int, y: int) -> Tensor:
        leaves: list[Tensor] = []

        def cut(*given: Any) -> list[Tensor]:
            leaves.extend(maps.detach().requires_grad_() for maps in given[2])
            # Copies, as a layer may change its input in place, which a leaf does not allow.
            return [leaf.clone() for leaf in leaves]

        row, column = (
            place * side // whole for place, side, whole in zip((y, x), images.shape[-2:], size, strict=True)
        )
        with torch.enable_grad(), self.network.backbone.register_forward_hook(cut):
            logit = self.network(images).logits[0, :, row, column].max()
            slopes = torch.autograd.grad(logit, leaves, allow_unused=True)
        maps, slope = next((*pair,) for pair in zip(leaves[::-1], slopes[::-1], strict=True) if pair[1] is not None)
        return (slope.mean(dim=(2, 3), keepdim=True) * maps.detach()).sum(dim=1)[0].float().cpu()
