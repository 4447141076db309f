"""Folders that commands write into: that they can, and that one at a time does."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from filelock import FileLock, Timeout

from sanet.structures import SanetError, UsageError

LOCK = "run.lock"


def require_writable(folder: Path) -> None:
    """Make a folder, and find out before the work rather than after it whether files can be written there.

    Raises:
        UsageError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"--output: nothing can be written in {folder} ({error.strerror}); name a folder of yours"
        ) from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder where there is none, and keep others out of it; the lock falls with the process, however that ends.

    Raises:
        UsageError: it cannot be written.
        SanetError: another command is using it.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    require_writable(folder)
    path = folder / LOCK
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SanetError(f"{folder} is in use by another run ({_holder(path)}); choose another output") from None
    try:
        (folder / f"{LOCK}.holder").write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        (folder / f"{LOCK}.holder").unlink(missing_ok=True)
        path.unlink(missing_ok=True)  # while it is held, or another run could hold a file that is gone
        lock.release()
        with suppress(OSError):  # what never began leaves no folder behind; one that did is not empty
            for place in made:
                place.rmdir()


def _holder(path: Path) -> str:
    holder = path.with_name(f"{LOCK}.holder")
    return holder.read_text(encoding="utf-8") if holder.exists() else "just begun"
