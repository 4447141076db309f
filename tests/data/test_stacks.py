"""Pages of TIFFs as images of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.data.decoding import DataError
from sanet.inference.predict import Engine, predict_collection
from sanet.inference.predictor import Predictor
from sanet.models.networks import create_model
from sanet.reading import ImageReading
from sanet.structures import LabelSet


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANET_CACHE", str(tmp_path / "cache"))


def stack(path: Path, pages: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            file.write(page, contiguous=False, photometric="rgb" if page.ndim == 3 else "minisblack", metadata=None)


def made(root: Path, dtype: str, channels: int, counts: tuple[int, ...] = (5, 1, 4)) -> dict[str, NDArray[np.generic]]:
    draw, found = np.random.default_rng(0), {}
    for name, count in zip("abc", counts, strict=True):
        size = (count, 20, 30) if channels == 1 else (count, 20, 30, channels)
        found[name] = draw.integers(0, 250, size).astype(dtype)
        stack(root / "images" / f"{name}.tif", found[name])
        stack(root / "masks" / f"{name}.tif", draw.integers(0, 2, (count, 20, 30)).astype(np.uint8))
    return found


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint8", 3), ("uint16", 1), ("float32", 1)])
def test_every_page_is_an_image_with_its_mask(tmp_path: Path, dtype: str, channels: int) -> None:
    pixels = made(tmp_path / "data", dtype, channels)
    source = data_source(DataConfig("folder", str(tmp_path / "data"), images=ImageReading(pages="images")))
    assert source.images == ImageReading(None if dtype == "uint8" else 1, "images")
    records = {record.name: record for split in source.splits for record in source.records(split)}
    assert sorted(records) == [*(f"a-000{n}" for n in range(1, 6)), "b", *(f"c-000{n}" for n in range(1, 5))]
    # Neighbours in a stack are as alike as frames of a film: the last ones are held out as one block.
    assert [record.name for record in source.records("val")] == ["a-0005", "c-0004"]
    for name, record in records.items():
        stem, _, number = name.partition("-")
        index = int(number or 1) - 1
        sample = source.read(record)
        expected = pixels[stem][index].astype(np.float32)
        planes = np.moveaxis(expected, -1, 0) if channels == 3 else expected[None]
        np.testing.assert_array_equal(sample.image.float().numpy()[: len(planes)], planes)
        masks = tifffile.imread(tmp_path / "data" / "masks" / f"{stem}.tif").reshape(-1, 20, 30)
        np.testing.assert_array_equal(sample.mask.numpy(), masks[index])
    assert not check_data(source, progress=False).errors


def test_masks_of_other_numbers_of_pages_and_damaged_stacks_are_refused(tmp_path: Path) -> None:
    config = DataConfig("folder", str(tmp_path / "data"), images=ImageReading(pages="images"))
    made(tmp_path / "data", "uint8", 1)
    stack(tmp_path / "data" / "masks" / "a.tif", np.zeros((4, 20, 30), np.uint8))
    with pytest.raises(DataError, match=r"images/a\.tif has 5, .*masks/a\.tif has 4"):
        data_source(config)
    path = tmp_path / "data" / "images" / "a.tif"
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(DataError, match=r"images/a\.tif"):
        data_source(config)


def test_a_stack_without_the_setting_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "data", "uint8", 1)
    report = check_data(data_source(DataConfig("folder", str(tmp_path / "data"), ("a", "b"))), progress=False)
    assert sum("pages" in finding.detail for finding in report.errors) >= 2


def test_prediction_labels_every_page_as_by_itself(tmp_path: Path) -> None:
    pixels = made(tmp_path / "data", "uint8", 3)
    model = create_model("fcn", labels=LabelSet(("a", "b")), images=ImageReading(pages="images"))
    model.eval().save_pretrained(tmp_path / "model")
    engine = Engine(str(tmp_path / "model"), "cpu")
    outcome = predict_collection(engine, [str(tmp_path / "data" / "images")], tmp_path / "out", progress=False)
    assert (outcome.labelled, outcome.failures) == (10, [])
    predictor = Predictor(tmp_path / "model", "cpu")
    for name, pages in pixels.items():
        for number, page in enumerate(pages, 1):
            stem = f"{name}-{number:04}" if len(pages) > 1 else name
            found = np.array(Image.open(tmp_path / "out" / "masks" / f"{stem}.png"))
            np.testing.assert_array_equal(found, np.asarray(predictor(page)))


def test_what_is_kept_stays_as_it_is_and_what_has_no_page_is_an_error(tmp_path: Path) -> None:
    made(tmp_path / "data", "uint8", 1)
    config = DataConfig("folder", str(tmp_path / "data"), images=ImageReading(pages="images"))
    times = lambda: sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "cache").rglob("*.npy"))  # noqa: E731
    data_source(config)
    before = times()
    data_source(config)
    assert times() == before
    (tmp_path / "data" / "train.txt").write_text("a\nnowhere\n")
    (tmp_path / "data" / "val.txt").write_text("b\n")
    source = data_source(config)
    assert [(record.name, record.image is None) for record in source.records("train")][-1] == ("nowhere", True)
    path = tmp_path / "data" / "images" / "a.tif"
    path.write_bytes(b"II*\0\0\0\0\0")
    with pytest.raises(DataError, match=r"images/a\.tif"):
        data_source(config)
    made(tmp_path / "new", "uint8", 3, (2, 1, 1))
    (tmp_path / "new" / "images" / "b.tif").write_bytes(b"II*\0\0\0\0\0")
    model = create_model("fcn", labels=LabelSet(("a", "b")), images=ImageReading(pages="images"))
    model.eval().save_pretrained(tmp_path / "model")
    engine = Engine(str(tmp_path / "model"), "cpu")
    for kept in (0, 3):  # the damaged one is a failure, the others are labelled, and once
        outcome = predict_collection(engine, [str(tmp_path / "new" / "images")], tmp_path / "out", progress=False)
        assert (outcome.labelled, outcome.kept, len(outcome.failures)) == (3 - kept, kept, 1)
