"""Which image has which mask, and which split, by the names that people and tools give."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError
from sanet.data.layout import find_layout
from sanet.data.source import labels_in


def write(root: Path, *names: str, value: int = 1) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(name)).integers(0, 2, (8, 12)).astype(np.uint8) * value
        Image.fromarray(pixels).save(path)


def pairs(root: Path, masks: str | None = None) -> dict[str, list[tuple[str, str | None]]]:
    """Of every split the images and masks, as paths below the root."""
    below = lambda path: path and path.relative_to(root).as_posix()  # noqa: E731
    found = find_layout(root, masks).records
    return {split: [(below(one.image), below(one.mask)) for one in records] for split, records in found.items()}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "dev", "eval"),
        ("trn", "val", "tst"),
        ("Train", "Valid", "Test"),
        ("train1", "val1", "test1"),
        ("train2017", "val2017", "test2017"),
        ("train_set", "val_set", "test_set"),
        ("01_train", "02_val", "03_test"),
        ("uavid_train", "uavid_val", "uavid_test"),
        ("DUTS-TR", "DUTS-VAL", "DUTS-TE"),
        ("train_val", "val", "TEST"),
    ],
)
@pytest.mark.parametrize(
    "form", ["{split}/{kind}/{name}.png", "{kind}/{split}/{name}.png", "{split}_{kind}/{name}.png"]
)
def test_folders_of_splits_are_read_as_people_call_them(
    tmp_path: Path, form: str, train: str, val: str, test: str
) -> None:
    names = {train: "ab", val: "c", test: "d"}
    for split, members in names.items():
        for name in members:
            write(tmp_path, *(form.format(split=split, kind=kind, name=name) for kind in ("images", "masks")))
    found = pairs(tmp_path)
    expected = {
        split: [
            tuple(form.format(split=word, kind=kind, name=name) for kind in ("images", "masks"))
            for name in "abcd"
            if name in names[word]
        ]
        for split, word in (("train", train), ("val", val), ("test", test))
    }
    assert {split: sorted(members) for split, members in found.items()} == expected


@pytest.mark.parametrize("folder", ["valley_masks", "trainee_masks", "testament_masks", "validated_masks"])
def test_words_that_begin_like_a_split_are_none(tmp_path: Path, folder: str) -> None:
    write(tmp_path, *(f"{place}/{name}.png" for place in ("images", folder) for name in "abc"))
    assert pairs(tmp_path) == {"": [(f"images/{name}.png", f"{folder}/{name}.png") for name in "abc"]}


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("DUTS-TR-Image/{}.jpg", "DUTS-TR-Mask/{}.png"),
        ("images_png/{}.png", "masks_png/{}.png"),
        ("image_2/{}.png", "semantic/{}.png"),
        ("original_images/{}.jpg", "label_images_semantic/{}.png"),
        ("images/{}.jpg", "masks/{}.jpg.png"),
        ("images/{}_image.png", "masks/{}_image.png"),
        ("images/{}_label.png", "masks/{}_label.png"),
        ("{}.jpg", "{}_1stHO.png"),
        ("images/{}_train_01.jpg", "labels/{}_train_01_train_id.png"),
        ("all/{}.jpg", "all/{}.png"),
        ("images/{}.jpg", "manual1/{}.tif"),
        ("img_dir/{}.jpg", "ann_dir/{}.png"),
    ],
)
def test_images_find_masks_as_data_sets_name_them(tmp_path: Path, images: str, masks: str) -> None:
    names = ("a 1", "b.2", "Ünter")
    write(tmp_path, *(form.format(name) for form in (images, masks) for name in names))
    (found,) = pairs(tmp_path).values()
    assert sorted(found) == sorted((images.format(name), masks.format(name)) for name in names)


def test_nnunet_data_with_its_names(tmp_path: Path) -> None:
    """imagesTs without labels is no split; val comes out of what is for training."""
    for number in range(8):
        write(tmp_path, f"imagesTr/leaf_{number:03d}_0000.png", f"labelsTr/leaf_{number:03d}.png")
        write(tmp_path, f"imagesTs/leaf_1{number:02d}_0000.png")
    (tmp_path / "dataset.json").write_text(
        '{"labels": {"soil": 0, "leaf": 1}, "numTraining": 8, "file_ending": ".png"}'
    )
    source = data_source(DataConfig(root=str(tmp_path)))
    assert source.labels.names == ("soil", "leaf")
    records = [record for split in ("train", "val") for record in source.records(split)]
    assert sorted((one.image.name, one.mask.name) for one in records) == [
        (f"leaf_{number:03d}_0000.png", f"leaf_{number:03d}.png") for number in range(8)
    ]
    write(tmp_path, *(f"labelsTs/leaf_1{number:02d}.png" for number in range(8)))
    assert len(data_source(DataConfig(root=str(tmp_path))).records("test")) == 8


def test_another_dataset_json_names_no_classes(tmp_path: Path) -> None:
    write(tmp_path, *(f"{folder}/{name}.png" for folder in ("images", "masks") for name in "abcdef"))
    (tmp_path / "dataset.json").write_text('{"labels": ["leaf"], "name": "mine"}')
    assert data_source(DataConfig(root=str(tmp_path))).labels.names == ("background", "foreground")


def test_an_image_never_gets_the_mask_of_another(tmp_path: Path) -> None:
    write(
        tmp_path / "scenes",
        *(f"{kind}/{place}.png" for kind in ("images", "masks") for place in ("s1/1", "s2/1", "s2/2")),
    )
    write(tmp_path / "scenes", "images/s1/3.png", "masks/s2/3.png")
    found = pairs(tmp_path / "scenes")[""]
    assert ("images/s1/3.png", "masks/s2/3.png") not in found
    assert (None, "masks/s2/3.png") in found
    for split, name in (("train", "1"), ("val", "2")):
        write(tmp_path / "splits", *(f"{split}/{kind}/{name}.png" for kind in ("images", "masks")))
    write(tmp_path / "splits", "train/images/9.png", "val/masks/9.png", "test/images/1.png")
    assert pairs(tmp_path / "splits") == {
        "train": [("train/images/1.png", "train/masks/1.png")],
        "val": [("val/images/2.png", "val/masks/2.png"), (None, "val/masks/9.png")],
    }
    # By its stem alone an image of test would find a mask of train.
    write(tmp_path / "far", *(f"images/k/{split}/1.png" for split in ("train", "test")), "labels/m/train/1.png")
    assert pairs(tmp_path / "far") == {"train": [("images/k/train/1.png", "labels/m/train/1.png")]}
    write(tmp_path / "one", "images/a.png", "images/A.png", "images/a_img.png", "masks/a.png")
    assert pairs(tmp_path / "one") == {"": [("images/a.png", "masks/a.png")]}
    write(tmp_path / "two", "images/a.png", "images/a_img.png", "masks/a.png", "masks/a_img.png")
    assert pairs(tmp_path / "two") == {"": [("images/a.png", "masks/a.png"), ("images/a_img.png", "masks/a_img.png")]}


def test_two_masks_of_an_image_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}{ending}.png" for name in "abcdef" for ending in ("", "_mask")), "b_mask_1.png")
    report = check_data(data_source(DataConfig("auto", str(tmp_path))), progress=False)
    assert any(finding.path and finding.path.name == "b_mask.png" for finding in report.errors)


def test_eye_as_it_is_distributed(tmp_path: Path) -> None:
    """DRIVE: `mask` is the field of view, `1st_manual` the labels, and there may be a second annotator."""
    for split, numbers in (("training", (21, 22)), ("test", (1,))):
        for number in numbers:
            write(
                tmp_path,
                f"{split}/images/{number:02}_{split}.tif",
                f"{split}/mask/{number:02}_{split}_mask.gif",
                value=255,
            )
            write(tmp_path, f"{split}/1st_manual/{number:02}_manual1.gif", value=255)
    found = find_layout(tmp_path).records
    record = found["train"][0]
    assert record.mask == tmp_path / "training/1st_manual/21_manual1.gif"
    assert record.valid == tmp_path / "training/mask/21_training_mask.gif"
    assert [len(found[split]) for split in ("train", "test")] == [2, 1]
    write(tmp_path, "test/2nd_manual/01_manual2.gif", value=255)
    with pytest.raises(DataError, match=r"--data\.masks manual1 or --data.masks manual2"):
        find_layout(tmp_path)
    assert find_layout(tmp_path, "1st_manual").records["test"][0].mask == tmp_path / "test/1st_manual/01_manual1.gif"


def test_a_field_of_view_as_jpeg_and_one_that_is_missing(tmp_path: Path) -> None:
    write(tmp_path, *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in "abc"))
    field = np.zeros((8, 12), np.uint8)
    field[:, 4:] = 255
    (tmp_path / "fov").mkdir()
    for name in "ab":
        Image.fromarray(field).save(tmp_path / "fov" / f"{name}.jpg", quality=40)
    source = data_source(DataConfig("folder", str(tmp_path), ("x", "y")))
    assert any(note.startswith("1 images have no field of view") for note in source.notes)
    records = {record.name: record for split in source.splits for record in source.records(split)}
    np.testing.assert_array_equal(labels_in(source, records["a"]) == 255, field == 0)
    assert (labels_in(source, records["c"]) != 255).all()


def test_a_list_says_what_is_meant_or_nothing_is(tmp_path: Path) -> None:
    write(tmp_path, *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in ("a/0", "b/1", "b/2", "b/3")))
    (tmp_path / "train.txt").write_text("b/0.png\nimages/b/1.png\tmasks/b/gone.png\n/data/elsewhere/b/2.png\n")
    (tmp_path / "val.txt").write_text("b/3\n")
    found = pairs(tmp_path)
    assert found["train"] == [(None, None), ("images/b/1.png", None), ("images/b/2.png", "masks/b/2.png")]
    assert found["val"] == [("images/b/3.png", "masks/b/3.png")]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["image{0}mask{0}split", "Image{0}Mask{0}Split", '"image"{0}"mask"{0}"split"'])
def test_tables_of_any_office(tmp_path: Path, mark: str, head: str) -> None:
    write(tmp_path, *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in "abc"))
    rows = [
        head.format(mark),
        *(
            mark.join((f"images/{x}.png", f"masks\\{y}.png", split))
            for x, y, split in (("a", "b", "Train"), ("b", "a", "dev"))
        ),
        mark * 2,
    ]
    (tmp_path / "all.csv").write_text("\r\n".join(rows), encoding="utf-8-sig")
    assert pairs(tmp_path) == {"train": [("images/a.png", "masks/b.png")], "val": [("images/b.png", "masks/a.png")]}


def test_a_table_for_each_split(tmp_path: Path) -> None:
    write(tmp_path, *(f"{kind}/{name}.png" for kind in ("im", "ma") for name in "abc"))
    for split, names in (("train", "ab"), ("val", "c")):
        rows = ["image,mask", *(f"im/{name}.png,ma/{name}.png" for name in names)]
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    assert {split: len(found) for split, found in pairs(tmp_path).items()} == {"train": 2, "val": 1}


@pytest.mark.parametrize(
    "content",
    ["image,mask\n" + "x" * 200_000 + ",b\n", "image,mask,split\na,b,north\n"],
)
def test_damaged_tables_are_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(DataError, match=r"table\.csv"):
        find_layout(tmp_path)


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    write(tmp_path, *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in "ab"))
    (tmp_path / "dir.csv").mkdir()
    with (tmp_path / "train.txt").open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(DataError, match=r"train\.txt"):
        find_layout(tmp_path)
    (tmp_path / "train.txt").write_text("/".join(["x"] * 200_000) + "\na\n")
    assert len(find_layout(tmp_path).records["train"]) == 2
    (tmp_path / "big.csv").symlink_to("/dev/zero")
    assert len(find_layout(tmp_path).records["train"]) == 2


def test_linked_folders_are_read_and_each_once(tmp_path: Path) -> None:
    write(tmp_path / "far", *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in "ab"))
    root = tmp_path / "data"
    root.mkdir()
    for kind in ("images", "masks"):
        (root / kind).symlink_to(tmp_path / "far" / kind)
    (root / "images" / "again").symlink_to(root)
    assert pairs(root) == {"": [(f"images/{name}.png", f"masks/{name}.png") for name in "ab"]}


def test_masks_in_a_column_are_told_apart_like_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path, *(f"{kind}/{split}/{name}.png" for kind in ("images", "labels") for name in "12"))
    (tmp_path / "train.txt").write_text("/home/x/ds/images/train/1.png /home/x/ds/labels/train/1.png\n")
    (tmp_path / "val.txt").write_text("images/val/2.png labels/val/2.png\n")
    found = pairs(tmp_path)
    assert found["train"] == [("images/train/1.png", "labels/train/1.png")]
    assert found["val"] == [("images/val/2.png", "labels/val/2.png")]
    (tmp_path / "val.txt").write_text("images/val/2.png 2.png\n")
    with pytest.raises(DataError, match=r"val\.txt.*'2\.png' could be"):
        find_layout(tmp_path)


def test_one_mask_is_never_that_of_two_splits(tmp_path: Path) -> None:
    write(tmp_path, *(f"images/{split}/1.png" for split in ("train", "val")), "images/train/2.png")
    write(tmp_path, "masks/1.png", "masks/2.png")
    found = pairs(tmp_path)
    assert found["train"] == [("images/train/2.png", "masks/2.png"), (None, "masks/1.png")]
    assert found["val"] == []


def test_a_val_without_masks_is_not_cut_out_of_train(tmp_path: Path) -> None:
    write(tmp_path, *(f"train/{kind}/{name}.png" for kind in ("images", "masks") for name in "abcd"))
    write(tmp_path, "val/images/x.png", "test/images/y.png")
    source = data_source(DataConfig("auto", str(tmp_path)))
    assert source.splits == ("train", "val")
    assert len(source.records("train")) == 4
    assert [finding.split for finding in check_data(source, progress=False).errors] == ["val"]


def test_a_link_within_the_folder_gives_nothing_twice(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("val", "b")):
        write(tmp_path, *(f"{split}/{kind}/{name}.png" for kind in ("images", "masks")))
    (tmp_path / "test").symlink_to(tmp_path / "val")
    assert {split: len(found) for split, found in pairs(tmp_path).items()} == {"train": 1, "val": 1}


def test_groups_hold_across_splits_that_are_made_and_said(tmp_path: Path) -> None:
    for split, names in (("train", ("p0_1", "p1_1", "p2_1", "p3_1")), ("test", ("p0_2",))):
        write(tmp_path, *(f"{split}/{kind}/{name}.png" for kind in ("images", "masks") for name in names))
    source = data_source(DataConfig("auto", str(tmp_path), group=r"p\d"))
    report = check_data(source, progress=False)
    assert ("p0_1" in {one.name for one in source.records("train")}) == bool(report.errors)
    assert [record.group for record in source.records("test")] == ["p0"]


def test_a_line_that_names_nothing_is_no_other_image(tmp_path: Path) -> None:
    write(tmp_path, *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in ("photo", "b")))
    (tmp_path / "train.txt").write_text("photo (1).png\n,\n")
    (tmp_path / "val.txt").write_text("b.png 1\n")
    assert pairs(tmp_path) == {"train": [(None, None)] * 2, "val": [("images/b.png", "masks/b.png")]}


def test_names_may_lie_beside_the_masks(tmp_path: Path) -> None:
    write(tmp_path, *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in "abcd"))
    (tmp_path / "masks" / "classes.txt").write_text("soil\nleaf\n")
    assert data_source(DataConfig("auto", str(tmp_path))).labels.names == ("soil", "leaf")


def test_a_file_of_names_without_names_is_named(tmp_path: Path) -> None:
    write(tmp_path, *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in "ab"))
    (tmp_path / "classes.txt").write_text("\n")
    with pytest.raises(DataError, match=r"classes\.txt"):
        data_source(DataConfig("auto", str(tmp_path)))


def test_a_list_of_what_is_not_there_is_listed_at_any_depth(tmp_path: Path) -> None:
    for name in "ab":
        for kind, dtype in (("images", np.uint16), ("masks", np.uint8)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(np.arange(96, dtype=dtype).reshape(8, 12) % 2).save(tmp_path / kind / f"{name}.png")
    (tmp_path / "train.txt").write_text("nowhere\n")
    (tmp_path / "val.txt").write_text("a\nb\n")
    report = check_data(data_source(DataConfig("auto", str(tmp_path))), progress=False)
    assert [(finding.split, finding.detail) for finding in report.errors] == [("train", "nowhere")]
