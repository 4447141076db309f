"""A crop of a large image is the crop of the whole image, whatever is read of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as F

from sanet.config import AugmentationConfig, DataConfig
from sanet.data import windows
from sanet.data.catalog import data_source
from sanet.data.loading import Augmented
from sanet.data.resampling import Taps, in_whole_numbers, resampled
from sanet.data.transforms import Augmentation
from sanet.data.windows import TiffPart, open_large
from sanet.reading import ImageReading

SIDE = st.integers(1, 90)


@settings(max_examples=150, deadline=None)
@given(SIDE, SIDE, st.integers(1, 200), st.integers(1, 200), st.sampled_from(["uint8", "float32"]), st.integers(0, 999))
def test_a_part_is_that_of_the_whole_resized_by_torchvision(
    height: int, width: int, tall: int, wide: int, dtype: str, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (height, width, 3)).astype(np.uint8)
    image = torch.from_numpy(pixels if dtype == "uint8" else pixels.astype(np.float32) / 255).permute(2, 0, 1)
    whole = F.resize(image, [tall, wide], antialias=True)
    parts = []
    for side in (tall, wide):
        start = int(draw.integers(side))
        parts.append(slice(start, int(draw.integers(start + 1, side + 1))))
    rows, columns = Taps.of(height, tall, parts[0]), Taps.of(width, wide, parts[1])
    found = resampled(image[:, rows.source, columns.source], rows, columns)
    expected = whole[:, parts[0], parts[1]]
    if dtype == "uint8" and in_whole_numbers():
        assert torch.equal(found, expected)
    else:
        torch.testing.assert_close(found, expected, atol=1 if dtype == "uint8" else 1e-5, rtol=0)


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
            elif kind == "tif whole":
                tifffile.imwrite(path, planes, rowsperstrip=size[0], **how)
            else:
                Image.fromarray(planes).save(path)
            Image.fromarray(draw.integers(0, 3, size).astype(np.uint8)).save(root / "masks" / f"{name}.png")


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize(
    ("kind", "dtype", "channels"),
    [
        *[(kind, "uint8", 3) for kind in ("npy", "tif tiles", "tif strips", "tif whole", "png", "bmp")],
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
    transform = Augmentation(AugmentationConfig(crop=(64, 96), hflip=flip), (), source.labels.ignore_index)
    dataset = Augmented(source.open("train"), transform, seed=5)
    keys = range(16)
    whole = [dataset[key] for key in keys]
    monkeypatch.setattr(windows, "LARGE", 1000)
    if kind in ("tif whole",):
        monkeypatch.setattr(windows, "MOST_IN_A_SEGMENT", 1000)
    for found, expected in zip([dataset[key] for key in keys], whole, strict=True):
        assert found.name == expected.name
        assert torch.equal(found.mask, expected.mask)
        assert found.mask.dtype == expected.mask.dtype
        assert found.image.dtype == expected.image.dtype
        torch.testing.assert_close(found.image, expected.image, atol=2e-5, rtol=0)
    images = {"npy": 0, "tif tiles": 0, "tif strips": 0}.get(kind, 2)
    assert len(list((tmp_path / "cache" / "windows").glob("*.npy"))) == 2 + images


def test_no_more_of_a_large_tiff_is_decoded_than_a_crop_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 999, (320, 640)).astype(np.uint16)
    tifffile.imwrite(path, pixels, tile=(64, 64), compression="zlib")
    part, decoded = TiffPart(path), []
    real = tifffile.TiffPage.decode.func

    def counted(page: Any) -> Any:
        decode = real(page)
        return lambda data, index, **more: decoded.append(index) or decode(data, index, **more)

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(counted))
    np.testing.assert_array_equal(part[60:70, 100:300][..., 0], pixels[60:70, 100:300])
    assert sorted(decoded) == [1, 2, 3, 4, 11, 12, 13, 14]


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
    assert not found.image_part(slice(0, 50), slice(0, 60)).any()
    assert len(kept()) == len(before) == 2
    assert kept() != before
    monkeypatch.setattr(windows, "LARGEST_CACHE", 20_000)
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
