"""Masks of GeoTIFFs lie where their images lie, as rasterio reads both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sanet.config import OutputConfig
from sanet.inference import georeference, predict
from sanet.inference.georeference import is_placed
from sanet.models.networks import create_model
from sanet.reading import ImageReading
from sanet.structures import LabelSet, SanetError

rasterio = pytest.importorskip("rasterio")
LABELS = LabelSet(("water", "land", "cloud"), ((0, 0, 255), (0, 200, 0), (255, 255, 255)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    images = ImageReading(5, low=(0,), high=(10_000,))
    model = create_model("fcn", "test_resnet", labels=LABELS, in_chans=5, images=images)
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def engine(saved):
    return predict.Engine(saved, "cpu")


def write_bands(path: Path, **place: object) -> None:
    bands = np.random.default_rng(0).integers(0, 10_000, (5, 40, 60)).astype(np.uint16)
    form = {"driver": "GTiff", "height": 40, "width": 60, "count": 5, "dtype": "uint16"}
    with rasterio.open(path, "w", **form, **place) as target:
        target.write(bands)


PLACE = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)}


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_mask_keeps_transform_and_coordinate_system(tmp_path, engine, interleave):
    write_bands(tmp_path / "a.tif", **PLACE, interleave=interleave)
    write_bands(tmp_path / "b.tif")
    assert [is_placed(tmp_path / name) for name in ("a.tif", "b.tif")] == [True, False]
    for kept in (0, 2):
        outcome = predict.predict_collection(engine, [str(tmp_path)], tmp_path / "out", progress=False)
        assert outcome == (2 - kept, kept, [])
    with rasterio.open(tmp_path / "out" / "masks" / "a.tif") as mask:
        assert (mask.crs, mask.transform) == (PLACE["crs"], PLACE["transform"])
        assert mask.colormap(1)[2] == (255, 255, 255, 255)
        assert mask.dtypes == ("uint8",)
        values = mask.read(1)
    np.testing.assert_array_equal(values, np.array(Image.open(tmp_path / "out" / "masks" / "b.png")))
    np.testing.assert_array_equal(values, engine.predictor(tmp_path / "a.tif"))


def test_confidence_and_probabilities_lie_where_the_image_lies(tmp_path, saved):
    write_bands(tmp_path / "a.tif", **PLACE)
    engine = predict.Engine(saved, "cpu", outputs=OutputConfig(confidence=True, probabilities=True))
    assert predict.predict_collection(engine, [str(tmp_path)], tmp_path / "out", progress=False).failures == []
    expected = engine.predictor(tmp_path / "a.tif")
    with rasterio.open(tmp_path / "out" / "probabilities" / "a.tif") as file:
        assert (file.crs, file.transform, file.descriptions) == (PLACE["crs"], PLACE["transform"], LABELS.names)
        np.testing.assert_array_equal(file.read(), expected.probabilities.astype(np.float32))
    with rasterio.open(tmp_path / "out" / "confidence" / "a.tif") as file:
        assert (file.crs, file.transform) == (PLACE["crs"], PLACE["transform"])
        np.testing.assert_allclose(file.read(1), expected.probabilities.max(0), atol=1e-3)


def test_without_rasterio_one_line_says_so(tmp_path, engine, monkeypatch, capsys):
    write_bands(tmp_path / "a.tif", **PLACE)
    monkeypatch.setattr(georeference, "find_spec", lambda name: None)
    predict.predict_collection(engine, [str(tmp_path / "a.tif")], tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "masks" / "a.png").is_file()
    assert "sanet-segmentation[geo]" in capsys.readouterr().err


def test_what_is_no_tiff_is_not_placed(tmp_path, engine):
    prediction = engine.predictor(np.zeros((40, 60, 5), np.uint16))
    (tmp_path / "a.tif").write_bytes(b"II*\0" + b"\xff" * 40)
    (tmp_path / "b.tif").write_bytes(b"")
    assert not any(is_placed(tmp_path / name) for name in ("a.tif", "b.tif", "c.tif"))
    with pytest.raises(SanetError, match=r"a\.tif"):
        georeference.geotiff(prediction, "mask", tmp_path / "a.tif")
