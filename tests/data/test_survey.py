"""What images are like is found in drawn ones, of which it is known."""

import numpy as np
import pytest
from PIL import Image

from sanet.config import DataConfig
from sanet.data import survey as module
from sanet.data.catalog import data_source
from sanet.data.survey import survey

SIZE = (96, 128)


def drawn(root, draw, count=12, light=None):
    """A folder of ``count`` training images of grey noise, with what ``draw`` makes of an empty mask."""
    for kind in ("images", "masks"):
        (root / "train" / kind).mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(count):
        mask = np.zeros(SIZE, np.uint8)
        draw(mask, random)
        image = random.integers(90, 160, (*SIZE, 3)) + (0 if light is None else light)
        Image.fromarray(image.astype(np.uint8)).save(root / "train" / "images" / f"i{index}.png")
        Image.fromarray(mask).save(root / "train" / "masks" / f"i{index}.png")
    return survey(data_source(DataConfig("folder", str(root), classes=("ground", "thing"))))


def spot(mask, random, rows=(0, SIZE[0] - 20), columns=(0, SIZE[1] - 20), height=20, width=20):
    top, left = random.integers(*rows), random.integers(*columns)
    mask[top : top + height, left : left + width] = 1


def test_spots_anywhere_have_no_top(tmp_path):
    found = drawn(tmp_path, spot)
    assert (found.images, found.size, found.top, found.side) == (10, SIZE, "", "")  # two are val
    assert found.widths[1] == pytest.approx(10, rel=0.1)  # 2 x 400 / 80, less where an edge is the image's


@pytest.mark.parametrize(
    ("draw", "top", "side"),
    [
        (lambda mask, random: spot(mask, random, rows=(60, 70)), "lower", ""),
        (lambda mask, random: spot(mask, random, rows=(2, 10)), "upper", ""),
        (lambda mask, random: spot(mask, random, columns=(80, 100)), "", "right"),
        (lambda mask, random: spot(mask, random, columns=(2, 30)), "", "left"),
    ],
    ids=["low", "high", "right", "left"],
)
def test_a_class_that_keeps_to_one_half_says_which(tmp_path, draw, top, side):
    found = drawn(tmp_path, draw)
    for text, half in ((found.top, top), (found.side, side)):
        assert bool(text) == bool(half)
        assert not half or (half in text and "100% of thing" in text)


def test_light_from_above_is_a_top(tmp_path):
    light = np.linspace(60, 0, SIZE[0])[:, None, None]
    assert "upper half" in drawn(tmp_path, spot, light=light).top


@pytest.mark.parametrize(("height", "width"), [(3, 40), (40, 3)])
def test_how_wide_things_are(tmp_path, height, width):
    def line(mask, random):
        spot(mask, random, (1, SIZE[0] - height - 1), (1, SIZE[1] - width - 1), height, width)

    assert drawn(tmp_path, line).widths[1] == pytest.approx(2 * 120 / 86)


def test_large_images_are_looked_at_in_part(tmp_path, monkeypatch):
    def low(mask, random):
        spot(mask, random, rows=(60, 70))

    monkeypatch.setattr(module, "PIXELS", SIZE[0] * SIZE[1] // 4)
    found = drawn(tmp_path, low)
    assert "100% of thing lies in the lower half" in found.top
    assert found.widths[1] == pytest.approx(10, rel=0.1)
    assert found.size == SIZE


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1)])
def test_images_of_a_line_have_neither_top_nor_side(tmp_path, size, monkeypatch):
    monkeypatch.setitem(globals(), "SIZE", size)
    found = drawn(tmp_path, lambda mask, random: None)
    assert (found.size, found.top, found.side) == (size, "", "")


def test_few_images_decide_nothing(tmp_path):
    assert not drawn(tmp_path, lambda mask, random: spot(mask, random, rows=(60, 70)), count=4).top
