"""Folders that may be packed."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sanet.data.decoding import DataError, require_file


@contextmanager
def unpacked(path: str | Path) -> Iterator[Path]:
    """A folder as it is, or what a .zip or .tar archive holds, in a folder that is gone at the end.

    A folder that is all that lies in the archive is entered.

    Raises:
        DataError: neither of the two, damaged, encrypted, too large for the disk, or with files that would lie outside.
    """
    if Path(path).is_dir():
        yield Path(path)
        return
    require_file(Path(path))
    with TemporaryDirectory(prefix="sanet-") as name:
        folder = Path(name)
        try:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as packed:
                    _require_room(path, folder, sum(entry.file_size for entry in packed.infolist()))
                    packed.extractall(folder)  # which leaves out what leads outside of a path
            else:
                with tarfile.open(path) as tar:
                    _require_room(path, folder, sum(entry.size for entry in tar))
                    tar.extractall(folder, filter="data")
        except (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, *BROKEN) as error:
            raise DataError(f"{path} is no folder, and cannot be unpacked ({error}); unpack it, name that") from error
        while len(inside := [one for one in folder.iterdir() if one.name != "__MACOSX"]) == 1 and inside[0].is_dir():
            folder = inside[0]
        yield folder


BROKEN = (zipfile.BadZipFile, tarfile.TarError)


def _require_room(path: str | Path, folder: Path, size: int) -> None:
    if size > shutil.disk_usage(folder).free:
        raise DataError(f"{path} unpacks to {size} bytes, more than there is room for in {folder.parent}")
