"""Matrices in MATLAB's .mat files of level 5, which MATLAB has written since 1996 unless told otherwise.

Source: "MAT-File Format", The MathWorks. Only what masks need is read: real matrices, and structs that hold them.
SciPy's reader is not taken, since a damaged file can end the whole process in it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HEADER = 128
MATRIX, COMPRESSED = 14, 15
# Types of data, and the classes of arrays that hold numbers; the numbers of a class may be stored as a smaller type.
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
STRUCT, NUMERIC = 2, range(6, 16)
COMPLEX = 0x08
LARGEST = 2**28  # What a file may unpack to, in bytes: masks have some 10^5 pixels.


def read_matrix(path: Path, variable: Sequence[str]) -> NDArray[np.int64]:
    """A matrix of whole numbers.

    Args:
        path: of the .mat file.
        variable: name of the variable, then those of the fields that lead to the matrix.

    Returns:
        (H, W) int64.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or does not hold such a matrix.
    """
    content = path.read_bytes()
    # Version 1.0 and the order of bytes; version 2.0 is HDF5 behind the same header.
    order = {b"\0\1IM": "<", b"\1\0MI": ">"}.get(content[HEADER - 4 : HEADER])
    if order is None:
        raise ValueError("no MATLAB file of level 5, as MATLAB's save makes it with -v6 or -v7")
    try:
        for array in _arrays(content[HEADER:], order):
            if array.name == variable[0]:
                return _numbers(_field(array, variable[1:]), ".".join(variable))
    except (struct.error, zlib.error, StopIteration, UnicodeDecodeError) as error:
        raise ValueError(f"damaged: {error or 'it ends too early'}") from error
    raise ValueError(f"it holds no {'.'.join(variable)}")


class _Array(NamedTuple):
    """An array whose content is still to be read."""

    kind: int
    flags: int
    shape: tuple[int, ...]
    name: str
    content: Iterator[tuple[int, bytes]]
    order: str


def _arrays(content: bytes, order: str) -> Iterator[_Array]:
    """The variables of a file."""
    for kind, data in _elements(content, order):
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(data, LARGEST)
            if not unpacker.eof:
                raise ValueError("damaged: a compressed part ends too early, or has no end")
            yield from _arrays(unpacked, order)
        elif kind == MATRIX:
            yield _array(data, order)


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of one element after the other."""
    place = 0
    while place < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        start, padding = place + 8, 0 if kind == COMPRESSED else -size % 8
        if kind >> 16:  # up to four bytes lie within the tag
            kind, size, start, padding = kind & 0xFFFF, kind >> 16, place + 4, 0
            place += 8
        else:
            place = start + size + padding
        if start + size > len(content):
            raise ValueError("damaged: it ends too early")
        yield kind, content[start : start + size]


def _array(data: bytes, order: str) -> _Array:
    content = _elements(data, order)
    (flags,) = struct.unpack_from(f"{order}I", next(content)[1])
    dimensions = next(content)[1]
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    name = next(content)[1].decode("ascii")
    return _Array(flags & 0xFF, flags >> 8 & 0xFF, shape, name, content, order)


def _field(array: _Array, names: Sequence[str]) -> _Array:
    """What the fields of structs, one within the other, lead to."""
    for name in names:
        if array.kind != STRUCT or array.shape != (1, 1):
            raise ValueError(f"it holds no field {name}")
        (length,) = struct.unpack(f"{array.order}i", next(array.content)[1])
        joined = next(array.content)[1]
        if length < 1:
            raise ValueError("damaged: names of no length")
        found = [joined[place : place + length].split(b"\0")[0] for place in range(0, len(joined), length)]
        if name.encode() not in found:
            raise ValueError(f"it holds no field {name}")
        for _ in range(found.index(name.encode())):
            next(array.content)
        array = _array(next(array.content)[1], array.order)
    return array


def _numbers(array: _Array, name: str) -> NDArray[np.int64]:
    """(H, W) int64, where that loses nothing."""
    if array.kind not in NUMERIC or array.flags & COMPLEX or len(array.shape) != 2 or min(array.shape) < 0:
        raise ValueError(f"it holds no matrix {name}")
    kind, data = next(array.content)
    if kind not in NUMBERS or len(data) != int(NUMBERS[kind][1]) * array.shape[0] * array.shape[1]:
        raise ValueError(f"damaged: {name} is not of {array.shape[1]}x{array.shape[0]} numbers")
    stored = np.frombuffer(data, array.order + NUMBERS[kind])
    if stored.dtype.kind == "f" and not (np.abs(stored) < 2**31).all():
        raise ValueError(f"{name} has numbers that are not whole")
    whole = stored.astype(np.int64)
    if not np.array_equal(whole, stored):
        raise ValueError(f"{name} has numbers that are not whole")
    return np.ascontiguousarray(whole.reshape(array.shape, order="F"))
