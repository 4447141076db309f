"""Exports as people have them that tell less, or something else, than what a tool writes by itself."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import tifffile
from drawn import blobs, opened, save_image, write_export, write_json

from sanet.cli.main import main
from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError
from sanet.reading import ImageReading

RING = [[5, 5], [40, 5], [40, 40], [5, 40]]  # in images of 60 x 48
FLAT = [[value for point in RING for value in point]]
KEY = "?X-Amz-Credential=A/2024/s3&X-Amz-Signature=1-2"


def classes_in(source):
    """By split and image, the classes that it has pixels of."""
    names = source.labels.names
    return {
        split: {each.name: {names[value] for value in each.mask.unique().tolist()} for each in source.open(split)}
        for split in source.splits
    }


def together(source):
    return {name: classes for images in classes_in(source).values() for name, classes in images.items()}


def coco(folder, images, categories, annotations):
    for _, name in images:
        save_image(folder / name)
    content = {
        "images": [{"id": number, "file_name": name, "width": 60, "height": 48} for number, name in images],
        "categories": [{"id": number, "name": name} for number, name in categories],
        "annotations": [
            {"id": at, "image_id": image, "category_id": category, "segmentation": FLAT}
            for at, (image, category) in enumerate(annotations)
        ],
    }
    write_json(folder / "merged.json", content)
    return folder


def test_ids_of_coco_that_mean_two_things_are_refused(tmp_path):
    two, one = [(1, "a.png"), (2, "b.png"), (1, "c.png")], [(1, "a.png"), (1, "a.png")]
    with pytest.raises(DataError, match=r"merged\.json: several images have one id \(1\)"):
        opened(coco(tmp_path / "x", two, [(1, "leaf")], [(1, 1)]))
    with pytest.raises(DataError, match=r"merged\.json: several categories have one id \(7\)"):
        opened(coco(tmp_path / "y", two[:2], [(7, "leaf"), (7, "stem")], [(1, 7)]))
    found = opened(coco(tmp_path / "z", [*one, two[1]], [(7, "leaf"), (7, "leaf")], [(1, 7), (2, 7)]))
    assert together(found) == {"a": {"background", "leaf"}, "b": {"background", "leaf"}}


def test_ids_of_coco_are_the_same_as_numbers_and_as_texts(tmp_path):
    found = opened(coco(tmp_path, [("1", "a.png"), (2, "b.png")], [("1", "leaf"), (2, "stem")], [(1, 1), ("2", "2")]))
    assert together(found) == {"a": {"background", "leaf"}, "b": {"background", "stem"}}
    with pytest.raises(DataError, match=r"merged\.json: the category 9 of 1 annotations"):
        opened(coco(tmp_path / "x", [(1, "a.png")], [(1, "leaf")], [(1, 9)]))


def yolo(folder, places, **settings):
    for place in places:
        save_image(folder / f"images/{place}.png", seed=len(place))
        path = folder / f"labels/{place}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n")
    write_json(folder / "data.yaml", {"names": ["leaf"], **settings})
    return folder


def splits_of(source):
    return {split: [record.name for record in source.records(split)] for split in source.splits}


FLAT_PLACES, IN_SETS = ["a", "b", "c", "d"], ["set1/a", "set1/b", "set2/c", "set2/d"]
WANTED = {"train": ["a", "b"], "val": ["c", "d"]}


@pytest.mark.parametrize(
    ("places", "settings", "lists"),
    [
        (FLAT_PLACES, {}, {"train": "images/a.png\n./images/b.png", "val": "images/c.png\nimages/d.png"}),
        (FLAT_PLACES, {"train": "t.txt", "val": "v.txt"}, {"t": "/home/me/x/images/a.png\nb.png", "v": "c.png\nd.png"}),
        (
            FLAT_PLACES,
            {"train": "C:\\me\\t.txt", "val": ["v.txt", "w.txt"]},
            {"t": "C:\\me\\images\\a.png\nC:\\me\\images\\b.png", "v": "c.png", "w": "D:\\d.png"},
        ),
        (IN_SETS, {"train": "images/set1", "val": "images/set2"}, {}),
        (IN_SETS, {"path": "/data/x", "train": "images/set1", "val": ["/data/x/images/set2", "../gone"]}, {}),
        (["train/a", "train/b", "val/c", "val/d"], {"train": ["images/train", "images/val"], "val": "images/val"}, {}),
        (["val/a", "val/b", "train/c", "train/d"], {"train": "images/val", "valid": "images/train"}, {}),
    ],
)
def test_the_splits_of_yolo_are_those_that_somebody_wrote(places, settings, lists, tmp_path):
    yolo(tmp_path, places, **settings)
    for name, lines in lists.items():
        (tmp_path / f"{name}.txt").write_text(lines)
    assert splits_of(opened(tmp_path)) == WANTED


def test_what_yolo_lists_and_is_not_there_is_named(tmp_path):
    yolo(tmp_path, FLAT_PLACES, train="train.txt", val="val.txt", test="../test/images")
    (tmp_path / "train.txt").write_text("a.png\nb.png\n")
    (tmp_path / "val.txt").write_text("c.png\ngone.png\n")
    source = opened(tmp_path)
    assert splits_of(source) == {"train": ["a", "b"], "val": ["c"]}
    assert [path.name for path, _ in source.odd] == ["val.txt", "data.yaml"]
    yolo(tmp_path, FLAT_PLACES, train="images", val="images")  # which says nothing
    assert {*splits_of(opened(tmp_path))} == {"train", "val"}


@pytest.mark.parametrize(
    ("settings", "text", "what"),
    [
        ({"kpt_shape": [1, 2]}, "0 0.5 0.5 0.1 0.1 0.5 0.5", r"data\.yaml has kpt_shape"),
        ({}, "\n0 5 5 30 5 30 30", r"a\.txt .*line 2: 30 .*divide"),
    ],
)
def test_yolo_that_is_no_polygons_in_shares_is_refused(settings, text, what, tmp_path):
    yolo(tmp_path, ["a"], **settings)
    (tmp_path / "labels/a.txt").write_text(text)
    with pytest.raises(DataError, match=what):
        opened(tmp_path)


def result(kind, **value):
    return {"id": "r", "type": kind, "original_width": 60, "original_height": 48, "value": value}


def drawn(label):
    return {"result": [result("polygonlabels", points=RING, polygonlabels=[label])]}


def test_what_counts_in_label_studio(tmp_path):
    pair = [result("polygon", points=RING), result("labels", points=RING, labels=["car"])]
    tasks = {
        "predicted": {"annotations": [], "predictions": [drawn("wrong")]},
        "cancelled": {"annotations": [{**drawn("wrong"), "was_cancelled": True}], "predictions": [drawn("wrong")]},
        "empty": {"annotations": [{"result": []}], "predictions": [drawn("wrong")]},
        "two": {"annotations": [drawn("a"), drawn("b"), {**drawn("wrong"), "was_cancelled": True}]},
        "pair": {"annotations": [{"result": pair}]},
    }
    for name in tasks:
        save_image(tmp_path / f"{name}.png")
    content = [
        {"id": at, "data": {"image": f"https://x.org/b/{name}.png{KEY}"}, **task}
        for at, (name, task) in enumerate(tasks.items())
    ]
    write_json(tmp_path / "project.json", content)
    source = opened(tmp_path)
    assert together(source) == {"empty": {"background"}, "two": {"background", "b"}, "pair": {"background", "car"}}
    what = [text for path, text in source.odd if path.name == "project.json"]
    assert [text.split(",")[0] for text in what[:2]] == ["task 0", "task 1"]
    assert "two.png has 2 annotations" in what[2]


def test_masks_become_annotations_of_label_studio(tmp_path):
    write_export("coco", tmp_path / "x", {"a.png": blobs(1)})
    assert main(["convert", str(tmp_path / "x"), str(tmp_path / "out"), "--format", "labelstudio"]) == 0
    (task,) = json.loads((tmp_path / "out/tasks.json").read_text())
    assert {*task} == {"data", "annotations"}


@pytest.mark.parametrize("given", ["a.png" + KEY, "https://x.org/raw/a.png?raw=true#top"])
def test_a_name_ends_where_its_query_begins(given, tmp_path):
    write_export("via", tmp_path, {"a.png": blobs(1)})
    path = tmp_path / "via_region_data.json"
    path.write_text(path.read_text().replace('"filename": "a.png"', f'"filename": {json.dumps(given)}'))
    source = opened(tmp_path)
    assert [record.image for record in source.records("train")] == [tmp_path / "a.png"]


def feature(coordinates, kind="Polygon", **properties):
    return {"geometry": {"type": kind, "coordinates": coordinates}, "type": "Feature", "properties": properties}


def geojson(folder, features, **more):
    save_image(folder / "a.png")
    write_json(folder / "a.geojson", {"type": "FeatureCollection", "features": features, **more})
    return folder


@pytest.mark.parametrize(
    ("ring", "more"),
    [
        ([[13.4, 52.5], [13.41, 52.5], [13.41, 52.51]], {}),
        (RING, {"crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}}),
    ],
)
def test_geojson_on_a_map_is_refused(ring, more, tmp_path):
    with pytest.raises(DataError, match=r"a\.geojson .*export it in pixels"):
        opened(geojson(tmp_path, [feature([ring], name="road")], **more))


def test_a_region_of_one_pixel_is_not_on_a_map(tmp_path):
    mask = np.zeros((48, 60), np.uint8)
    mask[7, 9] = 1
    write_export("geojson", tmp_path, {"a.png": mask})
    assert opened(tmp_path).open("train")[0].mask.sum() == 1


def test_geojson_of_all_shapes(tmp_path):
    area = {"type": "GeometryCollection", "geometries": [feature([[*RING, RING[0]]])["geometry"]]}
    far = [[[x + 45, y, 7.5] for x, y in ([0, 0], [9, 0], [9, 9], [0, 0])]]
    features = [
        {**feature([], **{"class": "road"}), "geometry": area},
        feature(far, classification={"name": "car"}, name="Annotation 3"),
        {**feature([]), "geometry": None},
    ]
    source = opened(geojson(tmp_path, features))
    assert source.labels.names == ("background", "road", "car")
    mask = source.open("train")[0].mask
    assert mask[30, 10] == 1  # left of the diagonal: the last corner counts
    assert mask[3, 52] == 2
    assert [path.name for path, _ in source.odd] == ["a.geojson"]
    unclosed = opened(geojson(tmp_path / "x", [feature([RING], name="road")]))
    assert (unclosed.open("train")[0].mask == (mask == 1)).all()


def test_the_subsets_of_cvat_are_folders(tmp_path):
    text = '<polygon label="{}" points="5,5;40,5;40,40" z_order="0"/>'
    images = []
    for subset, label in (("Train", "road"), ("Validation", "car")):
        for name in ("f0.png", "f1.png"):
            save_image(tmp_path / "images" / subset / name, seed=len(images))
            size = 'width="60" height="48"'
            images.append(f'<image name="{name}" subset="{subset}" {size}>{text.format(label)}</image>')
    (tmp_path / "annotations.xml").write_text(f"<annotations>{''.join(images)}</annotations>")
    source = opened(tmp_path)
    assert classes_in(source) == {
        "train": {name: {"background", "road"} for name in ("f0", "f1")},
        "val": {name: {"background", "car"} for name in ("f0", "f1")},
    }
    assert not source.odd
    assert not check_data(source, progress=False).errors


def test_labels_that_labelme_reserves(tmp_path):
    save_image(tmp_path / "a.png")
    inner, edge = [[10, 10], [20, 10], [20, 20], [10, 20]], [[50, 2], [58, 2], [58, 9]]
    rings = {"leaf": RING, "_background_": inner, "__ignore__": edge}
    shapes = [{"label": label, "points": ring} for label, ring in rings.items()]
    write_json(tmp_path / "a.json", {"shapes": shapes, "imagePath": "a.png"})
    source = opened(tmp_path)
    assert source.labels.names == ("_background_", "leaf")
    mask = source.open("train")[0].mask
    assert [int(mask[y, x]) for y, x in ((15, 15), (6, 6), (4, 57))] == [0, 1, source.labels.ignore_index]


@pytest.mark.parametrize(
    ("name", "text", "tool"),
    [
        ("v.csv", "filename,region_shape_attributes", "VIA"),
        ("v.json", '{"metadata": {"a": {"vid": "1", "xy": [7]}}}', "VIA 3"),
        ("p.json", '[{"image": "a.png", "annotation_id": 1, "annotator": 2}]', "JSON-MIN"),
        ("ann/a.jpg.json", '{"objects": [{"classTitle": "a", "geometryType": "polygon"}]}', "Supervisely"),
        ("gt/a_polygons.json", '{"imgHeight": 48, "objects": [{"polygon": []}]}', "Cityscapes"),
        ("Annotations/a.xml", "<annotation><object><bndbox/></object></annotation>", "PASCAL VOC"),
    ],
)
def test_formats_that_are_not_read_are_named(name, text, tool, tmp_path):
    save_image(tmp_path / "JPEGImages/a.jpg")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{os.path.basename(name)} .*{tool}.*export|{tool}.*masks"):
        opened(tmp_path)
    save_image(tmp_path / "masks/a.png")
    shutil.copy(tmp_path / "JPEGImages/a.jpg", tmp_path / "a.jpg")
    with pytest.raises(DataError, match="of the masks"):  # masks are there, so that they are read
        opened(tmp_path)


@pytest.mark.parametrize(("channels", "dtype", "given"), [(1, "uint16", None), (4, "uint8", 4), (2, "float32", None)])
def test_images_of_any_depth_have_annotations(tmp_path, channels, dtype, given):
    draw = np.random.default_rng(0)
    points = [[2, 2], [9, 2], [9, 7], [2, 7]]
    for name in "abcd":
        pixels = (draw.random((10, 12, channels)) * 200).astype(dtype)
        how = {"photometric": "minisblack", "metadata": None} | ({"planarconfig": "contig"} if channels > 1 else {})
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels if channels > 1 else pixels[..., 0], **how)
        shapes = [{"label": "leaf", "points": points, "shape_type": "polygon"}]
        known = {"version": "5.4.1", "imagePath": f"{name}.tif", "imageData": None, "imageHeight": 10, "imageWidth": 12}
        (tmp_path / f"{name}.json").write_text(json.dumps({**known, "shapes": shapes}))
    source = data_source(DataConfig("auto", str(tmp_path), images=ImageReading(given)))
    assert source.images.channels == channels
    assert source.settings is not None
    assert source.settings.images == source.images
    report = check_data(source, progress=False)
    assert not report.findings
    assert len(report.reading.low) == channels
    sample = source.reading(report.reading).open("train")[0]
    assert sample.image.shape == (channels, 10, 12)
    assert sample.mask[4, 4] == 1


def labelme(path, image):
    shapes = [{"label": "leaf", "points": RING, "shape_type": "polygon"}]
    known = {"version": "5.4.1", "imagePath": image, "imageData": None, "imageHeight": 48, "imageWidth": 60}
    write_json(path, {**known, "shapes": shapes})


def test_the_name_of_an_image_is_no_split(tmp_path):
    for name in ("test_leaf", "eval_shot", "a", "b", "c"):
        save_image(tmp_path / f"{name}.png")
        labelme(tmp_path / f"{name}.json", f"{name}.png")
    source = opened(tmp_path, "labelme")
    assert source.splits == ("train", "val")
    assert sum(len(source.records(split)) for split in source.splits) == 5


def test_an_image_of_another_split_is_not_taken(tmp_path):
    content = {"categories": [{"id": 1, "name": "a"}], "annotations": [], "images": []}
    for number, split in enumerate(("train", "val")):
        save_image(tmp_path / f"{split}2017/1.png", seed=number)
        area = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [FLAT]}
        one = {"id": 1, "file_name": "1.png", "width": 60, "height": 48}
        write_json(
            tmp_path / f"annotations/instances_{split}2017.json", {**content, "images": [one], "annotations": [area]}
        )
    source = opened(tmp_path, "coco")
    found = {split: [record.image for record in source.records(split)] for split in source.splits}
    assert found == {split: [tmp_path / f"{split}2017/1.png"] for split in ("train", "val")}
    (tmp_path / "train2017/1.png").unlink()
    source = opened(tmp_path, "coco")
    missing = [record for split in source.splits for record in source.records(split) if record.image is None]
    assert len(missing) == 1


def test_a_mask_beside_a_photograph_is_no_image(tmp_path):
    for name in ("1", "2"):
        save_image(tmp_path / f"{name}.jpg")
        save_image(tmp_path / f"{name}.png")
        labelme(tmp_path / f"{name}.json", "elsewhere.jpg")
    source = opened(tmp_path, "labelme")
    images = {record.image for split in source.splits for record in source.records(split)}
    assert images == {tmp_path / "1.jpg", tmp_path / "2.jpg"}
