"""Exports as people have them; their folder is named by SANET_EXPORTS."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError


@pytest.fixture
def exports():
    root = os.environ.get("SANET_EXPORTS")
    if not root:
        pytest.skip("set SANET_EXPORTS to the folder with sample exports (labelme_lines/, via_kudzu/, …) to run this")
    return Path(root)


def test_labelme_gives_the_masks_that_its_author_made(exports):
    source = data_source(DataConfig(root=str(exports / "labelme_lines" / "labelme")))
    assert source.labels.names == ("background", "line")
    for record in (record for split in source.splits for record in source.records(split)):
        found = source.stored_mask(record).values
        wanted = np.array(Image.open(exports / f"labelme_lines/author_masks/{record.name}.png"))
        for number in (0, 1):
            both, either = (found == number) & (wanted == number), (found == number) | (wanted == number)
            assert both.sum() / either.sum() >= 0.98
        assert source.open("train")[0].image.shape == (3, 1080, 1920)


@pytest.mark.parametrize(
    ("name", "labels", "counts", "odd"),
    [
        ("labelme_numbered", 14, {"train": 5, "val": 1}, "0.jpg is used"),
        ("coco_polygons", 11, {"train": 6, "val": 4}, "'facade' occurs 2 times"),
        ("via_kudzu", 2, {"train": 24, "val": 16}, "without a class"),
        ("via_rice_leaf", 3, {"train": 40, "val": 8}, "1 regions without a class"),
    ],
)
def test_samples_are_read(name, labels, counts, odd, exports):
    source = data_source(DataConfig(root=str(exports / name)))
    assert len(source.labels) == labels
    assert {split: len(source.records(split)) for split in source.splits} == counts
    assert any(odd in what for _, what in source.odd)
    assert all(record.image for split in source.splits for record in source.records(split))
    check_data(source, progress=False)


def test_one_class_for_regions_that_have_none(exports):
    source = data_source(DataConfig(root=str(exports / "via_kudzu"), values={"kudzu": ["kudzu", ""]}))
    assert source.labels.names == ("background", "kudzu")
    assert {1} <= {int(value) for value in source.open("val")[0].mask.unique()} <= {0, 1}


@pytest.mark.parametrize(
    ("name", "labels", "images"),
    [
        ("cvat_segmentation_mask", ("background", "tool"), 3),
        ("roboflow_masks", None, 13),
        ("roboflow_masks_small", None, 9),
        ("drive", ("background", "foreground"), 20),
        ("crackforest", ("background", "foreground"), 118),
    ],
)
def test_folders_of_masks_explain_themselves(name, labels, images, exports):
    source = data_source(DataConfig(root=str(exports / name)))
    assert labels is None or source.labels.names == labels
    assert sum(len(source.records(split)) for split in source.splits) == images
    assert not check_data(source, progress=False).errors


def test_what_cannot_be_read_by_itself_says_what_to_type(exports):
    with pytest.raises(DataError, match=r"--data\.masks masks2 or --data\.masks masks3"):
        data_source(DataConfig(root=str(exports / "hyta_clouds")))
    source = data_source(DataConfig(root=str(exports / "stripped_line_ends")))
    assert len(check_data(source, progress=False).errors) >= 10
