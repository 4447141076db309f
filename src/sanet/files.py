"""Writing: complete files or none, over nothing that is not ours, and one command at a time in a folder.

A file is written aside, synced and renamed. Of what a command gives its place for good, the SHA-256 is noted before
that in ``.sanet.sums``; what is there later with another one, or with none, is somebody's own, and is not replaced.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile

from filelock import FileLock, Timeout

from sanet.structures import SanetError, UsageError

LOCK, SUMS, PARTIAL = ".sanet.lock", ".sanet.sums", ".partial"


def sum_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def aside_of(path: Path) -> Path:
    """Where a file is written before it is given its place: beside it, hidden, under a name that is never too long."""
    place = Path(os.path.realpath(path))
    return place.with_name(f".{hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]}{PARTIAL}")


def hidden(path: Path) -> bool:
    """Whether a file is one of those that this module keeps, or has left when it was killed."""
    return path.name.startswith((LOCK, SUMS)) or (path.name.startswith(".") and path.suffix == PARTIAL)


def refuse(path: Path, option: str = "--output") -> UsageError:
    """The error for a file that is not ours."""
    return UsageError(
        f"{option}: {path} is there already, and is not what sanet wrote there; it is not replaced: move it away, or "
        f"choose another {option}"
    )


def require_own(
    *paths: Path, root: Path | None = None, inputs: Iterable[str | Path] = (), option: str = "--output"
) -> None:
    """Make sure, before the work, that files can be written without replacing what sanet did not write.

    Args:
        paths: files that will be written.
        root: folder with their sums; by default each file's own.
        inputs: files that the command reads, which it never replaces.
        option: what to name in an error.

    Raises:
        UsageError: one of them exists, and not as sanet wrote it; or it is an input.
    """
    read, sums = {os.path.realpath(path) for path in inputs}, cache(_sums)
    for path in paths:
        place = Path(os.path.realpath(path))
        if str(place) in read:
            raise UsageError(f"{option}: {path} is read by the same command; choose another {option}")
        file, name = _entry(place, root)
        known = sums(file).get(name, ())
        if _in_the_way(place) and not (known and place.is_file() and sum_of(place) in known):
            raise refuse(_in_the_way(path) or path, option)


def require_own_folder(path: Path, option: str = "--output") -> None:
    """Make sure that ``written_folder`` may replace a folder: that all files in it are as sanet wrote them there."""
    inside = (file for file in path.rglob("*") if file.is_symlink() or not file.is_dir())
    require_own(*inside, *([] if path.is_dir() else [path]), root=path.parent, option=option)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A file, or a folder, to write beside ``path``: at the end complete and on the disk, after an error gone.

    Raises:
        SanetError: it cannot be written, as on a full disk.
    """
    aside = aside_of(path)
    try:
        with _explained(path):
            aside.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            for written in filter(Path.is_file, [aside, *aside.rglob("*")]):
                with written.open("rb+") as file:
                    os.fsync(file.fileno())
    except BaseException:
        discard(aside)
        raise


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write in place of another one of ours, which it replaces once it is complete and on the disk."""
    with beside(path) as aside:
        yield aside
    _settle(path)


@contextmanager
def written(path: Path, option: str = "--output") -> Iterator[Path]:
    """The same, once ``require_own`` allows it; and its sum is noted, by which it is known as ours later."""
    require_own(path, option=option)
    with beside(path) as aside:
        yield aside
    accept(path)


def accept(path: Path, root: Path | None = None) -> None:
    """Give what was written beside ``path`` its place; before that, note that it is ours."""
    note(aside_of(path), path, root)
    _settle(path)


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of an older one if all files in that are ours; sums are kept above it."""
    with beside(path) as aside:
        aside.mkdir(exist_ok=True)
        yield aside
    require_own_folder(path)
    for file in (file for file in aside.rglob("*") if file.is_file()):
        note(file, path / file.relative_to(aside), path.parent)
    shutil.rmtree(path, ignore_errors=True)
    _settle(path)


def note(content: Path, path: Path, root: Path | None = None) -> None:
    """Note that a file with this content, at this place, is ours."""
    file, name = _entry(Path(os.path.realpath(path)), root)
    append(file, f"{sum_of(content)} {name}")


def discard(aside: Path) -> None:
    """Delete what was written beside a place, if there is anything."""
    with suppress(OSError):
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink(missing_ok=True)


def append(path: Path, line: str) -> None:
    """Add a line to a file, on the disk at once."""
    with _explained(path), path.open("ab") as file:
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def _in_the_way(path: Path) -> Path | None:
    """What is where a file is to be written, or a file where one of its folders would be; None where nothing is."""
    found = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    return None if found != path and found.is_dir() else found


def _settle(path: Path) -> None:
    with _explained(path):
        aside_of(path).replace(os.path.realpath(path))


def _entry(place: Path, root: Path | None) -> tuple[Path, str]:
    """The list of sums that a file belongs to, and its name in there."""
    folder = place.parent if root is None else Path(os.path.realpath(root))
    return folder / SUMS, json.dumps(Path(os.path.relpath(place, folder)).as_posix())


def _sums(file: Path) -> dict[str, set[str]]:
    """By name in a list of sums, those that its contents have had."""
    found: dict[str, set[str]] = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        before, _, name = line.partition(" ")
        found.setdefault(name, set()).add(before[-64:])  # a line may follow one that was torn on a full disk
    return found


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SanetError(
            f"{path} cannot be written ({error.strerror or error}); make room there, or choose another place"
        ) from error


def require_writable(folder: Path) -> None:
    """Make a folder; a UsageError, before the work rather than after it, where no files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"--output: nothing can be written in {folder} ({error.strerror}); name a folder of yours"
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder where there is none, and keep others out of it; the lock falls with the process, however that ends.

    Raises:
        UsageError: it cannot be written.
        SanetError: another command is using it.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    require_writable(folder)
    path, holder = folder / LOCK, folder / f"{LOCK}.holder"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "just begun"
        raise SanetError(f"{folder} is in use by another run ({who}); choose another output") from None
    try:
        with _explained(holder):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        with suppress(PermissionError):  # Windows deletes nothing that is locked
            path.unlink(missing_ok=True)  # while it is held, or another run could hold a file that is gone
        lock.release()
        with suppress(OSError):  # what never began leaves no folder behind; one that did is not empty
            for place in made:
                place.rmdir()
