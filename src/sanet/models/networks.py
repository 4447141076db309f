"""Networks by name: a backbone, a head that turns its stages into predictions, and pixels on both sides."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from torch import Tensor, nn

from sanet.models.backbones import Backbone
from sanet.models.danet import DANetHead
from sanet.models.encnet import EncNetHead
from sanet.models.heads import FCNHead, FCNSEHead, SANetHead, resize
from sanet.models.peers import PEERS
from sanet.models.store import StoredModel
from sanet.structures import LabelSet, SanetError, SegmentationOutput, UsageError, choose, first_line

# A head is built from (levels, num_classes, **options) and turns the maps of those levels into a HeadOutput.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "sanet": SANetHead,
    "fcn": FCNHead,
    "fcn_se": FCNSEHead,
    "encnet": EncNetHead,
    "danet": DANetHead,
    **PEERS,
}


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
        parameters = inspect.signature(head).parameters
        for option, value in options.items():
            choose(f"option of network {network!r}", option, tuple(parameters)[2:])
            if type(parameters[option].default) is int and (type(value) is not int or value < 1):
                raise UsageError(f"network {network!r}: {option} {value!r}: a whole number, 1 or more")
        self.backbone = Backbone(backbone, output_stride, pretrained_backbone)
        try:
            self.head = head(self.backbone.levels, len(labels), **options)
        except UsageError as error:
            raise UsageError(f"network {network!r}: {error}") from error
        except (TypeError, ValueError) as error:
            raise UsageError(f"network {network!r} does not take {options}: {first_line(error)}") from error
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
        logits = resize(output.readout, images.shape[-2:])
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
        network: a name of ``NETWORKS``.
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
