"""A backbone: registered with timm, and named as any of timm's."""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet

default_cfgs = generate_default_cfgs({"lab_resnet": {"first_conv": "conv1", "classifier": "fc"}})


@register_model
def lab_resnet(pretrained: bool = False, **options: Any) -> Any:
    """A ResNet with one block a stage, at an eighth of the width."""
    widths = {"channels": (8, 16, 24, 32), "layers": (1, 1, 1, 1)}
    return build_model_with_cfg(ResNet, "lab_resnet", pretrained, block=BasicBlock, **widths, **options)
