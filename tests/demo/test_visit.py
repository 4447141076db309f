"""What a visitor sees, without a page: one encoding, clicks that land where they should, hidden classes, downloads."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

import sanet
from sanet.demo.visit import BRUSH, SHOWN, Result, Visit
from sanet.inference.drawing import overlay, shares
from sanet.insight.groups import Explainer, HeadMaps


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return {
        name: Explainer(sanet.create_model(name, "test_resnet", num_classes=5, output_stride=8), "cpu")
        for name in ("sanet", "fcn")
    }


def image(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(60, 80), (90, 41), (1200, 1500), (40, 800)])
def test_every_shown_pixel_clicks_the_one_it_shows(models, height, width):
    """Of a mask whose values are its columns, then its rows: what is shown at a place is what the click takes."""
    visit = Visit(image(height, width), "a")
    for axis in (0, 1):
        shown = Result("sanet", None, np.indices((height, width))[1 - axis].astype(np.uint16), 0.0, None).shown
        assert max(shown.shape) == SHOWN
        for x, y in ((0, 0), (shown.shape[1] - 1, shown.shape[0] - 1), (shown.shape[1] // 3, shown.shape[0] // 2)):
            visit.click((x, y))
            assert visit.point[axis] == shown[y, x]


def test_a_model_looks_once(models, monkeypatch):
    calls = []
    encode = Explainer.encode
    monkeypatch.setattr(Explainer, "encode", lambda self, image: calls.append(image.shape) or encode(self, image))
    visit = Visit(image(50, 70), "a")
    for _ in range(3):
        visit.click((4, 5))
        visit.groups(visit.result("sanet", models), "attention")
    visit.result("fcn", models)
    assert calls == [(3, 50, 70)] * 2


def test_the_mask_legend_and_hiding_are_those_of_the_prediction(models):
    visit = Visit(image(96, 960), "a")
    result = visit.result("sanet", models)
    labels = result.encoding.labels
    expected = models["sanet"].encode(torch.from_numpy(visit.image).permute(2, 0, 1)).prediction.numpy()
    assert np.array_equal(result.prediction, expected)
    # An untrained network finds one class everywhere.
    expected = np.arange(960, dtype=np.uint8)[None].repeat(96, 0) // 192
    result = Result("sanet", result.encoding, expected, 0.0, result.confidence)
    assert result.shares == shares(expected, labels)
    assert np.array_equal(visit.overlay(result, 0.4, []), overlay(visit.image, expected, labels, 0.4))
    everything = list(result.shares)
    assert np.array_equal(visit.overlay(result, 1, everything), visit.image)
    first = labels.names.index(everything[0])
    hidden = visit.overlay(result, 1, everything[:1])
    assert np.array_equal(hidden[expected == first], visit.image[expected == first])
    assert not np.array_equal(hidden, visit.image)


def test_how_unlike_an_image_is_is_that_of_a_prediction():
    network, drawn = sanet.load_model("streets"), image(120, 160)
    network.shorter_side = 160  # of 720, which takes seconds
    result = Visit(drawn, "a").result("streets", {"streets": Explainer(network, "cpu")})
    assert result.unlike == pytest.approx(sanet.Predictor(network, "cpu")(drawn).unlike, abs=1e-4)
    assert result.unlike > 0.99  # noise is no street


def test_confidence_is_that_of_the_command_line():
    """Calibrated, of the predicted class; as a layer it is a colour for each value, over the image in grey."""
    torch.manual_seed(0)
    network = sanet.create_model("sanet", "test_resnet", num_classes=5, output_stride=8)
    network.temperature = 0.05  # an untrained network is not sure of anything
    visit = Visit(image(90, 960), "a")
    result = visit.result("a", {"a": Explainer(network, "cpu")})
    expected = sanet.Predictor(network, "cpu")(visit.image)
    assert np.array_equal(result.prediction, expected.mask)
    np.testing.assert_allclose(result.confidence, expected.confidence, atol=1e-3)
    assert np.ptp(expected.confidence) > 0.05
    colors = colormaps["viridis"](np.rint(expected.confidence * 255).astype(np.uint8))[..., :3] * 255
    assert np.abs(visit.overlay(result, 1, [], "confidence") - colors).max() < 4  # a step of the colours
    grey = visit.overlay(result, 0, [], "confidence")
    assert np.abs(grey - visit.image.mean(axis=2, keepdims=True)).max() <= 1
    assert np.array_equal(visit.overlay(result, 0.7, [], "image"), visit.image)


def test_what_is_brushed_is_compared_with_the_class(models):
    """A line has a width, a ring is filled, and the IoU is that of both as sets of pixels."""
    visit = Visit(image(480, 960), "a")
    columns = np.arange(960, dtype=np.uint8)[None].repeat(480, 0) // 192
    result = visit.result("sanet", models)
    result = Result("sanet", result.encoding, columns, 0.0, result.confidence)
    visit.brush([(0.1, 0.5), (0.3, 0.5)])
    rows, places = np.nonzero(visit.truth)
    assert np.ptp(rows) + 1 == pytest.approx(BRUSH, abs=1)
    assert np.ptp(places) == pytest.approx(0.2 * 960 + BRUSH, abs=1)
    assert visit.iou(result, "class 4") == 0
    visit.truth[:] = False
    # The second of five columns and, behind it, half of the third, as two halves of a ring that go over the rim.
    visit.brush([(0.2, 0), (0.5, 0), (0.5, 0.5)])
    assert np.count_nonzero(visit.truth) < 0.05 * visit.truth.size
    visit.brush([(0.5, 0.5), (0.5, 1), (0.2, 1), (0.2, 0)])
    assert np.count_nonzero(visit.truth) == pytest.approx(0.3 * visit.truth.size, rel=0.06)
    names = result.encoding.labels.names
    for index in range(5):
        pairs = list(zip((result.shown == index).flat, visit.truth.flat, strict=True))
        either = sum(bool(found or brushed) for found, brushed in pairs)
        assert visit.iou(result, names[index]) == sum(bool(found and brushed) for found, brushed in pairs) / either
    # Its outline is drawn inside and around it, and nothing else changes.
    drawn = visit.overlay(result, 0, [])
    changed = (drawn != visit.image).any(axis=2)
    assert changed[240, 192 - BRUSH // 2 : 192].any()
    assert not changed[100:400, 250:420].any()
    assert not changed[:, 600:].any()


def test_red_is_near_the_point_or_active_there(models):
    """Every cell's colour says how its map ranks it; under attention the clicked cell is the nearest of all."""
    visit = Visit(np.full((64, 64, 3), 128, np.uint8), "a")
    result, random = visit.result("sanet", models), np.random.default_rng(0)
    maps = HeadMaps(1, *(torch.from_numpy(random.normal(size=(5, 4, 4))).float() for _ in range(3)))
    result = Result("sanet", result.encoding._replace(heads=[maps]), result.prediction, 0.0, result.confidence)
    visit.click((700, 300))
    (group,) = result.encoding.groups(*visit.point)
    colors = colormaps["jet"](np.arange(256))[:, :3] * 255
    for channel, values in {"attention": -group.distance, "main": group.main, "output": group.output}.items():
        ((shown, _),) = visit.groups(result, channel)
        cells = (shown[80::160, 80::160] - 0.35 * 128) / 0.65  # the middles of the cells, without the grey image
        ranks = np.abs(cells[..., None, :] - colors).sum(axis=-1).argmin(axis=-1) / 255
        expected = ((values - values.min()) / (values.max() - values.min())).numpy()
        ranks[1, 2] = expected[1, 2]  # the clicked cell, under the dot
        np.testing.assert_allclose(ranks, expected, atol=0.03)
    assert group.distance[1, 2] == 0


@pytest.mark.parametrize("channel", ["attention", "main", "output"])
def test_groups_are_one_image_for_each_head(models, channel):
    visit = Visit(image(60, 80), "a")
    result = visit.result("sanet", models)
    assert visit.groups(result, channel) == []
    visit.click((900, 10))
    images, captions = zip(*visit.groups(result, channel), strict=True)
    assert [caption.partition(",")[0] for caption in captions] == ["head 1", "head 2", "head 3", "head 4"]
    assert all(shown.shape == (480, 640, 3) for shown in images)
    assert [caption for _, caption in visit.groups(visit.result("fcn", models), channel)] == ["level 4, 10 x 8 cells"]


def test_downloads_have_the_size_of_the_image_and_go_with_the_visit(models):
    visit = Visit(image(60, 80), "../photo of mine.jpg")
    assert len(Visit(image(9, 9), "x" * 250).save(visit.result("sanet", models), "mask", 0.5, []).name) < 80
    result = visit.result("sanet", models)
    mask = visit.save(result, "mask", 0.5, [])
    with Image.open(mask) as stored:
        assert stored.mode == "P"
        assert np.array_equal(np.asarray(stored), result.prediction)
    with Image.open(visit.save(result, "overlay", 0.3, [])) as stored:
        assert np.array_equal(np.asarray(stored), overlay(visit.image, result.prediction, result.encoding.labels, 0.3))
    visit.click((7, 9))
    with Image.open(visit.save(result, "figure", 0.5, [])) as stored:
        assert stored.width > 600
    assert mask.name == "photo of mine-sanet-mask.png"
    assert visit.save(visit.result("fcn", models), "mask", 0.5, []) != mask
    visit.close()
    assert not mask.parent.exists()
    assert visit.closed
