"""Splits by group: no group is divided, no image is lost, shares are met where groups allow it, names alone decide."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanet.config import DataConfig
from sanet.data.decoding import DataError
from sanet.data.source import Record
from sanet.data.splits import SLACK, Split, divided, in_group, origin_of, split_names
from sanet.structures import UsageError

SPLIT = {"val": 0.2}

# As Roboflow, CamVid, photographs of plants and PASCAL VOC have them.
ROBOFLOW = [
    "frame_0000_jpg.rf.47489573fed1f7905c5e674ac418ec7f",
    "frame_0000_jpg.rf.98ca5d19de6b736e8193511efc61eb26",
    "frame_0000_jpg.rf.ca97bf9454a74add779a254108f51f86",
    "frame_0001_jpg.rf.37d096e77c02d87b17e132cf3ba994fb",
    "frame_0001_jpg.rf.65f8b91a17756972a4b8e0d918bb65f9",
    "frame_0001_jpg.rf.9116a27168be8eab437aae81b0aba042",
    "frame_0002_jpg.rf.545449ed6224346d18a32e22a74445cb",
    "frame_0002_jpg.rf.6b5795aed3b779153b1ef719a15c1a3c",
    "frame_0002_jpg.rf.c850591b0c70a23b6df83f8ea76374e7",
]
FILMS = [f"{film}{30 * index:06d}" for film in ("0001TP_", "Seq05VD_f", "0016E5_") for index in range(10)]

PARTS = st.sampled_from(["a", "b7_", "clip2_", "Seq05VD_f", "leaf", ""])
NAMES = st.lists(
    st.one_of(
        st.builds("{}{:04d}".format, PARTS, st.integers(0, 300)),
        st.builds("{}{}_jpg.rf.{:032x}".format, PARTS, st.integers(0, 30), st.integers(0, 9)),
        st.builds("{}{}_aug{}".format, PARTS, st.integers(0, 9), st.integers(0, 9)),
        st.text("abc", min_size=1, max_size=4),
    ),
    min_size=2,
    max_size=60,
    unique=True,
)
SIZES = st.lists(st.integers(1, 12), min_size=2, max_size=9)


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        (ROBOFLOW[0], "frame_0000"),
        ("swiss_IMG_8709-JPG_jpeg.rf.6d491537571ed25971e6ac9de7cf22b5", "swiss_IMG_8709"),
        ("IMG_0718_scaled_1_png_jpg.rf.005f2a1d7ef6a5abfbdd3a6c9e81608d", "IMG_0718"),
        ("field_tile_3_12", "field"),
        ("leaf (2)", "leaf"),
        ("cow_hflip_rot270", "cow"),
        ("crop_001", "crop_001"),
        ("seed_crop_001", "seed_crop_001"),
        ("_flip", "_flip"),
        ("Seq05VD_f02610", "Seq05VD_f02610"),
    ],
)
def test_copies_by_name(name: str, origin: str) -> None:
    assert origin_of(name) == origin


def parts_of(found: Split) -> dict[str, list[str]]:
    """The names of every split, sorted."""
    return {part: sorted(n for n, other in found.parts.items() if other == part) for part in found.parts.values()}


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        ([f"{film}{index}" for film in "abcde" for index in (1, 2)], [f"{film}#" for film in "abcde" for _ in (1, 2)]),
        (["3f2a9", "b81c0", "cow", "cow_flip"], ["3f2a9", "b81c0", "cow", "cow"]),
        (ROBOFLOW, [f"frame_000{index // 3}" for index in range(9)]),
    ],
)
def test_groups_of_real_names(names: list[str], groups: list[str]) -> None:
    assert list(split_names(names, SPLIT).groups.values()) == groups


def test_whole_films_are_held_out_where_there_are_enough_of_them() -> None:
    names = [f"clip{film}_{index:06d}" for film in range(5) for index in range(100)]
    found = parts_of(split_names(names, SPLIT))
    assert {name[:5] for name in found["val"]} & {name[:5] for name in found["train"]} == set()
    assert len(found["val"]) == 100


def test_few_films_are_cut_once_and_copies_of_a_frame_stay_together() -> None:
    assert parts_of(split_names(ROBOFLOW, SPLIT)) == {"train": ROBOFLOW[:6], "val": ROBOFLOW[6:]}
    found = parts_of(split_names(FILMS, SPLIT))
    assert found["val"] == sorted(name for name in FILMS if int(name[-6:]) >= 240)
    frames = [f"frame{index}" for index in range(20)]
    found = parts_of(split_names(sorted(frames), {"val": 0.2, "test": 0.1}))
    assert found["val"] == ["frame16", "frame17", "frame18", "frame19"]
    assert found["test"] == ["frame14", "frame15"]
    folds = [set(parts_of(split_names(frames, {"folds": 4, "fold": fold}))["val"]) for fold in range(4)]
    assert folds == [set(frames[start : start + 5]) for start in range(0, 20, 5)]


def test_kinds_of_images_are_in_both_splits() -> None:
    names = [f"{kind}{index}" for kind in ("cat", "dog", "cow") for index in range(8)]
    for members in parts_of(split_names(names, SPLIT)).values():
        assert {name.rstrip("0123456789") for name in members} == {"cat", "dog", "cow"}


@settings(deadline=None, max_examples=150)
@given(NAMES, st.integers(0, 5), st.sampled_from([SPLIT, {"test": 0.2}, {"val": 0.3, "test": 0.1}]))
def test_properties(names: list[str], seed: int, shares: dict[str, float]) -> None:
    """No group on two sides, every image once, whatever the names, in whatever order."""
    try:
        found = split_names(names, {**shares, "seed": seed})
    except DataError:
        assert len({*map(origin_of, names)}) < 3
        return
    assert found.parts.keys() == found.groups.keys() == set(names)
    assert set(found.parts.values()) == {"train", "val", *shares}
    assert len({(found.groups[name], found.parts[name]) for name in names}) == len(set(found.groups.values()))
    assert len({(origin_of(name), found.parts[name]) for name in names}) == len({origin_of(name) for name in names})
    assert split_names(names[::-1], {**shares, "seed": seed}).parts == found.parts


@settings(deadline=None, max_examples=200)
@given(SIZES, st.integers(0, 5))
def test_groups_stay_whole_and_the_share_is_not_exceeded_where_one_fits(sizes: list[int], seed: int) -> None:
    names = [f"p{group}-{index}" for group, size in enumerate(sizes) for index in range(size)]
    found = split_names(names, {**SPLIT, "seed": seed}, {name: in_group(name, r"p\d+") for name in names})
    held = Counter(found.groups[name] for name, part in found.parts.items() if part == "val")
    assert all(count == sizes[int(group[1:])] for group, count in held.items())
    limit = SLACK * 0.2 * len(names)
    assert sum(held.values()) <= limit or (len(held) == 1 and min(sizes) > limit)


@settings(deadline=None, max_examples=100)
@given(NAMES, st.integers(2, 5))
def test_folds_partition(names: list[str], folds: int) -> None:
    try:
        found = [split_names(names, {"folds": folds, "fold": fold}) for fold in range(folds)]
    except DataError:
        assert len({*map(origin_of, names)}) < 2 * folds
        return
    assert Counter(name for one in found for name in parts_of(one)["val"]) == Counter(names)


def test_a_split_is_the_same_for_ever_and_another_seed_is_another_split() -> None:
    names = [f"{letter}{other}" for letter, other in product("abcdefgh", repeat=2)]
    found = parts_of(split_names(names, SPLIT))
    assert len(found["val"]) == 13
    assert found["val"][:4] == ["ag", "be", "cb", "ch"]
    assert parts_of(split_names(names, SPLIT | {"seed": 1})) != found


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(DataError, match="4 images in 1 groups"):
        split_names(["cow", "cow_flip", "cow_rot90", "cow_aug1"], SPLIT)
    with pytest.raises(DataError, match=r"finds nothing in 'x'"):
        in_group("x", r"p\d")
    with pytest.raises(UsageError, match="no regular expression"):
        in_group("x", "(")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vall": 0.2}, "did you mean 'val'"),
        ({"val": "a"}, "data.split.val"),
        ({"val": 0.9}, "shares of all images"),
        ({"folds": 1}, "2 to 100 folds"),
        ({"folds": 5, "fold": 5}, "a fold from 0 on"),
        ({"folds": 5, "val": 0.2}, "no shares beside them"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split_names(["a", "b"], options)


def test_groups_of_a_table_are_kept_where_splits_are_made() -> None:
    """And without them the names would be cut elsewhere."""
    records = [Record(f"{index:02}", group=f"patient {index % 5}") for index in range(30)]
    found, notes = divided({"": records}, DataConfig("folder", "x"), told=False)
    assert not {record.group for record in found["val"]} & {record.group for record in found["train"]}
    assert len(found["val"]) == 6
    assert "group" in notes[0]
