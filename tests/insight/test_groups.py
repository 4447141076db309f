"""The maps and groups against equation (4) and loops, over sizes, and hooks that leave nothing behind."""

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sanet
from sanet.inference.views import label_image
from sanet.insight.groups import LARGEST, Explainer
from sanet.models.sanet import resize
from sanet.structures import UsageError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return sanet.create_model("sanet", "test_resnet", num_classes=5, output_stride=8).eval()


def noise(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def hooks_of(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@settings(max_examples=15)
@given(st.integers(32, 130), st.integers(32, 130), st.data())
def test_groups_equal_loops_from_their_definition(model, height, width, data):
    encoding = Explainer(model, "cpu").encode(noise(height, width))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    assert [maps.stage for maps in encoding.heads] == [1, 2, 3, 4]
    for maps, group in zip(encoding.heads, encoding.groups(x, y), strict=True):
        rows, columns = maps.main.shape[-2:]
        row, column = math.floor(y / height * rows + 1e-9), math.floor(x / width * columns + 1e-9)
        own = maps.attention[:, row, column]
        assert group.stage == maps.stage
        assert maps.main[group.channel, row, column] == maps.main[:, row, column].max()
        assert torch.equal(group.main, maps.main[group.channel])
        assert group.output[row, column] == maps.output[:, row, column].max()
        assert group.distance[row, column] == 0
        for i in range(0, rows, 3):
            for j in range(0, columns, 3):
                far = math.sqrt(sum(float(a - b) ** 2 for a, b in zip(maps.attention[:, i, j], own, strict=True)))
                assert float(group.distance[i, j]) == pytest.approx(far, abs=1e-5)


def test_the_output_is_that_of_the_module(model):
    """Equation (4), against what the network itself computes on the way."""
    explainer, image, seen = Explainer(model, "cpu"), noise(70, 90), {}
    attention = explainer.network.head.attention
    for module in attention:
        module.register_forward_hook(lambda module, _, output: seen.setdefault(module, output))
    encoding = explainer.encode(image)
    for maps, module in zip(encoding.heads, attention, strict=True):
        torch.testing.assert_close(maps.output, seen[module][0])
        torch.testing.assert_close(maps.output, maps.attention * maps.main + maps.attention)


def test_the_prediction_is_that_of_the_predictor(model):
    image = noise(61, 83)
    found = Explainer(model, "cpu").encode(image).prediction
    assert torch.equal(found, label_image(lambda images: model(images).logits, image))


@pytest.mark.parametrize("heads", [[1, 4], [3]])
def test_only_the_heads_that_there_are(heads):
    model = sanet.create_model("sanet", "test_resnet", num_classes=3, output_stride=8, heads=heads)
    encoding = Explainer(model, "cpu").encode(noise(40, 50))
    assert [group.stage for group in encoding.groups(3, 4)] == heads


def test_hooks_are_removed_even_after_an_error(model):
    explainer = Explainer(model, "cpu")
    before = hooks_of(explainer.network)
    explainer.encode(noise(40, 40))
    assert hooks_of(explainer.network) == before

    def fail(*_):
        raise RuntimeError("on purpose")

    failing = explainer.network.head.attention[2].main.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        explainer.encode(noise(40, 40))
    failing.remove()
    assert hooks_of(explainer.network) == before


def test_tiny_images_are_looked_at_larger(model):
    encoding = Explainer(model, "cpu").encode(noise(5, 9))
    assert encoding.prediction.shape == (5, 9)
    assert len(encoding.groups(8, 4)) == 4


def test_large_images_are_looked_at_smaller(model):
    encoding = Explainer(model, "cpu").encode(noise(1500, 1200))
    rows, columns = encoding.heads[0].main.shape[-2:]
    assert 16 * rows * columns <= LARGEST * 1.01  # stride 4
    assert encoding.prediction.shape == (1500, 1200)
    assert encoding.groups(1199, 1499)[0].distance.shape == (rows, columns)


def test_points_outside_and_levels_that_are_not_there_are_refused(model):
    encoding = Explainer(model, "cpu").encode(noise(40, 60))
    for x, y in ((60, 0), (0, 40), (-1, 0), (0, -1)):
        with pytest.raises(UsageError, match="60 wide and 40 high"):
            encoding.groups(x, y)
    with pytest.raises(UsageError, match="level 5: 0 to 4"):
        Explainer(model, "cpu", level=5)


OTHERS = {
    "fcn": {},
    "danet": {},
    "encnet": {},
    "fcn_se": {},
    "smp_deeplabv3plus": {},
    "sanet_variant": {"mechanism": "none"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_group_by_the_angle_of_their_features(name):
    if name.startswith("smp"):
        pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    network = sanet.create_model(name, "test_resnet", num_classes=3, output_stride=8, **OTHERS[name]).eval()
    for level in (None, 1):
        explainer = Explainer(network, "cpu", level=level)
        assert explainer.names == (f"level {level or 4}",)
        encoding = explainer.encode(noise(70, 90))
        (group,) = encoding.groups(80, 20)
        with torch.no_grad():
            features = network.backbone((noise(70, 90)[None] / 255 - network.mean) / network.std)[(level or 4) - 5][0]
            logits = network(noise(70, 90)[None]).logits[0]
        rows, columns = features.shape[1:]
        row, column = 20 * rows // 70, 80 * columns // 90
        own = features[:, row, column].numpy()
        for i, j in itertools.product(range(0, rows, 2), range(0, columns, 2)):
            other = features[:, i, j].numpy()
            cosine = own @ other / math.sqrt(own @ own) / math.sqrt(other @ other)
            assert float(group.distance[i, j]) == pytest.approx(math.sqrt(max(0, 2 - 2 * cosine)), abs=2e-3)
        assert group.channel == own.argmax()
        assert group.output.shape == (rows, columns)
        assert group.output[row, column] == encoding.heads[0].output[:, row, column].max()
        torch.testing.assert_close(encoding.heads[0].output.mean(), logits.mean(), rtol=0.1, atol=0.05)
        assert encoding.grad_cam(80, 20).isfinite().all()


def test_a_level_beside_the_heads(model):
    explainer = Explainer(model, "cpu", level=2)
    assert explainer.names == ("head 1", "head 2", "head 3", "head 4", "level 2")
    groups = explainer.encode(noise(40, 60)).groups(3, 4)
    assert [group.name for group in groups] == [*explainer.names]
    assert explainer.stages == (1, 2, 3, 4, 2)


def test_grad_cam_of_an_fcn_is_its_logit_without_the_bias():
    """Its head is linear, so that the gradient at any point is the row of the class, in equal shares of the cells."""
    torch.manual_seed(0)
    fcn = sanet.create_model("fcn", "test_resnet", num_classes=4, output_stride=8).eval()
    image = noise(64, 96)
    encoding = Explainer(fcn, "cpu").encode(image)
    with torch.no_grad():
        features = fcn.backbone((image[None] / 255 - fcn.mean) / fcn.std)[-1]
        for x, y in ((0, 0), (50, 30)):
            category = encoding.prediction[y, x]
            logit = fcn.head.classifier(features)[0, category] - fcn.head.classifier.bias[category]
            torch.testing.assert_close(encoding.grad_cam(x, y), logit / logit.numel())


def test_grad_cam_equals_finite_differences(model):
    """The mean gradient of a map is what the logit gains as the whole map rises, over its cells."""
    network, image, (x, y) = copy.deepcopy(model).double(), noise(64, 64), (40, 9)
    with torch.no_grad():
        features = network.backbone((image[None].double() / 255 - network.mean) / network.std)
        expected = torch.zeros_like(features[-1][0, 0])

        def logits(change=0.0, channel=0):
            raised = features[-1].clone()
            raised[:, channel] += change
            return resize(network.head([*features[:-1], raised]).readout, (64, 64))[0, :, y, x]

        category = logits().argmax()
        for channel in range(features[-1].shape[1]):
            slope = (logits(1e-6, channel) - logits(-1e-6, channel))[category] / 2e-6 / expected.numel()
            expected += slope * features[-1][0, channel]
    found = Explainer(network, "cpu").encode(image).grad_cam(x, y)
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-6)


def test_grad_cam_is_of_the_deepest_features_that_the_head_reads():
    network = sanet.create_model("sanet", "test_resnet", num_classes=3, output_stride=16, heads=[2], branches=[])
    encoding = Explainer(network, "cpu").encode(noise(64, 96))
    assert encoding.grad_cam(5, 5).shape == encoding.heads[0].main.shape[1:] == (8, 12)
