"""Data sets in files: which picture goes with which mask, and that no split shares one with train."""

from __future__ import annotations

import pickle
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from numpy.typing import NDArray
from PIL import Image
from sanet.data.coding import MaskCoding
from sanet.data.files import FileDataset, FileSource, Record, pair_by_name, read_list, require_disjoint

from sanet.config import DataConfig
from sanet.data.catalog import DATASETS, data_source
from sanet.data.decoding import DataError, load_mask
from sanet.structures import LabelSet

INDEX = MaskCoding()
LABELS = LabelSet(("soil", "leaf", "stem"), ((0, 0, 0), (0, 128, 0), (10, 20, 30)))


def random_bytes(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def random_indices(classes: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, classes, (6, 9), np.uint8)


def test_pairs_lose_no_file(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    for name in ("images/b.jpg", "images/a.PNG", "images/c.png", "images/c.jpg", "images/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    masks.mkdir()
    for name in ("a.png", "c.png", "d.png"):
        (masks / name).touch()
    expected = [
        Record("a", images / "a.PNG", masks / "a.png"),
        Record("b", images / "b.jpg", None),
        Record("c", images / "c.jpg", masks / "c.png"),
        Record("c", images / "c.png", None),
        Record("d", None, masks / "d.png"),
    ]
    assert pair_by_name(images, masks) == expected
    assert pair_by_name(images, masks, ["b", "a", "x", "a"]) == [
        expected[1], expected[0], Record("x", None, None), expected[0]
    ]  # fmt: skip
    assert pair_by_name(tmp_path / "nowhere", tmp_path / "nothing") == []


def test_dataset_gives_samples_and_leaves_the_files_alone(tmp_path: Path) -> None:
    pixels, indices = random_bytes(6, 9, 3), random_indices()
    image, mask = tmp_path / "a.png", tmp_path / "a_mask.png"
    Image.fromarray(pixels).save(image)
    Image.fromarray(indices).save(mask)
    before = [sha256(path.read_bytes()).digest() for path in (image, mask)]
    dataset = FileDataset([Record("a", image, mask)], LABELS)
    sample = dataset[0]
    assert (len(dataset), dataset.names, sample.name) == (1, ["a"], "a")
    assert (sample.image.dtype, sample.mask.dtype) == (torch.uint8, torch.int64)
    np.testing.assert_array_equal(sample.image.numpy(), pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(sample.mask.numpy(), indices)
    assert [sha256(path.read_bytes()).digest() for path in (image, mask)] == before


def test_dataset_refuses_what_does_not_fit(tmp_path: Path) -> None:
    image, mask = tmp_path / "a.png", tmp_path / "mask.png"
    Image.fromarray(random_bytes(6, 9, 3)).save(image)
    Image.fromarray(random_indices().T).save(mask)
    with pytest.raises(DataError, match=r"mask\.png is 6x9 but .*a\.png is 9x6"):
        FileDataset([Record("a", image, mask)], LABELS)[0]
    with pytest.raises(DataError, match="a has no mask"):
        FileDataset([Record("a", image, None)], LABELS)
    with pytest.raises(DataError, match="a has no picture"):
        FileDataset([Record("a", None, mask)], LABELS)
    with pytest.raises(DataError, match="no pictures"):
        FileDataset([], LABELS)
    with pytest.raises(DataError, match="would count as often: a; leave one"):
        FileDataset([Record(name, image, mask) for name in ("a", "b", "a")], LABELS)
    with pytest.raises(DataError, match=r"no UTF-8 text: 'stra\\udcdfe'; rename"):
        FileDataset([Record("stra\udcdfe", image, mask)], LABELS)


def test_masks_of_different_kinds_in_one_data_set(tmp_path: Path) -> None:
    coding = MaskCoding(table=(255, 2, 0), variable=("LabelMap",))
    stored = np.array([[0, 1, 2]], np.uint8)
    Image.fromarray(np.zeros((1, 3, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(stored).save(tmp_path / "mask.png")
    scipy.io.savemat(tmp_path / "mask.mat", {"LabelMap": stored})
    records = [Record(kind, tmp_path / "a.png", tmp_path / f"mask.{kind}") for kind in ("png", "mat")]
    dataset = pickle.loads(pickle.dumps(FileDataset(records, LABELS, coding)))
    assert [sample.mask.tolist() for sample in (dataset[0], dataset[1])] == [[[255, 2, 0]]] * 2
    with pytest.raises(DataError, match=r"mask\.mat cannot be read as a picture"):
        load_mask(tmp_path / "mask.mat", INDEX)


def records_of(folder: Path, *names: str) -> list[Record]:
    return [Record(Path(name).stem, folder / name, folder / name) for name in names]


def test_a_picture_of_two_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/3.png"):
        (tmp_path / name).touch()
    (tmp_path / "b" / "4.png").symlink_to(tmp_path / "a" / "2.png")
    train = records_of(tmp_path, "a/1.png", "a/2.png")
    for others, shared in (
        (("b/1.png", "b/3.png"), None),
        (("b/3.png", "a/1.png"), "1"),
        (("b/3.png", "linked/1.png"), "1"),
        (("b/4.png",), "4"),
    ):
        splits = {"train": train, "val": records_of(tmp_path, "b/3.png"), "test": records_of(tmp_path, *others)}
        source = FileSource(LABELS, tuple(splits), splits.__getitem__)
        if shared is None:
            assert len(source.open("train")) == 2
            with pytest.raises(DataError, match="also in test: 1; leave them in one"):
                FileSource(LABELS, tuple(splits), splits.__getitem__, published=True).open("train")
        else:
            with pytest.raises(DataError, match=f"1 pictures of train are also in test: {shared};"):
                source.open("train")
        assert len(source.open("test")) == len(others)


def test_many_shared_pictures_are_counted_and_some_named(tmp_path: Path) -> None:
    records = records_of(tmp_path, *(f"{index}.png" for index in range(9)))
    source = FileSource(LABELS, ("train", "val"), lambda split: records)
    with pytest.raises(DataError, match=r"9 pictures of train are also in val: 0, 1, 2, 3, 4, 5 and 3 more"):
        require_disjoint(source, records)


def test_splits_without_masks(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    splits = {"train": records_of(tmp_path, "a.png"), "test": [Record("t", tmp_path / "t.png", None)]}
    source = FileSource(LABELS, tuple(splits), splits.__getitem__, unlabelled=("test",))
    assert source.pictures("test") == splits["test"]
    assert source.open("train").names == ["a"]
    with pytest.raises(DataError, match="test has 1 pictures but no masks"):
        source.open("test")


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.txt does not exist"):
        read_list(tmp_path / "train.txt")


def test_the_built_in_splits_share_no_name() -> None:
    source = data_source(DataConfig("scenes"))
    names = [name for split in source.splits for name in source.open(split).names]
    assert len(set(names)) == len(names)


def test_every_data_set_in_files_checks_what_it_trains_on(tmp_path: Path) -> None:
    for name in DATASETS.keys() - {"scenes"}:
        with pytest.raises(DataError, match="is not a folder"):
            data_source(DataConfig(name, str(tmp_path / "nowhere"), ("a",) if name == "folder" else ()))
