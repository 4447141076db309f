"""Every fault is found, alone and among others; a clean dataset has none; no file is touched."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sanet.config import DataConfig
from sanet.data import facts, problems, source
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError
from sanet.data.problems import Problem
from sanet.data.report import DataReport
from sanet.data.scenes import LABELS, Scenes
from sanet.data.source import Record, Source
from sanet.reading import ImageReading
from sanet.structures import LabelSet, Sample

CLASSES = ("soil", "leaf", "stem")
COLORS = ((0, 0, 0), (0, 128, 0), (200, 20, 30))
LISTS = {"train": ["a", "b", "c"], "val": ["d", "e"]}
Pixels = NDArray[Any]
# Four quarters of 50 rows and 70 columns each: soil, leaf, stem and ignored.
MASK: Pixels = np.kron(np.array([[0, 1], [2, 255]], np.uint8), np.ones((50, 70), np.uint8))
QUARTER = 50 * 70
INDEX = DataConfig("folder", ".", CLASSES)
TWO = DataConfig("folder", ".", ("soil", "leaf"))
COLOR = DataConfig("folder", ".", CLASSES, COLORS, mask_format="color", ignore_color=(255, 255, 255))


def write_clean(root: Path) -> None:
    """Flat layout with lists: five images with different pixels, all with the same index mask."""
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for split, names in LISTS.items():
        (root / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (*MASK.shape, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"{name}.png")
            write_mask(root, name, MASK)


def write_mask(root: Path, name: str, mask: Pixels) -> None:
    Image.fromarray(mask).save(root / "masks" / f"{name}.png")


def check_root(root: Path, config: DataConfig = INDEX) -> DataReport:
    return check_data(data_source(replace(config, root=str(root))), progress=False)


def in_every_mask(change: Callable[[Pixels], Pixels]) -> Callable[[Path], object]:
    def apply(root: Path) -> None:
        for path in (root / "masks").iterdir():
            Image.fromarray(change(np.array(Image.open(path)))).save(path)

    return apply


def colored(mask: Pixels) -> Pixels:
    return np.array([*COLORS, (255, 255, 255)], np.uint8)[np.minimum(mask, 3)]


def stray(root: Path) -> None:
    mask = MASK.copy()
    mask[0, :3], mask[1, 0] = 7, 9
    write_mask(root, "d", mask)


def stray_color(root: Path) -> None:
    in_every_mask(colored)(root)
    mask = colored(MASK)
    mask[0, :3] = 1, 2, 3
    write_mask(root, "d", mask)


def shift(root: Path) -> None:
    in_every_mask(lambda mask: np.where(mask == 255, mask, mask + 1))(root)
    write_mask(root, "a", np.ones_like(MASK))


def resize_smoothly(root: Path) -> None:
    small = Image.fromarray(MASK[::2, ::2])
    small.resize((140, 100), Image.Resampling.BICUBIC).save(root / "masks" / "a.png")


def compress(root: Path) -> None:
    y, x = np.mgrid[:100, :140]
    disc = np.where(np.hypot(x - 70, y - 50) < 33, 255, 1).astype(np.uint8)
    Image.fromarray(disc).save(root / "once.jpg", quality=60)
    Image.open(root / "once.jpg").save(root / "masks" / "a.png")


def smooth_colors(root: Path) -> None:
    in_every_mask(colored)(root)
    small = Image.fromarray(colored(MASK[::2, ::2]))
    small.resize((140, 100), Image.Resampling.BICUBIC).save(root / "masks" / "a.png")


def leave_out_stem(root: Path) -> None:
    for name in LISTS["train"]:
        write_mask(root, name, MASK % 2)


def save_as_jpg(root: Path) -> None:
    Image.fromarray(np.zeros_like(MASK)).save(root / "masks" / "a.jpg")
    (root / "masks" / "a.png").unlink()


def save_as_jpg_called_png(root: Path) -> None:
    Image.fromarray(np.zeros_like(MASK)).save(root / "masks" / "a.png", format="JPEG")


def resize_mask(root: Path) -> None:
    write_mask(root, "a", MASK[:, :120])


def rotate_by_exif(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(root / "images" / "a.png")
    image.save(root / "images" / "a.png", exif=exif)


def truncate(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:60])


def append(split: str, line: str) -> Callable[[Path], object]:
    return lambda root: (root / f"{split}.txt").write_text("\n".join([*LISTS[split], line]))


def copy(old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / new).write_bytes((root / old).read_bytes())


def remove(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).unlink()


class Case(NamedTuple):
    """A fault, and for each finding its problem, split, file name, and a part of its detail."""

    damage: Callable[[Path], object]
    expected: list[tuple[Problem, str, str | None, str]]
    config: DataConfig = INDEX


def in_all(problem: Problem, detail: str) -> list[tuple[Problem, str, str | None, str]]:
    return [(problem, split, f"{name}.png", detail) for split, names in LISTS.items() for name in names]


def rename_in_latin_1(root: Path) -> None:
    for file in root.glob("*.txt"):
        file.unlink()  # lists are UTF-8
    for kind in ("images", "masks"):
        (root / kind / "b.png").rename(root / kind / "stra\udcdfe.png")


def move(old: str, new: str) -> Callable[[Path], object]:
    def apply(root: Path) -> None:
        (root / new).parent.mkdir(exist_ok=True)
        (root / old).rename(root / new)

    return apply


def without_lists(damage: Callable[[Path], object]) -> Callable[[Path], object]:
    def apply(root: Path) -> None:
        for path in root.glob("*.txt"):
            path.unlink()
        damage(root)

    return apply


def swap_palette(root: Path) -> None:
    for path in (root / "masks").iterdir():
        order = [0, 2, 1] if path.stem == "c" else [0, 1, 2]
        mask = np.array(Image.open(path))
        image = Image.fromarray(np.where(mask == 255, 255, np.argsort([*order])[np.minimum(mask, 2)]).astype(np.uint8))
        image.putpalette([value for index in order for value in COLORS[index]] + [255] * 759)
        image.save(path)


def smooth(root: Path, name: str) -> Pixels:
    """An image that is not noise, in place of one."""
    pixels = np.array(
        Image.fromarray(np.random.default_rng(5).integers(0, 250, (4, 6, 3), np.uint8)).resize((140, 100))
    )
    Image.fromarray(pixels).save(root / "images" / f"{name}.png")
    return pixels


def cut_out(root: Path) -> None:
    pixels = np.array(Image.open(root / "images" / "a.png").convert("RGBA"))
    pixels[:50, ..., 3] = 0
    Image.fromarray(pixels).save(root / "images" / "a.png")


def save_frames(root: Path) -> None:
    frames = [Image.fromarray(np.full_like(MASK, value)) for value in range(2)]
    frames[0].save(root / "masks" / "a.png", save_all=True, append_images=frames[1:])


def sixteen_bits(root: Path) -> None:
    """Grey of 12 bits, but for e.png, of which some 6 % are beyond all others."""
    for path in (root / "images").iterdir():
        grey = np.array(Image.open(path).convert("L")).astype(np.uint16) * 16
        if path.stem == "e":
            grey[:, :9] += 4096
        Image.fromarray(grey).save(path)


def not_measured(root: Path) -> None:
    for path in (root / "images").iterdir():
        grey = np.array(Image.open(path).convert("L")).astype(np.float32)
        grey[0, 0], grey[:10] = 0, -9999
        grey[10, 0] = 0
        Image.fromarray(grey).save(path.with_suffix(".tif"))
        path.unlink()


CASES = {
    "unknown value": Case(stray, [(problems.UNKNOWN, "val", "d.png", "7 on 3 pixels, 9 on 1 pixels")]),
    "unknown colour": Case(stray_color, [(problems.UNKNOWN, "val", "d.png", "(1, 2, 3) on 3 pixels")], COLOR),
    "shifted": Case(shift, in_all(problems.SHIFTED, "3 on 3500 pixels")[1:]),
    "0 and 255": Case(in_every_mask(lambda mask: np.uint8(255) * (mask == 1)), in_all(problems.BINARY, "255 on 3500")),
    "colours as indices": Case(
        lambda root: write_mask(root, "a", np.where(colored(MASK) == 200, 199, colored(MASK))),
        [(problems.COLORS, "train", "a.png", "4 colours")],
        DataConfig("folder", ".", CLASSES, COLORS),
    ),
    "colours of the classes as indices": Case(
        lambda root: write_mask(root, "a", np.array(COLORS, np.uint8)[MASK % 5 % 3]),
        [(problems.COLORS, "train", "a.png", "3 colours and all of them are in data.colors")],
        DataConfig("folder", ".", CLASSES, COLORS),
    ),
    "smoothly resized": Case(resize_smoothly, [(problems.SMOOTHED, "train", "a.png", "other values on")]),
    "once a JPEG": Case(compress, [(problems.SMOOTHED, "train", "a.png", "other values on")]),
    "anti-aliased colours": Case(smooth_colors, [(problems.SMOOTHED, "train", "a.png", "other values on")], COLOR),
    "JPEG mask": Case(save_as_jpg, [(problems.LOSSY, "train", "a.jpg", "")]),
    "JPEG mask called .png": Case(save_as_jpg_called_png, [(problems.LOSSY, "train", "a.png", "")]),
    "sizes": Case(resize_mask, [(problems.SIZES, "train", "a.png", "120x100, the image 140x100")]),
    "EXIF rotation": Case(rotate_by_exif, [(problems.ROTATED, "train", "a.png", "140x100, the image 100x140")]),
    "no mask": Case(remove("masks/e.png"), [(problems.NO_MASK, "val", "e.png", "")]),
    "no image": Case(remove("images/e.png"), [(problems.NO_IMAGE, "val", "e.png", "")]),
    "neither": Case(append("val", "ghost"), [(problems.NO_FILES, "val", None, "ghost")]),
    "two images of a name": Case(
        lambda root: Image.new("RGB", (140, 100)).save(root / "images" / "a.bmp"),
        [(problems.AMBIGUOUS, "train", "a.bmp", "also a.png")],
    ),
    "two masks of a name": Case(
        copy("masks/a.png", "masks/a.tif"), [(problems.AMBIGUOUS, "train", "a.png", "also a.tif")]
    ),
    "truncated image": Case(truncate("images/a.png"), [(problems.UNREADABLE, "train", "a.png", "cannot be read")]),
    "truncated mask": Case(truncate("masks/a.png"), [(problems.UNREADABLE, "train", "a.png", "cannot be read")]),
    "empty split": Case(lambda root: (root / "val.txt").write_text(""), [(problems.EMPTY, "val", None, "")]),
    "name in Latin-1": Case(rename_in_latin_1, [(problems.NO_TEXT, "val", None, r"'stra\udcdfe'")]),
    "listed twice": Case(append("train", "b"), [(problems.LISTED_TWICE, "train", None, "b, 2 times")]),
    "listed in two splits": Case(append("val", "b"), [(problems.SHARED, "val", "b.png", "images/b.png")]),
    "same bytes in two splits": Case(
        copy("images/b.png", "images/d.png"), [(problems.SHARED, "val", "d.png", "also in train, ")]
    ),
    "same bytes in a split": Case(
        copy("images/a.png", "images/c.png"), [(problems.REPEATED, "train", "c.png", "images/a.png")]
    ),
    "one mask of 0 and 255": Case(
        lambda root: write_mask(root, "b", np.uint8(255) * (MASK == 1)),
        [(problems.ONE_BINARY, "train", "b.png", "255 on 3500 pixels")],
    ),
    "masks of two sorts": Case(
        lambda root: (
            in_every_mask(lambda mask: np.uint8(255) * (mask == 1))(root),
            write_mask(root, "b", np.where(MASK == 255, np.uint8(0), MASK)),
        ),
        [
            (problems.MIXED, split, f"{name}.png", "255 on 3500 pixels")
            for split, names in LISTS.items()
            for name in names
            if name != "b"
        ]
        + [(problems.ONE_CLASS, "val", None, "soil")],
    ),
    "no list of val": Case(lambda root: (root / "val.txt").unlink(), [(problems.NO_SPLIT, "val", None, "")]),
    "an image in no split": Case(
        lambda root: (root / "data.csv").write_text(
            "image,mask,split\n"
            + "".join(
                f"images/{name}.png,masks/{name}.png,{'' if name == 'c' else split}\n"
                for split, names in LISTS.items()
                for name in names
            )
        ),
        [(problems.SPARE, "all", None, "1 images")],
    ),
    "a value for where nothing was measured": Case(
        not_measured,
        [(problems.OUTLYING, "train", None, "channel 0: -9999 on 10.0% of the pixels, all others 0 to ")],
        replace(INDEX, images=ImageReading(channels=1)),
    ),
    "palettes that differ": Case(
        swap_palette, [(problems.PALETTES, "train", "c.png", "(200, 20, 30) is 1 here and 2 in a")]
    ),
    "palettes against the colours that were named": Case(
        swap_palette,
        [(problems.PALETTES, "train", "c.png", "1 has the colour of 'stem', 2 has the colour of 'leaf'")],
        DataConfig("folder", ".", CLASSES, COLORS),
    ),
    "much the same image": Case(
        lambda root: Image.fromarray(smooth(root, "a").astype(np.uint8) + np.uint8(1)).save(root / "images" / "d.png"),
        [
            (problems.ALIKE, "val", None, "1 of 2 images (50.0%)"),
            (problems.ALIKE, "val", "d.png", "images/a.png of train"),
        ],
    ),
    "transparent pixels": Case(cut_out, [(problems.TRANSPARENT, "train", "a.png", "")]),
    "two frames": Case(save_frames, [(problems.UNREADABLE, "train", "a.png", "2 pages or frames")]),
    "in a subfolder": Case(
        without_lists(
            lambda root: (move("images/e.png", "images/x/e.png")(root), move("masks/e.png", "masks/x/e.png")(root))
        ),
        [],
    ),
    "another format": Case(
        without_lists(
            lambda root: (
                Image.open(root / "images" / "d.png").save(root / "images" / "d.tga"),
                (root / "images" / "d.png").unlink(),
            )
        ),
        [(problems.NO_IMAGE, "val", "d.png", ""), (problems.OTHER_FORMAT, "all", "d.tga", "")],
    ),
    "nothing to train on": Case(
        lambda root: [write_mask(root, name, np.full_like(MASK, 255)) for name in LISTS["train"]],
        [
            *[(problems.UNLABELLED, "train", f"{name}.png", "") for name in LISTS["train"]],
            (problems.NO_LABELS, "train", None, ""),
        ],
    ),
    "a split of one class": Case(
        lambda root: [write_mask(root, name, np.zeros_like(MASK)) for name in LISTS["val"]],
        [(problems.ONE_CLASS, "val", None, "soil")],
    ),
    "a class that is nowhere": Case(
        in_every_mask(lambda mask: np.where(mask == 2, 0, mask)), [(problems.NOWHERE, "all", None, "stem")]
    ),
    "absent class": Case(leave_out_stem, [(problems.ABSENT, "train", None, "stem")]),
    "another camera": Case(
        sixteen_bits,
        [(problems.OUTSIDE, "val", "e.png", "channel 0: more than 5 % of its pixels are from 5")],
        replace(INDEX, images=ImageReading(channels=1)),
    ),
    "nothing labelled": Case(
        lambda root: write_mask(root, "e", np.full_like(MASK, 255)), [(problems.UNLABELLED, "val", "e.png", "")]
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_fault_is_found_and_nothing_else(tmp_path: Path, case: Case) -> None:
    write_clean(tmp_path)
    case.damage(tmp_path)
    found = check_root(tmp_path, case.config).findings
    brief = [(finding.problem, finding.split, finding.path and finding.path.name) for finding in found]
    assert brief == [expected[:3] for expected in case.expected]
    for finding, expected in zip(found, case.expected, strict=True):
        assert expected[3] in finding.detail


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    class Twice(Source):
        labels, splits = LabelSet(CLASSES), ("train",)

        def records(self, split: str) -> list[Record]:
            return [Record("0", tmp_path / folder / "0.png", tmp_path / "0.png") for folder in "xy"]

    for path in ("0.png", "x/0.png", "y/0.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.fromarray(MASK).save(tmp_path / path)
    found = [one for one in check_data(Twice(), progress=False).findings if one.problem is problems.AMBIGUOUS]
    assert [(one.path, one.detail) for one in found] == [(tmp_path / "x/0.png", f"also {tmp_path / 'y/0.png'}")]


def test_every_kind_of_problem_has_a_case() -> None:
    kinds = {problem for problem in vars(problems).values() if isinstance(problem, Problem)}
    # What is odd in annotations is for tests/data/formats.
    assert kinds - {problems.ODD} == {expected[0] for case in CASES.values() for expected in case.expected}


def test_0_and_255_are_found_whatever_is_ignored(tmp_path: Path) -> None:
    write_clean(tmp_path)
    in_every_mask(lambda mask: np.uint8(255) * (mask == 1))(tmp_path)
    config = DataConfig("folder", ".", CLASSES, ignore_index=200)
    assert {finding.problem for finding in check_root(tmp_path, config).findings} == {problems.BINARY}


@pytest.mark.parametrize(("config", "change"), [(INDEX, lambda mask: mask), (COLOR, colored)])
def test_clean_set(tmp_path: Path, config: DataConfig, change: Callable[[Pixels], Pixels]) -> None:
    write_clean(tmp_path)
    in_every_mask(change)(tmp_path)
    report = check_root(tmp_path, config)
    assert report.findings == []
    assert str(report).endswith("nothing wrong")


def test_files_that_are_not_used_are_counted(tmp_path: Path) -> None:
    write_clean(tmp_path)
    for name in ("images/x.png", "images/y.jpg", "masks/x.png", "notes.md", "images/.hidden.png"):
        (tmp_path / name).write_bytes(b"")
    report = check_root(tmp_path)
    assert report.unused == {"images": 2, "masks": 1}
    assert report.findings == []
    assert "2 in images" in str(report)


class Striped(Source):
    """A stranger's source: it makes its images, the last of them twice, and none has a post."""

    labels = LABELS
    splits = ("train", "val")

    def records(self, split: str) -> list[Record]:
        return [Record(f"{split} {name}") for name in "abc"]

    def read(self, record: Record) -> Sample:
        index = int(record.name[-1] != "a")
        image, mask, _ = Scenes().open("train")[index]
        return Sample(image, mask.where(mask != LABELS.names.index("post"), torch.tensor(0)), record.name)


def test_a_source_that_reads_in_its_own_way_is_checked_by_what_it_reads() -> None:
    found = check_data(Striped(), progress=False)
    assert found.images == {"train": 3, "val": 3}
    assert found.pixels["train"].sum() == 3 * 128 * 160
    kinds = Counter(finding.problem for finding in found.findings)
    assert (kinds[problems.REPEATED], kinds[problems.SHARED]) == (1, 3)
    assert "post" in [finding.detail for finding in found.findings if finding.problem == problems.NOWHERE]


@pytest.mark.parametrize(
    ("shape", "mask", "problem", "detail"),
    [
        ((4, 9, 9), torch.full((9, 9), 7), problems.UNKNOWN, "odd: 7 on 81 pixels"),
        ((1, 9, 9), torch.full((9, 9), 255), problems.UNLABELLED, "odd"),
        ((3, 9, 8), torch.zeros(9, 9, dtype=torch.int64), problems.UNREADABLE, "odd: an image of"),
        ((3, 9, 9), torch.zeros(9, 9, dtype=torch.uint8), problems.UNREADABLE, "torch.uint8"),
    ],
)
def test_what_a_source_reads_wrongly_is_named(
    shape: tuple[int, ...], mask: torch.Tensor, problem: Problem, detail: str
) -> None:
    class Odd(Striped):
        splits = ("test",)

        def records(self, split: str) -> list[Record]:
            return [Record("odd")]

        def read(self, record: Record) -> Sample:
            return Sample(torch.zeros(shape), mask, record.name)

    Odd.labels = LabelSet(("a", "b"))
    finding = check_data(Odd(), progress=False).findings[0]
    assert (finding.problem, finding.split, finding.path) == (problem, "test", None)
    assert detail in finding.detail


@pytest.mark.parametrize(
    ("low", "high", "range_text"), [(0.0, 254.5, "0 to 254.5"), (-2.0, 1.0, "-2 to 1"), (0.0, float("nan"), "nan")]
)
def test_floats_outside_0_to_1_are_no_image(low: float, high: float, range_text: str) -> None:
    class Bright(Striped):
        def read(self, record: Record) -> Sample:
            image = torch.tensor([low, high]).expand(3, 4, 2)
            return Sample(image, torch.zeros(4, 2, dtype=torch.int64), record.name)

    found = check_data(Bright(), progress=False)
    unreadable = [finding for finding in found.errors if finding.problem == problems.UNREADABLE]
    assert [finding.detail.partition(":")[0] for finding in unreadable] == [
        one.name for one in (*Bright().records("train"), *Bright().records("val"))
    ]
    assert all(range_text in finding.detail and "255" in finding.detail for finding in unreadable)
    with pytest.raises(DataError, match=range_text):
        Bright().open("train")[0]


class Films(Source):
    """Files of a folder in which pixels are marked as invalid, and images belong to films."""

    labels = LabelSet(CLASSES)
    splits = ("train", "val")

    def __init__(self, root: Path, films: dict[str, str]) -> None:
        self.root, self.films = root, films

    def records(self, split: str) -> list[Record]:
        return [
            Record(
                name,
                self.root / "images" / f"{name}.png",
                self.root / "masks" / f"{name}.png",
                self.root / "valid.png",
                self.films[name],
            )
            for name in LISTS[split]
        ]


def test_groups_and_invalid_pixels_of_records(tmp_path: Path) -> None:
    write_clean(tmp_path)
    valid = np.ones_like(MASK)
    valid[:10] = 0
    Image.fromarray(valid).save(tmp_path / "valid.png")
    films = Films(tmp_path, {name: name for name in "abcde"})
    for _ in range(2):  # the second time from what was kept
        report = check_data(films, progress=False)
        assert report.findings == []
        assert report.pixels["val"].tolist() == [2 * 40 * 70, 2 * 40 * 70, 2 * QUARTER]
        assert report.ignored["val"] == 2 * (QUARTER + 10 * 140)
    assert (films.open("train")[0].mask[:10] == 255).all()
    leaky = Films(tmp_path, {"a": "1", "b": "1", "c": "2", "d": "2", "e": "3"})
    shared = check_data(leaky, progress=False).errors
    assert [(one.problem, one.path and one.path.name, one.detail) for one in shared] == [
        (problems.SHARED, "d.png", "group 2 is also in train")
    ]
    with pytest.raises(DataError, match="also in val: group 2"):
        leaky.open("train")


def test_a_file_that_changed_is_decoded_again_and_only_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANET_CACHE", str(tmp_path / "cache"))
    photos = tmp_path / "photos"
    photos.mkdir()
    write_clean(photos)
    decoded: list[str] = []

    def counted(kind: str) -> None:
        place = facts if kind == "image" else source
        real = getattr(place, f"load_{kind}")
        monkeypatch.setattr(
            place, f"load_{kind}", lambda path, *rest: decoded.append(f"{kind} {path.stem}") or real(path, *rest)
        )

    counted("image")
    counted("mask")
    check_root(photos)
    assert len(decoded) == 10
    decoded.clear()
    check_root(photos)  # what has just been written may change without another time
    assert len(decoded) == 10
    monkeypatch.setattr(facts, "UNSETTLED", 0)
    first = check_root(photos)
    decoded.clear()
    assert str(check_root(photos)) == str(first)
    assert decoded == []
    path = photos / "masks" / "b.png"
    before, size = path.stat(), path.stat().st_size
    path.write_bytes(path.read_bytes()[:-20].ljust(size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [finding.path for finding in check_root(photos).findings] == [path]
    assert set(decoded) == {"image b", "mask b"}
    images = Films(photos, {name: name for name in "abcde"})
    both = [replace(record, image=record.mask, valid=None) for record in images.records("val")]
    images.records = lambda split: both[:1] if split == "val" else []  # type: ignore[method-assign]
    for _ in range(2):  # a file may be an image and a mask
        assert check_data(images, progress=False).images == {"train": 0, "val": 1}
    for file in (tmp_path / "cache").iterdir():
        file.write_text("{")
    decoded.clear()
    check_root(photos)
    assert len(decoded) >= 10


def test_several_faults_at_once_are_all_listed(tmp_path: Path) -> None:
    write_clean(tmp_path)
    stray(tmp_path)
    for name in ("truncated image", "listed twice", "no image", "neither", "two images of a name"):
        CASES[name].damage(tmp_path)
    write_mask(tmp_path, "b", MASK[:20])
    write_mask(tmp_path, "c", colored(MASK))
    report = check_root(tmp_path)
    found = {(finding.problem, finding.path and finding.path.name) for finding in report.findings}
    assert found == {
        (problems.UNREADABLE, "a.png"),
        (problems.AMBIGUOUS, "a.bmp"),
        (problems.SIZES, "b.png"),
        (problems.LISTED_TWICE, None),
        (problems.COLORS, "c.png"),
        (problems.UNKNOWN, "d.png"),
        (problems.NO_IMAGE, "e.png"),
        (problems.NO_FILES, None),
    }


def test_report_names_every_file_value_and_remedy(tmp_path: Path) -> None:
    write_clean(tmp_path)
    in_every_mask(lambda mask: np.where(mask == 2, 40, mask).astype(np.uint8))(tmp_path)
    CASES["no mask"].damage(tmp_path)
    report = str(check_root(tmp_path))
    assert "a.png, b.png, c.png: 40 on 3500 pixels" in report
    assert f"  val, {tmp_path / 'masks'}\n    d.png: 40 on 3500 pixels" in report
    assert f"ERROR: {problems.UNKNOWN.title} (4)\nRemedy: {problems.UNKNOWN.remedy}\n" in report
    assert f"ERROR: {problems.NO_MASK.title} (1)\nRemedy: {problems.NO_MASK.remedy}\n" in report
    assert f"  val, {tmp_path / 'images'}\n    e.png\n" in report
    assert f"WARNING: {problems.NOWHERE.title} (1)" in report
    assert report.endswith("errors: 5, warnings: 1")


def test_long_lists_stay_complete_and_names_whole(tmp_path: Path) -> None:
    write_clean(tmp_path)
    names = [f"a-rather-long-name-{index:03d}" for index in range(60)]
    (tmp_path / "train.txt").write_text("\n".join(["a", *names]))
    for name in names:
        write_mask(tmp_path, name, MASK)
    report = str(check_root(tmp_path))
    assert all(f"{name}.png" in report for name in names)
    assert max(map(len, report.splitlines())) < 250


def test_summary_agrees_with_a_count_by_hand(tmp_path: Path) -> None:
    write_clean(tmp_path)
    rng, masks = np.random.default_rng(0), {}
    for name in LISTS["train"]:
        masks[name] = rng.choice(np.array([0, 1, 2, 255], np.uint8), MASK.shape)
        write_mask(tmp_path, name, masks[name])
    Image.new("RGB", (20, 10)).save(tmp_path / "images" / "d.png")
    write_mask(tmp_path, "d", MASK[:10, :20])
    report = check_root(tmp_path)
    counted = [sum(int((mask == index).sum()) for mask in masks.values()) for index in (0, 1, 2, 255)]
    assert report.pixels["train"].dtype == np.int64
    assert [*report.pixels["train"].tolist(), report.ignored["train"]] == counted
    assert report.images == {"train": 3, "val": 2}
    assert report.sizes == {"train": ((140, 100), (140, 100)), "val": ((20, 10), (140, 100))}
    rows = [line.split() for line in report.table().splitlines()]
    assert rows[:4] == [
        ["train", "val"],
        ["images", "3", "2"],
        ["smallest", "140x100", "20x10"],
        ["largest"] + ["140x100"] * 2,
    ]
    assert rows[4] == ["soil", f"{counted[0] / sum(counted[:3]):.2%}", f"{(200 + QUARTER) / (200 + 3 * QUARTER):.2%}"]
    assert rows[7] == ["ignored", f"{counted[3] / sum(counted):.2%}", f"{QUARTER / (200 + 4 * QUARTER):.2%}"]


def test_warnings_are_no_errors(tmp_path: Path) -> None:
    write_clean(tmp_path)
    CASES["absent class"].damage(tmp_path)
    report = check_root(tmp_path)
    assert len(report.findings) == 1
    assert report.errors == []


def test_a_link_to_an_image_of_another_split_is_found(tmp_path: Path) -> None:
    write_clean(tmp_path)
    (tmp_path / "images" / "d.png").unlink()
    (tmp_path / "images" / "d.png").symlink_to("a.png")
    assert [(one.problem, one.split) for one in check_root(tmp_path).findings] == [(problems.SHARED, "val")]


def test_no_file_is_changed(tmp_path: Path) -> None:
    write_clean(tmp_path)
    for name in ("unknown value", "truncated image", "sizes", "two images of a name"):
        CASES[name].damage(tmp_path)

    def state() -> dict[Path, tuple[bytes, int]]:
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        return {path: (sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) for path in files}

    before = state()
    check_root(tmp_path)
    assert state() == before
