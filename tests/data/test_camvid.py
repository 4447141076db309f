"""CamVid in the SegNet layout: a copy in miniature, and the real one where it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sanet.config import DataConfig
from sanet.data.camvid import LABELS, SPLITS, source
from sanet.data.decoding import DataError
from sanet.data.doctor import examine
from sanet.data.problems import EMPTY


def write_miniature(root: Path) -> dict[str, NDArray[np.uint8]]:
    """Two pictures a split, a list of another machine's paths beside them, and all 12 values in every mask."""
    rng, masks = np.random.default_rng(0), {}
    for split in SPLITS:
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
    found = source(DataConfig("camvid", str(tmp_path)))
    assert found.splits == ("train", "val", "test")
    for split in found.splits:
        dataset = found.open(split)
        assert dataset.names == [f"{split}_1", f"{split}_2"]
        for index, name in enumerate(dataset.names):
            np.testing.assert_array_equal(dataset[index].mask.numpy(), masks[name])
    diagnosis = examine(found)
    assert diagnosis.findings == []
    assert diagnosis.pixels["train"].tolist() == [8] * 11
    assert diagnosis.ignored == {"train": 8, "val": 8, "test": 8}


def test_void_is_ignored() -> None:
    assert (len(LABELS), LABELS.ignore_index) == (11, 11)


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        source(DataConfig("camvid", str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match="has no train, trainannot, val, valannot, test, testannot"):
        source(DataConfig("camvid", str(tmp_path)))
    for split in SPLITS:
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}annot").mkdir()
    found = source(DataConfig("camvid", str(tmp_path)))
    with pytest.raises(DataError, match="no pictures"):
        found.open("train")
    assert [(finding.problem, finding.split) for finding in examine(found).errors] == [
        (EMPTY, split) for split in SPLITS
    ]


def test_real(camvid_root: Path) -> None:
    diagnosis = examine(source(DataConfig("camvid", str(camvid_root))))
    assert diagnosis.findings == []
    assert diagnosis.pictures == {"train": 367, "val": 101, "test": 233}
    assert set(diagnosis.sizes.values()) == {((480, 360), (480, 360))}
    for split, count in diagnosis.pictures.items():
        # No value but 0 to 11: the classes and void account for every pixel.
        assert diagnosis.pixels[split].sum() + diagnosis.ignored[split] == count * 480 * 360
