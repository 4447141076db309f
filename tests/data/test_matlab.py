"""Masks in .mat files: what SciPy and MATLAB write is read exactly; what is damaged raises."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from sanet.data import matlab
from sanet.data.voc import AugmentedVOC


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other": np.zeros((4, 4))}, "holds no GTcls.Segmentation"),
        ({"GTcls": np.zeros((4, 4))}, "holds no field Segmentation"),
        ({"GTcls": {"Boundaries": np.zeros((4, 4))}}, "holds no field Segmentation"),
        ({"GTcls": {"Segmentation": "text"}}, "holds no matrix GTcls.Segmentation"),
        ({"GTcls": {"Segmentation": np.zeros((4, 4, 3))}}, "holds no matrix"),
        ({"GTcls": {"Segmentation": np.full((2, 2), 1j)}}, "holds no matrix"),
        ({"GTcls": {"Segmentation": np.array([[1, 2], ["b", "a"]], object)}}, "holds no matrix"),
        ({"GTcls": {"Segmentation": np.full((2, 2), 0.5)}}, "numbers that are not whole"),
        ({"GTcls": {"Segmentation": np.full((2, 2), np.nan)}}, "numbers that are not whole"),
    ],
)
def test_mat_files_of_another_form(tmp_path: Path, content: dict[str, object], message: str) -> None:
    scipy.io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(ValueError, match=message):
        matlab.read_matrix(tmp_path / "a.mat", AugmentedVOC.coding.variable)


@given(
    shape=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    kind=st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.float32, float]),
    compressed=st.booleans(),
    fields=st.lists(st.sampled_from(["Segmentation", "Boundaries", "CategoriesPresent"]), unique=True, min_size=1),
    seed=st.integers(0, 99),
)
def test_mat_files_against_scipy(
    shape: tuple[int, int], kind: type, compressed: bool, fields: list[str], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 100, shape).astype(kind)
    cells = np.array([[scipy.sparse.csc_matrix(np.eye(3))], [None]], object)
    values = {"Segmentation": mask, "Boundaries": np.array([["a"], ["b"]], object), "CategoriesPresent": mask.T}
    content = {"before": cells[:1], "GTcls": {name: values[name] for name in fields}, "LabelMap": mask}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.mat"
        scipy.io.savemat(path, content, do_compression=compressed)
        read = matlab.read_matrix(path, ("LabelMap",))
        assert (read.dtype, read.shape) == (np.int64, shape)
        np.testing.assert_array_equal(read, scipy.io.loadmat(path)["LabelMap"])
        if "Segmentation" in fields:
            np.testing.assert_array_equal(matlab.read_matrix(path, AugmentedVOC.coding.variable), mask)


def element(kind: int, data: bytes, order: str) -> bytes:
    """As MATLAB writes it: up to four bytes within the tag, the rest padded to eight."""
    if len(data) <= 4:
        return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(2, "B"), (4, "H"), (3, "h"), (9, "d")])
def test_mat_files_as_matlab_writes_them(tmp_path: Path, order: str, kind: int, code: str) -> None:
    """MATLAB stores the numbers of a double matrix as the smallest type that holds them, in its own byte order."""
    mask = np.array([[1, 2, 3], [4, 5, 20]])
    parts = (
        element(6, struct.pack(f"{order}II", 6, 0), order),
        element(5, struct.pack(f"{order}ii", *mask.shape), order),
        element(1, b"LabelMap", order),
        element(kind, struct.pack(f"{order}6{code}", *mask.T.ravel().tolist()), order),
    )
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x0100) + (b"IM" if order == "<" else b"MI")
    path, array = tmp_path / "a.mat", element(14, b"".join(parts), order)
    path.write_bytes(header + array)
    np.testing.assert_array_equal(matlab.read_matrix(path, ("LabelMap",)), mask)
    packed = zlib.compress(array)
    path.write_bytes(header + struct.pack(f"{order}II", 15, len(packed)) + packed)
    np.testing.assert_array_equal(matlab.read_matrix(path, ("LabelMap",)), mask)


def test_the_form_that_is_hdf5_is_told_apart(tmp_path: Path) -> None:
    """MATLAB's -v7.3 begins with the same header."""
    header = b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM"
    (tmp_path / "a.mat").write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(10**5))
    with pytest.raises(ValueError, match=r"no MATLAB file of level 5, .* -v6 or -v7"):
        matlab.read_matrix(tmp_path / "a.mat", ("LabelMap",))


def saved(path: Path, compressed: bool) -> np.ndarray:
    """A mask in a struct, beside another field."""
    mask = np.random.default_rng(0).integers(0, 21, (9, 7), np.uint8)
    scipy.io.savemat(path, {"GTcls": {"Segmentation": mask, "Other": 1.0}}, do_compression=compressed)
    return mask


def test_what_is_compressed_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path, rng, refused = tmp_path / "a.mat", np.random.default_rng(0), 0
    mask = saved(path, compressed=True)
    whole = path.read_bytes()
    for _ in range(1500):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(matlab.read_matrix(path, AugmentedVOC.coding.variable), mask)
        except ValueError:
            refused += 1
    assert refused > 500


def test_of_what_is_not_compressed_every_number_is_read_as_it_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    mask = saved(path, compressed=False)
    whole = path.read_bytes()
    start = whole.index(mask.tobytes("F"))
    for place in range(mask.size):
        changed = bytearray(whole)
        changed[start + place] ^= 0x80
        path.write_bytes(changed)
        expected = mask.copy()
        expected[place % 9, place // 9] ^= 0x80
        np.testing.assert_array_equal(matlab.read_matrix(path, AugmentedVOC.coding.variable), expected)
    for end in range(start, start + mask.size):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match="damaged"):
            matlab.read_matrix(path, AugmentedVOC.coding.variable)
