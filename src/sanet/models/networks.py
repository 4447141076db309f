"""Networks by name: a backbone, a head that turns its stages into predictions, and pixels on both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanet.config import checked_side, require
from sanet.models.backbones import Backbone
from sanet.models.baselines.apcnet import APCNetHead
from sanet.models.baselines.danet import DANetHead
from sanet.models.baselines.deeplabv2 import DeepLabv2Head
from sanet.models.baselines.dfn import DFNHead
from sanet.models.baselines.dilatednet import DilatedNetHead
from sanet.models.baselines.encnet import EncNetHead
from sanet.models.baselines.parsenet import ParseNetHead
from sanet.models.baselines.refinenet import RefineNetHead
from sanet.models.baselines.smp import SMP_HEADS
from sanet.models.sanet import FCNHead, FCNSEHead, HeadOutput, SANetHead, resize
from sanet.models.store import StoredModel, saved_files
from sanet.models.variants import SANetVariantHead
from sanet.reading import EIGHT_BITS, ImageReading
from sanet.references import Kind, name_of
from sanet.structures import LabelSet, SegmentationOutput, UsageError, choose, first_line

# A head is built from (levels, num_classes, **options) and turns the maps of those levels into a HeadOutput.
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "sanet": SANetHead,
    "sanet_variant": SANetVariantHead,
    "fcn": FCNHead,
    "fcn_se": FCNSEHead,
    "encnet": EncNetHead,
    "danet": DANetHead,
    "deeplabv2": DeepLabv2Head,
    "parsenet": ParseNetHead,
    "dilatednet": DilatedNetHead,
    "apcnet": APCNetHead,
    "refinenet": RefineNetHead,
    "dfn": DFNHead,
    **SMP_HEADS,
}
HEADS = Kind("network", NETWORKS)

# No network of the literature has a whole number beyond this; a wrong one must not take all memory.
LARGEST_OPTION = 2**12
# Pixels; of the maps on which a head is tried.
EXAMPLE_SIDES = (128, 192)
# Forms of what a head returns, those that it may leave out by name; of S stages.
MAPS = "B, K, h, w"
PARTS = {"dense": "B, S * K, h, w", "category": "B, K", "border": "B, S, h, w"}


class SegmentationModel(nn.Module, StoredModel):
    """A network of ``NETWORKS`` over a backbone: pixels in, per-class logits of the same size out.

    See ``create_model`` for the arguments; ``options`` are the further ones of the head.

    Attributes:
        network: the name of the head.
        options: of the head, all of them.
        temperature: what its logits are divided by before they become probabilities; calibration sets it.

    Raises:
        UsageError: an unknown network, backbone or option, or an output stride the backbone does not have.
        SanetError: the backbone's weights cannot be fetched.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: str | Callable[..., nn.Module],
        backbone: str,
        labels: LabelSet,
        output_stride: int = 16,
        pretrained_backbone: bool = False,
        options: Mapping[str, Any] | None = None,
        shorter_side: int | None = None,
        in_chans: int = 3,
        value_range: int = 255,
        images: ImageReading = EIGHT_BITS,
    ) -> None:
        super().__init__()
        head = HEADS.find(network)
        self.network, self.labels = name_of(network), labels
        self.options = resolved_options(self.network, head, options or {})
        self.shorter_side, self.temperature = checked_side("shorter_side", shorter_side), 1.0
        require("in_chans", [in_chans], 1, 1024)
        require("value_range", [value_range], 1, 2**32)
        if images.of_values and images.channels != in_chans:
            raise UsageError(f"images of {images.channels} channels, but in_chans {in_chans}")
        self.in_chans, self.value_range, self.images = in_chans, value_range, images
        self.backbone = Backbone(backbone, output_stride, pretrained_backbone, in_chans)
        try:
            self.head = head(self.backbone.levels, len(labels), **self.options)
        except UsageError as error:
            raise UsageError(f"network {self.network!r}: {error}") from error
        except (AttributeError, TypeError, ValueError) as error:
            hint = "; call super().__init__() first" if "Module.__init__()" in str(error) else ""
            raise UsageError(f"network {self.network!r} with {self.options}: {first_line(error)}{hint}") from error
        self.register_buffer("mean", torch.tensor(self.backbone.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(self.backbone.std).view(1, -1, 1, 1))

    def description(self) -> dict[str, Any]:
        """See ``StoredModel``."""
        return {
            "network": self.network,
            "backbone": self.backbone.name,
            "labels": asdict(self.labels),
            "output_stride": self.backbone.levels[-1].stride,
            "options": self.options,
            "shorter_side": checked_side("shorter_side", self.shorter_side),
            "in_chans": self.in_chans,
            "value_range": self.value_range,
            **({"images": self.images.plain()} if self.images != EIGHT_BITS else {}),
            **({"temperature": self.temperature} if self.temperature != 1 else {}),
        }

    def forward(self, images: Tensor) -> SegmentationOutput:
        """Predict.

        Args:
            images: (B, C, H, W), integers from 0 to ``value_range``, or as they are stored where the network has a
                range for them, or float in [0, 1]; H and W at least 32.

        Returns:
            ``logits`` of (B, K, H, W), the parts that the loss supervises, and the features of the whole image.
        """
        if images.shape[-1] < 32 or images.shape[-2] < 32:
            raise UsageError(f"images are {tuple(images.shape[-2:])} pixels; the networks need 32 or more a side")
        if images.shape[1] != self.in_chans:
            raise UsageError(f"images have {images.shape[1]} channels; this network takes {self.in_chans}")
        if not images.is_floating_point():
            images = self.images.scaled(images) if self.images.low else images.to(self.mean.dtype) / self.value_range
        maps = self.backbone((images - self.mean) / self.std)
        features = maps[-1].detach().mean((-2, -1))  # before the head, which may change maps in place
        output = self.head(maps)
        logits = resize(output.readout, images.shape[-2:])
        return SegmentationOutput(logits, output.mask, output.dense, output.category, features, output.border)


def resolved_options(network: str, head: Callable[..., nn.Module], options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a network's head: as given, else as the head has it by default.

    Raises:
        UsageError: one that the head does not have, of another kind than its default, or one that has no default and
            is not given.
    """
    parameters = dict([*signature(head).parameters.items()][2:])
    for option, value in options.items():
        choose(f"option of network {network!r}", option, tuple(parameters))
        kind = _wanted(parameters[option].default, value)
        if kind:
            raise UsageError(f"network {network!r}: {option} {repr(value)[:80]}: {kind}")
    try:
        signature(head).bind("levels", "num_classes", **options)
    except TypeError as error:
        raise UsageError(f"network {network!r} as (levels, num_classes, **{dict(options)}): {error}") from error
    defaults = {name: found.default for name, found in parameters.items() if found.default is not Parameter.empty}
    return defaults | dict(options)


def _wanted(default: Any, value: Any) -> str:
    """What an option has to be, in words, where a value is not of the kind of its default; else nothing."""
    if type(default) is int and (type(value) is not int or not 1 <= value <= LARGEST_OPTION):
        return f"a whole number, 1 or more, and {LARGEST_OPTION} at most"
    if type(default) is float and (type(value) not in (int, float) or not 0 <= value <= 1):
        return "a number from 0 to 1"
    if isinstance(default, (str, bool)) and type(value) is not type(default):
        return "true or false" if isinstance(default, bool) else "a text"
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or len(value) > 16:
            return "a list, of 16 at most"
        return next(filter(None, (_wanted(default[0], entry) for entry in value)), "")
    return ""


def require_output(model: SegmentationModel) -> None:
    """Try a network's head on the maps of two small images; the network and the generators stay as they are.

    Raises:
        UsageError: the head is no module, keeps layers where ``parameters()`` does not find them, or returns what no
            loss or prediction can use.
    """

    def require(fits: bool, problem: str) -> None:
        if not fits:
            raise UsageError(f"network {model.network!r}: {problem}")

    head, classes, (height, width) = model.head, len(model.labels), EXAMPLE_SIDES
    initialised = isinstance(head, nn.Module) and "_modules" in vars(head)
    require(initialised, f"{type(head).__name__} is no nn.Module, or does not call super().__init__()")
    require(not (lost := _lost_layers(head)), f"training does not find the layers in {lost}; use nn.ModuleList for a "
            "list, nn.ModuleDict for a dict, nn.ParameterList for parameters")  # fmt: skip
    modes = [(module, module.training) for module in head.modules()]
    sizes = [(level.channels, -(-height // level.stride), -(-width // level.stride)) for level in model.backbone.levels]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        # Copies, as a layer may change its input in place, which a leaf that requires gradients does not allow.
        maps = [torch.rand(2, *size, device=model.mean.device).requires_grad_().clone() for size in sizes]
        output = head.eval()(maps)
    for module, mode in modes:
        module.training = mode
    found = type(output).__name__
    require(isinstance(output, HeadOutput), f"the head returns {found}, not a sanet.HeadOutput(readout, mask)")
    for name, part in output._asdict().items():
        if part is None and name in PARTS:
            continue
        shape: tuple[Any, ...] = tuple(part.shape) if isinstance(part, Tensor) else (type(part).__name__,)
        form = PARTS.get(name, MAPS)
        fits = len(shape) == form.count(",") + 1 and shape[0] == 2
        fits = fits and (shape[1] == classes or ("S" in form and shape[1] % (classes if "K" in form else 1) == 0))
        require(fits, f"{name} is ({', '.join(map(str, shape))}), not ({form}) with B = 2 and K = {classes}")
        trains = part.requires_grad or name == "readout"
        require(trains, f"no gradient reaches the features from {name}; compute it without detach() and no_grad()")


def _lost_layers(head: nn.Module) -> str:
    """Names of plain lists and dicts of layers or parameters, which ``parameters()`` leaves out."""
    registered = {id(part) for part in (*head.modules(), *head.parameters())}

    def lost(value: Any) -> bool:
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        return any(isinstance(part, (nn.Module, nn.Parameter)) and id(part) not in registered for part in parts)

    return ", ".join(name for module in head.modules() for name, value in vars(module).items() if lost(value))


def create_model(
    network: str | Callable[..., nn.Module],
    backbone: str = "tf_efficientnet_lite0",
    num_classes: int | None = None,
    labels: LabelSet | None = None,
    output_stride: int = 16,
    pretrained_backbone: bool = False,
    shorter_side: int | None = None,
    in_chans: int = 3,
    value_range: int = 255,
    images: ImageReading = EIGHT_BITS,
    **options: Any,
) -> SegmentationModel:
    """Build a network by name.

    Args:
        network: a name of ``NETWORKS``, "my_lab.heads:PSP" of an opened module, or the class of a head.
        backbone: a timm model name.
        num_classes: K, where the classes have no names yet; or give ``labels``.
        labels: the classes.
        output_stride: stride of the last feature stage: 8 as in the paper, 16 or 32 are faster.
        pretrained_backbone: start the backbone from its ImageNet weights.
        shorter_side: shorter side, in pixels, at which the network sees images outside training; None: their own size.
        in_chans: C, channels of the images; ImageNet weights are adapted as timm does it.
        value_range: largest value of images of integers, such as 65535.
        images: how its image files are read, where they are not RGB of 8 bits.
        **options: further arguments of the network's head, such as ``pooling="max"`` for "sanet".

    Raises:
        UsageError: neither or both of ``num_classes`` and ``labels``, or a head of one's own that ``require_output``
            refuses; see also ``SegmentationModel``.

    Example:
        >>> import sanet, torch
        >>> model = sanet.create_model("sanet", labels=sanet.LabelSet(("sky", "road", "car")))
        >>> model(torch.zeros(2, 3, 64, 96)).logits.shape
        torch.Size([2, 3, 64, 96])
    """
    if (num_classes is None) == (labels is None):
        raise UsageError("give either num_classes or labels")
    if labels is None:
        count = num_classes or 0
        labels = LabelSet(tuple(f"class {index}" for index in range(count)), ignore_index=max(255, count))
    model = SegmentationModel(
        *(network, backbone, labels, output_stride, pretrained_backbone, options, shorter_side),
        *(in_chans, value_range, images),
    )
    if model.network not in NETWORKS:
        require_output(model)
    return model


def load_model(model: str | Path) -> SegmentationModel:
    """Read a model back: from its directory, the Hugging Face hub as ``hf:OWNER/NAME``, or a bundled one by its name.

    Nothing in it is executed or unpickled. The model is in evaluation mode.

    Raises:
        SanetError: no model there, a config.json that is none, or weights that are damaged or do not fit it.
    """
    return SegmentationModel.read(saved_files(model))
