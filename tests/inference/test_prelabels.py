"""Predictions in the formats of tools are what their importers read."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sanet.cli.main import main
from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.data.formats.catalog import FORMATS
from sanet.inference.drawing import palette_image
from sanet.inference.prelabels import write_prelabels
from sanet.structures import LabelSet

COMMAND = ["predict", "photos", "--model", "model", "--device", "cpu", "--output", "out"]


def write_masks(labels):
    """Masks as predicted, of discs with holes and islands, and the lines about them."""
    lines = []
    for seed, path in enumerate(path for path in sorted(Path("photos").rglob("*.*")) if path.suffix != ".txt"):
        width, height = Image.open(path).size
        rows, columns = np.mgrid[:height, :width]
        rings = np.hypot(columns - width / 2, rows - height / 2).astype(int) // (4 + seed) % 3
        place = Path("out/masks") / path.relative_to("photos").with_suffix(".png")
        place.parent.mkdir(parents=True, exist_ok=True)
        palette_image(rings, labels).save(place)
        lines.append(json.dumps({"image": f"../{path}", "mask": str(place.relative_to("out"))}) + "\n")
    Path("out/predictions.jsonl").write_text("".join(lines))


@pytest.mark.parametrize("background", [None, 0])
@pytest.mark.parametrize("name", sorted(FORMATS.builtin))
def test_the_importer_reads_the_same_masks(name, background, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = LabelSet(("background" if background == 0 else "sky", "road", "car"), background=background)
    write_masks(labels)
    written = write_prelabels(["photos"], "out", labels, name, 0)
    if name == "labelstudio":  # where what was predicted counts once somebody has accepted it
        tasks = written / "tasks.json"
        tasks.write_text(tasks.read_text().replace('"predictions"', '"annotations"'))
    source = data_source(DataConfig(name, str(written)))
    names = np.array([*source.labels.names])
    samples = [sample for split in source.splits for sample in source.open(split)]
    found = {Path(sample.name).stem: names[sample.mask.numpy()] for sample in samples}
    assert found.keys() == {"a", "b", "c"}
    for stem, path in {"a": "a", "b": "b", "c": "deep/c"}.items():
        assert (found[stem] == np.array(labels.names)[np.array(Image.open(f"out/masks/{path}.png"))]).all()


def test_a_tolerance_gives_fewer_points(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = LabelSet(("sky", "road", "car"))
    write_masks(labels)
    sizes = [
        (write_prelabels(["photos"], "out", labels, "geojson", tolerance) / "a.geojson").stat().st_size
        for tolerance in (0, 1)
    ]
    assert sizes[1] < sizes[0]


def test_pre_labels_are_replaced_and_nothing_else(collection, capsys):
    assert main([*COMMAND, "--format", "coco"]) == main([*COMMAND, "--format", "coco"]) == 0
    Path("out/coco/mine.txt").write_text("mine")
    assert main([*COMMAND, "--format", "coco"]) == 2
    assert Path("out/coco/mine.txt").read_text() == "mine"
    assert main([*COMMAND, "--format", "paint"]) == 2
    assert "annotation format" in capsys.readouterr().err


def test_masks_of_other_images_and_of_before_are_no_pre_labels(collection):
    """Of an image that cannot be read any more, and of one with another ending."""
    pytest.importorskip("rasterio")
    assert main(COMMAND) == 0
    Path("photos/b.jpg").write_bytes(b"no image")
    Path("photos/a.png").unlink()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 35, 3), dtype=np.uint8)
    tifffile.imwrite("photos/a.tif", pixels, extratags=[(33550, "d", 3, (0.5, 0.5, 0.0)), (33922, "d", 6, (0.0,) * 6)])
    assert main([*COMMAND, "--format", "coco"]) == 1
    written = json.loads(next(Path("out/coco").glob("*.json")).read_text())["images"]
    assert {image["file_name"]: (image["height"], image["width"]) for image in written} == {
        "a.tif": (64, 35),
        "deep/c.bmp": (64, 64),
    }
