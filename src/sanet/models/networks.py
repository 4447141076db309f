"""The networks the paper compares: a backbone, and a head that turns its four stages into predictions."""

from __future__ import annotations

import inspect
import re
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from huggingface_hub.errors import HFValidationError
from torch import Tensor, nn

from sanet.models.attention import Pooling, SqueezeAttention
from sanet.models.backbones import Backbone
from sanet.models.store import StoredModel
from sanet.structures import LabelSet, SanetError, SegmentationOutput, UsageError, choose

Readout = Literal["mask", "dense", "sum"]
READOUTS = get_args(Readout)


class HeadOutput(NamedTuple):
    """Predictions at feature size; see ``SegmentationOutput`` for the last three fields.

    Attributes:
        readout: (B, K, h, w), what becomes the logits.
    """

    readout: Tensor
    mask: Tensor
    dense: Tensor | None = None
    category: Tensor | None = None


class FCNHead(nn.Module):
    """The dilated FCN baseline of tables 1, 3 and 6: a single 1x1 convolution on stage 4."""

    def __init__(self, channels: list[int], num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels[-1], num_classes, 1)

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Four maps (B, C_i, h_i, w_i) -> predictions."""
        mask = self.classifier(features[-1])
        return HeadOutput(readout=mask, mask=mask)


class SANetHead(nn.Module):
    """Squeeze-and-attention heads on four stages, figure 3 and section 3.3.

    Args:
        channels: C of the four stages.
        num_classes: K.
        reduction: hidden channels of a squeeze-and-attention module are C / reduction.
        groups: groups of the first convolutions.
        downsample: pooling window of the attention channels.
        pooling: "average" (equation 5) or "max" (section 3.3).
        category_hidden: hidden units of the categorical branch ("set the channel number of the intermediate
            fully connected layer of SE modules to 4").
        readout: what predicts: "mask" (the merged four stages, as the abstract says), "dense" (section 3.3) or
            their "sum".
    """

    def __init__(
        self,
        channels: list[int],
        num_classes: int,
        reduction: int = 4,
        groups: int = 2,
        downsample: int = 8,
        pooling: Pooling = "average",
        category_hidden: int = 4,
        readout: Readout = "mask",
    ) -> None:
        super().__init__()
        self.readout = choose("readout", readout, READOUTS)
        self.attention = nn.ModuleList(
            SqueezeAttention(count, num_classes, reduction, groups, downsample, pooling) for count in channels
        )
        self.mask = nn.Conv2d(4 * num_classes, num_classes, 1)
        self.dense = nn.Conv2d(channels[-1], num_classes, 1)
        self.category = nn.Sequential(
            nn.Linear(channels[-1], category_hidden), nn.ReLU(inplace=True), nn.Linear(category_hidden, num_classes)
        )

    def forward(self, features: list[Tensor]) -> HeadOutput:
        """Four maps (B, C_i, h_i, w_i) -> predictions."""
        attended = [module(stage) for module, stage in zip(self.attention, features, strict=True)]
        finest = attended[0].shape[-2:]
        mask = self.mask(torch.cat([_resize(stage, finest) for stage in attended], dim=1))
        # "The regularized dense segmentation prediction of a SANet is Y_den + Y_SA4."
        dense = self.dense(features[-1]) + attended[-1]
        category = self.category(features[-1].mean(dim=(2, 3)))
        readout = mask + _resize(dense, finest) if self.readout == "sum" else mask if self.readout == "mask" else dense
        return HeadOutput(readout, mask, dense, category)


# A head is built from (channels, num_classes, **options) and maps four feature stages to a HeadOutput.
NETWORKS: dict[str, type[nn.Module]] = {"sanet": SANetHead, "fcn": FCNHead}


class SegmentationModel(nn.Module, StoredModel):
    """A network of ``NETWORKS`` over a backbone: pixels in, per-class logits of the same size out.

    Args:
        network: a name of ``NETWORKS``.
        backbone: a timm model name.
        labels: the classes; K is their number.
        output_stride: stride of the last feature stage.
        pretrained_backbone: start the backbone from its ImageNet weights.
        options: further arguments of the head, such as ``{"pooling": "max"}`` for ``SANetHead``.

    Raises:
        UsageError: an unknown network, backbone or option, or an output stride the backbone does not have.
        SanetError: the backbone's weights cannot be fetched.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: str,
        backbone: str,
        labels: LabelSet,
        output_stride: int = 8,
        pretrained_backbone: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        head = NETWORKS[choose("network", network, tuple(NETWORKS))]
        self.labels = labels
        options = options or {}
        for option, value in options.items():
            choose(f"option of network {network!r}", option, tuple(inspect.signature(head).parameters)[2:])
            if isinstance(value, int) and value < 1:
                raise UsageError(f"network {network!r}: {option} {value}: 1 or more")
        self.backbone = Backbone(backbone, output_stride, pretrained_backbone)
        self.head = head(self.backbone.channels, len(labels), **options)
        self.register_buffer("mean", torch.tensor(self.backbone.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(self.backbone.std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Predict.

        Args:
            images: (B, 3, H, W), uint8 or float in [0, 1]; H and W at least 32.

        Returns:
            ``logits`` of (B, K, H, W), and the parts that the loss supervises.
        """
        if images.shape[-1] < 32 or images.shape[-2] < 32:
            raise UsageError(f"images are {tuple(images.shape[-2:])} pixels; the networks need 32 or more a side")
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        output = self.head(self.backbone((images - self.mean) / self.std))
        logits = _resize(output.readout, images.shape[-2:])
        return SegmentationOutput(logits, output.mask, output.dense, output.category)


def create_model(
    network: str,
    backbone: str = "tf_efficientnet_lite0",
    num_classes: int | None = None,
    labels: LabelSet | None = None,
    output_stride: int = 8,
    pretrained_backbone: bool = False,
    **options: Any,
) -> SegmentationModel:
    """Build a network by name.

    Args:
        network: a name of ``NETWORKS``: "sanet" or "fcn".
        backbone: a timm model name.
        num_classes: K, where the classes have no names yet; or give ``labels``.
        labels: the classes.
        output_stride: stride of the last feature stage: 8 as in the paper, 16 or 32 are faster.
        pretrained_backbone: start the backbone from its ImageNet weights.
        **options: further arguments of the network's head, such as ``pooling="max"`` for "sanet".

    Raises:
        UsageError: neither or both of ``num_classes`` and ``labels``; see also ``SegmentationModel``.
    """
    if (num_classes is None) == (labels is None):
        raise UsageError("give either num_classes or labels")
    if labels is None:
        count = num_classes or 0
        labels = LabelSet(tuple(f"class {index}" for index in range(count)), ignore_index=max(255, count))
    return SegmentationModel(network, backbone, labels, output_stride, pretrained_backbone, options)


def load_model(directory: str | Path) -> SegmentationModel:
    """Read a model back from its directory, or from a Hugging Face repository of that name.

    Nothing in it is executed or unpickled. The model is in evaluation mode.

    Raises:
        SanetError: no model there, or weights that do not fit its config.json.
    """
    if not Path(directory).is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", str(directory)):
        raise SanetError(f"there is no model directory {directory}; `sanet train` writes one in its run, as model/")
    try:
        return SegmentationModel.from_pretrained(directory)
    except (JSONDecodeError, AttributeError) as error:
        raise SanetError(f"the config.json of {directory} cannot be read: {error}") from error
    except (OSError, HFValidationError) as error:
        raise SanetError(f"{directory} is no directory here and cannot be had from the hub: {error}") from error


def _resize(maps: Tensor, size: Any) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
