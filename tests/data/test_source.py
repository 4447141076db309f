"""Datasets: which image goes with which mask, and that no split shares one with train."""

from __future__ import annotations

import json
import pickle
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from numpy.typing import NDArray
from PIL import Image

from sanet import references
from sanet.config import DataConfig
from sanet.data.catalog import SOURCES, data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError, load_mask
from sanet.data.fingerprint import fingerprint, names_digest
from sanet.data.listing import pair_by_name, read_list
from sanet.data.scenes import Scenes
from sanet.data.source import Record, Source
from sanet.data.values import MaskCoding, color_coding
from sanet.structures import LabelSet, Sample, UsageError

EXTENSION = Path(__file__).parents[1] / "extension"
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


class Listed(Source):
    """Records as they are given."""

    labels = LABELS

    def __init__(self, splits: dict[str, list[Record]], **attributes: object) -> None:
        self.listed, self.splits = splits, tuple(splits)
        vars(self).update(attributes)

    def records(self, split: str) -> list[Record]:
        return self.listed[split]


def opened(*records: Record) -> Any:
    return Listed({"val": list(records)}).open("val")


def test_dataset_gives_samples_and_leaves_the_files_alone(tmp_path: Path) -> None:
    pixels, indices = random_bytes(6, 9, 3), random_indices()
    image, mask = tmp_path / "a.png", tmp_path / "a_mask.png"
    Image.fromarray(pixels).save(image)
    Image.fromarray(indices).save(mask)
    before = [sha256(path.read_bytes()).digest() for path in (image, mask)]
    dataset = opened(Record("a", image, mask))
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
        opened(Record("a", image, mask))[0]
    for records, message in (
        ([Record("a", image, None)], "a has no mask"),
        ([Record("a", None, mask)], "a has no image"),
        ([], "no images"),
        ([Record(name, image, mask) for name in ("a", "b", "a")], "as often: a;"),
        ([Record("stra\udcdfe", image, mask)], r"'stra\\udcdfe'"),
    ):
        with pytest.raises(DataError, match=message):
            opened(*records)


def test_masks_of_different_kinds_in_one_dataset(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2]], np.uint8)
    Image.fromarray(np.zeros((1, 3, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(stored).save(tmp_path / "mask.png")
    scipy.io.savemat(tmp_path / "mask.mat", {"LabelMap": stored})
    records = [Record(kind, tmp_path / "a.png", tmp_path / f"mask.{kind}") for kind in ("png", "mat")]
    source = Listed({"val": records}, coding=MaskCoding(variable=("LabelMap",)))
    dataset = pickle.loads(pickle.dumps(source.open("val")))
    assert [sample.mask.tolist() for sample in (dataset[0], dataset[1])] == [[[0, 1, 2]]] * 2
    with pytest.raises(DataError, match=r"mask\.mat"):
        load_mask(tmp_path / "mask.mat", INDEX)


@pytest.mark.parametrize(
    "content",
    [
        {"other": np.zeros((4, 4))},
        {"GTcls": np.zeros((4, 4))},
        {"GTcls": {"Boundaries": np.zeros((4, 4))}},
        {"GTcls": {"Segmentation": "text"}},
        {"GTcls": {"Segmentation": np.zeros((4, 4, 3))}},
        {"GTcls": {"Segmentation": np.full((2, 2), 0.5)}},
        {"GTcls": {"Segmentation": np.full((2, 2), np.nan)}},
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_mat_files_of_another_form_are_named(tmp_path: Path, content: dict[str, object]) -> None:
    scipy.io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(DataError, match=r"a\.mat"):
        load_mask(tmp_path / "a.mat", MaskCoding(variable=("GTcls", "Segmentation")))


def records_of(folder: Path, *names: str) -> list[Record]:
    return [Record(Path(name).stem, folder / name, folder / name) for name in names]


def test_an_image_of_two_splits_is_refused(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    train = records_of(tmp_path, "a/1.png", "a/2.png")
    for others, leaks in ((("b/1.png", "b/3.png"), False), (("b/3.png", "a/1.png"), True)):
        source = Listed({"train": train, "val": train[:0], "test": records_of(tmp_path, *others)})
        assert len(source.open("test")) == len(others)
        if leaks:
            with pytest.raises(DataError, match=r"1 images of train are also in test: .*a/1\.png;"):
                source.open("train")
        else:
            assert len(source.open("train")) == 2
            source.published = True  # where a name is one image
            with pytest.raises(DataError, match="also in test: 1;"):
                source.open("train")


def test_many_shared_images_are_counted_and_some_named(tmp_path: Path) -> None:
    records = records_of(tmp_path, *(f"{index}.png" for index in range(9)))
    with pytest.raises(DataError, match=r"9 images of train are also in val: .*5\.png and 3 more"):
        Listed({"train": records, "val": records}).open("train")


def test_splits_without_masks(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    splits = {"train": records_of(tmp_path, "a.png"), "test": [Record("t", tmp_path / "t.png", None)]}
    source = Listed(splits, unlabelled=("test",))
    assert source.open("train").names == ["a"]
    with pytest.raises(DataError, match="test has 1 images but no masks"):
        source.open("test")


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.txt does not exist"):
        read_list(tmp_path / "train.txt")


def test_every_dataset_in_files_names_a_root_that_does_not_exist(tmp_path: Path) -> None:
    for name in SOURCES.builtin.keys() - {"scenes"}:
        classes = ("a",) if name == "folder" else ()
        with pytest.raises(DataError, match="is not a folder"):
            data_source(DataConfig(name, str(tmp_path / "nowhere"), classes))
        with pytest.raises(UsageError, match=r"data\.root"):
            data_source(DataConfig(name, None, classes))
    with pytest.raises(UsageError, match=r"camvit.*'camvid'"):
        data_source(DataConfig("camvit", str(tmp_path)))


def test_a_strangers_source_is_named_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXTENSION)
    monkeypatch.setattr(references, "_opened", {})
    with pytest.raises(UsageError, match="--import my_lab"):
        data_source(DataConfig("my_lab.data:Leaves", str(tmp_path)))
    references.use("my_lab")
    stored = np.full((4, 8, 9), 10, np.uint8)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        np.save(tmp_path / split / f"{split}.npy", stored)
        stored[3, :4] = 20
    source = data_source(DataConfig("my_lab.data:Leaves", str(tmp_path)))
    assert source.open("val")[0].mask.unique().tolist() == [0, 1]
    assert check_data(source, progress=False).pixels["val"].tolist() == [36, 36]
    broken = tmp_path / "val" / "val.npy"
    broken.write_bytes(broken.read_bytes()[:-9])
    assert broken in [finding.path for finding in check_data(source, progress=False).errors]
    with pytest.raises(UsageError, match="depth"):
        data_source(DataConfig("my_lab.data:Leaves", str(tmp_path), options={"depth": 3}))
    with pytest.raises(UsageError, match=r"sanet\.Source"):
        data_source(DataConfig("my_lab.augment:half_mix", str(tmp_path)))
    assert data_source(DataConfig(source)) is source
    assert isinstance(data_source(DataConfig(options={"seed": 3})), Scenes)


class Scans(Source):
    """A stranger's source whose folder, or something in it, may not be there."""

    labels, splits = LABELS, ("train", "val")

    def __init__(self, root: str, side: int, wanted: str = "train.txt") -> None:
        self.folder, self.side, self.wanted = Path(root), side, wanted
        (self.folder / "about.txt").read_text()

    def records(self, split: str) -> list[Record]:
        return [Record(line) for line in (self.folder / self.wanted).read_text().split()]

    def read(self, record: Record) -> Sample:
        size = int((self.folder / record.name).read_text())
        return Sample(torch.zeros(3, size, size), torch.zeros(size, size, dtype=torch.int64), record.name)


def test_a_setting_that_a_strangers_source_needs_is_named(tmp_path: Path) -> None:
    for root, options, setting in (
        (None, {"side": 3}, r"--data\.root"),
        (str(tmp_path), {}, r"--data\.options\.side"),
    ):
        with pytest.raises(UsageError, match=setting) as caught:
            data_source(DataConfig(Scans, root, options=options))
        assert "__init__" not in str(caught.value)


def test_a_file_that_a_strangers_source_does_not_find_is_named_with_the_setting(tmp_path: Path) -> None:
    def refused(name: str) -> Any:
        return pytest.raises(DataError, match=rf"(?s){re.escape(str(tmp_path / name))}\b.*--data\.root")

    config = DataConfig(Scans, str(tmp_path), options={"side": 3})
    with refused("about.txt"):
        data_source(config)
    (tmp_path / "about.txt").touch()
    source = data_source(config)
    for lists in (
        lambda: source.open("train"),
        lambda: check_data(source, progress=False),
        lambda: fingerprint(source, "val"),
    ):
        with refused("train.txt"):
            lists()
    (tmp_path / "train.txt").write_text("a")
    (tmp_path / "a").write_text("7")
    dataset = source.open("val")
    assert dataset[0].image.shape == (3, 7, 7)
    (tmp_path / "a").unlink()
    with refused("a"):
        _ = dataset[0]
    assert str(tmp_path / "a") in check_data(source, progress=False).errors[0].detail


def test_a_root_that_a_strangers_source_never_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXTENSION)
    monkeypatch.setattr(references, "_opened", {})
    references.use("my_lab")
    with pytest.raises(DataError, match=rf"data\.root {re.escape(str(tmp_path / 'nowhere'))}"):
        data_source(DataConfig("my_lab.data:Leaves", str(tmp_path / "nowhere")))


def test_fingerprints_tell_names_images_and_masks_apart(tmp_path: Path) -> None:
    for folder in ("one", "copy"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            Image.fromarray(random_indices()).save(tmp_path / folder / f"{name}.png")
    source, copy = (Listed({"val": records_of(tmp_path / name, "a.png", "b.png")}) for name in ("one", "copy"))
    first = fingerprint(source, "val")
    assert fingerprint(copy, "val") == first
    assert first["names"] == names_digest(["b", "a"]) == sha256(b"a\nb").hexdigest()

    def changed(**attributes: object) -> set[str]:
        vars(copy).update(attributes)
        found = fingerprint(copy, "val")
        return {part for part in first if found[part] != first[part]}

    assert changed(coding=color_coding(LABELS)) == changed(labels=LabelSet(("soil", "leaf"))) == {"masks"}
    vars(copy).update(coding=INDEX, labels=LABELS)
    assert changed(listed={"val": copy.listed["val"][:1]}) == {"names", "images", "masks"}
    (tmp_path / "copy" / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png"):
        changed(listed=copy.listed | {"val": records_of(tmp_path / "copy", "b.png")})
    scenes = fingerprint(Scenes(), "val")
    assert fingerprint(Scenes(seed=1), "val") == scenes | {
        part: fingerprint(Scenes(seed=1), "val")[part] for part in ("images", "masks")
    }
    assert fingerprint(Scenes(seed=1), "val")["masks"] != scenes["masks"]


class Careless(Source):
    """A source whose code fails on every image, on one of them in a library."""

    labels = LABELS
    splits = ("train", "val")

    def records(self, split: str) -> list[Record]:
        return [Record(f"{split}{number}") for number in range(2)]

    def read(self, record: Record) -> Sample:
        return Sample(*json.loads("{" if record.name.endswith("1") else "{}")["mask"])


def test_what_the_code_of_a_source_raises_is_said_of_each_image_with_its_line() -> None:
    text = " ".join(str(check_data(Careless())).split())  # however its lines are broken
    for name in ("train0", "train1", "val0", "val1"):
        assert name in text
    assert text.count("JSONDecodeError") == text.count("KeyError: 'mask'") == 2
    assert len(re.findall(r"test_source\.py, line \d+: return Sample", text)) == 4
