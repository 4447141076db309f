import dataclasses
import json
from hashlib import sha256

import pytest

from sanet.config import DataConfig, ViewsConfig
from sanet.evaluation.protocol import Protocol
from sanet.structures import LabelSet, UsageError

LABELS = LabelSet(("sky", "road"), background=0)
DATA = DataConfig("camvid")


def protocol(data=DATA, split="test", names=("b", "a"), labels=LABELS, views=ViewsConfig()):
    return Protocol.of(data, split, names, labels, views)


def test_the_digest_is_that_of_the_canonical_json():
    content = {
        "absent_classes": "in no mean",
        "background": "class sky",
        "classes": ["sky", "road"],
        "data": "camvid",
        "ignore_index": 255,
        "mirror": False,
        "names_sha256": sha256(b"a\nb").hexdigest(),
        "partial": False,
        "pictures": 2,
        "resolution": "original",
        "scales": [1.0],
        "split": "test",
        "window": 1024,
    }
    text = json.dumps(content, separators=(",", ":"))
    assert protocol().digest == sha256(text.encode()).hexdigest()
    assert Protocol.read(json.loads(text)) == protocol()
    assert Protocol.read(json.loads(text)).digest == protocol().digest


def test_the_order_of_pictures_and_scales_makes_no_other_protocol():
    again = protocol(names=("a", "b"), views=ViewsConfig(scales=[1]))
    assert again == protocol()
    assert again.differences(protocol()) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (protocol(DataConfig("scenes")), ["data set: camvid against scenes"]),
        (protocol(DataConfig("voc", partial=True)), ["data set: camvid against voc", "partial: no against yes"]),
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
        (protocol(views=ViewsConfig(scales=(1, 0.5))), ["scales: 1 against 0.5, 1"]),
        (protocol(views=ViewsConfig(mirror=True)), ["mirror: no against yes"]),
        (protocol(views=ViewsConfig(512)), ["window: 1024 against 512"]),
        (protocol(views=ViewsConfig(shorter_side=720)), ["shorter side: none against 720"]),
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


def test_every_field_counts():
    """A field that is added without a name for readers would go unseen."""
    for item in dataclasses.fields(Protocol):
        other = dataclasses.replace(protocol(), **{item.name: "another"})
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
    assert shown["SHA-256 of this protocol"] == protocol().digest[:12]
