"""A crop of a large image is the crop of the whole image, whatever is read of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from sanet.config import AugmentationConfig, DataConfig
from sanet.data import kept as kept_arrays
from sanet.data import windows
from sanet.data.catalog import data_source
from sanet.data.loading import Augmented
from sanet.data.transforms import Augmentation, TrainingTransform
from sanet.data.windows import LargeSample, open_large
from sanet.reading import ImageReading


def test_a_part_shows_what_the_crop_of_the_whole_shows() -> None:
    """Of a smooth image, whose values say where they are: within a pixel, and in image and mask alike."""
    rows, columns = np.mgrid[:900, :1200]
    pixels = np.stack([rows / 4, columns / 5, (rows + columns) / 9], axis=2).astype(np.float32) / 255
    large = LargeSample(pixels, (rows // 8).astype(np.int32), ImageReading(3, low=(0,), high=(1,)), "x")
    whole = large.part(slice(0, 900), slice(0, 1200))
    for seed, scale in enumerate([0.3, 0.5, 0.77, 1.0, 1.3, 2.0, 3.1] * 3):
        transform = TrainingTransform(AugmentationConfig((128, 160), (scale, scale), jitter=0.0), 255)
        found = []
        for sample in (large, whole):
            torch.manual_seed(seed)
            found.append(transform(sample))
        step = max(1, 1 / scale) / 4 / 255  # of values, from one pixel to the next
        torch.testing.assert_close(found[0].image, found[1].image, atol=1.1 * step, rtol=0)
        assert (found[0].mask - found[1].mask).abs().max() <= 1
        if scale == 1:
            assert torch.equal(found[0].image, found[1].image)
            assert torch.equal(found[0].mask, found[1].mask)
        shown = found[0].image[0] * 255 * 4 // 8
        assert (shown - found[0].mask)[2:-2, 2:-2].abs().max() <= 1 + 1 / scale / 8


def write(root: Path, kind: str, dtype: str, channels: int, size: tuple[int, int]) -> None:
    draw = np.random.default_rng(3)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for split, names in {"train": "ab", "val": "c"}.items():
        (root / f"{split}.txt").write_text("\n".join(names))
        for name in names:
            pixels = (draw.random((*size, channels)) * 250).astype(dtype)
            path = root / "images" / f"{name}.{kind.split()[0]}"
            planes = pixels[..., 0] if channels == 1 else pixels
            how: dict[str, Any] = {"photometric": "rgb" if channels == 3 else "minisblack", "metadata": None}
            how |= {"planarconfig": "contig"} if channels > 1 else {}
            if kind == "npy":
                np.save(path, planes)
            elif kind == "tif tiles":
                tifffile.imwrite(path, planes, tile=(32, 48), compression="zlib", **how)
            elif kind == "tif strips":
                tifffile.imwrite(path, planes, rowsperstrip=7, **how)
            else:
                Image.fromarray(planes).save(path)
            Image.fromarray(draw.integers(0, 3, size).astype(np.uint8)).save(root / "masks" / f"{name}.png")


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize(
    ("kind", "dtype", "channels"),
    [
        *[(kind, "uint8", 3) for kind in ("npy", "tif tiles", "tif strips", "png", "bmp")],
        *[(kind, "uint16", 5) for kind in ("npy", "tif tiles", "tif strips")],
        ("tif tiles", "float32", 1),
        ("png", "uint16", 1),
    ],
)
def test_training_sees_the_same_crops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, dtype: str, channels: int, flip: float
) -> None:
    monkeypatch.setenv("SANET_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "data", kind, dtype, channels, (123, 201))
    reading = ImageReading() if dtype == "uint8" else ImageReading(channels, low=(20,), high=(200,))
    source = data_source(DataConfig("folder", str(tmp_path / "data"), ("a", "b", "c"), images=reading))
    crop = AugmentationConfig(
        crop=(64, 96), scale=(1.0, 1.0), hflip=flip
    )  # at other scales parts begin at whole pixels
    transform = Augmentation(crop, (), source.labels.ignore_index)
    dataset = Augmented(source.open("train"), transform, seed=5)
    keys = range(16)
    whole = [dataset[key] for key in keys]
    monkeypatch.setattr(windows, "LARGE", 1000)
    for found, expected in zip([dataset[key] for key in keys], whole, strict=True):
        assert found.name == expected.name
        assert torch.equal(found.mask, expected.mask)
        assert found.mask.dtype == expected.mask.dtype
        assert found.image.dtype == expected.image.dtype
        torch.testing.assert_close(found.image, expected.image, atol=2e-5, rtol=0)
    images = 0 if kind == "npy" else 2
    assert len(list((tmp_path / "cache" / "windows").glob("*.npy"))) == 2 + images


def test_what_is_kept_follows_its_file_and_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(windows, "LARGE", 1000)
    write(tmp_path / "data", "png", "uint8", 3, (50, 60))
    source = data_source(DataConfig("folder", str(tmp_path / "data"), ("a", "b", "c")))
    first, second = source.records("train")
    kept = lambda: sorted((tmp_path / "cache" / "windows").glob("*.npy"))  # noqa: E731
    assert open_large(source, first) is not None
    before = kept()
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(first.files[0])
    found = open_large(source, first)
    assert found is not None
    assert not found.part(slice(0, 50), slice(0, 60)).image.any()
    assert len(kept()) == len(before) == 2
    assert kept() != before
    monkeypatch.setattr(kept_arrays, "LARGEST", 20_000)
    open_large(source, second)
    assert sum(path.stat().st_size for path in kept()) <= 20_000 + 500
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SANET_CACHE", str(tmp_path / "file"))  # where nothing can be written, it is read whole
    assert open_large(source, first) is None


def test_images_below_16_megapixels_are_read_as_ever(tmp_path: Path) -> None:
    write(tmp_path / "data", "png", "uint8", 3, (50, 60))
    source = data_source(DataConfig("folder", str(tmp_path / "data"), ("a", "b", "c")))
    assert open_large(source, source.records("train")[0]) is None
    Image.new("1", (4097, 4096)).save(tmp_path / "data" / "images" / "a.png")
    assert windows.is_large(source.records("train")[0])
