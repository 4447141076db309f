"""What other pictures are known by."""

import json
import shutil

import pytest
from PIL import Image

from brightness import CLASSES, write_pictures
from sanet.config import DataConfig
from sanet.data.decoding import DataError
from sanet.experiments.fingerprint import digests_of, read, write


@pytest.fixture
def photos(tmp_path):
    write_pictures(tmp_path / "photos", train=3, val=2)
    return tmp_path / "photos"


def found(root, split="val", classes=CLASSES):
    return digests_of(DataConfig("folder", str(root), classes), split)


def test_a_copy_elsewhere_is_the_same(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "copy")
    assert found(photos) == found(tmp_path / "copy")
    assert [*found(photos)] == ["train", "val"]
    assert len({*found(photos).values()}) == 2
    assert found(photos, "train") == {"train": found(photos)["train"]}


def repaint(photos):
    """A mask of the same size on the disk, as far as that can be."""
    file = photos / "val" / "masks" / "val0.png"
    mask = Image.open(file)
    mask.putpixel((9, 9), 1 - mask.getpixel((9, 9)))
    mask.save(file)


@pytest.mark.parametrize(
    "change",
    [
        repaint,
        lambda photos: (photos / "val" / "images" / "val0.png").open("ab").write(b"more"),
        lambda photos: [(photos / "val" / kind / "val1.png").unlink() for kind in ("images", "masks")],
        lambda photos: [
            (photos / "val" / kind / "val1.png").rename(photos / "val" / kind / "v.png") for kind in ("images", "masks")
        ],
    ],
    ids=["a mask", "a picture's size", "one fewer", "a name"],
)
def test_every_change_tells_and_of_its_split_alone(photos, change):
    before = found(photos)
    change(photos)
    after = found(photos)
    assert after["val"] != before["val"]
    assert after["train"] == before["train"]


def test_classes_tell(photos):
    assert found(photos)["val"] != found(photos, classes=("light", "dark"))["val"]


def test_a_data_set_without_files_has_digests_too():
    one, other = (digests_of(DataConfig("scenes"), split) for split in ("val", "test"))
    assert one["train"] == other["train"] != one["val"] != other["test"]


def test_a_mask_that_cannot_be_read_is_named(photos):
    file = photos / "val" / "masks" / "val0.png"
    file.unlink()
    file.mkdir()
    with pytest.raises(DataError, match=r"val0.png .*check-data"):
        found(photos)


def test_what_is_kept_is_added_to(tmp_path):
    file = tmp_path / "run" / "data.json"
    assert read(file) == {}
    write(file, {"train": "a"})
    write(file, {"test": "b"})
    assert read(file) == {"train": "a", "test": "b"}
    write(file, {"test": "c"})
    assert read(file) == json.loads(file.read_text()) == {"train": "a", "test": "c"}
    for damaged in ("{", "[1]", ""):
        file.write_text(damaged)
        assert read(file) == {}
