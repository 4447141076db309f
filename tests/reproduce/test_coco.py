"""COCO with VOC's classes: masks are drawn as the annotations say, and are whole or not there."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as tools

from miniatures import COCO_IDS, OTHER_IDS, SIZE, rectangle, run_lengths, write_coco
from reproduce import coco
from sanet.data import voc
from sanet.data.check import check_data
from sanet.structures import SanetError

HEIGHT, WIDTH = SIZE
CLASSES = {number: index for index, number in enumerate(COCO_IDS.values(), 1)}


def open_root(root: Path, allow_subset: bool = True) -> coco.COCO:
    return coco.COCO(str(root), allow_subset)


def annotation(outline: Any, category: int = 1, crowd: int = 0, number: int = 1) -> dict[str, Any]:
    return {"id": number, "category_id": category, "segmentation": outline, "iscrowd": crowd}


def files_below(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_miniature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = write_coco(tmp_path)
    assert coco.render_masks(tmp_path) == tmp_path / "coco" / "voc_masks"
    assert "4/4" in capsys.readouterr().err
    found = open_root(tmp_path)
    assert found.labels == voc.LABELS
    names = {split: found.open(split).names for split in found.splits}
    assert {split: len(listed) for split, listed in names.items()} == {"train": 3, "val": 2}
    for split, listed in names.items():
        dataset = pickle.loads(pickle.dumps(found.open(split)))
        for index, name in enumerate(listed):
            np.testing.assert_array_equal(dataset[index].mask.numpy(), masks[name])
    assert {finding.problem.severity for finding in check_data(found, progress=False).findings} <= {"warning"}
    with Image.open(tmp_path / "coco" / "voc_masks" / "train2017" / f"{names['train'][0]}.png") as picture:
        assert picture.mode == "P"
        assert picture.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
    assert coco.render_masks(tmp_path / "coco", progress=False)
    assert open_root(tmp_path / "coco").open("val").names == names["val"]


def test_categories_are_vocs() -> None:
    categories = [{"id": number, "name": name} for name, number in {**COCO_IDS, **OTHER_IDS}.items()]
    assert coco.classes_by_category(categories) == CLASSES
    with pytest.raises(SanetError, match="no category for tvmonitor"):
        coco.classes_by_category([category for category in categories if category["name"] != "tv"])


@given(
    boxes=st.lists(
        st.tuples(
            st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1), st.integers(1, WIDTH), st.integers(1, HEIGHT),
            st.sampled_from([*COCO_IDS.values(), *OTHER_IDS.values()]), st.booleans(), st.integers(0, 3),
        ),
        max_size=7,
    )
)  # fmt: skip
def test_order_against_a_loop_over_pixels(boxes: list[tuple[int, int, int, int, int, bool, int]]) -> None:
    objects, drawn = [], []
    for number, (left, top, width, height, category, crowd, form) in enumerate(boxes):
        pixels = np.zeros(SIZE, bool)
        pixels[top : top + height, left : left + width] = True
        outline: Any = [rectangle(left, top, min(left + width, WIDTH), min(top + height, HEIGHT))]
        if form == 1:
            outline = run_lengths(pixels)
        elif form == 2:
            outline = tools.encode(np.asfortranarray(pixels.astype(np.uint8)))
        elif form == 3:
            encoded = tools.encode(np.asfortranarray(pixels.astype(np.uint8)))
            outline = {**encoded, "counts": encoded["counts"].decode()}
        objects.append(annotation(outline, category, int(crowd), number))
        drawn.append((pixels, category, crowd, number))
    mask = coco.render(objects, *SIZE, CLASSES)
    for row, column in np.ndindex(*SIZE):
        # The one of fewest pixels, of equals the last; below all objects lie the crowds.
        here = [entry for entry in drawn if entry[0][row, column] and entry[1] in CLASSES]
        here.sort(key=lambda entry: (not entry[2], -int(entry[0].sum()), entry[3]))
        expected = 0
        if here:
            pixels, category, crowd, _ = here[-1]
            expected = 255 if crowd or pixels.sum() < coco.TINY_OBJECT else CLASSES[category]
        assert mask[row, column] == expected


def inside(polygon: list[float], x: float, y: float) -> bool:
    """The even-odd rule: a ray to the right crosses the outline an odd number of times."""
    crossings = 0
    corners = list(zip(polygon[::2], polygon[1::2], strict=True))
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
            crossings += 1
    return crossings % 2 == 1


def outline_distance(polygon: list[float], x: float, y: float) -> float:
    corners = np.array(polygon).reshape(-1, 2)
    distances = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = end - start
        share = np.clip(np.dot([x, y] - start, along) / max(np.dot(along, along), 1e-9), 0, 1)
        distances.append(np.hypot(*(start + share * along - [x, y])))
    return float(min(distances))


@pytest.mark.slow
@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(3, 9))
def test_polygons_against_the_even_odd_rule(seed: int, corners: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    reach = rng.uniform(4, 11, corners)
    polygon = np.stack([15 + reach * np.cos(angles), 12 + reach * np.sin(angles)], axis=1).ravel().tolist()
    other = rectangle(26, 1, 29, 22)
    drawn = coco.object_pixels(annotation([polygon, other, [1.0, 1.0, 5.0, 5.0]]), 24, 30)
    for row, column in np.ndindex(24, 30):
        x, y = column + 0.5, row + 0.5
        if outline_distance(polygon, x, y) > 1:
            assert drawn[row, column] == (inside(polygon, x, y) or inside(other, x, y))


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ({"size": [4, 5], "counts": [3, 4]}, "cannot be drawn"),
        ({"size": [4, 5], "counts": [23, -3]}, "cannot be drawn"),
        ({"size": [5, 4], "counts": [20]}, r"its size is \[5, 4\]"),
        ({"size": [4, 5], "counts": ""}, "cannot be drawn"),
        ({"size": [4, 5], "counts": "PP"}, "cannot be drawn"),
        ({"size": [4, 5], "counts": "4"}, "cannot be drawn"),
        ({"counts": [20]}, "'size'"),
        ([[0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0]], "pairs of numbers"),
        ([[0.0, 0.0, 1.0, float("nan"), 2.0, 2.0]], "pairs of numbers"),
        ([[0.0, 0.0, 1e9, 1e9, 2.0, 2.0]], "pairs of numbers"),
        ([["a", 0.0, 1.0, 1.0, 2.0, 2.0]], "cannot be drawn"),
        (None, "cannot be drawn"),
    ],
)
def test_outlines_that_cannot_be_drawn(outline: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"annotation 77 of 4x5 pixels .*{message}"):
        coco.object_pixels(annotation(outline, number=77), 4, 5)


def test_an_object_without_outline_is_nothing() -> None:
    assert not coco.object_pixels(annotation([]), 4, 5).any()
    assert not coco.object_pixels(annotation([[1.0, 1.0, 3.0, 3.0]]), 4, 5).any()


@pytest.mark.parametrize(("height", "kept"), [(25, False), (26, True)])
def test_the_smallest_content_that_is_kept(tmp_path: Path, height: int, kept: bool) -> None:
    """Pixels of the 20 classes count; ignored ones and background do not."""
    write_coco(tmp_path)
    path = tmp_path / "coco" / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    number = content["images"][0]["id"]
    content["annotations"] = [
        {**annotation([rectangle(0, 0, 40, height)], 18), "image_id": number},
        {**annotation(run_lengths(np.ones(SIZE, bool)), 1, crowd=1, number=2), "image_id": number},
    ]
    path.write_text(json.dumps(content))
    coco.render_masks(tmp_path, progress=False)
    assert [path.name for path in (tmp_path / "coco" / "voc_masks" / "train2017").glob("*.png")] == (
        [f"{number:012d}.png"] if kept else []
    )


def test_rendering_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = write_coco(tmp_path, train=6)
    folder, draw, drawn = tmp_path / "coco" / "voc_masks", coco.render, 0

    def until_interrupted(*given: Any) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn == 4:
            raise KeyboardInterrupt
        return draw(*given)

    monkeypatch.setattr(coco, "render", until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        coco.render_masks(tmp_path, progress=False)
    assert [path.name for path in folder.iterdir()] == ["train2017.part"]
    with pytest.raises(SanetError, match=r"train2017 does not exist.*coco-masks"):
        open_root(tmp_path)
    whole = sorted((folder / "train2017.part").glob("*.png"))
    assert len(whole) == 3
    whole[0].write_bytes(whole[0].read_bytes()[:80])
    before = [path.stat().st_mtime_ns for path in whole]
    monkeypatch.setattr(coco, "render", draw)
    coco.render_masks(tmp_path, progress=False)
    after = [(folder / "train2017" / path.name).stat().st_mtime_ns for path in whole]
    assert before[1:] == after[1:]
    assert before[0] != after[0]
    dataset = open_root(tmp_path).open("train")
    assert len(dataset) == 6
    for index, name in enumerate(dataset.names):
        np.testing.assert_array_equal(dataset[index].mask.numpy(), masks[name])
    assert sorted(path.name for path in folder.iterdir()) == ["train2017", "val2017"]
    state = files_below(folder)
    coco.render_masks(tmp_path, progress=False)
    assert files_below(folder) == state


def test_masks_that_are_not_those_that_were_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(tmp_path)
    folder = coco.render_masks(tmp_path, progress=False)
    with pytest.raises(SanetError, match=r"train2017 .*4 .*118287"):
        open_root(tmp_path, allow_subset=False)
    monkeypatch.setattr(coco, "COUNTS", {"train": 4, "val": 3})
    open_root(tmp_path, allow_subset=False)
    monkeypatch.setattr(coco, "TINY_OBJECT", 7)
    with pytest.raises(SanetError, match=r"tells of others; delete the folder"):
        open_root(tmp_path)
    monkeypatch.undo()
    next((folder / "val2017").glob("*.png")).unlink()
    with pytest.raises(SanetError, match=r"val2017 has 1 masks, but rendered\.json tells of others"):
        open_root(tmp_path)
    (folder / "val2017" / "rendered.json").write_text(json.dumps({"masks": 1, **coco._rules()}))
    with pytest.raises(SanetError, match=r"val2017 has 1 masks, but rendered\.json tells of others"):
        open_root(tmp_path)
    (folder / "val2017" / "rendered.json").unlink()
    with pytest.raises(SanetError, match=r"rendered\.json does not exist"):
        open_root(tmp_path)


def test_published_counts() -> None:
    assert coco.COUNTS == {"train": 118287, "val": 5000}
    assert coco.SMALLEST_CONTENT == 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is not what COCO's files are like"),
        ('{"images": [], "annotations": []}', "has no 'categories'"),
        ('{"images": null, "annotations": [], "categories": []}', r"json: no category for aeropl"),
        ('{"images": [], "annotations": [], "categories": [[1]]}', "is not what COCO's files are like"),
        ('{"images": [], "annotations": [], "categories": []}', r"instances_train2017\.json: no category for aeropl"),
        (None, "does not exist"),
    ],
)
def test_damaged_annotations_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    write_coco(tmp_path)
    path = tmp_path / "coco" / "annotations" / "instances_train2017.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(SanetError, match=message) as caught:
        coco.render_masks(tmp_path, progress=False)
    assert "instances_train2017.json" in str(caught.value)


def test_a_damaged_outline_names_its_picture(tmp_path: Path) -> None:
    write_coco(tmp_path)
    path = tmp_path / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [["x"] * 6]
    path.write_text(json.dumps(content))
    with pytest.raises(SanetError, match=r"instances_val2017\.json: image 000000000139\.jpg: annotation 139000"):
        coco.render_masks(tmp_path, progress=False)
    content["annotations"][0]["segmentation"] = {"size": list(SIZE), "counts": [10**30]}
    path.write_text(json.dumps(content))
    with pytest.raises(SanetError, match=r"image 000000000139\.jpg: annotation 139000 .* cannot be drawn"):
        coco.render_masks(tmp_path, progress=False)
    for missing in ("segmentation", "id"):
        fewer = {key: value for key, value in content["annotations"][0].items() if key != missing}
        path.write_text(json.dumps({**content, "annotations": [fewer]}))
        with pytest.raises(SanetError, match=rf"image 000000000139\.jpg: an annotation has no '{missing}'"):
            coco.render_masks(tmp_path, progress=False)
    for missing in ("id", "file_name", "height", "width"):
        fewer = {key: value for key, value in content["images"][0].items() if key != missing}
        path.write_text(json.dumps({**content, "images": [fewer], "annotations": []}))
        with pytest.raises(SanetError, match=rf"instances_val2017\.json has no '{missing}'"):
            coco.render_masks(tmp_path, progress=False)


def test_missing_images_and_folders(tmp_path: Path) -> None:
    with pytest.raises(SanetError, match=r"has no coco/ with train2017 and val2017"):
        open_root(tmp_path)
    write_coco(tmp_path)
    coco.render_masks(tmp_path, progress=False)
    (tmp_path / "coco" / "train2017" / "000000000009.jpg").unlink()
    with pytest.raises(SanetError, match="000000000009 has no image"):
        open_root(tmp_path).open("train")
