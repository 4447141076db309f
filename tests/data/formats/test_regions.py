"""Masks become regions and masks again, exactly; and regions are drawn as labelme draws them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn import far
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw

from sanet.data.formats.regions import (
    Annotation,
    Bitmap,
    Region,
    box_ring,
    checked_ring,
    ellipse_ring,
    line,
    rasterise,
    run_lengths,
    trace,
    without_holes,
)

shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
masks = arrays.arrays(np.uint8, shapes, elements=st.integers(0, 3))
NAMES = {1: "a", 2: "b", 3: "c"}
NUMBERS = {"a": 1, "b": 2, "c": 3}


def drawn(regions, mask):
    return rasterise(Annotation("x", None, mask.shape[::-1], tuple(regions), None, Path("x")), NUMBERS, 0)


@given(masks)
def test_an_outline_gives_its_mask_back(mask):
    assert (drawn(trace(mask, NAMES, 0), mask) == mask).all()


@given(masks)
def test_parts_without_holes_give_the_mask_back(mask):
    size = mask.shape[::-1]
    regions = [Region(each.label, (ring,)) for each in trace(mask, NAMES, 0) for ring in without_holes(each, size)]
    assert (drawn(regions, mask) == mask).all()


@given(masks)
def test_a_polygon_rasteriser_of_areas_gives_the_mask_back_within_a_pixel(mask):
    """Asked of pixels' middles, as pycocotools and matplotlib do."""
    from matplotlib.path import Path as Outline

    rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
    middles, found = np.stack([columns.ravel(), rows.ravel()], 1) + 0.5, np.zeros(mask.shape, np.uint8)
    for region in trace(mask, NAMES, 0):
        inside = sum(Outline(ring).contains_points(middles).astype(int) for ring in region.rings) % 2 == 1
        found[inside.reshape(mask.shape)] = NUMBERS[region.label]
    assert far(found, mask) == 0


@given(arrays.arrays(np.bool_, shapes))
def test_run_lengths_give_the_pixels_back(bits):
    mark = Bitmap.of(bits, 5, 7)
    whole = np.zeros((40, 40), np.bool_)
    inner = mark.bits()
    whole[mark.top : mark.top + inner.shape[0], mark.left : mark.left + inner.shape[1]] = inner
    assert (whole[7 : 7 + bits.shape[0], 5 : 5 + bits.shape[1]] == bits).all()
    assert whole.sum() == bits.sum()


@given(st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 2.0]))
def test_a_simpler_outline_stays_within_the_tolerance(seed, tolerance):
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:80, :80]
    mask = (np.hypot((columns - 40) * generator.uniform(0.7, 1.4), rows - 38) < generator.uniform(8, 30)).astype(
        np.uint8
    )
    exact, (simple,) = trace(mask, NAMES, 0), trace(mask, NAMES, tolerance)
    assert len(simple.rings[0]) <= len(exact[0].rings[0])
    found = drawn([simple], mask)
    reach = int(np.ceil(tolerance)) + 1
    disc = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= tolerance + 1
    near = [np.roll(mask, shift, (0, 1)) for shift in np.argwhere(disc) - reach]
    assert ((found <= np.max(near, 0)) & (found >= np.min(near, 0))).all()


@given(st.lists(st.tuples(st.floats(-5, 30), st.floats(-5, 30)), min_size=3, max_size=9))
def test_one_polygon_is_drawn_as_labelme_draws_it(points):
    canvas = Image.new("L", (25, 20))
    ImageDraw.Draw(canvas).polygon(points, outline=1, fill=1)
    found = drawn([Region("a", (np.array(points),))], np.zeros((20, 25)))
    assert (found == np.array(canvas)).all()


def test_what_comes_later_lies_on_top():
    below, above = box_ring([0, 0, 9, 9]), box_ring([3, 3, 5, 5])
    found = drawn([Region("a", (below,)), Region("b", (above,))], np.zeros((12, 12)))
    assert found[4, 4] == 2
    assert found[1, 1] == 1
    assert (drawn([Region("b", (above,)), Region("a", (below,))], np.zeros((12, 12))) != 2).all()


def test_holes_islands_and_regions_outside():
    rings = (box_ring([1, 1, 20, 20]), box_ring([5, 5, 15, 15]), box_ring([9, 9, 11, 11]))
    found = drawn([Region("a", rings)], np.zeros((24, 24)))
    assert [found[3, 3], found[7, 7], found[10, 10], found[22, 22]] == [1, 0, 1, 0]
    outside = Region("a", (box_ring([-30, -30, -20, -20]),))
    assert not drawn([outside], np.zeros((24, 24))).any()
    assert outside.reach((24, 24)) == 30
    assert not drawn([Region("a", (box_ring([900, 900, 950, 950]),))], np.zeros((24, 24))).any()
    assert drawn([Region("a", bitmap=Bitmap.of(np.ones((9, 9), np.bool_), -5, 20))], np.zeros((24, 24))).sum() == 16


def test_lines_boxes_and_ellipses():
    assert (
        drawn([line("a", np.array([[2.0, 10], [20, 10]]), 3, (24, 24))], np.zeros((24, 24)))[9:12, 5].tolist()
        == [1] * 3
    )
    turned = box_ring([0, 0, 10, 4], 90, (0, 0))
    assert np.allclose(turned, [[0, 0], [0, 10], [-4, 10], [-4, 0]])
    disc = drawn([Region("a", (ellipse_ring((40, 40), (30, 20)),))], np.zeros((80, 80)))
    assert abs(disc.sum() - np.pi * 30 * 20) < 120


@pytest.mark.parametrize(
    ("box", "runs"),
    [
        ((0, 0, 10, 10), [50]),
        ((0, 0, 10, 10), [-1, 101]),
        ((0, 0, 10**6, 10**6), [10**12]),
        ((0, 0, 10, 10), [2**63, 1]),
        ((0, 0, 10, 10), [[100]]),
        ((0, 0, "x", 10), [100]),
        ((0, 0, 10, 10), "100"),
        ((0, 0, float("inf"), 10), [100]),
    ],
)
def test_run_lengths_that_do_not_fit_are_refused(box, runs):
    with pytest.raises((ValueError, ArithmeticError)):  # of which ``ToolFormat`` makes a DataError that names the file
        run_lengths(box, runs, (20, 20))


@pytest.mark.parametrize(
    ("points", "what"),
    [
        ([[0, 0], [float("nan"), 1], [2, 2]], "no number"),
        ([[0, 0, 7], [1, 1, 7], [2, 2, 7]], r"point \[0, 0, 7\]"),
        ([[380000, 5800010], [1, 1], [2, 2]], "5800010"),
        ([[0, 0]] * 100_001, "100001 points"),
    ],
)
def test_what_is_wrong_with_an_outline_is_said(points, what):
    with pytest.raises(ValueError, match=what):
        checked_ring(points)
