"""What stored numbers and colours mean, against loops over pixels."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanet.data.decoding import DataError, decode_mask
from sanet.data.values import (
    IGNORE,
    MaskCoding,
    ValueMap,
    color_coding,
    packed_pixels,
    value_counts,
    values_text,
)
from sanet.structures import LabelSet, UsageError

LABELS = LabelSet(("soil", "leaf", "stem"), ((0, 0, 0), (0, 128, 0), (10, 20, 30)))
INDEX, COLOR = MaskCoding(), color_coding(LABELS, (255, 255, 255))


def test_values_are_counted() -> None:
    colors = packed_pixels(np.array([[[9, 9, 9], [0, 0, 0], [9, 9, 9]], [[1, 2, 3], [255] * 3, [9, 9, 9]]], np.uint8))
    with pytest.raises(DataError, match=re.escape("mask: (9, 9, 9) on 3 pixels, (1, 2, 3) on 1 pixels: ")):
        decode_mask(colors, LABELS, COLOR)
    assert list(value_counts(np.array([[8, 4, 4, 255, 2]])).items()) == [(4, 2), (2, 1), (8, 1), (255, 1)]
    assert values_text(dict.fromkeys(range(8), 5), INDEX).endswith("5 on 5 pixels, 2 other values on 10 pixels")


@given(st.lists(st.integers(-1, 4) | st.sampled_from([255, 256, 70000]), min_size=6, max_size=6))
def test_indices_against_a_loop_over_pixels(stored: list[int]) -> None:
    numbers = np.array(stored).reshape(2, 3)
    strange = {number: stored.count(number) for number in stored if number not in (0, 1, 2, 255)}
    if strange:
        with pytest.raises(DataError) as caught:
            decode_mask(numbers, LABELS, INDEX)
        named = re.findall(r"(-?\d+) on (\d+) pixels", str(caught.value))
        assert {int(number): int(count) for number, count in named} == strange
        return
    mask = decode_mask(numbers, LABELS, INDEX)
    assert mask.dtype == np.int64
    assert mask.tolist() == numbers.tolist()


@given(st.integers(1, 300), st.integers(0, 99), st.booleans())
def test_colours_against_a_loop_over_pixels(classes: int, seed: int, strange: bool) -> None:
    rng = np.random.default_rng(seed)
    palette = rng.permutation(np.unique(rng.integers(0, 2**24, 2 * classes + 9)))[: classes + 2]
    colors = np.stack([palette >> 16, palette >> 8 & 255, palette & 255], -1).astype(np.uint8)
    labels = LabelSet(tuple(map(str, range(classes))), tuple(map(tuple, colors[:classes].tolist())), 1000)
    coding = color_coding(labels, tuple(colors[classes].tolist()))
    drawn = rng.integers(0, classes + 1, (5, 7))
    drawn[2, 3] = classes + 1 if strange else 0
    stored = packed_pixels(colors[drawn])
    if strange:
        with pytest.raises(DataError, match=re.escape(str(tuple(colors[-1].tolist())))):
            decode_mask(stored, labels, coding)
        return
    expected = [[1000 if index == classes else index for index in row] for row in drawn.tolist()]
    assert decode_mask(stored, labels, coding).tolist() == expected


@given(st.lists(st.integers(-3, 3) | st.integers(0, 2**40), max_size=20))
def test_counts_against_a_loop(stored: list[int]) -> None:
    counts = value_counts(np.array(stored, np.int64).reshape(1, -1))
    assert counts == {value: stored.count(value) for value in stored}
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


@pytest.mark.parametrize(
    ("coding", "stored", "message"),
    [
        (INDEX, [[0, 7, 7], [4, 255, 1]], "7 on 2 pixels, 4 on 1 pixels: no class"),
        (INDEX, [[0, -1]], "-1 on 1 pixels"),
        (
            COLOR,
            [[(0, 0, 0), (0, 128, 1)], [(255, 255, 255), (10, 20, 30)]],
            "(0, 128, 1) on 1 pixels: no value of a class",
        ),
        (color_coding(LABELS), [[(255, 255, 255)]], "(255, 255, 255) on 1 pixels"),
    ],
)
def test_unknown_values_are_named(coding: MaskCoding, stored: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        decode_mask(
            packed_pixels(np.array(stored, np.uint8)) if coding.format == "color" else np.array(stored),
            LABELS,
            coding,
            "some.png",
        )
    assert str(caught.value).startswith(f"some.png: {message}")


@given(st.dictionaries(st.integers(-5, 300), st.sampled_from("abc"), min_size=1), st.integers(0, 99))
def test_a_map_of_numbers_against_a_loop_over_pixels(given_map: dict[int, str], seed: int) -> None:
    found = ValueMap(given_map, {})
    assert found.names == tuple(dict.fromkeys(given_map.values()))
    labels = LabelSet(found.names)
    coding = MaskCoding("index", found.table(found.names, 255))
    stored = np.random.default_rng(seed).choice([*given_map, 255], (4, 5))
    expected = [[found.names.index(given_map[v]) if v in given_map else 255 for v in row] for row in stored.tolist()]
    assert decode_mask(stored, labels, coding).tolist() == expected
    again = ValueMap(dict(found.pairs()), {})
    assert (again.numbers, again.names) == (found.numbers, found.names)


@pytest.mark.parametrize(
    ("given_map", "known", "numbers"),
    [
        ({0: "road", 255: "crack"}, {}, {0: "road", 255: "crack"}),
        ({"road": 0, "crack": [255]}, {}, {0: "road", 255: "crack"}),
        ({"road": "0-2", "ignore": [9]}, {}, {0: "road", 1: "road", 2: "road", 9: IGNORE}),
        ({"#ff0000": "a", "b": ["#00ff00", [0, 0, 255]]}, {}, {0xFF0000: "a", 0xFF00: "b", 0xFF: "b"}),
        ({"vehicle": ["car", "bus"]}, {0: "road", 1: "car", 2: "bus"}, {0: "road", 1: "vehicle", 2: "vehicle"}),
        ({"car": "vehicle"}, {0: "road", 1: "car"}, {0: "road", 1: "vehicle"}),
        ({"facade": ["facade"]}, {1: "facade", 4: "facade"}, {1: "facade", 4: "facade"}),
    ],
)
def test_maps_as_people_write_them(given_map: dict[Any, Any], known: dict[int, str], numbers: dict[int, str]) -> None:
    assert ValueMap(given_map, known).numbers == numbers


@pytest.mark.parametrize(
    ("given_map", "message"),
    [
        ({"raod": ["car"]}, "'car' is no number"),
        ({0: "a", "b": [0]}, "0 is both 'a' and 'b'"),
        ({0: "a", "#ffffff": "b"}, "numbers and colours"),
        ({"a": [10**9]}, "1000000000 is no number"),
        ({"a": None}, "None is no number"),
    ],
)
def test_maps_that_cannot_be_are_refused(given_map: dict[Any, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ValueMap(given_map, {})


@pytest.mark.parametrize(
    ("given_map", "named"),
    [
        ({0: "bg", 3.0: "c"}, r"3\.0"),
        ({"1-999999999": "x"}, "'1-999999999'"),
        ({"leaf": "stm"}, "'stm'"),
        ({"0-16777215": "x"}, "'0-16777215' has more than 65536"),
        ({False: 0, True: 1}, "no, off or false"),
        ({"leaf": [0, True]}, "yes, on or true"),
        ({0: None}, "None"),
    ],
)
def test_the_value_that_is_wrong_is_named(given_map: dict[Any, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        ValueMap(given_map, {})
