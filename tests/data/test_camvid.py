"""CamVid in the SegNet layout: a copy in miniature, and the real one where it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sanet.data.camvid import CamVid
from sanet.data.check import check_data
from sanet.data.decoding import DataError
from sanet.data.problems import EMPTY


def write_miniature(root: Path) -> dict[str, NDArray[np.uint8]]:
    """Two images a split, a list of another machine's paths beside them, and all 12 values in every mask."""
    rng, masks = np.random.default_rng(0), {}
    for split in CamVid.splits:
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir()
        for name in (f"{split}_1", f"{split}_2"):
            masks[name] = rng.permutation(np.arange(48, dtype=np.uint8) % 12).reshape(6, 8)
            Image.fromarray(masks[name]).save(root / f"{split}annot" / f"{name}.png")
            Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).save(root / split / f"{name}.png")
        (root / f"{split}.txt").write_text("/SegNet/CamVid/elsewhere.png /SegNet/CamVid/elsewhere_mask.png\n")
    return masks


def test_miniature(tmp_path: Path) -> None:
    masks = write_miniature(tmp_path)
    found = CamVid(tmp_path)
    assert found.splits == ("train", "val", "test")
    for split in found.splits:
        dataset = found.open(split)
        assert dataset.names == [f"{split}_1", f"{split}_2"]
        for index, name in enumerate(dataset.names):
            np.testing.assert_array_equal(dataset[index].mask.numpy(), masks[name])
    report = check_data(found)
    assert report.findings == []
    assert report.pixels["train"].tolist() == [8] * 11
    assert report.ignored == {"train": 8, "val": 8, "test": 8}


def test_void_is_ignored() -> None:
    assert (len(CamVid.labels), CamVid.labels.ignore_index) == (11, 11)


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        CamVid(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no train, trainannot, val, valannot, test, testannot"):
        CamVid(tmp_path)
    for split in CamVid.splits:
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}annot").mkdir()
    found = CamVid(tmp_path)
    with pytest.raises(DataError, match="no images"):
        found.open("train")
    assert [(finding.problem, finding.split) for finding in check_data(found).errors] == [
        (EMPTY, split) for split in CamVid.splits
    ]


def test_real(camvid_root: Path) -> None:
    report = check_data(CamVid(camvid_root))
    assert report.findings == []
    assert report.images == {"train": 367, "val": 101, "test": 233}
    assert set(report.sizes.values()) == {((480, 360), (480, 360))}
    for split, count in report.images.items():
        # No value but 0 to 11: the classes and void account for every pixel.
        assert report.pixels[split].sum() + report.ignored[split] == count * 480 * 360
