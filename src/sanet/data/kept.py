"""Arrays that are made of files once, and kept as ``.npy`` files in ``~/.cache/sanet`` until the files change.

``SANET_CACHE`` names another folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from sanet.data.decoding import ARRAY
from sanet.files import replaced

WINDOWS = "windows"  # the kind that can be made again at any time
LARGEST = 64 * 10**9  # bytes of that; beyond them those go that were used least


def cache_folder(kind: str = "") -> Path:
    """Where files of a kind are kept."""
    return Path(os.environ.get("SANET_CACHE") or os.path.expanduser("~/.cache/sanet"), kind)


def kept(kind: str, path: Path, files: Sequence[Path], how: object, make: Callable[[], NDArray[Any]]) -> Path:
    """The file with what is made of files.

    Args:
        kind: the folder in the cache.
        path: by which it is found again.
        files: whose changes make it stale.
        how: what else decides what is made.
        make: makes it.

    Raises:
        OSError: one of the files cannot be asked, or the cache cannot be written.
        SanetError: likewise.
    """
    stats = [file.stat() for file in files]
    version = repr([*((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats), how])
    place, key = cache_folder(kind), sha256(os.fsencode(path.absolute())).hexdigest()[:24]
    target = place / f"{path.stem[:80]}-{key}-{sha256(version.encode()).hexdigest()[:24]}{ARRAY}"
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / f"{key}.lock"):  # of several processes one makes it
        if not target.is_file():
            for stale in place.glob(f"*-{key}-*{ARRAY}"):
                stale.unlink(missing_ok=True)
            values = make()
            if kind == WINDOWS:
                _make_room(place, values.nbytes)
            with replaced(target) as aside, aside.open("wb") as file:
                np.save(file, values)
        os.utime(target, ns=(time.time_ns(), target.stat().st_mtime_ns))  # what was used least goes first
    return target


def _make_room(place: Path, size: int) -> None:
    """Delete what was used least until there is room for so many bytes."""
    stats = []
    for file in place.glob(f"*{ARRAY}"):
        with suppress(FileNotFoundError):  # another process makes room as well
            stats.append((file.stat().st_atime, file.stat().st_size, file))
    found = sorted(stats)
    total = size + sum(bytes for _, bytes, _ in found)
    for _, bytes, file in found:
        if total > LARGEST:
            file.unlink(missing_ok=True)
            total -= bytes
