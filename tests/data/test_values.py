"""What stored numbers and colours mean, against loops over pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanet.data.decoding import DataError, decode_mask
from sanet.data.values import MaskCoding, unknown_values, value_counts
from sanet.structures import LabelSet

INDEX, COLOR = MaskCoding(), MaskCoding("color", ignore_color=(255, 255, 255))
LABELS = LabelSet(("soil", "leaf", "stem"), ((0, 0, 0), (0, 128, 0), (10, 20, 30)))


def test_values_are_counted() -> None:
    stored = np.array([[[9, 9, 9], [0, 0, 0], [9, 9, 9]], [[1, 2, 3], [255, 255, 255], [9, 9, 9]]])
    assert next(iter(value_counts(stored, COLOR).items())) == ((9, 9, 9), 3)
    assert unknown_values(stored, LABELS, COLOR) == {(9, 9, 9): 3, (1, 2, 3): 1}
    assert list(unknown_values(np.array([[8, 4, 4, 255, 2]]), LABELS, INDEX).items()) == [(4, 2), (8, 1)]


@given(
    table=st.lists(st.sampled_from([0, 1, 2, 255]), max_size=8),
    stored=st.lists(st.integers(-1, 9) | st.sampled_from([255, 256, 70000]), min_size=6, max_size=6),
)
def test_tables_against_a_loop_over_pixels(table: list[int], stored: list[int]) -> None:
    coding = MaskCoding(table=tuple(table))
    known = dict(enumerate(table)) if table else {0: 0, 1: 1, 2: 2, 255: 255}
    assert meanings(LABELS, coding) == known
    numbers = np.array(stored).reshape(2, 3)
    strange = {number: stored.count(number) for number in stored if number not in known}
    assert unknown_values(numbers, LABELS, coding) == strange
    if strange:
        with pytest.raises(DataError, match=r"on \d pixels.*: no (label|class) \(0 to"):
            decode_mask(numbers, LABELS, coding)
        return
    mask = decode_mask(numbers, LABELS, coding)
    assert mask.dtype == np.int64
    assert mask.tolist() == [[known[number] for number in row] for row in numbers.tolist()]


@given(st.lists(st.integers(-3, 3) | st.integers(0, 2**40), max_size=20))
def test_counts_against_a_loop(stored: list[int]) -> None:
    counts = value_counts(np.array(stored, np.int64).reshape(1, -1), INDEX)
    assert counts == {value: stored.count(value) for value in stored}
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


@pytest.mark.parametrize(
    ("coding", "stored", "message"),
    [
        (INDEX, [[0, 7, 7], [4, 255, 1]], "7 on 2 pixels, 4 on 1 pixels: no class"),
        (INDEX, [[0, -1]], "-1 on 1 pixels"),
        (COLOR, [[(0, 0, 0), (0, 128, 1)], [(255, 255, 255), (10, 20, 30)]], "(0, 128, 1) on 1 pixels: no colour"),
        (MaskCoding("color"), [[(255, 255, 255)]], "(255, 255, 255) on 1 pixels"),
    ],
)
def test_unknown_values_are_named(coding: MaskCoding, stored: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        decode_mask(np.array(stored), LABELS, coding, "some.png")
    assert str(caught.value).startswith(f"some.png: {message}")
