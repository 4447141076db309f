"""What is read and written by windows is what is read whole."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import sanet
from sanet.config import InferenceConfig, OutputConfig
from sanet.inference import predict
from sanet.inference.drawing import shares
from sanet.inference.journal import Job
from sanet.inference.large import is_large, label_large
from sanet.models.networks import create_model
from sanet.reading import ImageReading
from sanet.structures import LabelSet, UsageError

rasterio = pytest.importorskip("rasterio")
LABELS = LabelSet(("water", "land", "cloud"), ((0, 0, 255), (0, 200, 0), (255, 255, 255)), 7)
PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)}
TILES, STRIPS = {"tiled": True, "blockxsize": 32, "blockysize": 16}, {"blockysize": 7}
OWN_SIZE = InferenceConfig(window=64, shorter_side=0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Models of RGB, and of four channels of any depth."""
    torch.manual_seed(0)
    root, images = tmp_path_factory.mktemp("models"), ImageReading(4, low=(0,), high=(10_000,))
    create_model("fcn", "test_resnet", labels=LABELS).save_pretrained(root / "rgb")
    create_model("fcn", "test_resnet", labels=LABELS, in_chans=4, images=images).save_pretrained(root / "values")
    return root


@pytest.fixture(scope="module")
def predictors(saved):
    return {name: sanet.Predictor(saved / name, "cpu", OWN_SIZE) for name in ("rgb", "values")}


def write(path, size, count, dtype, **form):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256 if dtype == "uint8" else 10_000, (count, *(side // 16 + 1 for side in size)))
    values = np.kron(small, np.ones((1, 16, 16)))[:, : size[0], : size[1]].astype(dtype)
    form = {"driver": "GTiff", "height": size[0], "width": size[1], "count": count, "dtype": dtype} | form
    with rasterio.open(path, "w", **form) as file:
        file.write(values)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("threshold", [None, 0.4])
@pytest.mark.parametrize(
    ("size", "model", "form"),
    [
        ((201, 150), "rgb", {"count": 3, "dtype": "uint8", "photometric": "rgb", "compress": "deflate", **TILES}),
        ((130, 333), "rgb", {"count": 3, "dtype": "uint8", "photometric": "rgb", "interleave": "band", **STRIPS}),
        ((64, 300), "rgb", {"count": 3, "dtype": "uint8", "photometric": "rgb", "compress": "lzw", "predictor": 2}),
        ((300, 40), "rgb", {"count": 1, "dtype": "uint8", "compress": "packbits", **STRIPS}),
        ((157, 99), "values", {"count": 4, "dtype": "uint16", "compress": "deflate", "predictor": 2, **TILES}),
        ((99, 157), "values", {"count": 4, "dtype": "float32", "interleave": "band", "compress": "deflate", **TILES}),
        ((77, 300), "values", {"count": 4, "dtype": "int16", **STRIPS}),
    ],
)
def test_the_mask_is_that_of_the_image_read_whole(tmp_path, predictors, size, model, form, threshold):
    path, predictor = tmp_path / "a.tif", predictors[model]
    write(path, size, **form)
    assert is_large(path, predictor, 1000)
    whole = predictor(path, threshold=threshold)
    job = Job(str(path), {"mask": str(tmp_path / "mask.tif"), "overlay": str(tmp_path / "overlay.jpg")})
    line = label_large(predictor, job, OutputConfig(threshold=threshold))
    assert line["shares"] == shares(whole.mask, LABELS)
    assert threshold is None or (whole.mask == 7).any()
    predict.accept(tmp_path / "mask.tif")
    predict.accept(tmp_path / "overlay.jpg")
    with rasterio.open(tmp_path / "mask.tif") as file:
        np.testing.assert_array_equal(file.read(1), whole.mask)
    whole.save(tmp_path / "whole.jpg")
    assert (tmp_path / "overlay.jpg").read_bytes() == (tmp_path / "whole.jpg").read_bytes()


def test_a_large_image_of_a_folder_is_a_tiff_in_its_place(tmp_path, saved, monkeypatch):
    monkeypatch.setattr(predict, "is_large", partial(is_large, least=10_000))
    write(tmp_path / "a.tif", (150, 140), 3, "uint8", photometric="rgb", **TILES, **PLACE)
    write(tmp_path / "b.tif", (50, 40), 3, "uint8", photometric="rgb", **PLACE)
    engine = predict.Engine(str(saved / "rgb"), "cpu", OWN_SIZE)
    for kept in (0, 2):
        outcome = predict.predict_collection(engine, [str(tmp_path)], tmp_path / "out", progress=False)
        assert outcome == (2 - kept, kept, [])
    with rasterio.open(tmp_path / "out" / "masks" / "a.tif") as mask:
        assert (mask.crs, mask.transform) == (PLACE["crs"], PLACE["transform"])
        assert mask.colormap(1)[1] == (0, 200, 0, 255)
        np.testing.assert_array_equal(mask.read(1), engine.predictor(tmp_path / "a.tif").mask)
    engine = predict.Engine(str(saved / "rgb"), "cpu", OWN_SIZE, OutputConfig(confidence=True))
    with pytest.raises(UsageError, match=r"a\.tif .* no confidence"):
        predict.predict_collection(engine, [str(tmp_path / "a.tif")], tmp_path / "other", progress=False)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_file_that_is_cut_short_is_named(tmp_path, predictors):
    write(tmp_path / "a.tif", (300, 200), 3, "uint8", photometric="rgb", compress="deflate", **TILES)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) * 3 // 4])
    assert is_large(tmp_path / "a.tif", predictors["rgb"], 1000)
    job = Job(str(tmp_path / "a.tif"), {"mask": str(tmp_path / "mask.tif")})
    assert "a.tif" in label_large(predictors["rgb"], job, OutputConfig())["error"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.tif"}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_cannot_be_read_by_rows_is_read_whole(tmp_path, predictors, saved):
    rgb, path = predictors["rgb"], tmp_path / "a.tif"
    write(path, (100, 90), 3, "uint8", photometric="rgb")
    assert not is_large(path, rgb)
    assert not is_large(path, predictors["values"], 1000)  # which has four channels
    for inference in (
        InferenceConfig(64, flip=True),
        InferenceConfig(64, (0.5,)),
        InferenceConfig(64, shorter_side=32),
    ):
        assert not is_large(path, sanet.Predictor(saved / "rgb", "cpu", inference), 1000)
    write(path, (100, 90), 4, "uint8", photometric="rgb")  # the fourth may be transparency
    assert not is_large(path, rgb, 1000)
    Image.new("P", (100, 100)).save(path)
    assert not is_large(path, rgb, 1000)
    path.write_bytes(b"II*\0" + b"\xff" * 40)
    assert not is_large(path, rgb, 1000)
    assert not is_large(tmp_path / "b.tif", rgb, 1000)
