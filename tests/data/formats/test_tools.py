"""With the tools' own packages, where they are installed: they read what is written here, and write what is read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from drawn import LABELS, NUMBERS, blobs, far, opened, save_image, write_export, write_json
from PIL import Image

MASK = blobs(11)
SIZE = MASK.shape[::-1]


def drawn_in(root: Path) -> np.ndarray:
    """Numbers as in ``NUMBERS`` of the only image of an export."""
    source = opened(root)
    table = [{name: number for number, name in NUMBERS.items()}.get(name, 0) for name in source.labels.names]
    return np.array(table)[source.open(source.splits[0])[0].mask.numpy()]


def test_labelme(tmp_path):
    tool = pytest.importorskip("labelme._label_file", reason="labelme 6 is not installed")
    from labelme.utils import shape_to_mask

    write_export("labelme", tmp_path / "x", {"a.png": MASK})
    file = tool.LabelFile(tmp_path / "x/a.json")
    found = np.zeros_like(MASK)
    for shape in file.shapes:
        if shape["shape_type"] == "mask":
            (left, top), (right, bottom) = np.array(shape["points"]).astype(int)
            part = np.zeros(MASK.shape, bool)
            part[top : bottom + 1, left : right + 1] = shape["mask"]
        else:
            part = shape_to_mask(MASK.shape, shape["points"], shape["shape_type"])
        found[part] = 1 + LABELS.names.index(shape["label"])
    assert (found == MASK).all()

    polygons = [shape | {"mask": None} for shape in file.shapes if shape["shape_type"] == "polygon"]
    save_image(tmp_path / "y/a.png", SIZE)
    file.save(str(tmp_path / "y/a.json"), polygons, "a.png", SIZE[1], SIZE[0])
    wanted = np.zeros_like(MASK)
    for shape in polygons:
        wanted[shape_to_mask(MASK.shape, shape["points"], "polygon")] = 1 + LABELS.names.index(shape["label"])
    assert (drawn_in(tmp_path / "y") == wanted).all()


@pytest.mark.parametrize("tolerance", [0, 0.5])
def test_coco_with_pycocotools(tolerance, tmp_path):
    tools = pytest.importorskip("pycocotools.coco", reason="the extra datasets is not installed")
    write_export("coco", tmp_path, {"a.png": MASK}, tolerance=tolerance)
    coco = tools.COCO(str(tmp_path / "_annotations.coco.json"))
    found = np.zeros_like(MASK)
    for entry in coco.loadAnns(coco.getAnnIds()):
        found[coco.annToMask(entry) > 0] = entry["category_id"]
    assert far(found, MASK) <= (0 if tolerance == 0 else 3)


@pytest.mark.parametrize("name", ["cvat", "coco"])
def test_datumaro_reads_what_is_written(name, tmp_path):
    tool = pytest.importorskip("datumaro", reason="datumaro is not installed")
    write_export(name, tmp_path / "x", {"a.png": MASK})
    if name == "coco":  # its layout
        (tmp_path / "x/annotations").mkdir()
        (tmp_path / "x/_annotations.coco.json").rename(tmp_path / "x/annotations/instances_train.json")
        (tmp_path / "x/images/train").mkdir(parents=True)
        (tmp_path / "x/a.png").rename(tmp_path / "x/images/train/a.png")
    dataset = tool.Dataset.import_from(str(tmp_path / "x"), name)
    (item,) = dataset
    labels = [label.name for label in dataset.categories()[tool.AnnotationType.label]]
    assert set(LABELS.names) <= set(labels)
    found = np.zeros_like(MASK)
    for part in sorted(item.annotations, key=lambda part: part.z_order):
        kind = part.type.name
        if kind == "bbox":  # beside the outline
            continue
        if kind == "polygon":
            from pycocotools import mask as tools

            bits = tools.decode(tools.merge(tools.frPyObjects([part.points], *MASK.shape)))
        else:
            bits = part.image
            if bits.shape != MASK.shape:
                whole = np.zeros(MASK.shape, bool)
                x, y, *_ = map(int, part.get_bbox())
                whole[y : y + bits.shape[0], x : x + bits.shape[1]] = bits
                bits = whole
        found[np.asarray(bits) > 0] = 1 + LABELS.names.index(labels[part.label])
    assert far(found, MASK) == 0


@pytest.mark.parametrize("name", ["cvat", "coco_instances"])
def test_what_datumaro_writes_is_read(name, tmp_path):
    tool = pytest.importorskip("datumaro", reason="datumaro is not installed")
    from datumaro.components.media import Image as Media

    pixels = np.random.default_rng(0).integers(0, 256, (*MASK.shape, 3), np.uint8)
    rings = [[5, 5, 30, 8, 20, 40], [40, 4, 55, 4, 55, 20, 40, 20]]
    parts = [tool.Polygon(ring, label=at, id=at, group=at, z_order=at) for at, ring in enumerate(rings)]
    item = tool.DatasetItem("a", subset="train", media=Media.from_numpy(pixels), annotations=parts)
    other = item.wrap(id="b", subset="val")  # some exporters want both
    dataset = tool.Dataset.from_iterable([item, other], categories=["leaf", "stem"])
    dataset.export(str(tmp_path / "x"), name, save_media=True)
    found = drawn_in(tmp_path / "x")
    assert [found[20, 20], found[10, 50], found[45, 50]] == [1, 2, 0]


def test_label_studio(tmp_path):
    brush = pytest.importorskip("label_studio_converter.brush", reason="label-studio-converter is not installed")
    save_image(tmp_path / "a.png", SIZE)
    results = [
        {"type": "brushlabels", "original_width": SIZE[0], "original_height": SIZE[1],
         "value": {"format": "rle", "brushlabels": [name],
                   "rle": brush.encode_rle(np.repeat(((number == MASK) * 255).astype(np.uint8).ravel(), 4))}}
        for number, name in NUMBERS.items()
    ]  # fmt: skip
    write_json(tmp_path / "project.json", [{"data": {"image": "a.png"}, "annotations": [{"result": results}]}])
    assert (drawn_in(tmp_path) == MASK).all()


def test_label_studio_converts_what_is_written(tmp_path):
    converter = pytest.importorskip("label_studio_converter", reason="label-studio-converter is not installed")
    write_export("labelstudio", tmp_path / "x", {"a.png": MASK})
    tasks = json.loads((tmp_path / "x/tasks.json").read_text())
    annotations = [{"id": 1, "completed_by": 1, "was_cancelled": False, "result": tasks[0]["annotations"][0]["result"]}]
    tasks[0] |= {"id": 1, "annotations": annotations, "data": {"image": "images/a.png"}}
    write_json(tmp_path / "tasks.json", tasks)
    config = (tmp_path / "x/labels.xml").read_text()
    made = converter.Converter(config, str(tmp_path), download_resources=False)
    made.convert_to_coco(str(tmp_path / "tasks.json"), str(tmp_path / "out"), is_dir=False)
    save_image(tmp_path / "out/images/a.png", SIZE)
    Image.open(tmp_path / "x/images/a.png").save(tmp_path / "out/images/a.png")
    assert far(drawn_in(tmp_path / "out"), MASK) == 0
