"""Arrays that are made of files once, and kept as ``.npy`` files in ``~/.cache/sanet`` until the files change.

``SANET_CACHE`` names another folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from sanet.data.decoding import ARRAY
from sanet.files import replaced

LARGEST = 64 * 10**9  # bytes of one kind; beyond them those go that were used least


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
            _make_room(place, values.nbytes)
            with replaced(target) as aside, aside.open("wb") as file:
                np.save(file, values)
        os.utime(target)
    return target


def _make_room(place: Path, size: int) -> None:
    """Delete what was used least until there is room for so many bytes."""
    found = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in place.glob(f"*{ARRAY}"))
    total = size + sum(bytes for _, bytes, _ in found)
    for _, bytes, file in found:
        if total > LARGEST:
            file.unlink(missing_ok=True)
            total -= bytes
