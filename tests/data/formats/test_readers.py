"""What each tool can draw, against masks drawn by hand or by Pillow."""

from __future__ import annotations

import base64
from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from drawn import blobs, far, opened, save_image, write_export, write_json
from PIL import Image, ImageDraw

from sanet.data.decoding import DataError

SIZE = (60, 48)
RING = [[5, 5], [30, 8], [20, 40]]


def pillow(draw) -> np.ndarray:
    canvas = Image.new("L", SIZE)
    draw(ImageDraw.Draw(canvas))
    return np.array(canvas)


def masks_of(root, **options):
    """By label, where it is in the only image of an export; and the export."""
    source = opened(root, **options)
    mask = source.open(source.splits[0])[0].mask.numpy()
    return {name: (mask == number).astype(np.uint8) for number, name in enumerate(source.labels.names)}, source


def off(found: np.ndarray, wanted: np.ndarray) -> float:
    """Pixels that differ, as a share of those that are wanted."""
    return float((found != wanted).sum() / wanted.sum())


def png(bits: np.ndarray) -> str:
    stream = BytesIO()
    Image.fromarray(bits).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def ellipse(x: float, y: float, across: float, down: float) -> np.ndarray:
    """Pixels whose middles are in it."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    return (((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1).astype(np.uint8)


DISC = np.hypot(*(np.mgrid[:9, :9] - 4)) < 4


@pytest.mark.parametrize(
    ("shape", "draw"),
    [
        ({"points": RING}, lambda d: d.polygon([tuple(p) for p in RING], 1, 1)),
        ({"shape_type": "rectangle", "points": [[30, 20], [5, 6]]}, lambda d: d.rectangle([5, 6, 30, 20], 1, 1)),
        ({"shape_type": "circle", "points": [[30, 20], [30, 32]]}, lambda d: d.ellipse([18, 8, 42, 32], 1, 1)),
        ({"shape_type": "linestrip", "points": RING}, lambda d: d.line([tuple(p) for p in RING], 1, 10)),
        ({"shape_type": "line", "points": RING[:2]}, lambda d: d.line([tuple(p) for p in RING[:2]], 1, 10)),
        ({"shape_type": "point", "points": RING[1:2]}, lambda d: d.ellipse([25, 3, 35, 13], 1, 1)),
        (
            {"shape_type": "mask", "points": [[7, 6], [15, 14]], "mask": png(DISC)},
            lambda d: d.bitmap((7, 6), Image.fromarray(DISC), 1),
        ),
    ],
)
def test_labelme_shapes(shape, draw, tmp_path):
    save_image(tmp_path / "105.png", SIZE)
    content = {"version": "5.5.0", "shapes": [{"label": "a", **shape}], "imagePath": "..\\105.png"}
    write_json(tmp_path / "105.json", content)
    found, _ = masks_of(tmp_path)
    assert off(found["a"], pillow(draw)) < 0.05


def test_labelme_uses_its_own_image_only_where_there_is_no_other(tmp_path):
    save_image(tmp_path / "kept.png", SIZE)
    data = base64.b64encode((tmp_path / "kept.png").read_bytes()).decode()
    content = {"shapes": [{"label": "a", "points": RING}], "imagePath": "D:\\me\\x.png", "imageData": data}
    write_json(tmp_path / "in/x.json", content)
    found = opened(tmp_path / "in", "labelme")
    assert found.open("train")[0].image.shape == (3, 48, 60)
    assert "copy within the file" in found.odd[0][1]
    save_image(tmp_path / "in/masks/x.png", SIZE)  # a mask, which is no image
    assert opened(tmp_path / "in", "labelme").records("train")[0].image.parent.name == "images"
    save_image(tmp_path / "in/x.png", SIZE, 7)
    assert opened(tmp_path / "in", "labelme").records("train")[0].image == tmp_path / "in/x.png"
    write_json(tmp_path / "in/x.json", {**content, "imagePath": "y.png", "imageData": "no base64!"})
    (tmp_path / "in/x.png").unlink()
    with pytest.raises(DataError, match=r"x\.json.*damaged"):
        opened(tmp_path / "in", "labelme")


def test_cvat_shapes_and_their_order(tmp_path):
    save_image(tmp_path / "images/a.png", SIZE)
    known = 'occluded="0" source="manual"'
    shapes = f"""
    <box label="top" {known} xtl="10" ytl="10" xbr="20" ybr="20" z_order="5"/>
    <polygon label="a" {known} points="5.00,5.00;30.00,8.00;20.00,40.00" z_order="1"/>
    <ellipse label="e" {known} cx="45" cy="10" rx="8" ry="4" rotation="90" z_order="0"/>
    <polyline label="line" {known} points="40,30;50,30" z_order="0"/>
    <mask label="m" {known} rle="1, 2, 1, 4" left="40" top="40" width="4" height="2" z_order="0"/>
    <points label="p" {known} points="1,1" z_order="0"/><tag label="t" source="manual"/>"""
    (tmp_path / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><image id="0" name="a.png" '
        f'width="60" height="48">{shapes}</image></annotations>'
    )
    found, source = masks_of(tmp_path)
    assert found["top"][12, 12] == 1
    wanted = pillow(lambda draw: (draw.polygon([tuple(p) for p in RING], 1, 1), draw.rectangle([10, 10, 20, 20], 0, 0)))
    assert (found["a"] == wanted).all()
    assert far(found["e"], ellipse(45, 10, 4, 8)) == 0
    assert found["line"][30, 40:51].all()
    assert found["m"][40:42, 40:44].tolist() == [[0, 1, 1, 0], [1, 1, 1, 1]]
    assert [what for _, what in source.odd] == [
        "a.png: a polyline, labelled line: drawn 1 pixel wide",
        "a.png: points, labelled p, which is no region: not drawn",
    ]


def test_cvat_subsets_are_splits(tmp_path):
    write_export("cvat", tmp_path, {"a.png": blobs(1)}, "train")
    path = tmp_path / "annotations.xml"
    path.write_text(path.read_text().replace('subset="train"', 'subset="Validation"'))
    assert opened(tmp_path).splits == ("val",)


def coco(annotations, categories=((1, "a"), (2, "b"), (3, "a"))):
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}],
        "annotations": [{"id": at, "image_id": 7, **each} for at, each in enumerate(annotations)],
        "categories": [{"id": number, "name": name} for number, name in categories],
    }


def test_coco_shapes_crowds_and_categories(tmp_path):
    save_image(tmp_path / "train2017/a.png", SIZE)
    bits = np.zeros((48, 60), np.uint8)
    bits[10:20, 30:50] = 1
    columns = bits.T.ravel()
    ends = [0, *(np.flatnonzero(np.diff(columns)) + 1).tolist(), len(columns)]
    annotations = [
        {"category_id": 1, "segmentation": [[value for point in RING for value in point]], "iscrowd": 0},
        {"category_id": 2, "segmentation": {"size": [48, 60], "counts": np.diff(ends).tolist()}, "iscrowd": 1},
        {"category_id": 3, "segmentation": [[1, 40, 9, 40, 9, 46], [50, 40, 58, 40, 58, 46]], "iscrowd": 0},
        {"category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": []},
        {"category_id": 1, "segmentation": [[1, 1, 2, 2]]},
    ]
    write_json(tmp_path / "annotations/instances_train2017.json", coco(annotations))
    found, source = masks_of(tmp_path)
    assert (found["b"] == bits).all()
    assert found["a"][[20, 41, 41], [18, 8, 57]].all()
    assert [what for _, what in source.odd] == [
        "the category 'a' occurs 2 times (ids 1, 3): merged",
        "a.png: a crowd of b: drawn as b",
        "a.png: a box of a without an outline: not drawn",
        "a.png: a polygon of 2 points, labelled a: not drawn",
    ]
    write_json(tmp_path / "annotations/instances_train2017.json", coco(annotations[3:4]))
    with pytest.raises(DataError, match=r"no outlines .*train2017\.json: no outlines, such as boxes"):
        opened(tmp_path, "coco")
    for name in ("instances", "stuff"):
        write_json(tmp_path / f"annotations/{name}_train2017.json", coco(annotations[:1]))
    with pytest.raises(DataError, match=r"instances_train2017\.json and .*stuff_train2017\.json both list a\.png"):
        opened(tmp_path, "coco")


@pytest.mark.parametrize(
    "content", [[1], {"images": [], "annotations": []}, coco([{"category_id": 1, "segmentation": [5]}])]
)
def test_coco_that_is_none(content, tmp_path):
    write_json(tmp_path / "x.json", content)
    with pytest.raises(DataError, match=r"x\.json"):
        opened(tmp_path, "coco")


def test_coco_with_compressed_run_lengths(tmp_path):
    tools = pytest.importorskip("pycocotools.mask", reason="the extra datasets is not installed")
    save_image(tmp_path / "a.png", SIZE)
    bits = (blobs(3) == 1).astype(np.uint8)
    counts = tools.encode(np.asfortranarray(bits))["counts"].decode()
    annotation = {"category_id": 2, "segmentation": {"size": [48, 60], "counts": counts}, "iscrowd": 0}
    write_json(tmp_path / "x.json", coco([annotation]))
    assert (masks_of(tmp_path)[0]["b"] == bits).all()


@pytest.mark.parametrize("names", ["names: [a, b]", "names:\n  0: a\n  1: b\n"])
def test_yolo_polygons(names, tmp_path):
    save_image(tmp_path / "train/images/a.png", SIZE)
    save_image(tmp_path / "train/images/b.png", SIZE)
    (tmp_path / "train/labels").mkdir()
    points = " ".join(f"{x / SIZE[0]} {y / SIZE[1]}" for x, y in RING)
    (tmp_path / "train/labels/a.txt").write_text(f"1 {points}\n0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "train/labels/gone.txt").write_text(f"1 {points}\n")
    (tmp_path / "data.yaml").write_text(f"train: ../train/images\nnc: 2\n{names}")
    found, source = masks_of(tmp_path)
    assert off(found["b"], pillow(lambda draw: draw.polygon([tuple(p) for p in RING], 1, 1))) < 0.05
    assert [(path.name, what.rpartition(":")[0]) for path, what in source.odd] == [
        ("a.txt", "a: a box of a (0 0.5 0.5 0.1 0.1)"),
        ("gone.txt", "the image gone is missing"),
        ("b.png", "no annotation"),
    ]
    (tmp_path / "train/labels/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match=r"no outlines .*a\.txt: a: a box of a"):
        opened(tmp_path)


def test_via_shapes(tmp_path):
    save_image(tmp_path / "a.JPG.png", SIZE)
    xs, ys = ([point[axis] for point in RING] for axis in (0, 1))
    shapes = [
        ({"name": "polygon", "all_points_x": xs, "all_points_y": ys}, {"kind": "a", "by": ""}),
        ({"name": "rect", "x": 40, "y": 4, "width": 10, "height": 5}, {"kind": "r"}),
        ({"name": "circle", "cx": 45, "cy": 20, "r": 5}, {"kind": {"c": True, "d": False}}),
        ({"name": "ellipse", "cx": 45, "cy": 38, "rx": 8, "ry": 4, "theta": 0}, {"kind": "e"}),
        ({"name": "polyline", "all_points_x": [2, 8], "all_points_y": [45, 45]}, {"kind": "l", "by": "me"}),
        ({"name": "point", "cx": 1, "cy": 1}, {"kind": "p"}),
    ]
    regions = [{"shape_attributes": shape, "region_attributes": attributes} for shape, attributes in shapes]
    entry = {"filename": "a.JPG.png", "size": 5, "regions": dict(enumerate(regions))}
    gone = {"filename": "gone.jpg", "size": 5, "regions": []}
    write_json(tmp_path / "via.json", {"_via_settings": {}, "_via_img_metadata": {"a": entry, "b": gone}})
    found, source = masks_of(tmp_path)
    assert (found["a"] == pillow(lambda draw: draw.polygon([tuple(p) for p in RING], 1, 1))).all()
    assert (found["r"] == pillow(lambda draw: draw.rectangle([40, 4, 50, 9], 1, 1))).all()
    assert far(found["c"], ellipse(45, 20, 5, 5)) == 0
    assert far(found["e"], ellipse(45, 38, 8, 4)) == 0
    assert found["l"][45, 2:9].all()
    assert [what for _, what in source.odd] == [
        "regions have several attributes (kind, by): kind is taken as the class",
        "a.JPG.png: a polyline, labelled l: drawn 1 pixel wide",
        "a.JPG.png: a point of 0 points, labelled p: not drawn",
        "the image gone.jpg is missing: not used, since its size is not known",
    ]


def packed(values: np.ndarray, repeated: bool) -> list[int]:
    """Label Studio's run lengths, written from their description."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    if repeated:
        starts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
        for start, end in pairwise(starts):
            for at in range(start, end, 2**16):
                bits += f"1{3:02b}{min(end - at, 2**16) - 1:016b}{values[start]:08b}"
    else:
        for at in range(0, len(values), 256):
            part = values[at : at + 256]
            bits += f"0{2:02b}{len(part) - 1:08b}" + "".join(f"{value:08b}" for value in part)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


@pytest.mark.parametrize("repeated", [True, False])
def test_label_studio_shapes(repeated, tmp_path):
    save_image(tmp_path / "images/1a2b-a.png", SIZE)
    (tmp_path / "images/1a2b-a.png").rename(tmp_path / "images/a.png")
    bits = np.zeros(SIZE[::-1], np.uint8)
    bits[41:46, 3:9] = 255
    pixels = np.repeat(bits.ravel(), 4)
    percent = [[x / SIZE[0] * 100, y / SIZE[1] * 100] for x, y in RING]
    values = [
        ("polygonlabels", {"points": percent, "polygonlabels": ["a"]}),
        ("rectanglelabels", {"x": 75, "y": 25, "width": 10, "height": 25, "rotation": 90, "rectanglelabels": ["r"]}),
        ("ellipselabels", {"x": 75, "y": 75, "radiusX": 10, "radiusY": 10, "rotation": 0, "ellipselabels": ["e", "f"]}),
        ("brushlabels", {"format": "rle", "rle": packed(pixels, repeated), "brushlabels": ["b"]}),
        ("keypointlabels", {"x": 1, "y": 1, "keypointlabels": ["k"]}),
    ]
    result = [
        {"type": kind, "value": value, "original_width": SIZE[0], "original_height": SIZE[1]} for kind, value in values
    ]
    tasks = [
        {"data": {"image": "/data/upload/3/1a2b-a.png"}, "annotations": [{"result": []}, {"result": result}]},
        {"data": {"image": "s3://x/gone.png"}, "annotations": [{"result": []}]},
    ]
    write_json(tmp_path / "project.json", tasks)
    found, source = masks_of(tmp_path)
    assert off(found["a"], pillow(lambda draw: draw.polygon([tuple(p) for p in RING], 1, 1))) < 0.05
    assert off(found["r"], pillow(lambda draw: draw.rectangle([33, 12, 45, 18], 1, 1))) < 0.05
    assert far(found["e"], ellipse(45, 36, 6, 4.8)) == 0
    assert (found["b"] * 255 == bits).all()
    assert [what for _, what in source.odd] == [
        "/data/upload/3/1a2b-a.png has 2 annotations: the last is used",
        "/data/upload/3/1a2b-a.png: a region with the labels e, f: the first is taken",
        "/data/upload/3/1a2b-a.png: keypointlabels, labelled k, which is no region: not drawn",
        "the image s3://x/gone.png is missing: not used, since its size is not known",
    ]


def test_geojson_shapes(tmp_path):
    save_image(tmp_path / "a.png", SIZE)
    closed = [*RING, RING[0]]
    features = [
        {
            "type": "Feature",
            "properties": {"name": "a"},
            "geometry": {"type": "MultiPolygon", "coordinates": [[closed]]},
        },
        {"type": "Feature", "properties": None, "geometry": {"type": "Point", "coordinates": [1, 1]}},
        {"type": "Feature", "properties": None, "geometry": {"type": "Polygon", "coordinates": [closed[:2]]}},
    ]
    write_json(tmp_path / "a.geojson", {"type": "FeatureCollection", "features": features})
    write_json(tmp_path / "b.geojson", {"type": "FeatureCollection", "features": []})
    found, source = masks_of(tmp_path)
    assert (found["a"] == pillow(lambda draw: draw.polygon([tuple(p) for p in RING], 1, 1))).all()
    assert [path.name for path, _ in source.odd] == ["a.geojson", "a.geojson", "b.geojson"]


def test_images_of_one_name_in_several_folders(tmp_path):
    for folder in ("north", "south"):
        save_image(tmp_path / folder / "1.png", SIZE)
        write_json(tmp_path / folder / "1.json", {"shapes": [{"label": "a", "points": RING}], "imagePath": "1.png"})
    source = opened(tmp_path)
    assert {record.name for split in source.splits for record in source.records(split)} == {"north/1", "south/1"}
