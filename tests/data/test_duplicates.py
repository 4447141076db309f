"""Copies are found across splits and other images are not; distances are those that counting bits gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from sanet.config import DataConfig
from sanet.data import duplicates, problems
from sanet.data.check import check_data
from sanet.data.duplicates import look_of, near_duplicates
from sanet.data.folder import Folder
from sanet.data.report import DataReport

LOOKS = st.dictionaries(st.text("ab", max_size=6), st.integers(0, 2**64 - 1).map(lambda look: look & ~1), max_size=20)
MIRRORED = sum(1 << (63 - index) for index in range(63) if (index + 1) % 8 % 2)


def picture(seed: int, height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """Soft clouds of a colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def brute_force(looks: dict[str, dict[str, int]], most: int) -> set[tuple[str, str, str, int]]:
    found = set()
    splits = [split for split in looks if looks[split]]
    for index, split in enumerate(splits):
        for other in splits[index + 1 :]:
            small, large = (split, other) if len(looks[split]) <= len(looks[other]) else (other, split)
            for name, look in looks[small].items():
                bits = [
                    min((look ^ two).bit_count(), (look ^ two ^ MIRRORED).bit_count()) for two in looks[large].values()
                ]
                if min(bits) <= most:
                    found.add((small, name, large, min(bits)))
    return found


@settings(deadline=None, max_examples=100)
@given(LOOKS, LOOKS, LOOKS, st.sampled_from([6, 20, 63]))
def test_distances_against_counting_bits(
    train: dict[str, int], val: dict[str, int], test: dict[str, int], most: int
) -> None:
    looks = {"train": train, "val": val, "test": test}
    pairs = near_duplicates(looks, most)
    assert {(one.split, one.name, one.other_split, one.distance) for one in pairs} == brute_force(looks, most)
    for one in pairs:
        difference = looks[one.split][one.name] ^ looks[one.other_split][one.other_name]
        assert one.distance == min(difference.bit_count(), (difference ^ MIRRORED).bit_count())


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    looks = {
        split: {str(index): int(look) << 1 for index, look in enumerate(rng.integers(0, 2**63, count))}
        for split, count in {"train": 70, "val": 50}.items()
    }
    whole = near_duplicates(looks, 63)
    monkeypatch.setattr(duplicates, "BLOCK", 150)
    assert near_duplicates(looks, 63) == whole
    assert len(whole) == 50


def test_a_look_is_the_signs_of_the_cosine_transform() -> None:
    pixels = picture(0)
    grey = np.asarray(Image.fromarray(pixels).convert("L").resize((32, 32), Image.Resampling.BOX), np.float64)
    signs = dctn(grey)[:8, :8].ravel()[1:] > 0
    assert look_of(pixels) == int("".join("01"[int(sign)] for sign in signs) + "0", 2)


def test_a_flat_image_has_no_look() -> None:
    assert look_of(np.full((40, 50, 3), 90, np.uint8)) is None


def check_files(root: Path, files: dict[str, NDArray[np.uint8]]) -> DataReport:
    """Of a folder with lists, whose images are ``split/name``."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(exist_ok=True)
    names: dict[str, list[str]] = {}
    for key, pixels in files.items():
        split, name = key.split("/")
        names.setdefault(split, []).append(name)
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
        Image.fromarray((pixels[..., 0] > 128).astype(np.uint8)).save(root / "masks" / f"{name}.png")
    for split, members in names.items():
        (root / f"{split}.txt").write_text("\n".join(members))
    return check_data(Folder(DataConfig("folder", str(root), ("dark", "light"))), progress=False)


def test_altered_copies_across_splits_are_listed(tmp_path: Path) -> None:
    others = {f"train/t{seed}": picture(seed) for seed in range(3, 8)}
    first, second = picture(1), picture(2)
    small = np.array(Image.fromarray(first).resize((64, 48)))
    files = {
        "train/a": first,
        "train/b": second,
        "val/small": small,
        "val/mirrored": second[:, ::-1],
        "val/c": picture(9),
    }
    for _ in range(2):  # the second time from what is kept
        report = check_files(tmp_path, others | files)
        assert not report.errors
        alike = [finding for finding in report.findings if finding.problem is problems.ALIKE]
        assert alike[0].detail == "2 of 3 images (66.7%) look like one of train"
        assert [finding.path and finding.path.stem for finding in alike[1:]] == ["small", "mirrored"]
        assert [Path(finding.detail.split(" of train")[0]).stem for finding in alike[1:]] == ["a", "b"]


def test_what_is_alike_within_a_split_or_the_same_to_the_byte_is_not_listed_here(tmp_path: Path) -> None:
    first = picture(1)
    report = check_files(
        tmp_path, {"train/a": first, "train/b": first // 2, "train/c": picture(3), "val/d": picture(2)}
    )
    assert [finding for finding in report.findings if finding.problem is problems.ALIKE] == []
    report = check_files(tmp_path, {"train/a": first, "train/c": picture(3), "val/d": first})
    assert {finding.problem for finding in report.findings} == {problems.SHARED}
