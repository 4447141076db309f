"""Which image goes with which mask: by the names of files, or by lists of them."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from sanet.data.decoding import IMAGE_SUFFIXES, DataError, require_file
from sanet.data.source import Record


def existing_root(root: str | Path) -> Path:
    """The folder of a dataset that lies in files; a DataError where it does not exist."""
    if not Path(root).is_dir():
        packed = Path(root).is_file() and (zipfile.is_zipfile(root) or tarfile.is_tarfile(root))
        remedy = "an archive: unpack it, and name the folder" if packed else "not a folder"
        raise DataError(f"data.root {root} is {remedy}")
    return Path(root)


def lines_of(path: Path) -> list[str]:
    """The lines of a list that have something in them.

    Raises:
        DataError: there is no such file, or it is no text.
    """
    require_file(path)
    try:
        # Windows editors put a byte order mark first, which would become part of the first name.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8, one image a line") from error
    return [line.strip() for line in lines if line.strip()]


def read_list(path: Path) -> list[str]:
    """The images of a list, one a line, without folders and suffixes; see ``lines_of``."""
    names = [PurePosixPath(line) for line in lines_of(path)]
    # A dot may also be a part of the stem, so only the suffix of an image is removed.
    return [composed(name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name) for name in names]


def composed(name: str) -> str:
    """The name with letters and their accents in one character each; macOS stores file names the other way."""
    return normalize("NFC", name)


def pair_by_name(
    images: Path, masks: Path, names: Iterable[str] | None = None, mask_suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> list[Record]:
    """Pair the images and masks of two folders by file stem.

    Each folder is listed once, since a network disk takes its time to ask about every file.

    Args:
        images: folder of the images.
        masks: folder of the masks; a folder that does not exist counts as empty.
        names: stems to use, in this order; by default all of them, sorted.
        mask_suffixes: suffixes that masks have, in small letters.

    Returns:
        A record for every name. What has no partner is None, and of several files with the same stem every one has
        a record, so that nothing is lost unseen.
    """
    found_images, found_masks = _by_stem(images, IMAGE_SUFFIXES), _by_stem(masks, mask_suffixes)
    if names is None:
        names = sorted(found_images.keys() | found_masks.keys())
    return [
        Record(name, image, mask)
        for name in names
        for image, mask in zip_longest(found_images.get(name, [None]), found_masks.get(name, [None]))
    ]


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in suffixes:
            found.setdefault(composed(path.stem), []).append(path)
    return found


def files_below(root: Path) -> Iterator[Path]:
    """In order, without what begins with a dot."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))
