"""Baselines from ``segmentation_models_pytorch`` (extra ``smp``): its decoders as heads over our backbones.

With equal weights they compute what that library's networks compute, up to the last resize, which aligns corners
there and never does here. Options have that library's names and defaults. It insists on sides that are multiples of
32; here feature maps are padded and the prediction is cut, so that any size works. Its PAN (which needs 128 pixels a
side or more) and DPT (for plain vision transformers) are left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanet.models.backbones import Level
from sanet.models.norms import tolerate_single_values
from sanet.models.sanet import HeadOutput
from sanet.structures import SanetError, UsageError


class SMPHead(nn.Module):
    """A decoder of that library, and the convolution that turns what it gives into classes.

    Args:
        levels: of the backbone; the last five count.
        decoder: maps six feature maps, the image's own first, to one.
        classifier: (B, C, h, w) -> (B, K, h, w).
        stride: of what the decoder gives.
    """

    def __init__(self, levels: Sequence[Level], decoder: nn.Module, classifier: nn.Module, stride: int) -> None:
        super().__init__()
        from segmentation_models_pytorch.base import initialization

        initialization.initialize_decoder(decoder)
        initialization.initialize_head(classifier)
        tolerate_single_values(decoder)
        for parent in decoder.modules():
            for name, pool in list(parent.named_children()):
                if isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size not in (1, (1, 1)):
                    setattr(parent, name, BinnedAverage(pool.output_size))
        self.strides = [level.stride for level in levels[-5:]]
        self.decoder, self.classifier = decoder, classifier
        # The map that has the size of the prediction; one with finer strides than any map has a multiple of the finest.
        self.cut_like = self.strides.index(stride) if stride in self.strides else 0
        self.cut_factor = self.strides[self.cut_like] // stride

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Maps (B, C_i, h_i, w_i) -> predictions."""
        maps = features[-len(self.strides) :]
        padded = self.pad(maps)
        finest = padded[0].shape[-2:]
        # Decoders ask a missing map for its channels, and the image for its size.
        missing = [side * self.strides[0] // 2 for side in finest]
        stem = [maps[0].new_empty(maps[0].shape[0], 0, *missing)] * (5 - len(maps))
        image = maps[0].new_empty(maps[0].shape[0], 0, *(2 * side for side in missing))
        mask = self.classifier(self.decoder([image, *stem, *padded]))
        # What lies over padding is cut.
        for axis in (-2, -1):
            mask = mask.narrow(axis, 0, maps[self.cut_like].shape[axis] * self.cut_factor)
        return HeadOutput(readout=mask, mask=mask)

    def pad(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Repeat last rows and columns until the sizes of the maps are to each other as their strides are."""
        height, width = maps[-1].shape[-2:]
        ratios = [self.strides[-1] // stride for stride in self.strides]
        return [
            F.pad(stage, (0, width * ratio - stage.shape[-1], 0, height * ratio - stage.shape[-2]), mode="replicate")
            for stage, ratio in zip(maps, ratios, strict=True)
        ]


class BinnedAverage(nn.AdaptiveAvgPool2d):
    """Adaptive average pooling as products with matrices, which exports can state for maps of any size."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, n, n) means over bins, which overlap where n does not divide a side."""
        bins = self.output_size[0] if isinstance(self.output_size, tuple) else self.output_size
        assert bins is not None
        rows, columns = (_means(side, bins, input) for side in input.shape[-2:])
        return F.linear(F.linear(input, columns).transpose(-1, -2), rows).transpose(-1, -2)


def _means(length: int, bins: int, like: Tensor) -> Tensor:
    """(bins, length): the weights of the mean from floor(i length / bins) to ceil((i + 1) length / bins) in row i."""
    numbers = torch.arange(bins, device=like.device)[:, None]
    first, behind = numbers * length // bins, ((numbers + 1) * length + bins - 1) // bins
    places = torch.arange(length, device=like.device)
    inside = (places >= first) & (places < behind)
    return inside.to(like.dtype) / (behind - first)


def _load(name: str) -> Any:
    """The module with a decoder."""
    try:
        return importlib.import_module(f"segmentation_models_pytorch.decoders.{name}.decoder")
    except ImportError as error:
        raise SanetError(
            f"the networks smp_… need an extra: pip install 'sanet-segmentation[smp]' ({error})"
        ) from error


def _channels(levels: Sequence[Level]) -> list[int]:
    """Of the six maps that a decoder expects; one that the backbone does not have has no channels."""
    return [3, *[0] * (5 - len(levels)), *(level.channels for level in levels[-5:])]


def _check_pyramid(levels: Sequence[Level]) -> None:
    """For decoders that double the size from level to level."""
    strides = [level.stride for level in levels[-5:]]
    if strides[-4:] != [4, 8, 16, 32]:
        raise UsageError(f"needs output stride 32, as its decoder doubles the size from level to level; not {strides}")


def deeplabv3(
    levels: Sequence[Level],
    num_classes: int,
    decoder_channels: int = 256,
    decoder_atrous_rates: Sequence[int] = (12, 24, 36),
    decoder_aspp_separable: bool = False,
    decoder_aspp_dropout: float = 0.5,
) -> SMPHead:
    """Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017."""
    decoder = _load("deeplabv3").DeepLabV3Decoder(
        levels[-1].channels, decoder_channels, decoder_atrous_rates, decoder_aspp_separable, decoder_aspp_dropout
    )
    return SMPHead(levels, decoder, nn.Conv2d(decoder_channels, num_classes, 1), stride=levels[-1].stride)


def deeplabv3plus(
    levels: Sequence[Level],
    num_classes: int,
    decoder_channels: int = 256,
    decoder_atrous_rates: Sequence[int] = (12, 24, 36),
    decoder_aspp_separable: bool = True,
    decoder_aspp_dropout: float = 0.5,
) -> SMPHead:
    """Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", ECCV 2018."""
    stride = levels[-1].stride
    if stride not in (8, 16):
        raise UsageError(f"needs output stride 8 or 16, not {stride}")
    decoder = _load("deeplabv3").DeepLabV3PlusDecoder(
        encoder_channels=_channels(levels),
        encoder_depth=5,
        out_channels=decoder_channels,
        atrous_rates=decoder_atrous_rates,
        output_stride=stride,
        aspp_separable=decoder_aspp_separable,
        aspp_dropout=decoder_aspp_dropout,
    )
    return SMPHead(levels, decoder, nn.Conv2d(decoder_channels, num_classes, 1), stride=4)


def pspnet(levels: Sequence[Level], num_classes: int, psp_out_channels: int = 512, psp_dropout: float = 0.2) -> SMPHead:
    """Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017; without its auxiliary loss."""
    decoder = _load("pspnet").PSPDecoder(_channels(levels), out_channels=psp_out_channels, dropout=psp_dropout)
    return SMPHead(levels, decoder, nn.Conv2d(psp_out_channels, num_classes, 3, padding=1), stride=levels[-1].stride)


def upernet(levels: Sequence[Level], num_classes: int, decoder_channels: int = 256) -> SMPHead:
    """Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018."""
    decoder = _load("upernet").UPerNetDecoder(_channels(levels), decoder_channels=decoder_channels)
    return SMPHead(levels, decoder, nn.Conv2d(decoder_channels, num_classes, 1), stride=4)


def segformer(levels: Sequence[Level], num_classes: int, decoder_segmentation_channels: int = 256) -> SMPHead:
    """Decoder of Xie et al., "SegFormer", NeurIPS 2021."""
    decoder = _load("segformer").SegformerDecoder(
        _channels(levels), segmentation_channels=decoder_segmentation_channels
    )
    return SMPHead(levels, decoder, nn.Conv2d(decoder_segmentation_channels, num_classes, 1), stride=4)


def fpn(
    levels: Sequence[Level],
    num_classes: int,
    decoder_pyramid_channels: int = 256,
    decoder_segmentation_channels: int = 128,
    decoder_dropout: float = 0.2,
) -> SMPHead:
    """Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019."""
    _check_pyramid(levels)
    decoder = _load("fpn").FPNDecoder(
        _channels(levels),
        pyramid_channels=decoder_pyramid_channels,
        segmentation_channels=decoder_segmentation_channels,
        dropout=decoder_dropout,
    )
    return SMPHead(levels, decoder, nn.Conv2d(decoder_segmentation_channels, num_classes, 1), stride=4)


# Decoders of one form, by their modules: Ronneberger et al., "U-Net", MICCAI 2015; Zhou et al., "UNet++", DLMIA 2018;
# Fan et al., "MA-Net", IEEE Access 2020.
U_SHAPED = {"unet": "UnetDecoder", "unetplusplus": "UnetPlusPlusDecoder", "manet": "MAnetDecoder"}


def u_shaped(
    module: str,
    levels: Sequence[Level],
    num_classes: int,
    decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
) -> SMPHead:
    """A network of ``U_SHAPED``."""
    _check_pyramid(levels)
    decoder = getattr(_load(module), U_SHAPED[module])(_channels(levels), decoder_channels)
    return SMPHead(levels, decoder, nn.Conv2d(decoder_channels[-1], num_classes, 3, padding=1), stride=1)


def linknet(levels: Sequence[Level], num_classes: int) -> SMPHead:
    """Chaurasia and Culurciello, "LinkNet", VCIP 2017."""
    _check_pyramid(levels)
    if len(levels) < 5:
        raise UsageError("needs a backbone with a feature level of stride 2")
    decoder = _load("linknet").LinknetDecoder(_channels(levels), prefinal_channels=32)
    return SMPHead(levels, decoder, nn.Conv2d(32, num_classes, 1), stride=1)


SMP_HEADS: dict[str, Callable[..., SMPHead]] = {
    "smp_deeplabv3": deeplabv3,
    "smp_deeplabv3plus": deeplabv3plus,
    "smp_pspnet": pspnet,
    "smp_upernet": upernet,
    "smp_segformer": segformer,
    "smp_fpn": fpn,
    **{f"smp_{module}": partial(u_shaped, module) for module in U_SHAPED},
    "smp_linknet": linknet,
}
