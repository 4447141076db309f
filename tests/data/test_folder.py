"""Every layout of a user's folder gives back exactly the masks that were written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sanet.config import DataConfig
from sanet.data import problems
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError
from sanet.data.folder import Folder
from sanet.data.values import MaskCoding
from sanet.structures import UsageError

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
    return Folder(DataConfig("folder", str(root), CLASSES))


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
    assert_holds(open_root(tmp_path), {"train": ["b"], "val": ["a"]})


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


def test_flat_without_lists_validates_on_the_last_ones(tmp_path: Path) -> None:
    names = [f"{index:02d}" for index in range(12)]
    write(tmp_path, "images", "masks", names)
    assert_holds(open_root(tmp_path), {"train": names[:10], "val": names[10:]})


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
    found = Folder(DataConfig("folder", str(tmp_path), CLASSES, colors, 200, "leaf", "color", (255, 255, 255)))
    table = ((0, 0), (0x008000, 1), (0x090909, 2), (0xFFFFFF, 200))
    assert found.coding == MaskCoding("color", table)
    assert (found.labels.names, found.labels.colors, found.labels.background) == (CLASSES, colors, 1)
    mask = found.open("train")[0].mask.numpy()
    np.testing.assert_array_equal(mask, np.where(mask_of("a") == 1, 200, mask_of("a")))


def test_unknown_layout_says_what_it_saw(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError, match=r"no image has a mask\. Looked for .* Found: no image"):
        open_root(tmp_path)


def test_empty_root_and_no_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Found: no image"):
        open_root(tmp_path)
    with pytest.raises(DataError, match=r"nowhere is not a folder"):
        open_root(tmp_path / "nowhere")


def test_two_kinds_of_masks_that_could_be_meant(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a"])
    write(tmp_path, "images", "labels", ["a"])
    with pytest.raises(DataError, match=r"--data\.masks labels or --data\.masks masks"):
        open_root(tmp_path)
    chosen = Folder(DataConfig("folder", str(tmp_path), CLASSES, masks="labels"))
    assert [record.mask for record in chosen.records("train")] == [tmp_path / "labels" / "a.png"]
    with pytest.raises(DataError, match=r"no masks of the kind 'gt'; found: labels, masks"):
        Folder(DataConfig("folder", str(tmp_path), CLASSES, masks="gt"))


def test_list_that_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a"])
    (tmp_path / "train.txt").write_bytes("Bäume".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.txt is not UTF-8"):
        open_root(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "a", "a.png", "images/a.png", "/home/me/data/images/a.png", r"C:\data\images\a.png", r"images\a.JPG",
        "images/a.png masks/a.png", "a.png,a.png", "a.png;1", "a.png\t1", "./images/a.png /other/masks/a.png",
    ],
)  # fmt: skip
def test_lines_of_a_list_name_an_image_as_tools_write_them(tmp_path: Path, line: str) -> None:
    write(tmp_path, "images", "masks", ["a", "b"])
    write_lists(tmp_path, {"train": f"b\n{line}\n", "val": "b\n"})
    records = open_root(tmp_path).records("train")
    files = [(tmp_path / "images" / f"{name}.png", tmp_path / "masks" / f"{name}.png") for name in "ba"]
    assert [record.files for record in records] == files


def test_a_column_of_a_list_names_another_mask(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a", "b"])
    write_lists(tmp_path, {"train": "images/a.png masks/b.png\n", "val": "b\n"})
    (record,) = open_root(tmp_path).records("train")
    assert record.files == (tmp_path / "images" / "a.png", tmp_path / "masks" / "b.png")


def test_a_line_that_could_be_two_images_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a", "b"])
    write(tmp_path, "images/night", "masks/night", ["a"])
    write_lists(tmp_path, {"train": "night/a.png\nb\n", "val": "a.png\n"})
    with pytest.raises(DataError, match=r"val\.txt: 'a\.png' could be .*images/a\.png and .*night/a\.png"):
        open_root(tmp_path)
    write_lists(tmp_path, {"val": "images/a.png\n"})
    found = open_root(tmp_path)
    assert [record.name for record in (*found.records("train"), *found.records("val"))] == ["night/a", "b", "a"]


@pytest.mark.parametrize("lists", [{}, {"train": "fößchen\n", "val": "fo\u0308ßchen.png\n"}])
def test_names_are_the_same_however_their_accents_are_stored(tmp_path: Path, lists: dict[str, str]) -> None:
    write(tmp_path, "images", "masks", ["a"])
    (image,), (mask,) = (list((tmp_path / kind).iterdir()) for kind in ("images", "masks"))
    image.rename(image.with_stem(normalize("NFC", "fößchen")))
    mask.rename(mask.with_stem(normalize("NFD", "fößchen")))
    write_lists(tmp_path, lists)
    found = open_root(tmp_path)
    for split in lists or ["train"]:
        assert [(record.image and record.mask) is not None for record in found.records(split)] == [True]


def test_the_split_that_is_chosen_without_lists_is_said(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a", "b"])
    assert "nothing says the splits" in str(check_data(open_root(tmp_path), progress=False))
    write_lists(tmp_path, {"train": "a\n", "val": "b\n"})
    assert "nothing says" not in str(check_data(open_root(tmp_path), progress=False))


def write_mask(path: Path, mask: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("train/x_jpg.rf.1.jpg", "train/x_jpg.rf.1_mask.png"),
        ("x.jpg", "x-label.png"),
        ("photos/x.JPG", "gt/x.PNG"),
        ("images/night/x.png", "masks/night/x_gt.png"),
        ("images/x.ome.tif", "labels/x.tif"),
        ("leftImg8bit/train/ulm/x_leftImg8bit.png", "gtFine/train/ulm/x_gtFine_labelIds.png"),
        ("train/x.png", "trainannot/x.png"),
        ("training/images/x.png", "training/GT/x.png"),
        ("img/x.png", "ground-truth/deep/x.png"),
        ("JPEGImages/x.png", "SegmentationClassPNG/x.png"),
    ],
)
def test_an_image_finds_its_mask_where_tools_put_it(tmp_path: Path, image: str, mask: str) -> None:
    values = np.arange(54, dtype=np.uint8).reshape(6, 9) % 3
    for number in range(3):
        write_mask(tmp_path / image.replace("x", f"x{number}"), np.zeros((6, 9, 3), np.uint8))
        write_mask(tmp_path / mask.replace("x", f"x{number}"), values)
    found = open_root(tmp_path)
    records = [record for split in found.splits for record in found.records(split)]
    assert len(records) == 3
    for record in records:
        np.testing.assert_array_equal(found.read(record).mask.numpy(), values)


def test_pixels_outside_the_field_of_view_are_ignored(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a", "b"])
    seen = np.zeros((6, 9), np.uint8)
    seen[2:] = 255
    for name in "ab":
        write_mask(tmp_path / "fov" / f"{name}.png", seen)
    found = open_root(tmp_path)
    dataset = found.open("train")
    expected = np.where(seen == 255, mask_of(dataset.names[0]), 255)
    np.testing.assert_array_equal(dataset[0].mask.numpy(), expected)


def test_a_table_names_everything(tmp_path: Path) -> None:
    write(tmp_path, "x", "y", ["a", "b", "c"])
    rows = [
        "image,mask,split,group",
        "x/a.png,y/b.png,train,p1",
        "x\\b.png,y/a.png,valid,p2",
        "x/c.png,y/c.png,test,p3",
    ]
    (tmp_path / "data.csv").write_text("\ufeff" + "\n".join(rows))
    found = open_root(tmp_path)
    assert [(found.records(split)[0].name, found.records(split)[0].group) for split in found.splits] == [
        ("x/a", "p1"), ("x/b", "p2"), ("x/c", "p3"),
    ]  # fmt: skip
    np.testing.assert_array_equal(found.open("train")[0].mask.numpy(), mask_of("b"))
    (tmp_path / "data.csv").write_text("image,mask\n../a.png,y/b.png\n")
    with pytest.raises(DataError, match="outside of"):
        open_root(tmp_path)


def test_images_without_masks_are_said_and_left_out(tmp_path: Path) -> None:
    write(tmp_path, "images", "masks", ["a", "b", "c"])
    (tmp_path / "masks" / "b.png").unlink()
    found = open_root(tmp_path)
    assert {record.name for split in found.splits for record in found.records(split)} == {"a", "c"}
    report = check_data(found, progress=False)
    assert not report.errors
    assert "1 images have no mask, and are not used: b" in str(report)


def seen(tmp_path: Path, *masks: NDArray[np.generic], **settings: object) -> Folder:
    for index, mask in enumerate(masks):
        write_mask(tmp_path / "images" / f"{index}.png", np.zeros((*mask.shape[:2], 3), np.uint8))
        write_mask(tmp_path / "masks" / f"{index}.png", mask)
    found = data_source(DataConfig(root=str(tmp_path), **settings))  # type: ignore[arg-type]
    assert isinstance(found, Folder)
    return found


def test_black_and_white_masks_are_background_and_foreground(tmp_path: Path) -> None:
    found = seen(tmp_path, *[np.array([[0, 255], [255, 0]], np.uint8)] * 5)
    assert found.labels.names == ("background", "foreground")
    assert found.open("train")[0].mask.tolist() == [[0, 1], [1, 0]]
    again = data_source(found.settings)
    assert again.labels == found.labels
    assert again.coding == found.coding


def test_numbers_and_colours_without_names_are_classes(tmp_path: Path) -> None:
    found = seen(tmp_path / "a", *[np.array([[1, 3, 2, 255]], np.uint8)] * 2)
    assert found.labels.names == ("class 1", "class 2", "class 3")
    assert found.open("train")[0].mask.tolist() == [[0, 2, 1, 255]]
    colors = np.array([[[0, 0, 0], [250, 50, 83]]], np.uint8)
    found = seen(tmp_path / "b", colors, colors)
    assert found.labels.names == ("#000000", "#fa3253")
    assert found.labels.colors == ((0, 0, 0), (250, 50, 83))
    assert found.open("train")[0].mask.tolist() == [[0, 1]]


def test_values_that_nobody_can_name_are_refused_with_their_shares(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 values, 0 \(50\.0%\), 126 \(25\.0%\), 255 .*--data\.values"):
        seen(tmp_path, *[np.array([[0, 0, 126, 255]], np.uint8)] * 2)
    found = seen(tmp_path, values={0: "sky", 126: "thin", 255: "thick"})
    assert found.open("train")[0].mask.tolist() == [[0, 0, 1, 2]]


@pytest.mark.parametrize(
    ("name", "text", "masks", "classes", "labels"),
    [
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, Car\n2, Cow statue", [[0, 2]], None, [[0, 2]]),
        ("labelmap.txt", "# label:rgb:parts:actions\nbackground:0,0,0::\ntool:250,50,83::",
         [[[0, 0, 0], [250, 50, 83]]], ("background", "tool"), [[0, 1]]),
        ("class_names.txt", "_background_\ncat\ndog\n", [[2, 1]], ("_background_", "cat", "dog"), [[2, 1]]),
        ("label_colors.txt", "64 128 64\tAnimal\n192 0 128\tArchway", [[[192, 0, 128], [64, 128, 64]]],
         ("Animal", "Archway"), [[1, 0]]),
    ],
)  # fmt: skip
def test_files_of_names(
    tmp_path: Path, name: str, text: str, masks: list[object], classes: tuple[str, ...] | None, labels: list[object]
) -> None:
    (tmp_path / name).write_text(text)
    found = seen(tmp_path, *[np.array(masks, np.uint8)] * 2)
    assert found.labels.names == (classes or ("background", "Car", "Cow statue"))
    assert found.open("train")[0].mask.tolist() == labels


def test_a_map_merges_and_ignores_beside_names(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\ncar\nbus\ntree\n")
    masks = [np.array([[0, 1, 2, 3, 9]], np.uint8)] * 2
    found = seen(tmp_path, *masks, values={"vehicle": ["car", "bus"], "ignore": [9]})
    assert found.labels.names == ("road", "vehicle", "tree")
    assert found.open("train")[0].mask.tolist() == [[0, 1, 1, 2, 255]]
    named = seen(tmp_path, classes=("road", "car", "bus", "tree"), values={"ignore": [9]})
    assert named.open("train")[0].mask.tolist() == [[0, 1, 2, 3, 255]]


def test_stray_values_stay_errors_beside_a_map(tmp_path: Path) -> None:
    found = seen(tmp_path, *[np.array([[0, 7, 255]], np.uint8)] * 2, values={0: "road", 255: "crack"})
    assert "7 on 1 pixels" in str(check_data(found, progress=False))
    with pytest.raises(DataError, match="7 on 1 pixels"):
        found.open("train")[0]


def save(root: Path, number: int, mask: Image.Image, suffix: str, **options: object) -> None:
    write_mask(root / "images" / f"{number}.png", np.zeros((mask.height, mask.width, 3), np.uint8))
    (root / "masks").mkdir(exist_ok=True)
    mask.save(root / "masks" / f"{number}{suffix}", **options)  # type: ignore[arg-type]


def disc(number: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:64, :64]
    return np.uint8(255) * ((x - 30 - number) ** 2 + (y - 30) ** 2 < 300)


LOSSY = [("L", ".jpg"), ("RGB", ".jpg"), ("RGB", ".webp")]


@pytest.mark.parametrize(("mode", "suffix"), LOSSY)
def test_lossy_masks_are_classes_by_a_map_of_ranges_alone(tmp_path: Path, mode: str, suffix: str) -> None:
    for number in range(4):
        save(tmp_path, number, Image.fromarray(disc(number)).convert(mode), suffix, quality=90)
    with pytest.raises(DataError, match=rf"4 masks are in a lossy format.*0{suffix}"):
        seen(tmp_path)
    if suffix == ".webp":  # which tints grey, so that it has colours
        return
    named = check_data(seen(tmp_path, classes=("background", "polyp")), progress=False)
    assert problems.LOSSY in {finding.problem for finding in named.errors}
    found = seen(tmp_path, values={"background": ["0-127"], "polyp": ["128-255"]})
    assert problems.LOSSY not in {finding.problem for finding in check_data(found, progress=False).errors}
    dataset = found.open("train")
    for index, name in enumerate(dataset.names):
        np.testing.assert_array_equal(dataset[index].mask.numpy(), disc(int(name)) // 255)


def test_lossless_webp_is_read(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path, number, Image.fromarray(disc(number)).convert("RGB"), ".webp", lossless=True)
    assert seen(tmp_path).labels.names == ("background", "foreground")


@pytest.mark.parametrize("in_color", [False, True])
def test_smoothed_masks_are_not_guessed(tmp_path: Path, in_color: bool) -> None:
    for number in range(4):
        mask = Image.fromarray(disc(number))
        mask = Image.merge("RGB", (mask, mask.point([0] * 256), mask)) if in_color else mask
        mask = mask.resize((160, 160), Image.Resampling.BICUBIC)
        save(tmp_path, number, mask, ".png")
    with pytest.raises(DataError, match=r"as from smoothing: .*0000.*data\.values" if in_color else "0-127"):
        seen(tmp_path)


def test_many_numbers_are_not_guessed_to_be_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"256 values.*--data\.values"):
        seen(tmp_path, *[np.arange(256, dtype=np.uint8).reshape(16, 16)] * 2)
    with pytest.raises(DataError, match=r"66 values.*--data\.values"):
        seen(tmp_path / "b", *[np.arange(66, dtype=np.uint8).reshape(6, 11)] * 2)


def test_grey_colours_are_numbers_but_where_colours_are_named(tmp_path: Path) -> None:
    masks = [np.repeat(np.array([[0, 255, 255]], np.uint8)[..., None], 3, 2)] * 2
    found = seen(tmp_path, *masks)
    assert found.labels.names == ("background", "foreground")
    assert found.open("train")[0].mask.tolist() == [[0, 1, 1]]
    for settings in (
        {"values": {"#000000": "soil", "#ffffff": "leaf"}},
        {"classes": ("soil", "leaf"), "colors": ((0, 0, 0), (255, 255, 255))},
    ):
        named = seen(tmp_path, **settings)
        assert (named.coding.format, named.labels.names) == ("color", ("soil", "leaf"))
        assert named.open("train")[0].mask.tolist() == [[0, 1, 1]]
    (tmp_path / "labelmap.txt").write_text("leaf:255,255,255::\nsoil:0,0,0::\n")
    assert seen(tmp_path).open("train")[0].mask.tolist() == [[1, 0, 0]]


def test_ranges_are_not_for_colours(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ranges are for masks of numbers"):
        seen(tmp_path, *[np.array([[[0, 0, 0], [250, 50, 83]]], np.uint8)] * 2, values={"a": ["0-127", "128-255"]})


def test_masks_of_two_sorts_are_an_error_without_names_too(tmp_path: Path) -> None:
    found = seen(tmp_path, *[np.array([[0, 255]], np.uint8)] * 5, np.array([[0, 1]], np.uint8))
    errors = check_data(found, progress=False).errors
    assert sum(finding.problem is problems.MIXED for finding in errors) == 5


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"classes.txt": "a\nb\nc\n", "labels.txt": "bg\nleaf\nstem\n"}, r"classes\.txt and .*labels\.txt"),
        ({"classes.txt": "bg\nleaf\nleaf\n"}, r"classes\.txt has 'leaf' 2 times"),
        ({"labelmap.txt": "a:0,0,0::\nb:9,9,9::\nc:9,9,9::\n"}, r"labelmap\.txt has '#090909' 2 times"),
    ],
)
def test_files_of_names_that_contradict(tmp_path: Path, files: Mapping[str, str], named: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=named):
        seen(tmp_path, *[np.array([[0, 1, 2]], np.uint8)] * 2)


def test_without_a_labelled_pixel_there_are_no_classes(tmp_path: Path) -> None:
    for number in range(2):
        write_mask(tmp_path / "fov" / f"{number}.png", np.zeros((1, 2), np.uint8))
    with pytest.raises(DataError, match="no pixel of its 2 masks"):
        seen(tmp_path, *[np.array([[0, 1]], np.uint8)] * 2)


def test_every_value_of_the_example_has_a_name_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"{0: a, 1: b, 4: c, 150: d}"):
        seen(tmp_path, *[np.array([[0, 1, 4, 150]], np.uint8)] * 2)
