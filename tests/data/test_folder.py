"""Every layout of a user's folder gives back exactly the masks that were written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sanet.data.check import check_data
from sanet.data.decoding import DataError
from sanet.data.folder import Folder
from sanet.data.values import MaskCoding

CLASSES = ("soil", "leaf", "stem")


def mask_of(name: str) -> NDArray[np.uint8]:
    """A mask that no other name has."""
    return np.random.default_rng(list(name.encode())).integers(0, len(CLASSES), (6, 9), np.uint8)


def write(root: Path, images: str, masks: str, names: Sequence[str], suffix: str = ".png") -> None:
    for name in names:
        for folder in (images, masks):
            (root / folder).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([1, *name.encode()]).integers(0, 256, (6, 9, 3), np.uint8)
        Image.fromarray(pixels).save(root / images / f"{name}{suffix}")
        Image.fromarray(mask_of(name)).save(root / masks / f"{name}.png")


def write_lists(folder: Path, lists: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def open_root(root: Path) -> Folder:
    return Folder(root, CLASSES)


def assert_holds(found: Folder, expected: Mapping[str, Sequence[str]]) -> None:
    """The splits have these images, in this order, with exactly the masks that were written for them."""
    assert {split: found.open(split).names for split in found.splits} == {k: list(v) for k, v in expected.items()}
    for split, names in expected.items():
        dataset = found.open(split)
        for index, name in enumerate(names):
            np.testing.assert_array_equal(dataset[index].mask.numpy(), mask_of(name))


def test_voc(tmp_path: Path) -> None:
    write(tmp_path, "JPEGImages", "SegmentationClass", ["2007_a", "2007_b", "2007_c", "unlisted"], ".jpg")
    lists = {"train": "2007_c\n2007_a\n", "val": "2007_b\n", "trainval": "2007_a\n2007_b\n2007_c\n"}
    write_lists(tmp_path / "ImageSets" / "Segmentation", lists)
    assert_holds(open_root(tmp_path), {"train": ["2007_c", "2007_a"], "val": ["2007_b"]})


def test_trainval_is_never_read_as_train(tmp_path: Path) -> None:
    write(tmp_path, "JPEGImages", "SegmentationClass", ["a", "b"], ".jpg")
    write_lists(tmp_path / "ImageSets" / "Segmentation", {"trainval": "a\nb\n", "val": "b\n"})
    assert_holds(open_root(tmp_path), {"val": ["b"]})


@pytest.mark.parametrize("form", ["{split}/{kind}", "{kind}/{split}"])
def test_split_folders(tmp_path: Path, form: str) -> None:
    expected = {"train": ["a", "b"], "val": ["a", "c"], "test": ["d"]}
    for split, names in expected.items():
        write(tmp_path, form.format(split=split, kind="images"), form.format(split=split, kind="masks"), names)
    assert_holds(open_root(tmp_path), expected)


@pytest.mark.parametrize(
    ("images", "masks"),
    [("training/imgs", "training/labels"), ("Train/Images", "Train/Masks"), ("image/train", "annotations/training")],
)
def test_other_names_of_folders(tmp_path: Path, images: str, masks: str) -> None:
    write(tmp_path, images, masks, ["a", "b"])
    assert_holds(open_root(tmp_path), {"train": ["a", "b"]})


def test_split_without_masks_is_none(tmp_path: Path) -> None:
    write(tmp_path, "train/images", "train/masks", ["a"])
    (tmp_path / "test" / "images").mkdir(parents=True)
    assert_holds(open_root(tmp_path), {"train": ["a"]})


@pytest.mark.parametrize("place", [".", "splits"])
def test_flat_with_lists(tmp_path: Path, place: str) -> None:
    write(tmp_path, "images", "masks", ["a", "b", "c.v2", "d e", "unlisted"], ".jpg")
    # A byte order mark, Windows line ends, blank lines, file names and stems: lists as editors leave them.
    lists = {"train": "\ufeffb.jpg\r\n\r\n a \r\nd e.JPG", "val": "images/c.v2.jpg\n", "test": "c.v2\n", "notes": "x"}
    write_lists(tmp_path / place, lists)
    assert_holds(open_root(tmp_path), {"train": ["b", "a", "d e"], "val": ["c.v2"], "test": ["c.v2"]})


def test_an_image_on_two_lists_is_not_trained_on(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a", "b", "c"])
    write_lists(tmp_path, {"train": "a\nb\n", "val": "b\nc\n"})
    found = open_root(tmp_path)
    with pytest.raises(DataError, match=r"also in val: .*b\.png"):
        found.open("train")
    assert found.open("val").names == ["b", "c"]


def test_flat_without_lists_validates_on_every_fifth(tmp_path: Path) -> None:
    names = [f"{index:02d}" for index in range(12)]
    write(tmp_path, "images", "masks", names)
    rest = ["00", "01", "02", "03", "05", "06", "07", "08", "10", "11"]
    assert_holds(open_root(tmp_path), {"train": rest, "val": ["04", "09"]})


def test_listed_names_without_files_are_kept(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a"])
    write_lists(tmp_path, {"train": "a\nghost\na\n"})
    found = open_root(tmp_path)
    records = found.records("train")
    assert [record.name for record in records] == ["a", "ghost", "a"]
    assert records[1].image is None
    assert records[1].mask is None
    with pytest.raises(DataError, match="ghost"):
        found.open("train")


def test_colours(tmp_path: Path) -> None:
    colors = ((0, 0, 0), (0, 128, 0), (9, 9, 9))
    write(tmp_path, "images", "masks", ["a"])
    shown = np.array([*colors, (255, 255, 255)], np.uint8)[np.where(mask_of("a") == 1, 3, mask_of("a"))]
    Image.fromarray(shown).save(tmp_path / "masks" / "a.png")
    found = Folder(tmp_path, CLASSES, colors, 200, "leaf", "color", (255, 255, 255))
    assert found.coding == MaskCoding("color", (255, 255, 255))
    assert (found.labels.names, found.labels.colors, found.labels.background) == (CLASSES, colors, 1)
    mask = found.open("train")[0].mask.numpy()
    np.testing.assert_array_equal(mask, np.where(mask_of("a") == 1, 200, mask_of("a")))


def test_unknown_layout_says_what_it_saw(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError, match=r"Looked for: images/ and masks/; .* Found: photos/, readme\.txt"):
        open_root(tmp_path)


def test_empty_root_and_no_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Found: nothing"):
        open_root(tmp_path)
    with pytest.raises(DataError, match=r"nowhere is not a folder"):
        open_root(tmp_path / "nowhere")


def test_two_folders_that_could_be_meant(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a"])
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match=r"labels and .*masks could both be meant"):
        open_root(tmp_path)


def test_list_that_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a"])
    (tmp_path / "train.txt").write_bytes("Bäume".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.txt is not UTF-8"):
        open_root(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "night/a.jpg", "images/night/a.jpg", "../a.jpg", "/images/a.jpg", r"images\a.jpg", "masks/a.png",
        "images/a.jpg masks/b.png", "a.jpg b.png", "a.jpg,b.png", "a.jpg;b.png", "a\tb", "a.jpg\t1",
    ],
)  # fmt: skip
def test_lists_of_folders_and_columns_are_refused(tmp_path: Path, line: str) -> None:
    write(tmp_path, "images", "masks", ["a", "b"])
    write_lists(tmp_path, {"train": f"b\n{line}\n", "val": "b\n"})
    with pytest.raises(DataError, match=rf"train\.txt: {re.escape(repr(line))}"):
        Folder(tmp_path, CLASSES)


@pytest.mark.parametrize("lists", [{}, {"train": "fößchen\n", "val": "fo\u0308ßchen.png\n"}])
def test_names_are_the_same_however_their_accents_are_stored(tmp_path: Path, lists: dict[str, str]) -> None:
    write(tmp_path, "images", "masks", ["a"])
    (image,), (mask,) = (list((tmp_path / kind).iterdir()) for kind in ("images", "masks"))
    image.rename(image.with_stem(normalize("NFC", "fößchen")))
    mask.rename(mask.with_stem(normalize("NFD", "fößchen")))
    write_lists(tmp_path, lists)
    found = Folder(tmp_path, CLASSES)
    for split in lists or ["train"]:
        assert [(record.image and record.mask) is not None for record in found.records(split)] == [True]


def test_the_split_that_is_chosen_without_lists_is_said(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a", "b"])
    assert "every fifth image" in str(check_data(Folder(tmp_path, CLASSES), progress=False))
    write_lists(tmp_path, {"train": "a\n", "val": "b\n"})
    assert "NOTE" not in str(check_data(Folder(tmp_path, CLASSES), progress=False))
