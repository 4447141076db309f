"""VOC and its augmented training list: exactly the published images, and never one that is validated on."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from miniatures import (
    SBD_TRAIN,
    SBD_VAL,
    VOC_TEST,
    VOC_TRAIN,
    VOC_VAL,
    write_list,
    write_picture,
    write_sbd,
    write_voc,
)
from sanet.config import DataConfig
from sanet.data import voc
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError
from sanet.data.problems import LISTED_TWICE, NO_MASK, REPEATED, SHARED, SIZES, UNKNOWN, UNREADABLE
from sanet.structures import default_colors


def open_root(root: Path, name: str = "voc", allow_subset: bool = True) -> voc.VOC:
    found = data_source(DataConfig(name, str(root), allow_subset=allow_subset))
    assert isinstance(found, voc.VOC)
    return found


def lists_of(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"


def sbd_of(root: Path) -> Path:
    return root / "benchmark_RELEASE" / "dataset"


def test_miniature_comes_back_with_its_borders(tmp_path: Path) -> None:
    masks = write_voc(tmp_path)
    found = open_root(tmp_path)
    assert found.splits == ("train", "val", "test")
    for split, names in (("train", VOC_TRAIN), ("val", VOC_VAL)):
        dataset = found.open(split)
        assert dataset.names == list(names)
        for index, name in enumerate(names):
            mask = dataset[index].mask.numpy()
            np.testing.assert_array_equal(mask, masks[name])
            assert (mask[0] == 255).all()
    report = check_data(found)
    assert report.findings == []
    assert report.images == {"train": 3, "val": 2, "test": 2}


def test_classes_are_those_of_the_devkit() -> None:
    assert (len(voc.LABELS), voc.LABELS.background, voc.LABELS.ignore_index) == (21, 0, 255)
    assert voc.LABELS.names[1:] == tuple(sorted(voc.LABELS.names[1:]))
    assert voc.LABELS.colors == default_colors(21)


@pytest.mark.parametrize("inner", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_inner_folders_are_roots_as_well(tmp_path: Path, inner: str) -> None:
    write_voc(tmp_path)
    assert open_root(tmp_path / inner).open("val").names == list(VOC_VAL)


def test_test_images_have_no_masks(tmp_path: Path) -> None:
    write_voc(tmp_path)
    found = open_root(tmp_path)
    assert found.unlabelled == ("test",)
    with pytest.raises(DataError, match="test has 2 images but no masks"):
        found.open("test")
    assert [record.name for record in found.records("test")] == list(VOC_TEST)
    assert all(record.image and record.image.is_file() and record.mask is None for record in found.records("test"))
    images = lists_of(tmp_path).parents[1] / "JPEGImages"
    (images / f"{VOC_TEST[0]}.jpg").write_bytes(b"no image")
    assert [finding.problem for finding in check_data(found).findings] == [UNREADABLE]
    (images / f"{VOC_TEST[0]}.jpg").unlink()
    assert [record.image is None for record in open_root(tmp_path).records("test")] == [True, False]
    (images / f"{VOC_TEST[1]}.jpg").unlink()
    assert open_root(tmp_path).splits == ("train", "val")


def test_trainval_is_never_read_as_train(tmp_path: Path) -> None:
    write_voc(tmp_path)
    assert open_root(tmp_path).open("train").names == list(VOC_TRAIN)
    (lists_of(tmp_path) / "train.txt").unlink()
    with pytest.raises(DataError, match=r"train\.txt does not exist"):
        open_root(tmp_path)


def test_augmented_list_follows_the_rule(tmp_path: Path) -> None:
    own, added = write_voc(tmp_path), write_sbd(tmp_path)
    found = open_root(tmp_path, "voc_aug")
    dataset = found.open("train")
    assert set(dataset.names) == (set(SBD_TRAIN) | set(SBD_VAL) | set(VOC_TRAIN)) - set(VOC_VAL)
    assert len(set(dataset.names)) == len(dataset)
    assert found.open("val").names == list(VOC_VAL)
    for index, name in enumerate(dataset.names):
        expected = own[name] if name in VOC_TRAIN else added[name]
        np.testing.assert_array_equal(dataset[index].mask.numpy(), expected)
    report = check_data(found)
    assert report.findings == []
    assert report.images == {"train": 5, "val": 2, "test": 2}


NAMES = st.lists(st.sampled_from("abcdefghij"), max_size=8, unique=True)


@given(train=NAMES, val=NAMES, sbd_train=NAMES, sbd_val=NAMES)
def test_augmented_list_against_sets(
    tmp_path_factory: pytest.TempPathFactory, train: list[str], val: list[str], sbd_train: list[str], sbd_val: list[str]
) -> None:
    root = tmp_path_factory.mktemp("lists")
    train = [name for name in train if name not in val]
    (lists_of(root).parents[1] / "JPEGImages").mkdir(parents=True)
    (lists_of(root).parents[1] / "SegmentationClass").mkdir()
    (sbd_of(root) / "cls").mkdir(parents=True)
    for folder, split, names in (
        (lists_of(root), "train", train),
        (lists_of(root), "val", val),
        (sbd_of(root), "train", sbd_train),
        (sbd_of(root), "val", sbd_val),
    ):
        write_list(folder / f"{split}.txt", names)
    found = open_root(root, "voc_aug")
    names = [record.name for record in found.records("train")]
    assert set(names) == (set(sbd_train) | set(sbd_val) | set(train)) - set(val)
    assert len(names) == len(set(names))
    assert [record.name for record in found.records("val")] == val


def test_a_val_image_in_vocs_own_train_list_is_refused(tmp_path: Path) -> None:
    write_voc(tmp_path, train=(*VOC_TRAIN, VOC_VAL[0]))
    found = open_root(tmp_path)
    with pytest.raises(DataError, match=f"also in val: {VOC_VAL[0]}"):
        found.open("train")
    assert found.open("val").names == list(VOC_VAL)
    assert [(finding.problem, finding.split) for finding in check_data(found).errors] == [(SHARED, "val")]


def test_a_test_image_in_sbds_list_is_refused(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_sbd(tmp_path, train=(*SBD_TRAIN, VOC_TEST[1]))
    found = open_root(tmp_path, "voc_aug")
    with pytest.raises(DataError, match=f"also in test: {VOC_TEST[1]}"):
        found.open("train")
    # A name is one image, also where SBD's file differs from VOC's.
    (sbd_of(tmp_path) / "img" / f"{VOC_TEST[1]}.jpg").write_bytes(
        (sbd_of(tmp_path) / "img/2008_000002.jpg").read_bytes()
    )
    shared = [finding for finding in check_data(found).errors if finding.problem is SHARED]
    assert [(finding.split, finding.detail) for finding in shared] == [("test", f"{VOC_TEST[1]} is also in train")]


@pytest.mark.parametrize("name", ["voc", "voc_aug"])
def test_other_counts_than_the_published_are_refused(tmp_path: Path, name: str) -> None:
    write_voc(tmp_path)
    write_sbd(tmp_path)
    with pytest.raises(DataError, match=rf"train\.txt has 3 images, the published {name} 1464; .*data\.allow_subset"):
        open_root(tmp_path, name, allow_subset=False)


def test_counts_of_every_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc(tmp_path)
    write_sbd(tmp_path)
    monkeypatch.setattr(voc, "COUNTS", {"train": 3, "val": 2, "test": 2})
    monkeypatch.setattr(voc, "SBD_COUNTS", {"train": 3, "val": 2})
    monkeypatch.setattr(voc, "AUGMENTED", 5)
    assert len(open_root(tmp_path, "voc_aug", allow_subset=False).open("train")) == 5
    for path, message in (
        (lists_of(tmp_path) / "test.txt", r"test\.txt has 1 images, the published voc_aug 2"),
        (lists_of(tmp_path) / "val.txt", r"val\.txt has 1 images, the published voc_aug 2"),
        (sbd_of(tmp_path) / "train.txt", r"dataset/train\.txt has 1 images, the published voc_aug 3"),
    ):
        text = path.read_text()
        # A line twice makes no image more.
        path.write_text("2008_000006\n" * len(text.splitlines()))
        with pytest.raises(DataError, match=message):
            open_root(tmp_path, "voc_aug", allow_subset=False)
        path.write_text(text)
    monkeypatch.setattr(voc, "AUGMENTED", 6)
    with pytest.raises(DataError, match=r"the union of VOC train and .* has 5 images, the published voc_aug 6"):
        open_root(tmp_path, "voc_aug", allow_subset=False)


def test_published_counts() -> None:
    assert voc.COUNTS == {"train": 1464, "val": 1449, "test": 1456}
    assert (voc.SBD_COUNTS, voc.AUGMENTED) == ({"train": 8498, "val": 2857}, 10582)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no VOCdevkit/VOC2012/ with JPEGImages/ and ImageSets/Segmentation/"):
        open_root(tmp_path)
    write_voc(tmp_path)
    for root in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2012"):
        with pytest.raises(DataError, match=r"benchmark_RELEASE/dataset/cls"):
            open_root(root, "voc_aug")
    (lists_of(tmp_path).parents[1] / "SegmentationClass").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="SegmentationClass"):
        open_root(tmp_path)


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_sbd(tmp_path)
    voc_folder = lists_of(tmp_path).parents[1]
    for folder in (voc_folder / "JPEGImages", voc_folder / "SegmentationClass", sbd_of(tmp_path) / "cls"):
        for path in list(folder.iterdir()):
            path.rename(path.with_suffix(path.suffix.upper()))
    found = open_root(tmp_path, "voc_aug")
    assert check_data(found).findings == []
    assert len([found.open("train")[index] for index in range(5)]) == 5


def test_opening_asks_for_no_single_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand questions take seconds on a network disk."""
    counts, stat = [], os.stat
    for number in (3, 30):
        root = tmp_path / str(number)
        write_voc(root, train=[f"2007_{index:06d}" for index in range(100, 100 + number)])
        write_sbd(root)
        asked: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(
                os, "stat", lambda path, *rest, asked=asked, **more: asked.append(path) or stat(path, *rest, **more)
            )
            open_root(root, "voc_aug").open("train")
        counts.append(len(asked))
    assert counts[0] == counts[1]


def test_check_finds_faults_of_both_kinds_of_masks(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_sbd(tmp_path, train=(*SBD_TRAIN, "2008_000021", "2008_000022", "2008_000023", "2008_000024"))
    cls, img = sbd_of(tmp_path) / "cls", sbd_of(tmp_path) / "img"
    (cls / "2008_000021.mat").write_bytes((cls / "2008_000021.mat").read_bytes()[:150])
    scipy.io.savemat(cls / "2008_000022.mat", {"GTcls": {"Segmentation": np.full((48, 64), 21, np.uint8)}})
    write_picture(img / "2008_000023.jpg", (40, 64))
    (cls / "2008_000024.mat").unlink()
    (img / "2008_000002.jpg").write_bytes((img / "2008_000010.jpg").read_bytes())
    with (lists_of(tmp_path) / "val.txt").open("a") as file:
        file.write(VOC_VAL[0])
    findings = {(finding.problem, finding.path and finding.path.name) for finding in
                check_data(open_root(tmp_path, "voc_aug")).findings}  # fmt: skip
    assert findings == {
        (LISTED_TWICE, None),
        (UNREADABLE, "2008_000021.mat"),
        (UNKNOWN, "2008_000022.mat"),
        (SIZES, "2008_000023.mat"),
        (NO_MASK, "2008_000024.jpg"),
        (REPEATED, "2008_000010.jpg"),
    }


def test_what_was_published_twice_is_no_error(tmp_path: Path) -> None:
    write_voc(tmp_path)
    images = lists_of(tmp_path).parents[1] / "JPEGImages"
    (images / f"{VOC_VAL[0]}.jpg").write_bytes((images / f"{VOC_TRAIN[0]}.jpg").read_bytes())
    report = check_data(open_root(tmp_path))
    assert [(finding.problem, finding.split) for finding in report.findings] == [(REPEATED, "val")]
    assert report.errors == []


def test_mat_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_sbd(tmp_path)
    path = sbd_of(tmp_path) / "cls" / "2008_000002.mat"
    scipy.io.savemat(path, {"GTcls": {"Segmentation": np.zeros((64, 48), np.uint8)}})
    dataset = open_root(tmp_path, "voc_aug").open("train")
    index = dataset.names.index("2008_000002")
    with pytest.raises(DataError, match=r"2008_000002\.mat is 48x64 but .*2008_000002\.jpg is 64x48"):
        dataset[index]
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"2008_000002\.mat"):
        dataset[index]
    path.unlink()
    with pytest.raises(DataError, match=r"2008_000002\.mat does not exist"):
        dataset[index]


def test_datasets_pickle(tmp_path: Path) -> None:
    write_voc(tmp_path)
    write_sbd(tmp_path)
    found = open_root(tmp_path, "voc_aug")
    dataset = pickle.loads(pickle.dumps(found.open("train")))
    assert dataset[len(dataset) - 1].mask.shape == (48, 64)
    assert pickle.loads(pickle.dumps(found)).open("val").names == list(VOC_VAL)


def test_palette_of_the_miniature_is_vocs(tmp_path: Path) -> None:
    write_voc(tmp_path)
    with Image.open(tmp_path / "VOCdevkit/VOC2012/SegmentationClass" / f"{VOC_VAL[0]}.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((0, 0)) == (224, 224, 192)
