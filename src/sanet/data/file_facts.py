"""What the check has found in files, kept so that a file that has not changed is not decoded again.

The facts of a file are found again where its size or its times differ, where it changed so shortly before that its
times would not show another change, or where images are decoded by other code. They are in ``~/.cache/sanet``, or the
folder that ``SANET_CACHE`` names; without one that can be written, everything is decoded every time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL

from sanet.data import decoding, values
from sanet.data.decoding import DataError, load_image, load_mask, shape_text
from sanet.data.source import Record
from sanet.data.values import MaskCoding, value_counts
from sanet.files import replaced
from sanet.structures import Color, SanetError

UNSETTLED = 2_000_000_000  # nanoseconds within which some file systems give two changes the same time
MOST_VALUES = 1000  # of a mask that is kept; what has more is no mask


class ImageFacts(NamedTuple):
    """Width and height, the same before the EXIF rotation, whether pixels are transparent, and the file's SHA-256."""

    size: tuple[int, int]
    stored_size: tuple[int, int]
    transparent: bool
    digest: str


class MaskFacts(NamedTuple):
    """Width and height, pixels of each value, colours of values, whether the format is lossy, and invalid pixels."""

    size: tuple[int, int]
    values: dict[int, int]
    palette: dict[int, Color]
    lossy: bool
    invalid: int


class FileFacts:
    """Facts of the files of a dataset.

    Args:
        coding: how its masks are stored.
        records: all that are going to be asked for.
    """

    def __init__(self, coding: MaskCoding, records: Sequence[Record]) -> None:
        self.coding = coding
        folders = sorted({str(path.parent.absolute()) for one in records for path in (one.image, one.mask) if path})
        code = b"".join(Path(str(module.__file__)).read_bytes() for module in (decoding, values))
        key = json.dumps([folders, asdict(coding), PIL.__version__, np.__version__, sha256(code).hexdigest()])
        place = os.environ.get("SANET_CACHE") or os.path.expanduser("~/.cache/sanet")
        self.path = Path(place, f"check-{sha256(key.encode()).hexdigest()[:32]}.json")
        self.kept: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            self.kept = dict(json.loads(self.path.read_text(encoding="utf-8")))
        self.found: dict[str, Any] = {}

    def of_image(self, path: Path) -> ImageFacts:
        """The facts of an image.

        Raises:
            DataError: see ``load_image``.
        """

        def find() -> list[Any]:
            image = load_image(path)
            height, width, _ = image.pixels.shape
            with path.open("rb") as file:
                return [[width, height], image.size, image.transparent, file_digest(file, "sha256").hexdigest()]

        size, stored_size, transparent, digest = self._facts("image", [path], find)
        return ImageFacts(tuple(size), tuple(stored_size), transparent, digest)

    def of_mask(self, path: Path, valid: Path | None) -> MaskFacts:
        """The facts of a mask, of its values where ``valid`` is not 0.

        Raises:
            DataError: see ``load_mask``; or ``valid`` has another size.
        """

        def find() -> list[Any]:
            mask = load_mask(path, self.coding)
            stored, invalid = mask.values, 0
            height, width = stored.shape
            if valid is not None:
                inside = load_mask(valid, MaskCoding()).values != 0
                if inside.shape != stored.shape:
                    raise DataError(f"{valid} is {shape_text(inside)} but {path} is {shape_text(stored)}")
                stored, invalid = stored[inside], int((~inside).sum())
            counts = value_counts(stored)
            return [[width, height], list(counts.items()), list(mask.palette.items()), mask.lossy, invalid]

        size, counts, palette, lossy, invalid = self._facts("mask", [path, *([valid] if valid else [])], find)
        colors = {value: tuple(color) for value, color in palette}
        return MaskFacts(tuple(size), dict(counts), colors, lossy, invalid)

    def _facts(self, kind: str, paths: Sequence[Path], find: Callable[[], list[Any]]) -> Any:
        key = "\n".join([kind, *(str(path.absolute()) for path in paths)])
        stamp = self._stamp(paths)
        known = self.kept.get(key)
        facts = known[1] if known and known[0] == stamp else json.loads(json.dumps(find()))
        settled = all(time_of_change < time.time_ns() - UNSETTLED for _, *times in stamp for time_of_change in times)
        if settled and len(facts[1]) <= MOST_VALUES and self._stamp(paths) == stamp:
            self.found[key] = [stamp, facts]
        return facts

    def _stamp(self, paths: Sequence[Path]) -> list[list[int]]:
        """Size and times of every file; nothing where one cannot be asked, which is then an error on opening."""
        with suppress(OSError, ValueError):
            stats = [path.stat() for path in paths]
            return [[stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for stat in stats]
        return []

    def save(self) -> None:
        """Keep the facts for the next time."""
        if self.found != self.kept:
            with suppress(OSError, SanetError), replaced(self.path) as aside:
                aside.write_text(json.dumps(self.found), encoding="utf-8")
