"""The sheet of a dataset shows its images as a network sees them, with their labels over them."""

from pathlib import Path

import numpy as np
from PIL import Image

from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.data.check import check_data
from sanet.insight.sheet import data_sheet


def test_images_of_twelve_bits_are_seen_and_labels_are_over_them(tmp_path: Path) -> None:
    ramp = np.linspace(300, 3000, 64 * 48).astype(np.uint16).reshape(48, 64)
    for kind, pixels in (("images", ramp), ("masks", (ramp > 1500).astype(np.uint8))):
        (tmp_path / kind).mkdir()
        for number, name in enumerate("abcde"):  # no two alike
            Image.fromarray(pixels + number * (kind == "images")).save(tmp_path / kind / f"{name}.png")
    source = data_source(DataConfig(root=str(tmp_path)))
    picture = data_sheet(source, check_data(source, progress=False))
    assert picture is not None
    seen = np.array(picture, np.int64)[:48, :128]
    assert seen[2, :64].max() < 30
    assert seen[45, :64].min() > 220
    assert (seen[:, :64].max(axis=2) - seen[:, :64].min(axis=2)).max() == 0  # grey
    assert (seen[40, 64:, 0] - seen[40, 64:, 1]).min() > 60  # foreground, whose colour is red


def test_what_cannot_be_read_has_no_sheet(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for name in "ab":
            (tmp_path / kind / f"{name}.png").write_bytes(b"no image")
    source = data_source(DataConfig("folder", str(tmp_path), ("a", "b")))
    assert data_sheet(source, check_data(source, progress=False)) is None
