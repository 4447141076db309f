"""Label sets, their colours, and the choice of a name."""

import dataclasses
import json

import pytest

from sanet.structures import LabelSet, SanetError, choose, default_colors, printable, say

# The first entries of the colour map that the VOC devkit's VOClabelcolormap prints, and its last ones.
VOC = [
    (0, 0, 0),
    (128, 0, 0),
    (0, 128, 0),
    (128, 128, 0),
    (0, 0, 128),
    (128, 0, 128),
    (0, 128, 128),
    (128, 128, 128),
    (64, 0, 0),
    (192, 0, 0),
    (64, 128, 0),
    (192, 128, 0),
    (64, 0, 128),
    (192, 0, 128),
    (64, 128, 128),
    (192, 128, 128),
    (0, 64, 0),
    (128, 64, 0),
    (0, 192, 0),
    (128, 192, 0),
    (0, 64, 128),
]


def test_colour_map_of_voc():
    assert list(default_colors(21)) == VOC
    assert default_colors(256)[255] == (224, 224, 192)
    assert len(set(default_colors(256))) == 256


def test_label_set_fills_in_the_colours():
    labels = LabelSet(("sky", "road", "tree"))
    assert labels.colors == tuple(VOC[:3])
    assert len(labels) == 3
    assert LabelSet(("sky", "road"), ((1, 2, 3), (4, 5, 6))).colors == ((1, 2, 3), (4, 5, 6))


def test_label_set_from_lists_equals_and_hashes_like_one_from_tuples():
    from_lists = LabelSet(["sky", "road"], [[1, 2, 3], [4, 5, 6]], 9, 1)
    from_tuples = LabelSet(("sky", "road"), ((1, 2, 3), (4, 5, 6)), 9, 1)
    assert from_lists == from_tuples
    assert hash(from_lists) == hash(from_tuples)


def test_label_set_survives_json():
    labels = LabelSet(("sky", "road"), ((1, 2, 3), (4, 5, 6)), ignore_index=-1, background=0)
    assert LabelSet(**json.loads(json.dumps(dataclasses.asdict(labels)))) == labels
    ignored = LabelSet(("sky", "road"), background_ignored=True)
    stored = json.loads(json.dumps(dataclasses.asdict(ignored)))
    assert LabelSet(**stored) == ignored
    # Models saved before the field was there load as they did.
    del stored["background_ignored"]
    assert not LabelSet(**stored).background_ignored


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"names": ()}, "at least one"),
        ({"names": "road"}, "list of texts"),
        ({"names": 3}, "list of texts"),
        ({"names": ("a", 3)}, "list of texts"),
        ({"names": ("a", "")}, "class 1, '', is empty"),
        ({"names": ("a", " ")}, "is empty"),
        ({"names": ("a\nb",)}, "control characters"),
        ({"names": ("\x1b[2J",)}, "control characters"),
        ({"names": ("a\u202eb",)}, "control characters"),
        ({"names": ("\ud800",)}, "control characters"),
        ({"names": ("x" * 257,)}, "256"),
        ({"names": tuple(map(str, range(2**16 + 1)))}, "65536 at most"),
        ({"names": ("a",), "colors": ((1, 2),)}, "triples"),
        ({"names": ("a",), "colors": ((1, 2, 3.5),)}, "triples"),
        ({"names": ("a",), "colors": (("1", "2", "3"),)}, "triples"),
        ({"names": ("a",), "colors": 7}, "triples"),
        ({"names": ("a",), "colors": ((1, 2, 10**5000),)}, "triples"),
        ({"names": ("a",), "ignore_index": 1e300}, "ignore_index"),
        ({"names": ("a",), "ignore_index": True}, "ignore_index"),
        ({"names": ("a",), "ignore_index": "255"}, "ignore_index"),
        ({"names": ("a",), "ignore_index": 10**5000}, "ignore_index"),
        ({"names": ("a",), "ignore_index": -(2**31) - 1}, "ignore_index"),
        ({"names": ("a", "b"), "background": 0.5}, "background"),
        ({"names": ("a", "b"), "background_ignored": "no"}, "background_ignored"),
        ({"names": ("a", "b", "a", "b", "c")}, "a, b"),
        ({"names": ("a", "b"), "colors": ((1, 2, 3),)}, "2 class names but 1 colours"),
        ({"names": ("a",), "colors": ((1, 2, 256),)}, "0 to 255"),
        ({"names": ("a",), "colors": ((1, -2, 3),)}, "0 to 255"),
        ({"names": ("a", "b"), "ignore_index": 1}, "ignore_index 1 is also class 'b'"),
        ({"names": ("a", "b"), "ignore_index": 0}, "ignore_index 0 is also class 'a'.*255 for 0, and 1 less"),
        ({"names": ("a", "b"), "background": 2}, "background 2"),
        ({"names": ("a", "b"), "background": -1}, "background -1"),
        ({"names": ("a", "b"), "background": 0, "background_ignored": True}, "cannot be ignored as well"),
    ],
)
def test_label_sets_that_contradict_themselves(arguments, words):
    with pytest.raises(ValueError, match=words) as caught:
        LabelSet(**arguments)
    assert isinstance(caught.value, SanetError)


@pytest.mark.parametrize("ignore_index", [2, 255, -1, -100])
def test_any_ignore_index_outside_the_classes_is_fine(ignore_index):
    assert LabelSet(("a", "b"), ignore_index=ignore_index).ignore_index == ignore_index


@pytest.mark.parametrize("count", [1, 21, 256, 300])
def test_palette_is_always_768_bytes(count):
    labels = LabelSet(tuple(map(str, range(count))), ignore_index=-1)
    assert len(labels.palette) == 768
    assert all(0 <= value <= 255 for value in labels.palette)
    triples = [tuple(labels.palette[3 * i : 3 * i + 3]) for i in range(256)]
    assert triples[: min(count, 256)] == list(default_colors(min(count, 256)))
    assert triples[count:] == [(255, 255, 255)] * max(0, 256 - count)


def test_choose_returns_a_known_name():
    assert choose("network", "fcn", ("sanet", "fcn")) == "fcn"


def test_choose_suggests_and_lists():
    with pytest.raises(ValueError, match="unknown network 'sanett'") as caught:
        choose("network", "sanett", ("sanet", "fcn"))
    assert "'sanet'?" in str(caught.value)
    assert "fcn, sanet" in str(caught.value)
    assert isinstance(caught.value, SanetError)


def test_choose_suggests_nothing_where_nothing_is_near():
    with pytest.raises(ValueError, match="zzz") as caught:
        choose("split", "zzz", ("train", "val"))
    assert "mean" not in str(caught.value)
    assert "train, val" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Straße 1, café, 写真.png", "Straße 1, café, 写真.png"),
        ("a\x1b]0;title\x07b", r"a\x1b]0;title\x07b"),
        ("a\x9b31m\r\n\tb", r"a\x9b31m\r\n\tb"),
        ("gpj.\u202eexe\u2066\u200f", r"gpj.\u202eexe\u2066\u200f"),
        ("old\udcff", r"old\udcff"),
    ],
)
def test_what_a_terminal_obeys_is_shown_instead(text, shown, capsys):
    assert printable(text) == shown
    say(f"{text}\nnext")
    say(text, error=True)
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "next"
    assert all(line.isprintable() for line in (out + err).split("\n"))
