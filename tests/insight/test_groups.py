"""The maps and groups against equation (4) and loops, over sizes, and hooks that leave nothing behind."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sanet
from sanet.inference.views import label_image
from sanet.insight.groups import LARGEST, Explainer
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


def test_points_outside_and_networks_without_heads_are_refused(model):
    encoding = Explainer(model, "cpu").encode(noise(40, 60))
    for x, y in ((60, 0), (0, 40), (-1, 0), (0, -1)):
        with pytest.raises(UsageError, match="60 wide and 40 high"):
            encoding.groups(x, y)
    fcn = sanet.create_model("fcn", "test_resnet", num_classes=2, output_stride=8)
    with pytest.raises(UsageError, match="fcn"):
        Explainer(fcn, "cpu").require_heads()
    assert Explainer(fcn, "cpu").encode(noise(40, 60)).groups(3, 4) == []
