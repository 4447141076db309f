"""Small networks and pictures for the tests of this folder."""

import functools

import torch
from torch import nn

from sanet.models.networks import NETWORKS, create_model

CLASSES = 5
# Decoders that double the size at every level.
PYRAMIDS = {"smp_fpn", "smp_unet", "smp_unetplusplus", "smp_manet", "smp_linknet"}
# Narrower than by default, which is what check_network takes, where that takes most of a test's time.
NARROW = {
    "encnet": {"hidden": 64},
    "apcnet": {"hidden": 64},
    "refinenet": {"hidden": 96},
    "dfn": {"hidden": 32},
    "smp_deeplabv3": {"decoder_channels": 64},
    "smp_upernet": {"decoder_channels": 32},
    "smp_unet": {"decoder_channels": (64, 32, 16, 16, 16)},
    "smp_manet": {"decoder_channels": (64, 32, 16, 16, 16)},
}
CASES = [
    (network, backbone, 32 if network in PYRAMIDS else stride)
    for network in NETWORKS
    for backbone, stride in (("test_resnet", 8), ("test_efficientnet", 16))
]


def build(network, backbone="test_efficientnet", stride=16, seed=0, **options):
    """A network whose parameters are all awake."""
    torch.manual_seed(seed)
    options = NARROW.get(network, {}) | options
    return awoken(create_model(network, backbone, num_classes=CLASSES, output_stride=stride, **options))


def awoken(model):
    """Norms at the end of a residual block and scales start at zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for parameter in model.head.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return model


@functools.cache
def evaluated(network, backbone, stride):
    return build(network, backbone, stride).eval()


def pictures(count=2, height=64, width=80):
    generator = torch.Generator().manual_seed(height * width + count)
    images = torch.rand(count, 3, height, width, generator=generator)
    masks = torch.randint(0, CLASSES, (count, height, width), generator=generator)
    masks[:, :3] = 255
    return images, masks


def close(left, right, tolerance):
    """All four parts of two outputs, relative to the spread of the second."""
    for name, one, other in zip(right._fields, left, right, strict=True):
        assert (one is None) == (other is None), name
        if other is not None:
            assert one.shape == other.shape, name
            assert (one.float() - other).abs().max() <= tolerance * other.std(), name
