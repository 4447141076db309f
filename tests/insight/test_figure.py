"""Which map stands where in a figure of pixel groups, how it is shaded, and where its points lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from sanet.inference.drawing import overlay
from sanet.insight import figure as module
from sanet.insight.figure import MARKERS, draw, scaled
from sanet.insight.groups import Encoding, HeadMaps
from sanet.structures import LabelSet, UsageError

HEIGHT, WIDTH = 36, 60
POINTS = [(3, 4), (59, 35), (30, 0)]
# From top to bottom, as docs/seeing.md and figure 6 of the paper have them.
ORDER = ["main channel", "attention channel\n(distance)", "output"]


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def encoding():
    """Of three heads, no two maps of which are alike."""
    torch.manual_seed(0)
    heads = [HeadMaps(stage, *torch.randn(3, 60, 3 * size, 5 * size)) for stage, size in ((1, 6), (2, 3), (4, 2))]
    labels = LabelSet(("road", "sky", "tree", "car"))
    prediction = torch.randint(0, 4, (HEIGHT, WIDTH))
    return Encoding((HEIGHT, WIDTH), (HEIGHT, WIDTH), labels, prediction, heads, grad_cam)


def grad_cam(x, y):
    return torch.randn(3, 5, generator=torch.Generator().manual_seed(100 * x + y))


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a figure as a file, and returns it."""
    figures, save = [], Figure.savefig

    def kept(self, *args, **kwargs):
        save(self, *args, **kwargs)
        figures.append(self)

    monkeypatch.setattr(Figure, "savefig", kept)

    def draw_one(*args, **kwargs):
        draw(*args, path=tmp_path / "figure.png", **kwargs)
        assert (tmp_path / "figure.png").stat().st_size > 5000
        return figures[-1]

    return draw_one


def grid(figure: Figure) -> list[list[Axes]]:
    """The panes as they are seen, from top to bottom and from left to right; those without a image are left out."""
    rows: dict[float, list[Axes]] = {}
    for pane in figure.axes:
        if pane.images:
            rows.setdefault(round(pane.get_position().y0, 3), []).append(pane)
    return [sorted(rows[y], key=lambda pane: pane.get_position().x0) for y in sorted(rows, reverse=True)]


def shades(pane: Axes) -> np.ndarray:
    return np.asarray(pane.images[0].get_array())


def expected(maps: HeadMaps, x: int, y: int) -> tuple[int, list[np.ndarray]]:
    """The channel of a head at a point and what is drawn of it, written out from figure 6: near and active are 1."""
    rows, columns = maps.main.shape[1:]
    row, column = y * rows // HEIGHT, x * columns // WIDTH
    main, attention, output = (values.numpy() for values in maps[1:4])
    channel = int(main[:, row, column].argmax())
    distance = np.sqrt(((attention - attention[:, row, column, None, None]) ** 2).sum(axis=0))
    found = [main[channel], -distance, output[output[:, row, column].argmax()]]
    return channel, [(values - values.min()) / (values.max() - values.min()) for values in found]


def assert_group(panes: list[Axes], maps: HeadMaps, point: tuple[int, int]) -> None:
    """Three panes, from top to bottom, are the groups of a point."""
    channel, values = expected(maps, *point)
    assert [pane.get_title() for pane in panes] == [f"{maps.source} {maps.stage}, map {channel}", "", ""]
    for pane, value in zip(panes, values, strict=True):
        np.testing.assert_allclose(shades(pane), value, atol=1e-5)
        drawn = pane.images[0]
        assert (drawn.get_clim(), drawn.get_cmap().name) == ((0, 1), "jet")


def assert_grad_cam(pane: Axes, point: tuple[int, int]) -> None:
    """What speaks for the class; the rest is blue."""
    assert pane.get_title() == "Grad-CAM"
    values = grad_cam(*point).clamp(min=0)
    np.testing.assert_allclose(shades(pane), values / values.max(), atol=1e-5)


def assert_marked(pane: Axes, points: list[tuple[int, int]], colors: list[str]) -> None:
    """Points of a pane, in the middle of their pixels: pixel 0 is drawn from 0 to 1."""
    assert pane.images[0].get_extent() == [0, WIDTH, HEIGHT, 0]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in pane.lines] == [(x + 0.5, y + 0.5) for x, y in points]
    assert [line.get_marker() for line in pane.lines] == ["o"] * len(points)
    assert [to_hex(line.get_color()) for line in pane.lines] == colors


def test_several_points_have_three_rows_for_each_head_and_a_column_each(drawn, image, encoding):
    figure = drawn(image, encoding, POINTS)
    (first, prediction), *rows = grid(figure)
    assert [pane.get_title() for pane in (first, prediction)] == ["image", "prediction"]
    np.testing.assert_array_equal(shades(first), image)
    np.testing.assert_array_equal(shades(prediction), overlay(image, encoding.prediction.numpy(), encoding.labels))
    assert [len(row) for row in rows] == [3] * 10
    for pane, point in zip(rows.pop(), POINTS, strict=True):
        assert_grad_cam(pane, point)
    for number, maps in enumerate(encoding.heads):
        block = rows[3 * number : 3 * number + 3]
        assert [[text.get_text() for text in row[0].texts] for row in block] == [[name] for name in ORDER]
        for column, point in enumerate(POINTS):
            assert_group([row[column] for row in block], maps, point)
            assert not column or not any(row[column].texts for row in block)


def test_rows_that_are_swapped_are_noticed(drawn, image, encoding):
    """No map may pass for another one: each pane is like its own alone."""
    rows = grid(drawn(image, encoding, POINTS))[1:]
    panes = [rows[3 * head + row][column] for head in range(3) for column in range(3) for row in range(3)]
    values = [value for maps in encoding.heads for point in POINTS for value in expected(maps, *point)[1]]
    for index, pane in enumerate(panes):
        alike = [other for other, value in enumerate(values) if equal(shades(pane), value)]
        assert alike == [index]


def equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.allclose(one, other, atol=1e-5)


def test_for_one_point_the_heads_stand_side_by_side(drawn, image, encoding):
    rows = grid(drawn(image, encoding, POINTS[1:2]))
    assert [len(row) for row in rows] == [3, 3, 3, 3]
    assert_grad_cam(rows[0][2], POINTS[1])
    assert [[text.get_text() for text in row[0].texts] for row in rows[1:]] == [[name] for name in ORDER]
    for column, maps in enumerate(encoding.heads):
        panes = [row[column] for row in rows[1:]]
        assert_group(panes, maps, POINTS[1])
        for pane in panes:
            assert_marked(pane, POINTS[1:2], [MARKERS[0]])


def test_a_level_is_shown_whatever_heads_are_chosen(drawn, image, encoding):
    level = encoding.heads[2]._replace(source="level")
    rows = grid(drawn(image, encoding._replace(heads=[encoding.heads[1], level]), POINTS[:2], stages=[1]))
    assert [len(row) for row in rows] == [2, 2, 2, 2, 2]
    assert_group([row[1] for row in rows[1:4]], level, POINTS[1])


def test_for_one_point_the_maps_of_one_level_are_a_row(drawn, image, encoding):
    level = encoding.heads[2]._replace(source="level")
    first, row = grid(drawn(image, encoding._replace(heads=[level]), POINTS[:1]))
    assert len(first) == len(row) == 3
    assert [pane.texts[0].get_text() for pane in row] == ["feature map", "features\n(distance)", "output"]
    assert_group(row, level, POINTS[0])


def test_chosen_heads_only(drawn, image, encoding):
    rows = grid(drawn(image, encoding, POINTS[:2], stages=[4, 1]))
    assert [len(row) for row in rows] == [2] * 8
    for top, head in ((1, 0), (4, 2)):  # in the network's order
        for column in (0, 1):
            assert_group([row[column] for row in rows[top : top + 3]], encoding.heads[head], POINTS[column])


def test_points_lie_in_the_middle_of_their_pixels(drawn, image, encoding):
    """All of them on image and prediction, each on its own groups, always in its own colour."""
    (first, prediction), *rows = grid(drawn(image, encoding, POINTS))
    assert len({*MARKERS}) == len(MARKERS)
    for pane in (first, prediction):
        assert_marked(pane, POINTS, list(MARKERS[:3]))
    for row in rows:
        for column, pane in enumerate(row):
            assert_marked(pane, [POINTS[column]], [MARKERS[column]])


def test_the_colour_bar_says_what_red_is(drawn, image, encoding):
    figure = drawn(image, encoding, POINTS)
    (bar,) = [pane for pane in figure.axes if pane.axison and not pane.images]
    assert [(*text.get_position(), text.get_text()) for text in bar.get_yticklabels()] == [
        (1, 0, "far,\nnot active"),
        (1, 1, "near,\nactive"),
    ]


def test_large_images_are_drawn_smaller_in_the_same_place(drawn, image, encoding, monkeypatch):
    monkeypatch.setattr(module, "LONGEST", 20)
    (first, prediction), *_ = grid(drawn(image, encoding, POINTS))
    np.testing.assert_array_equal(shades(first), image[::3, ::3])
    small = encoding.prediction.numpy()[::3, ::3]
    np.testing.assert_array_equal(shades(prediction), overlay(image[::3, ::3], small, encoding.labels))
    assert_marked(first, POINTS, list(MARKERS[:3]))


def test_a_point_outside_the_image(image, encoding, tmp_path):
    for point in ((WIDTH, 0), (0, HEIGHT), (-1, 0)):
        with pytest.raises(UsageError, match="60 wide and 36 high"):
            draw(image, encoding, [(1, 1), point], Path(tmp_path / "a.png"))
    assert not [*tmp_path.iterdir()]


def test_scaled():
    values = np.array([[2, 4], [3, 6]], np.float32)
    np.testing.assert_array_equal(scaled(values, reverse=False), np.array([[0, 0.5], [0.25, 1]], np.float32))
    np.testing.assert_array_equal(scaled(values, reverse=True), np.array([[1, 0.5], [0.75, 0]], np.float32))
    np.testing.assert_array_equal(values, [[2, 4], [3, 6]])
    flat = np.full((2, 2), 7, np.float32)
    np.testing.assert_array_equal(scaled(flat, reverse=False), np.zeros((2, 2)))
    np.testing.assert_array_equal(scaled(flat, reverse=True), np.ones((2, 2)))
    assert scaled(values, reverse=True).dtype == np.float32
