import dataclasses
import json
from hashlib import sha256

import pytest

from sanet.config import DataConfig, InferenceConfig
from sanet.evaluation.protocol import FEEDING, Protocol
from sanet.structures import LabelSet, UsageError

LABELS = LabelSet(("sky", "road"), background=0)
DATA = DataConfig("camvid")


def protocol(data=DATA, split="test", names=("b", "a"), labels=LABELS, views=InferenceConfig()):
    return Protocol.of(data, split, names, labels, views)


CONTENTS = {"a": (b"\1", b"\2"), "b": (b"\3", b"\4")}


def test_the_digest_is_that_of_the_canonical_json_of_the_ground_truth():
    truth = {
        "absent_classes": "in no mean",
        "background": "class sky",
        "classes": ["sky", "road"],
        "data": "camvid",
        "ignore_index": 255,
        "images_sha256": sha256(b'{"a":"01","b":"03"}').hexdigest(),
        "labels_sha256": sha256(b'{"a":"02","b":"04"}').hexdigest(),
        "names_sha256": sha256(b"a\nb").hexdigest(),
        "partial": False,
        "pictures": 2,
        "resolution": "original",
        "split": "test",
    }
    text = json.dumps(truth, separators=(",", ":"))
    found = protocol().with_contents(CONTENTS)
    assert found.digest == sha256(text.encode()).hexdigest()
    assert found.without_contents() == protocol()
    stored = json.loads(json.dumps(dataclasses.asdict(found)))
    assert Protocol.read(stored) == found
    del stored["images_sha256"], stored["labels_sha256"]  # as in files of 0.1.0
    assert Protocol.read(stored) == protocol()


def test_other_contents_are_another_ground_truth():
    found, again = (protocol().with_contents(contents) for contents in (CONTENTS, dict(reversed(CONTENTS.items()))))
    assert again == found
    for part, name in enumerate(("images", "labels")):
        changed = list(CONTENTS["b"])
        changed[part] = b"\5"
        other = protocol().with_contents({**CONTENTS, "b": tuple(changed)})
        assert other.digest != found.digest
        (difference,) = found.differences(other)
        assert difference.startswith(f"SHA-256 of the {name}: ")


def test_the_order_of_pictures_and_scales_makes_no_other_protocol():
    again = protocol(names=("a", "b"), views=InferenceConfig(scales=[1]))
    assert again == protocol()
    assert again.differences(protocol()) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (protocol(DataConfig("scenes")), ["data set: camvid against scenes"]),
        (protocol(DataConfig("voc", allow_subset=True)), ["data set: camvid against voc", "partial: no against yes"]),
        (protocol(split="val"), ["split: test against val"]),
        (protocol(names=("a", "b", "c")), ["pictures: 2 against 3", "SHA-256 of their names: "]),
        (protocol(names=("a", "c")), ["SHA-256 of their names: "]),
        (protocol(names=("a\nb", "")), ["SHA-256 of their names: "]),
        (protocol(labels=LabelSet(("sky", "car"), background=0)), ["classes: sky, road against sky, car"]),
        (protocol(labels=LabelSet(("sky", "road"), background=1)), ["background: class sky against class road"]),
        (protocol(labels=LabelSet(("sky", "road"))), ["background: class sky against none"]),
        (
            protocol(labels=LabelSet(("sky", "road"), background_ignored=True)),
            ["background: class sky against ignored"],
        ),
        (protocol(labels=LabelSet(("sky", "road"), (), 9, 0)), ["ignored value: 255 against 9"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_every_difference_is_named_with_both_values(other, words):
    differences = protocol().differences(other)
    assert len(differences) == len(words)
    for difference, word in zip(differences, words, strict=True):
        assert difference.startswith(word)
    assert protocol().digest != other.digest


def test_colours_make_no_other_protocol():
    assert protocol(labels=LabelSet(LABELS.names, ((1, 2, 3), (4, 5, 6)), background=0)) == protocol()


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (InferenceConfig(scales=(1, 0.5)), "scales 0.5, 1"),
        (InferenceConfig(flip=True), "mirror yes"),
        (InferenceConfig(512), "window 512"),
        (InferenceConfig(shorter_side=720), "shorter side 720"),
    ],
)
def test_the_feeding_is_shown_and_does_not_stand_against_a_comparison(views, words):
    assert words in protocol(views=views).feeding()
    assert words not in protocol().feeding()
    assert protocol(views=views).differences(protocol()) == []
    assert protocol(views=views).digest == protocol().digest


def test_every_field_counts():
    """A field that is added without a name for readers would go unseen."""
    for item in dataclasses.fields(Protocol):
        other = dataclasses.replace(protocol(), **{item.name: "another"})
        if item.name in FEEDING:
            assert other.feeding() != protocol().feeding()
        else:
            assert len(protocol().differences(other)) == 1
            assert other.digest != protocol().digest


@pytest.mark.parametrize("change", [{"window": None}, {"colour": 1}])
def test_other_fields_are_named(change):
    content = dataclasses.asdict(protocol()) | change
    content = {key: value for key, value in content.items() if value is not None}
    with pytest.raises(UsageError, match=next(iter(change))):
        Protocol.read(content)


def test_readers_see_numbers_and_the_beginnings_of_digests():
    shown = protocol().shown()
    assert shown["classes"] == 2
    assert shown["SHA-256 of their names"] == protocol().names_sha256[:12]
    assert (
        protocol().with_contents(CONTENTS).shown()["SHA-256 of the labels"]
        == sha256(b'{"a":"02","b":"04"}').hexdigest()[:12]
    )
