"""Decoding: what is stored in a file is what comes out, or an error that names the file."""

from __future__ import annotations

import pickle
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from numpy.typing import NDArray
from PIL import Image

from sanet.config import DataConfig
from sanet.data.catalog import DATASETS, data_source
from sanet.data.coding import MaskCoding
from sanet.data.files import (
    DataError,
    FileDataset,
    FileSource,
    Record,
    decode_mask,
    pair_by_name,
    read_image,
    read_list,
    read_mask,
    require_disjoint,
)
from sanet.structures import LabelSet

INDEX, COLOR = MaskCoding(), MaskCoding("color", ignore_color=(255, 255, 255))
LABELS = LabelSet(("soil", "leaf", "stem"), ((0, 0, 0), (0, 128, 0), (10, 20, 30)))
# What row 0 and column 0 of the stored picture show, for each value of the EXIF tag Orientation (EXIF 2.32, table 6).
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def random_bytes(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def random_indices(classes: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, classes, (6, 9), np.uint8)


def turned_upright(stored: NDArray[np.uint8], row_side: str, column_side: str) -> NDArray[np.uint8]:
    """Put every stored pixel where the two sides say, one by one."""
    rows, columns = stored.shape[:2]
    transposed = row_side in {"left", "right"}
    upright = np.zeros((columns, rows, 3) if transposed else stored.shape, np.uint8)
    for row in range(rows):
        for column in range(columns):
            down = row if row_side in {"top", "left"} else rows - 1 - row
            along = column if column_side in {"top", "left"} else columns - 1 - column
            upright[(along, down) if transposed else (down, along)] = stored[row, column]
    return upright


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".ppm", ".tif", ".tiff", ".webp"])
def test_rgb_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    pixels, path = random_bytes(6, 9, 3), tmp_path / f"picture{suffix}"
    Image.fromarray(pixels).save(path, lossless=True)
    image = read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


def test_jpeg(tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), (200, 90, 40), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpeg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpeg"), pixels, atol=3)


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tif"])
def test_greyscale_is_repeated(tmp_path: Path, suffix: str) -> None:
    grey = random_bytes(6, 9)
    Image.fromarray(grey).save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), np.stack([grey] * 3, -1))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 9)).astype(np.uint16)
    deep[0, :3] = 0, 256, 65535
    Image.fromarray(deep).save(tmp_path / f"a{suffix}")
    expected = np.floor(deep / 65535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), np.stack([expected] * 3, -1))


def test_16_bit_pgm_is_scaled(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 65535], [30000, 256, 1000]])
    (tmp_path / "a.pgm").write_bytes(b"P5 3 2 65535\n" + deep.astype(">u2").tobytes())
    expected = np.floor(deep / 65535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "a.pgm"), np.stack([expected] * 3, -1))


@pytest.mark.parametrize("pixels", [np.full((2, 2), 70000, np.int32), np.full((2, 2), 0.5, np.float32)])
def test_beyond_16_bits_is_refused(tmp_path: Path, pixels: NDArray[Any]) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: the picture has values beyond 16 bits"):
        read_image(tmp_path / "a.tif")


def test_transparency_is_dropped(tmp_path: Path) -> None:
    pixels = random_bytes(6, 9, 4)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels[..., :3])


def test_palette_picture_shows_its_colours(tmp_path: Path) -> None:
    indices, colors = random_indices(), random_bytes(256, 3)
    picture = Image.fromarray(indices, "P")
    picture.putpalette(colors.tobytes())
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colors[indices])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    picture, exif = Image.fromarray(random_bytes(3, 5, 3)), Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"plain{suffix}")
    picture.save(tmp_path / f"tagged{suffix}", exif=exif)
    expected = turned_upright(np.array(Image.open(tmp_path / f"plain{suffix}")), *ORIENTATIONS[orientation])
    np.testing.assert_array_equal(read_image(tmp_path / f"tagged{suffix}"), expected)


def test_exif_orientation_of_16_bits(tmp_path: Path) -> None:
    deep, exif = np.arange(15, dtype=np.uint16).reshape(3, 5) * 4369, Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(deep).save(tmp_path / "a.png", exif=exif)
    stored = np.stack([(deep // 257).astype(np.uint8)] * 3, -1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), turned_upright(stored, "right", "top"))


@pytest.mark.parametrize("read", [read_image, partial(read_mask, coding=INDEX)])
@pytest.mark.parametrize("kept", [1000, 0])
def test_unreadable_file_is_named(tmp_path: Path, kept: int, read: Any) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(random_bytes(40, 40)).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a\.png cannot be read as a picture"):
        read(path)
    path.write_text("no picture")
    with pytest.raises(DataError, match=r"a\.png cannot be read as a picture"):
        read(path)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.png does not exist"):
        read(path)


def test_broken_exif_is_named(tmp_path: Path) -> None:
    Image.fromarray(random_bytes(4, 4, 3)).save(tmp_path / "a.webp", exif=b"Exif\0\0nonsense")
    with pytest.raises(DataError, match=r"a\.webp cannot be read"):
        read_image(tmp_path / "a.webp")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".pgm"])
def test_greyscale_mask_holds_indices(tmp_path: Path, suffix: str) -> None:
    indices = random_indices()
    indices[0, 0] = 255
    Image.fromarray(indices).save(tmp_path / f"a{suffix}")
    mask = decode_mask(read_mask(tmp_path / f"a{suffix}", INDEX), LABELS, INDEX)
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, indices)


def test_16_bit_mask_is_not_scaled(tmp_path: Path) -> None:
    indices = np.array([[0, 300], [1000, 65535]], np.uint16)
    Image.fromarray(indices).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", INDEX), indices)


@pytest.mark.parametrize("colors", [LABELS.colors, ((0, 128, 0), (0, 0, 0), (0, 0, 0))])
def test_palette_mask_holds_indices_whatever_its_colours(tmp_path: Path, colors: Any) -> None:
    indices = random_indices()
    picture = Image.fromarray(indices, "P")
    picture.putpalette([value for color in colors for value in color])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", INDEX), indices)


def test_one_bit_mask(tmp_path: Path) -> None:
    indices = random_indices(2)
    Image.fromarray(indices.astype(bool)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", INDEX), indices)


def test_colours_become_classes(tmp_path: Path) -> None:
    indices = random_indices(4)
    Image.fromarray(np.array([*LABELS.colors, COLOR.ignore_color], np.uint8)[indices]).save(tmp_path / "a.png")
    mask = decode_mask(read_mask(tmp_path / "a.png", COLOR), LABELS, COLOR)
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, np.where(indices == 3, 255, indices))


def test_colours_are_no_indices(tmp_path: Path) -> None:
    Image.fromarray(random_bytes(4, 4, 3)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png has colours .* mask_format"):
        read_mask(tmp_path / "a.png", INDEX)


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
        read_mask(tmp_path / "mask.mat", INDEX)


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
