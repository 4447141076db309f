"""Pages of TIFFs as images of their own; each is kept as a file, see ``kept.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import tifffile
from numpy.typing import NDArray

from sanet.data.decoding import DataError, require_file
from sanet.data.images import DAMAGED, TIFF, page_values, pages_of
from sanet.data.kept import kept
from sanet.data.source import Record
from sanet.structures import UsageError


def page_files(path: Path) -> list[Path]:
    """A file for each page; the file itself where it has one, or is no TIFF.

    Raises:
        DataError: the file is missing or damaged, or pages cannot be kept.
    """
    require_file(path)
    with path.open("rb") as start:
        if start.read(4) not in TIFF:
            return [path]
    try:
        with tifffile.TiffFile(path) as file:
            pages = pages_of(file)
            if not pages:
                raise ValueError("it has no page")
            if len(pages) == 1:
                return [path]
            return [
                kept(
                    "pages",
                    path.with_name(f"{numbered(path.stem, number)}.npy"),
                    [path],
                    "",
                    partial(_values, page, path),
                )
                for number, page in enumerate(pages, 1)
            ]
    except DAMAGED as error:
        raise DataError(f"{path}: its pages cannot be read, or not be kept ({error}); save them as files") from error


def _values(page: Any, path: Path) -> NDArray[Any]:
    values = page_values(page, path)
    return values[..., 0] if values.shape[2] == 1 else values


def numbered(name: str, page: int) -> str:
    """What a page is called, from 1."""
    return f"{name}-{page:04}"


def paged(places: Mapping[Path, Path]) -> dict[Path, Path]:
    """The files of all pages, with places that are numbered where a file has several.

    Raises:
        UsageError: two of them have one place.
    """
    found: dict[Path, Path] = {}
    for path, place in places.items():
        pages = [path]
        with suppress(DataError):  # who reads the file says what is wrong with it
            pages = page_files(path)
        for number, page in enumerate(pages, 1):
            found[page] = place.with_name(numbered(place.name, number)) if len(pages) > 1 else place
    if len({*found.values()}) < len(found):
        raise UsageError("pages of a TIFF and another image have one name; predict them into two outputs")
    return found


def unstacked(records: Iterable[Record]) -> list[Record]:
    """A record for every page.

    Raises:
        DataError: an image and its mask differ in their number of pages; or see ``page_files``.
    """
    found = []
    for record in records:
        pages = [page_files(path) if path else None for path in (record.image, record.mask, record.valid)]
        counts = {len(files) for files in pages if files}
        if len(counts) > 1:
            texts = (f"{path} has {len(page_files(path))}" for path in record.paths)
            raise DataError(f"pages of an image and its mask: {', '.join(texts)}; save as many of both")
        count = max(counts, default=1)
        for number in range(count):
            name = record.name if count == 1 else numbered(record.name, number + 1)
            image, mask, valid = (files[number] if files else None for files in pages)
            found.append(replace(record, name=name, image=image, mask=mask, valid=valid))
    return found
