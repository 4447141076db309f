"""The pixel groups of a SANet: what each head's two channels hold, and which pixels they put together (figure 6).

A head's attention channel gives every pixel a vector of K values; pixels whose vectors are near belong to one group.
"We use L2 distance to show the attention maps of the attention channel within SA module, and select the most activated
feature map channels for the outputs of the main channel" (section 4.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sanet.config import InferenceConfig
from sanet.inference.exported import choose_device
from sanet.inference.views import resized, resized_bands
from sanet.models.networks import SegmentationModel, load_model
from sanet.models.sanet import SANetHead, SqueezeAttention
from sanet.structures import LabelSet, UsageError

# Pictures of more pixels are looked at smaller: the maps are of the whole picture, and no window has that.
LARGEST = 1024**2
BAND = 64  # rows of logits that are brought to the picture's size at a time


class HeadMaps(NamedTuple):
    """What one squeeze-and-attention module made of a picture, equation (4).

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

    def cell(self, x: int, y: int, size: tuple[int, int]) -> tuple[int, int]:
        """Row and column of the map cell that a pixel of a picture of H and W lies in."""
        height, width = size
        rows, columns = self.main.shape[-2:]
        return y * rows // height, x * columns // width


class PixelGroup(NamedTuple):
    """What a head puts together with a point.

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
    """A picture that a network has seen once; any number of points can be asked for after that.

    Attributes:
        size: H and W of the picture.
        seen: rows and columns of the picture that the network was given, which may be another size.
        labels: the classes.
        prediction: (H, W) int64 class indices.
        heads: the maps of each head, the first stage first; their sizes differ. Empty for a network without such heads.
    """

    size: tuple[int, int]
    seen: tuple[int, int]
    labels: LabelSet
    prediction: Tensor
    heads: list[HeadMaps]

    def groups(self, x: int, y: int) -> list[PixelGroup]:
        """The pixel groups of a point, one for each head.

        Args:
            x: column of the point, 0 to W - 1.
            y: row of the point, 0 to H - 1.

        Raises:
            UsageError: a point outside the picture.
        """
        height, width = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise UsageError(f"point {x} {y} lies outside the picture, which is {width} wide and {height} high")
        return [self._group(maps, *maps.cell(x, y, self.size)) for maps in self.heads]

    @staticmethod
    def _group(maps: HeadMaps, row: int, column: int) -> PixelGroup:
        channel = int(maps.main[:, row, column].argmax())
        distance = (maps.attention - maps.attention[:, row, column, None, None]).norm(dim=0)
        output = maps.output[int(maps.output[:, row, column].argmax())]
        return PixelGroup(maps.stage, channel, maps.main[channel], distance, output)


class Explainer:
    """Shows what a network sees: its labels, and the pixel groups of its squeeze-and-attention heads where it has any.

    Args:
        model: a model directory, one of the Hugging Face hub as ``hf:OWNER/NAME``, or a model.
        device: such as "cpu" or "cuda"; by default a GPU where there is one.
        shorter_side: pixels of the shorter side that every picture is seen with, 0 for its own; by default the side
            that the model is meant for.

    Attributes:
        network: the model, on the device and in evaluation mode.
        stages: of its squeeze-and-attention heads, 1 to 4; none for other networks.
        views: with the size that pictures are seen in.
    """

    def __init__(
        self, model: str | Path | SegmentationModel, device: str | None = None, shorter_side: int | None = None
    ) -> None:
        self.network = model if isinstance(model, SegmentationModel) else load_model(model)
        self.device = choose_device(device)
        self.views = InferenceConfig(shorter_side=shorter_side).resolved(self.network.shorter_side)
        self.network.to(self.device).to(memory_format=torch.channels_last).eval()
        head = self.network.head
        self._modules = head.attention if isinstance(head, SANetHead) else nn.ModuleList()
        self.stages = tuple(head.numbers) if isinstance(head, SANetHead) else ()

    def require_heads(self) -> None:
        """Raise a UsageError if the network has no squeeze-and-attention heads."""
        if not self.stages:
            raise UsageError('only network "sanet" has squeeze-and-attention heads to look into')

    @torch.inference_mode()
    def encode(self, image: Tensor) -> Encoding:
        """Look at a picture once.

        Args:
            image: (3, H, W) uint8, of any size; beyond ``LARGEST`` pixels it is looked at smaller, and a side of
                less than 32 pixels is looked at with 32.
        """
        height, width = image.shape[-2:]
        factor = min(self.views.factors(height, width)[0], sqrt(LARGEST / (height * width)))
        seen = resized(image.to(self.device), factor)[None]
        with _features_of(self._modules) as features:
            logits = self.network(seen).logits[0]
        maps = [
            HeadMaps(stage, *(found[0].float().cpu() for found in _channels(module, features[module])))
            for stage, module in zip(self.stages, self._modules, strict=True)
            if isinstance(module, SqueezeAttention)
        ]
        # In bands: the logits of a photograph at its own size can take gigabytes.
        bands = resized_bands(logits.split(BAND, dim=1), logits.shape[1], (height, width))
        prediction = torch.cat([band.argmax(dim=0).cpu() for band in bands])
        rows, columns = seen.shape[-2:]
        return Encoding((height, width), (rows, columns), self.network.labels, prediction, maps)


def _channels(module: SqueezeAttention, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """X_res, X_attn and X_out of a module: (B, C, h, w) -> three of (B, K, h, w)."""
    attention, main = module.attend(features), module.main(features)
    return main, attention, attention * main + attention


@contextmanager
def _features_of(modules: nn.ModuleList) -> Iterator[dict[nn.Module, Tensor]]:
    """What the modules are given while this is open; the hooks are removed however it ends."""
    given: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given[module] = inputs[0]

    hooks = [module.register_forward_pre_hook(keep) for module in modules]
    try:
        yield given
    finally:
        for hook in hooks:
            hook.remove()
