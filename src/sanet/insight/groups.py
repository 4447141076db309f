"""The pixel groups of a SANet: what each head's two channels hold, and which pixels they group (figure 6).

A head's attention channel gives every pixel a vector of K values; pixels whose vectors are near belong to one group.
"We use L2 distance to show the attention maps of the attention channel within SA module, and select the most activated
feature map channels for the outputs of the main channel" (section 4.3).
"""

from __future__ import annotations

from contextlib import ExitStack
from math import sqrt
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sanet.config import InferenceConfig
from sanet.inference.device import choose_device, prepared
from sanet.inference.views import resized, resized_bands
from sanet.models.networks import SegmentationModel
from sanet.models.sanet import SANetHead, SqueezeAttention
from sanet.structures import LabelSet, UsageError

# Larger images are resized to this number of pixels: the maps are of the whole image, which a window does not have.
LARGEST = 1024**2
BAND = 64  # rows of logits that are resized to the image at a time


class HeadMaps(NamedTuple):
    """What one squeeze-and-attention module made of an image, equation (4).

    Attributes:
        stage: 1 to 4.
        main: (K, h, w) float32, X_res.
        attention: (K, h, w) float32, X_attn.
        output: (K, h, w) float32, X_attn * X_res + X_attn.
    """

    stage: int
    main: Tensor
    attention: Tensor
    output: Tensor


class PixelGroup(NamedTuple):
    """What a head groups with a point.

    Attributes:
        stage: of the head, 1 to 4.
        channel: k of the map of the main channel that is most activated at the point. Only the maps of stage 4 stand
            for classes, where the dense prediction adds them to it; those of the others are mixed.
        main: (h, w), that map of the main channel.
        distance: (h, w), L2 distance of the attention vectors from the point's; 0 in its own cell.
        output: (h, w), the map of the output that is most activated at the point.
    """

    stage: int
    channel: int
    main: Tensor
    distance: Tensor
    output: Tensor


class Encoding(NamedTuple):
    """An image that went through a network once; any number of points can be asked for after that.

    Attributes:
        size: H and W of the image.
        input_size: H and W of the network's input, which the image was resized to.
        labels: the classes.
        prediction: (H, W) int64 class indices.
        heads: the maps of each head, the first stage first; their sizes differ. Empty for a network without such heads.
    """

    size: tuple[int, int]
    input_size: tuple[int, int]
    labels: LabelSet
    prediction: Tensor
    heads: list[HeadMaps]

    def groups(self, x: int, y: int) -> list[PixelGroup]:
        """The pixel groups of a point, one for each head.

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
            found.append(PixelGroup(maps.stage, channel, maps.main[channel], distance, output))
        return found


class Explainer:
    """Shows what a network makes of an image: its labels, and the pixel groups of its squeeze-and-attention heads.

    Other networks have no such groups, but labels all the same.

    Args:
        model: a model directory, one of the Hugging Face hub as ``hf:OWNER/NAME``, or a model, of which a copy is used.
        device: name of the device: "cpu", "cuda", "mps" or "xpu"; by default the best there is.
        shorter_side: pixels that the shorter side of every image is resized to, 0 for none; by default the side that
            the model was trained for.

    Attributes:
        network: the model, on the device and in evaluation mode.
        stages: of its squeeze-and-attention heads, 1 to 4; none for other networks.
        shorter_side: as given, or the model's; 0 for the size of the image.
    """

    def __init__(
        self, model: str | Path | SegmentationModel, device: str | None = None, shorter_side: int | None = None
    ) -> None:
        self.device = choose_device(device)
        self.network = prepared(model, self.device)
        self._inference = InferenceConfig(shorter_side=shorter_side).resolved(self.network.shorter_side)
        self.shorter_side = self._inference.shorter_side
        head = self.network.head
        found = head.attention if isinstance(head, SANetHead) else ()
        self._modules = [module for module in found if isinstance(module, SqueezeAttention)]
        self.stages = tuple(head.numbers) if isinstance(head, SANetHead) else ()

    def require_heads(self) -> None:
        """Raise a UsageError if the network has no squeeze-and-attention heads."""
        if not self.stages:
            raise UsageError(f'network "{self.network.network}" has no squeeze-and-attention heads; only "sanet" does')

    def require_rgb(self) -> None:
        """Raise a UsageError if the network takes other images than RGB of 8 bits, as files are read here."""
        channels, largest = self.network.in_chans, self.network.value_range
        if (channels, largest) != (3, 255):
            raise UsageError(f"the network takes images of {channels} channels up to {largest}, not RGB of 8 bits")

    @torch.inference_mode()
    def encode(self, image: Tensor) -> Encoding:
        """Run the network once.

        Args:
            image: (C, H, W), as the network takes it, of any size; beyond ``LARGEST`` pixels it is resized to that
                number, and a side of less than 32 pixels to 32.
        """
        height, width = image.shape[-2:]
        factor = min(self._inference.factors(height, width)[0], sqrt(LARGEST / (height * width)))
        images = resized(image[None].to(self.device), factor)
        inputs: dict[nn.Module, Tensor] = {}
        with ExitStack() as hooks:
            for module in self._modules:
                hooks.enter_context(
                    module.register_forward_pre_hook(lambda module, given: inputs.update({module: given[0]}))
                )
            logits = self.network(images).logits
        heads = []
        for stage, module in zip(self.stages, self._modules, strict=True):
            main, attention = (way(inputs[module])[0].float().cpu() for way in (module.main, module.attend))
            heads.append(HeadMaps(stage, main, attention, attention * main + attention))
        # In bands: the logits of a photograph at its own size can take gigabytes.
        bands = resized_bands(logits.split(BAND, dim=2), logits.shape[2], (height, width))
        prediction = torch.cat([band[0].argmax(dim=0).cpu() for band in bands])
        rows, columns = images.shape[-2:]
        return Encoding((height, width), (rows, columns), self.network.labels, prediction, heads)
