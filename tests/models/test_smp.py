"""Networks of segmentation_models_pytorch behind our interface, against that library's own."""

import sys
import warnings

import pytest
import segmentation_models_pytorch as smp
import torch
from awake import CLASSES, PYRAMIDS, awoken, build

from sanet.models.baselines.smp import SMP_HEADS
from sanet.models.networks import create_model
from sanet.structures import SanetError, UsageError

THEIRS = {
    "smp_deeplabv3": smp.DeepLabV3,
    "smp_deeplabv3plus": smp.DeepLabV3Plus,
    "smp_pspnet": smp.PSPNet,
    "smp_upernet": smp.UPerNet,
    "smp_segformer": smp.Segformer,
    "smp_fpn": smp.FPN,
    "smp_unet": smp.Unet,
    "smp_unetplusplus": smp.UnetPlusPlus,
    "smp_manet": smp.MAnet,
    "smp_linknet": smp.Linknet,
}
# The output strides that the library itself offers; without the argument it has 32.
STRIDES = {"smp_deeplabv3": 8, "smp_deeplabv3plus": 16}


@pytest.mark.parametrize("network", SMP_HEADS)
@pytest.mark.parametrize("backbone", ["test_resnet", pytest.param("convnext_atto", marks=pytest.mark.slow)])
def test_with_the_same_weights_it_is_their_network(network, backbone):
    if (network, backbone) == ("smp_linknet", "convnext_atto"):
        with pytest.raises(UsageError, match="stride 2"):
            build(network, backbone, 32)
        return
    stride = STRIDES.get(network, 32)
    model = create_model(network, backbone, num_classes=CLASSES, output_stride=stride)
    ours = awoken(model).double().eval()
    arguments = {"encoder_output_stride": stride} if network in STRIDES else {"encoder_depth": 5}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = THEIRS[network](f"tu-{backbone}", encoder_weights=None, classes=CLASSES, **arguments).double().eval()
    theirs.encoder.model.load_state_dict(ours.backbone.stages.state_dict())
    theirs.decoder.load_state_dict(ours.head.decoder.state_dict())
    theirs.segmentation_head[0].load_state_dict(ours.head.classifier.state_dict())
    images = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.segmentation_head[0](theirs.decoder(theirs.encoder((images - ours.mean) / ours.std)))
        torch.testing.assert_close(ours(images).mask, expected, rtol=1e-9, atol=1e-9)


def test_every_peer_is_compared():
    assert THEIRS.keys() == SMP_HEADS.keys()
    assert SMP_HEADS.keys() > PYRAMIDS


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch.decoders.upernet.decoder", None)
    with pytest.raises(SanetError, match=r"pip install 'sanet-segmentation\[smp\]'"):
        build("smp_upernet")
