"""Folders that may be packed."""

from __future__ import annotations

import lzma
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sanet.data.decoding import UNREADABLE, DataError, require_file
from sanet.structures import SanetError, first_line

# What the modules for archives trip over in damaged files, found by damaging many.
DAMAGED = (*UNREADABLE, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)


@contextmanager
def unpacked(path: str | Path) -> Iterator[Path]:
    """A folder as it is, or what a .zip or .tar archive holds, in a folder that is gone at the end.

    A folder that is all that lies in the archive is entered. What goes wrong while it is used names the archive.

    Raises:
        DataError: neither of the two, damaged, encrypted, too large for the disk, or with files that would lie outside.
    """
    if Path(path).is_dir():
        yield Path(path)
        return
    require_file(Path(path), sys.maxsize)  # only the disk bounds an archive
    with TemporaryDirectory(prefix="sanet-") as name:
        folder = Path(name)
        try:
            _unpack(Path(path), folder)
        except DAMAGED as error:
            raise DataError(f"{path} cannot be unpacked ({first_line(error)}); unpack it, name the folder") from error
        while len(inside := [*filter(_seen, folder.iterdir())]) == 1 and inside[0].is_dir():
            folder = inside[0]
        try:
            yield folder
        except SanetError as error:  # of a folder that is gone when it is read
            error.args = tuple(part.replace(name, str(path)) if isinstance(part, str) else part for part in error.args)
            raise


def _unpack(path: Path, folder: Path) -> None:
    if tarfile.is_tarfile(path):  # first, since one that holds a .zip may end as a .zip does
        with tarfile.open(path) as tar:
            _require_room(path, folder, sum(entry.size for entry in tar))
            tar.extractall(folder, filter="data")
            while tar.fileobj and tar.fileobj.read(2**20):
                pass  # the sum of a compressed one stands at its end
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            _require_room(path, folder, sum(entry.file_size for entry in packed.infolist()))
            for entry in packed.infolist():
                entry.filename = entry.filename.replace("\\", "/")  # as some programs on Windows write it
                if ".." in entry.filename.split("/"):  # would be left out of the name, which is another one then
                    raise DataError(f"{path} holds {entry.filename!r}, which would lie outside; leave it out")
                packed.extract(entry, folder)
    else:
        raise DataError(f"{path} is neither a folder nor a whole .zip or .tar; name one of these")


def _seen(path: Path) -> bool:
    """Whether a file in an archive counts: not those that a Mac adds, nor links, which may lead round in a circle."""
    return not (path.name.startswith(".") or path.name == "__MACOSX" or path.is_symlink())


def _require_room(path: Path, folder: Path, size: int) -> None:
    if size > shutil.disk_usage(folder).free:
        raise DataError(f"{path} unpacks to {size} bytes, more than there is room for in {folder.parent}")
