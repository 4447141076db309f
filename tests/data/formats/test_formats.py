"""Every format gives back what it was given, through its files; and odd or hostile files are named, not obeyed."""

from __future__ import annotations

import json
import resource
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import blobs, opened, save_image, write_export, write_json
from PIL import Image

from sanet import references
from sanet.cli.main import main
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError
from sanet.data.fingerprint import fingerprint
from sanet.data.formats.catalog import FORMATS, annotation_format
from sanet.data.formats.convert import convert
from sanet.data.formats.format import Format
from sanet.data.formats.regions import rasterise
from sanet.data.formats.source import Annotated
from sanet.data.source import Record, Source
from sanet.structures import LabelSet, Sample, UsageError

each_format = pytest.mark.parametrize("name", sorted(FORMATS.builtin))


def samples_in(source):
    return [sample for split in source.splits for sample in source.open(split)]


def masks_in(source):
    """By image, the names of the pixels' classes."""
    names = np.array([*source.labels.names, *["?"] * 300])
    return {sample.name: names[sample.mask.numpy()] for sample in samples_in(source)}


def expected(masks):
    names = np.array(["background", "leaf", "stem", "soil"])
    return {name.rpartition(".")[0]: names[mask] for name, mask in masks.items()}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    assert all((found[name] == wanted[name]).all() for name in wanted)


@each_format
def test_a_format_is_recognised_and_gives_back_what_was_written(name, tmp_path):
    masks = {"a.png": blobs(1), "b.png": blobs(2, (33, 71))}
    write_export(name, tmp_path / "x", masks, "train")
    write_export(name, tmp_path / "y", {"c.png": blobs(3)})
    source = opened(tmp_path / "x")
    assert type(source) is Annotated
    assert_same(masks_in(source), expected(masks))
    assert source.splits == ("train", "val")
    assert source.labels.background == 0
    assert_same(masks_in(opened(tmp_path / "y", name)), expected({"c.png": blobs(3)}))
    assert not check_data(source, progress=False).errors


@each_format
def test_an_export_is_converted_to_every_other_format_and_to_masks(name, tmp_path):
    masks = {"a.png": blobs(4), "b.png": blobs(5)}
    write_export(name, tmp_path / "x", masks, "val")
    assert main(["convert", str(tmp_path / "x"), str(tmp_path / "masks")]) == 0
    assert (tmp_path / "masks/classes.txt").read_text().split()[0] == "background"
    assert_same(masks_in(opened(tmp_path / "masks")), expected(masks))
    for other in FORMATS.builtin:
        assert main(["convert", str(tmp_path / "x"), str(tmp_path / other), "--format", other]) == 0
        assert_same(masks_in(opened(tmp_path / other)), expected(masks))


def test_converting_replaces_what_it_wrote_and_nothing_else(tmp_path, capsys):
    write_export("coco", tmp_path / "x", {"a.png": blobs(1)})
    command = ["convert", str(tmp_path / "x"), str(tmp_path / "out")]
    assert main(command) == main(command) == 0
    (tmp_path / "out/mine.txt").write_text("mine")
    assert main(command) == 2
    assert (tmp_path / "out/mine.txt").read_text() == "mine"
    assert main(["convert", str(tmp_path / "x"), str(tmp_path)]) == 2
    assert "choose another" in capsys.readouterr().err


def test_two_images_of_one_name_are_not_written_over_each_other(tmp_path):
    for split in ("train", "val"):
        write_export("labelme", tmp_path / "x" / split, {"a.png": blobs(1)})
    assert main(["convert", str(tmp_path / "x"), str(tmp_path / "out")]) == 1
    assert main(["convert", str(tmp_path / "x"), str(tmp_path / "out"), "--format", "yolo"]) == 0


class Mine(Format):
    """A stranger's format: a text file of boxes."""

    def recognises(self, root):
        """By its ending."""
        return "mine" if [*root.glob("*.mine")] else ""

    def read(self, root):
        """Nothing."""
        return []

    def write(self, annotations, labels, folder):
        """The number of regions of each image."""
        (folder / "all.mine").write_text("\n".join(f"{each.name} {len(each.regions)}" for each in annotations))


def test_a_format_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setitem(references._opened, __name__, object())
    write_export("coco", tmp_path / "x", {"a.png": blobs(1)})
    with pytest.raises(UsageError, match="annotation format"):
        annotation_format("nothing")
    with pytest.raises(UsageError, match="derive it"):
        annotation_format(dict)
    assert isinstance(annotation_format(Mine), Mine)
    assert main(["convert", str(tmp_path / "x"), str(tmp_path / "out"), "--format", f"{__name__}:Mine"]) == 0
    assert (tmp_path / "out/all.mine").read_text().startswith("a.png ")
    with pytest.raises(DataError, match="no image with annotations"):
        opened(tmp_path / "out", f"{__name__}:Mine")


def test_the_dataset_by_its_name_and_what_decides_its_digest(tmp_path):
    write_export("coco", tmp_path, {"a.png": blobs(1), "b.png": blobs(2)}, "train")
    source = opened(tmp_path, "coco", classes=("background", "soil", "leaf", "stem"))
    assert source.labels.names == ("background", "soil", "leaf", "stem")
    assert source.labels.background == 0
    plain = opened(tmp_path, "coco")
    assert fingerprint(source, "train") != fingerprint(plain, "train")
    assert fingerprint(source, "train")["images"] == fingerprint(plain, "train")["images"]
    with pytest.raises(UsageError, match=r"data\.classes lacks background, stem"):
        opened(tmp_path, "coco", classes=("soil", "leaf"))
    for _ in range(2):  # what is kept of a check is not taken for that of other classes
        first, second = check_data(source, progress=False), check_data(plain, progress=False)
        assert dict(zip(source.labels.names, first.pixels["train"].tolist(), strict=True)) == dict(
            zip(plain.labels.names, second.pixels["train"].tolist(), strict=True)
        )


def test_a_map_merges_renames_and_ignores_labels_and_is_stored(tmp_path):
    masks = {"a.png": blobs(1), "b.png": blobs(2)}
    write_export("labelme", tmp_path, masks)
    source = opened(tmp_path, values={"plant": ["leaf", "stem"], "ignore": ["soil"]})
    names = np.array(["background", "plant", "plant", "?"])
    assert_same(masks_in(source), {name.rpartition(".")[0]: names[mask] for name, mask in masks.items()})
    again = data_source(source.settings)
    assert again.labels == source.labels == LabelSet(("background", "plant"), background=0)
    assert_same(masks_in(again), masks_in(source))
    assert fingerprint(again, "train") == fingerprint(source, "train")
    with pytest.raises(UsageError, match="'leav' is no number"):
        opened(tmp_path, values={"plant": ["leav"]})


def test_a_background_is_there_where_something_is_in_no_region(tmp_path):
    full = np.where(blobs(1) == 0, 1, blobs(1))
    write_export("coco", tmp_path / "full", {"a.png": full})
    source = opened(tmp_path / "full")
    assert "background" not in source.labels.names
    assert source.labels.background is None


@pytest.mark.parametrize(("name", "text"), [("shape.json", ""), ("b.json", "{}")])
def test_files_that_hold_nothing_are_listed(name, text, tmp_path):
    write_export("labelme", tmp_path, {"a.png": blobs(1)})
    (tmp_path / name).write_text(text)
    assert [path.name for path, _ in opened(tmp_path, "labelme").odd] == [name]


DEEP = "[" * 200_000
HOSTILE = {
    "deep": ("labelme", "a.json", lambda text: text.replace('"flags": {}', f'"flags": {DEEP}', 1)),
    "cut short": ("labelme", "a.json", lambda text: text[: len(text) // 2]),
    "no number": ("labelme", "a.json", lambda text: text.replace('"points": [[', '"points": [[NaN, 1], [', 1)),
    "infinite": ("coco", "_annotations.coco.json", lambda text: text.replace('[[', "[[Infinity, 1, ", 1)),
    "far": ("labelme", "a.json", lambda text: text.replace('"points": [[', '"points": [[1e300, 1], [', 1)),
    "a million points": ("labelme", "a.json", lambda text: text.replace(
        '"points": [[', '"points": [' + "[1, 1], " * 10**6 + "[", 1)),
    "many values": ("coco", "_annotations.coco.json", lambda text: text.replace(
        "{", '{"x": [' + "[]," * 9_000_000 + "[]],", 1)),
    "huge image": ("coco", "_annotations.coco.json", lambda text: text.replace('"width": 60', '"width": 1000000000')),
    "a zigzag": ("labelme", "a.json", lambda text: text.replace(
        '"points": [[', '"points": [' + "[1, 1], [2, 99999], " * 5000 + "[", 1)),
    "many elements": ("cvat", "annotations.xml", lambda text: text.replace(
        "</image>", "<a/>" * 5_000_000 + "</image>")),
    "texts for points": ("labelme", "a.json", lambda text: text.replace('"points": [[', '"points": [["a", "b"], [', 1)),
    "run lengths": ("coco", "_annotations.coco.json", lambda text: text.replace(
        '"annotations": [', '"annotations": [{"image_id": 1, "category_id": 1, "segmentation": '
        '{"size": [48, 60], "counts": [99999999999999]}},')),
    "run lengths of another image": ("coco", "_annotations.coco.json", lambda text: text.replace(
        '"annotations": [', '"annotations": [{"image_id": 1, "category_id": 1, "segmentation": '
        '{"size": [99999, 99999], "counts": "abc"}},')),
    "damaged run lengths": ("coco", "_annotations.coco.json", lambda text: text.replace(
        '"annotations": [', '"annotations": [{"image_id": 1, "category_id": 1, "segmentation": '
        '{"size": [48, 60], "counts": "oooooooooooo"}},')),
    "entities": ("cvat", "annotations.xml", lambda text: text.replace(
        "<annotations>",
        '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><annotations>&c;')),
    "a file of the system": ("cvat", "annotations.xml", lambda text: text.replace(
        "<annotations>", '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotations>&b;')),
    "an encoding that is none": ("cvat", "annotations.xml", lambda text: text.replace("utf-8", "nan-8")),
    "no number in XML": ("cvat", "annotations.xml", lambda text: text.replace('z_order="1"', 'z_order="one"')),
    "a mask's box": ("cvat", "annotations.xml", lambda text: text.replace(
        "</image>", '<mask label="leaf" left="0" top="0" width="99999" height="99999" rle="9999800001"/></image>')),
    "a video": ("cvat", "annotations.xml", lambda text: text.replace("<image", "<track/><image", 1)),
    "nan in YOLO": ("yolo", "labels/train/a.txt", lambda text: "0 nan nan 0 1 1 1\n"),
    "no class in YOLO": ("yolo", "labels/train/a.txt", lambda text: "7 0 0 0 1 1 1\n"),
    "brush": ("labelstudio", "tasks.json", lambda text: text.replace(
        '"result": [', '"result": [{"type": "brushlabels", "original_width": 60, "original_height": 48, "value": '
        '{"format": "rle", "brushlabels": ["leaf"], "rle": [255, 255, 255, 255, 57, 154, 119, 239, 255]}},')),
    "a brush of a number": ("labelstudio", "tasks.json", lambda text: text.replace(
        '"result": [', '"result": [{"type": "brushlabels", "original_width": 60, "original_height": 48, "value": '
        '{"format": "rle", "brushlabels": ["leaf"], "rle": 9000000000}},')),
    "deep features": ("geojson", "a.geojson", lambda text: DEEP),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_by_name_and_soon(case, tmp_path):
    name, file, change = HOSTILE[case]
    write_export(name, tmp_path, {"a.png": blobs(1)})
    before = (tmp_path / file).read_text()
    after = change(before)
    assert after != before
    (tmp_path / file).write_text(after)
    begun, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=Path(file).name):
        opened(tmp_path, name)
    assert time.process_time() - begun < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 10**6  # kB


def test_archives_and_files_are_not_opened(tmp_path):
    write_export("coco", tmp_path / "x", {"a.png": blobs(1)})
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "x/_annotations.coco.json")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "x")
    for name in ("x.zip", "x.tar.gz"):
        with pytest.raises(DataError, match=f"{name} is an archive: unpack it"):
            opened(tmp_path / name)
    for name in ("x/_annotations.coco.json", "nothing"):
        with pytest.raises(DataError, match="is not a folder"):
            opened(tmp_path / name, "coco")
    write_export("labelme", tmp_path / "x", {"a.png": blobs(1)})
    with pytest.raises(DataError, match=r"in 2 ways; choose one: --data\.name coco .* --data\.name labelme"):
        opened(tmp_path / "x")
    (tmp_path / "x/_annotations.coco.json").unlink()
    (tmp_path / "x/masks").mkdir()
    Image.fromarray(blobs(1)).save(tmp_path / "x/masks/a.png")
    with pytest.raises(DataError, match=r"--data\.name labelme .* --data\.name folder"):
        opened(tmp_path / "x")


@pytest.mark.parametrize("given", ["../../secret.png", "/etc/secret.png", "C:\\me\\secret.png", "..\\..\\secret.png"])
def test_a_name_leads_nowhere_but_into_the_export(given, tmp_path):
    save_image(tmp_path / "secret.png")
    root = tmp_path / "a/b"
    write_export("coco", root, {"a.png": blobs(1)})
    path = root / "_annotations.coco.json"
    path.write_text(path.read_text().replace('"a.png"', json.dumps(given)))
    (record,) = opened(root).records("train")
    assert record.image is None
    save_image(root / "secret.png")
    (record,) = opened(root).records("train")
    assert record.image == root / "secret.png"


def test_numbered_labels_are_offered_as_one_class(tmp_path):
    save_image(tmp_path / "a.png")
    ring = [[1, 1], [9, 1], [9, 9]]
    shapes = [
        {"label": label, "points": [[x + 9 * at, y] for x, y in ring]}
        for at, label in enumerate(["yolk1", "yolk12", "pan"])
    ]
    write_json(tmp_path / "a.json", {"shapes": shapes, "imagePath": "a.png"})
    source = opened(tmp_path)
    assert source.labels.names == ("background", "yolk1", "yolk12", "pan")
    (note,) = [note for note in source.notes if "data.values" in note]
    assert "yolk1, yolk12 look like" in note
    assert note.endswith('--data.values "{yolk: [yolk1, yolk12]}"')
    assert opened(tmp_path, values={"yolk": ["yolk1", "yolk12"]}).labels.names == ("background", "yolk", "pan")


def test_regions_without_a_class_are_ignored_or_named(tmp_path):
    save_image(tmp_path / "a.png")
    shapes = [
        {"label": "", "points": [[1, 1], [9, 1], [9, 9]]},
        {"label": "pan", "points": [[20, 1], [29, 1], [29, 9]]},
    ]
    write_json(tmp_path / "a.json", {"shapes": shapes, "imagePath": "a.png"})
    source = opened(tmp_path)
    assert source.open("train")[0].mask[2, 8] == source.labels.ignore_index
    assert "1 regions without a class" in source.odd[0][1]
    named = opened(tmp_path, values={"lid": [""]})
    assert named.labels.names[int(named.open("train")[0].mask[2, 8])] == "lid"
    again = data_source(named.settings)
    assert again.labels == named.labels
    assert (again.open("train")[0].mask == named.open("train")[0].mask).all()
    write_json(tmp_path / "a.json", {"shapes": shapes[:1], "imagePath": "a.png"})
    with pytest.raises(DataError, match="no region has a class"):
        opened(tmp_path)
    assert opened(tmp_path, values={"": "lid"}).labels.names == ("background", "lid")


def test_what_is_odd_is_listed_by_file(tmp_path):
    write_export("labelme", tmp_path, {"a.png": blobs(1), "b.png": blobs(2)})
    shape = {"label": "leaf", "shape_type": "polygon", "points": [[-40, 1], [9, 1], [9, 99]]}
    write_json(tmp_path / "a.json", {"shapes": [shape], "imagePath": "a.png"})
    write_json(tmp_path / "b.json", {"shapes": [], "imagePath": "b.png"})
    save_image(tmp_path / "c.png")
    (tmp_path / "d.json").write_text("")
    found = {(path.name, what.partition(":")[2].strip() or what) for path, what in opened(tmp_path).odd}
    assert found == {
        ("a.json", "1 regions reach up to 51 pixels out of it: cut there"),
        ("b.json", "no region: all of it is background"),
        ("c.png", "not used"),
        ("d.json", "not used"),
    }


def test_the_format_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "extension")
    monkeypatch.setattr(references, "_opened", {})
    references.use("my_lab")
    mask = np.zeros((48, 60), np.uint8)
    mask[5:20, 7:30], mask[30:40, 2:9] = 1, 3
    write_export("coco", tmp_path / "x", {"a.png": mask}, "train")
    own = "my_lab.formats:Boxes"
    assert main(["convert", str(tmp_path / "x"), str(tmp_path / "out"), "--format", own, "--import", "my_lab"]) == 0
    assert (tmp_path / "out/train/a.boxes").read_text() == "leaf 7 29 5 19\nsoil 2 8 30 39\n"
    assert_same(masks_in(opened(tmp_path / "out", own)), expected({"a.png": mask}))


JUNK = [None, True, -1, 1e308, "", "x", "\ud800", [], [[]], [1], ["a", None], {}, {"a": []}, [[1, 2, 3]], 10**30]


def places_in(content, before=()):
    """Where the values of JSON are, as the keys that lead there."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [before, *(place for key, value in entries for place in places_in(value, (*before, key)))]


@pytest.mark.parametrize("name", ["labelme", "coco", "via", "labelstudio", "geojson"])
def test_whatever_stands_in_json_is_read_or_refused_by_name(name, tmp_path):
    small = np.pad(np.ones((3, 4), np.uint8), 3)
    small[4, 4] = 0  # a hole
    write_export(name, tmp_path, {"a.png": small})
    (path,) = tmp_path.rglob("*json")
    before = path.read_text()
    generator = np.random.default_rng(0)
    every = places_in(json.loads(before))
    for place in [every[index] for index in generator.permutation(len(every))[:60]]:
        for junk in JUNK:
            content = json.loads(before)
            holder = content
            for key in place[:-1]:
                holder = holder[key]
            if place:
                holder[place[-1]] = junk
            path.write_text(json.dumps(content if place else junk))
            try:
                read = annotation_format(name)
                for each in read.read(tmp_path):
                    rasterise(each, {region.label: 1 for region in each.regions}, 0)
            except DataError as error:
                assert str(tmp_path) in str(error)  # noqa: PT017


class Drawn(Source):
    """Two images without a file."""

    labels = LabelSet(("background", "leaf", "stem", "soil"), background=0)
    splits = ("train", "val")

    def __init__(self, dtype: torch.dtype = torch.uint8) -> None:
        self.dtype, self.masks = dtype, {"train-0.png": blobs(1), "val-0.png": blobs(2, (33, 71))}

    def records(self, split):
        return [Record(f"{split}-0")]

    def read(self, record):
        mask = torch.from_numpy(self.masks[f"{record.name}.png"]).long()
        return Sample(torch.stack([mask, 255 - mask, 9 * mask]).to(self.dtype), mask, record.name)


@pytest.mark.parametrize("name", ["masks", *sorted(FORMATS.builtin)])
def test_what_has_no_files_is_converted_too(name, tmp_path):
    drawn = Drawn()
    assert convert(drawn, tmp_path / "out", name, progress=False) == []
    found = opened(tmp_path / "out")
    assert_same(masks_in(found), expected(drawn.masks))
    assert found.splits == drawn.splits
    for split in found.splits:
        np.testing.assert_array_equal(found.open(split)[0].image, drawn.open(split)[0].image)


def test_nothing_to_convert_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="train-0"):
        convert(Drawn(torch.float32), tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
