import dataclasses
import json
from hashlib import sha256

import pytest

from sanet.config import DataConfig, InferenceConfig
from sanet.evaluation.protocol import Protocol
from sanet.structures import LabelSet

LABELS = LabelSet(("sky", "road"), background=0)
DATA = DataConfig("camvid")


def protocol(data=DATA, split="test", names=("b", "a"), labels=LABELS, inference=InferenceConfig()):
    return Protocol.of(data, split, names, labels, inference)


CONTENTS = {"a": (b"\1", b"\2"), "b": (b"\3", b"\4")}


def test_the_digest_is_that_of_the_canonical_json_of_the_ground_truth():
    truth = {
        "allow_subset": False,
        "background": "class sky",
        "classes": ["sky", "road"],
        "data": "camvid",
        "ignore_index": 255,
        "images": 2,
        "images_sha256": sha256(b'{"a":"01","b":"03"}').hexdigest(),
        "labels_sha256": sha256(b'{"a":"02","b":"04"}').hexdigest(),
        "names_sha256": sha256(b"a\nb").hexdigest(),
        "split": "test",
    }
    text = json.dumps(truth, separators=(",", ":"))
    found = protocol().with_contents(CONTENTS)
    assert found.digest == sha256(text.encode()).hexdigest()
    assert Protocol.read(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_other_contents_are_another_ground_truth():
    found, again = (protocol().with_contents(contents) for contents in (CONTENTS, dict(reversed(CONTENTS.items()))))
    assert again == found
    for part, name in enumerate(("images", "labels")):
        changed = list(CONTENTS["b"])
        changed[part] = b"\5"
        other = protocol().with_contents({**CONTENTS, "b": tuple(changed)})
        assert other.digest != found.digest
        (difference,) = found.differences(other)
        assert difference.startswith(f"{name} SHA-256: ")


def test_the_order_of_images_and_scales_makes_no_other_protocol():
    again = protocol(names=("a", "b"), inference=InferenceConfig(scales=[1]))
    assert again == protocol()
    assert again.differences(protocol()) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (protocol(DataConfig("voc", allow_subset=True)), ["data: camvid against voc", "allow subset: no against yes"]),
        (protocol(split="val"), ["split: test against val"]),
        (protocol(names=("a", "b", "c")), ["images: 2 against 3", "names SHA-256: "]),
        (protocol(names=("a\nb", "")), ["names SHA-256: "]),
        (protocol(labels=LabelSet(("sky", "car"), background=0)), ["classes: sky, road against sky, car"]),
        (protocol(labels=LabelSet(("sky", "road"), background=1)), ["background: class sky against class road"]),
        (protocol(labels=LabelSet(("sky", "road"))), ["background: class sky against none"]),
        (
            protocol(labels=LabelSet(("sky", "road"), background_ignored=True)),
            ["background: class sky against ignored"],
        ),
        (protocol(labels=LabelSet(("sky", "road"), (), 9, 0)), ["ignore index: 255 against 9"]),
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
    ("inference", "words"),
    [
        (InferenceConfig(scales=(1, 0.5)), "scales 0.5, 1"),
        (InferenceConfig(flip=True), "flip yes"),
        (InferenceConfig(512), "window 512"),
        (InferenceConfig(shorter_side=720), "shorter side 720"),
    ],
)
def test_inference_settings_are_shown_and_do_not_stand_against_a_comparison(inference, words):
    assert words in protocol(inference=inference).inference_text()
    assert words not in protocol().inference_text()
    assert protocol(inference=inference).differences(protocol()) == []
    assert protocol(inference=inference).digest == protocol().digest


def test_every_other_field_counts():
    for item in dataclasses.fields(Protocol):
        if item.name != "inference":
            other = dataclasses.replace(protocol(), **{item.name: "another"})
            assert len(protocol().differences(other)) == 1
            assert other.digest != protocol().digest


def test_readers_see_numbers_and_the_beginnings_of_digests():
    shown = protocol().with_contents(CONTENTS).shown()
    assert shown["classes"] == 2
    assert shown["names SHA-256"] == protocol().names_sha256[:12]
    assert shown["labels SHA-256"] == sha256(b'{"a":"02","b":"04"}').hexdigest()[:12]
    assert "shorter side" not in shown
