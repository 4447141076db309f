"""Unpacking an archive that need not be trusted.

Neither tarfile nor zipfile writes anything here. They read; this module makes folders and regular files, all of them
new and all of them in a staging folder, and makes nothing else: no link, no device, no owner, no mode. What is whole is
renamed from there into its place, and what is in that place already is never overwritten.
"""

from __future__ import annotations

import errno
import filecmp
import gzip
import io
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from tqdm import tqdm

from sanet.data.archives import Archive, DownloadError, in_words

LARGEST_RATIO = 200  # unpacked bytes to one of the archive
LARGEST_READ = 16 << 20  # bytes; tarfile reads headers at once, however long they claim to be
CHUNK = 1 << 18
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Member(NamedTuple):
    """An entry of an archive: the name that it gives, "file", "folder" or what else it is, and its bytes."""

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Archive, path: Path, root: Path, progress: bool = True) -> None:
    """Put the parts of the archive that lies at ``path`` into their places below the root.

    It can be repeated, also after it was killed: what is there and the same stays.

    Raises:
        DownloadError: the archive holds what it should not, or is damaged; a different file is in the way; no room.
    """
    place = root / archive.into
    staging = place / f".unpacking-{archive.name}"
    with writing(staging):
        place.mkdir(parents=True, exist_ok=True)
        _remove(staging)
        staging.mkdir()
    try:
        if archive.parts:
            _extract(archive, path, staging, progress)
        else:
            with writing(place / archive.name, path.stat().st_size):
                shutil.copyfile(path, staging / archive.name)
        for part in archive.parts or (archive.name,):
            if not (staging / part).exists():
                raise DownloadError(f"{path} holds no {part}; it is not the archive that it should be")
            with writing(place / part):
                _merge(staging / part, place / part, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _extract(archive: Archive, path: Path, staging: Path, progress: bool) -> None:
    """Look at all of it before the first byte is written, then write, and count again."""
    most = min(archive.unpacked, LARGEST_RATIO * path.stat().st_size)
    total = 0
    for _, member in _wanted(archive, path):
        total += member.size
        if total > most:
            raise _too_much(path, member.name, most)
    check_room(staging, total, f"{path} unpacked")
    left = total
    with tqdm(desc=f"unpack {path.name}", total=total, unit="B", unit_scale=True, disable=not progress) as bar:
        for relative, member in _wanted(archive, path):
            target = staging / relative
            if member.kind == "folder":
                with writing(target):
                    target.mkdir(parents=True, exist_ok=True)
                continue
            if os.path.lexists(target):
                raise DownloadError(f"{path} holds {member.name!r} twice; it was not unpacked")
            with writing(target, left):
                target.parent.mkdir(parents=True, exist_ok=True)
                sink = target.open("xb", buffering=0)
            with sink, _reading(path), member.open() or io.BytesIO() as source:
                while chunk := source.read(CHUNK):
                    if len(chunk) > left:
                        raise _too_much(path, member.name, most)
                    with writing(target, left):
                        write(sink, chunk)
                    left -= len(chunk)
                    bar.update(len(chunk))


def _wanted(archive: Archive, path: Path) -> Iterator[tuple[PurePosixPath, Member]]:
    """The members below the parts, each with a path that stays inside; any member with another one is refused."""
    parts = [PurePosixPath(part) for part in archive.parts]
    with _reading(path):
        for number, member in enumerate(_members(path), 1):
            if number > archive.members:
                raise DownloadError(f"{path} has more than the {archive.members} entries that it should have")
            relative = _relative(path, member.name)
            if not any(relative == part or part in relative.parents for part in parts):
                continue
            if member.kind not in ("file", "folder"):
                raise DownloadError(f"{path} holds {member.name!r}, a {member.kind}; it was not unpacked")
            yield relative, member


def _relative(path: Path, name: str) -> PurePosixPath:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or re.search(r"[\\\0]|^[A-Za-z]:", name):
        raise DownloadError(f"{path} holds {name!r}, which leads out of the folder; it was not unpacked")
    return relative


def _members(path: Path) -> Iterator[Member]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as package:
            for entry in package.infolist():
                yield Member(entry.filename, _zip_kind(entry), entry.file_size, partial(package.open, entry))
        return
    opened = _Gzip(path) if path.suffix in (".gz", ".tgz") else _Plain(path)
    # tarfile asks for read, seek and tell only.
    with opened, tarfile.TarFile(fileobj=cast("IO[bytes]", opened)) as tar:
        for info in tar:
            yield Member(info.name, _tar_kind(info), info.size, partial(tar.extractfile, info))


def _zip_kind(entry: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if entry.flag_bits & 1:
        return "file with a password"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "symbolic link" if kind == stat.S_IFLNK else "special file"
    return "folder" if entry.is_dir() else "file"


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isdir():
        return "folder"
    if info.issym() or info.islnk():
        return f"link to {info.linkname!r}"
    return "file" if info.isreg() and not info.issparse() and info.size >= 0 else "special file"


class _Plain(io.FileIO):
    """A file that gives at most ``LARGEST_READ`` bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(_bounded(size))


class _Gzip(gzip.GzipFile):
    """The same, of what is compressed."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(_bounded(size))


def _bounded(size: int | None) -> int:
    if size is None or not 0 <= size <= LARGEST_READ:
        raise tarfile.ReadError(f"a header claims {size} bytes")
    return size


def _merge(source: Path, target: Path, archive: Path) -> None:
    """Move a file or folder to where nothing is yet; where something is, it has to be the same."""
    if not os.path.lexists(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    elif source.is_dir() and target.is_dir():
        for entry in sorted(source.iterdir()):
            _merge(entry, target / entry.name, archive)
    elif not (source.is_file() and target.is_file() and filecmp.cmp(source, target, shallow=False)):
        raise DownloadError(
            f"{target} is there already and differs from the one in {archive}; move it away and run this again"
        )


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raise a DownloadError where fewer bytes are free than needed."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"{what} needs {in_words(needed)} in {folder}, where {in_words(free)} are free; make room there, "
            "or choose another --root"
        )


@contextmanager
def writing(target: Path, needed: int = 0) -> Iterator[None]:
    """Turn what keeps a file from being written into a message with the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise DownloadError(f"{error.filename or target} cannot be written: {error.strerror}") from error
        folder = next(place for place in target.absolute().parents if place.exists())
        raise DownloadError(
            f"{target} cannot be written: {error.strerror}. {in_words(needed)} more were needed and "
            f"{in_words(shutil.disk_usage(folder).free)} are free; make room and run this again"
        ) from error


def write(sink: io.FileIO, chunk: bytes) -> None:
    """All of the bytes, past Python's own buffer, so that a full disk is noticed here."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[sink.write(rest) :]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        OSError, EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile,
        NotImplementedError, RuntimeError, ValueError, MemoryError,
    ) as error:  # fmt: skip
        raise DownloadError(f"{path} cannot be unpacked: {error}") from error


def _too_much(path: Path, name: str, most: int) -> DownloadError:
    return DownloadError(
        f"{path} unpacks to more than the {in_words(most)} that it may have, at {name!r}; it was not unpacked"
    )


def _remove(folder: Path) -> None:
    """What an unpacking that was killed left behind."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
