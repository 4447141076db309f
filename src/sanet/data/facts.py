"""What is in the files of a record, kept so that files that have not changed are not decoded again.

Facts are found again where the size or the times of a file differ, where it changed so shortly before that its times
would not show another change, or where images are decoded by other code. They are in ``~/.cache/sanet``, or the folder
that ``SANET_CACHE`` names; without one that can be written, everything is decoded every time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from sanet.data import decoding, values
from sanet.data.source import Record
from sanet.data.values import MaskCoding
from sanet.files import replaced
from sanet.structures import Color, SanetError

Size = tuple[int, int]
UNSETTLED = 2_000_000_000  # nanoseconds within which some file systems give two changes the same time
MOST_VALUES = 1000  # of a mask that is kept; what has more is no mask


@dataclass
class Facts:
    """What an image and its mask hold; sizes are width and height, None where nothing could be read."""

    digest: str = ""  # SHA-256 of the image's file, or of its pixels where it has none
    size: Size | None = None  # of the image, upright
    stored_size: Size | None = None  # before the EXIF rotation
    transparent: bool = False
    mask_size: Size | None = None
    values: dict[int, int] = field(default_factory=dict)  # numbers of pixels
    palette: dict[int, Color] = field(default_factory=dict)  # of the values, where the mask has one
    lossy: bool = False  # the format of the mask changes values
    invalid: int = 0  # pixels that ``Record.valid`` excludes


class KeptFacts:
    """The facts of these records, whose masks are stored so, from one check to the next."""

    def __init__(self, coding: MaskCoding, records: Sequence[Record]) -> None:
        folders = sorted({str(path.parent.absolute()) for record in records for path in record.paths})
        code = b"".join(Path(str(module.__file__)).read_bytes() for module in (decoding, values))
        key = json.dumps([folders, asdict(coding), PIL.__version__, np.__version__, sha256(code).hexdigest()])
        place = os.environ.get("SANET_CACHE") or os.path.expanduser("~/.cache/sanet")
        self.path = Path(place, f"check-{sha256(key.encode()).hexdigest()[:32]}.json")
        self.before: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            self.before = dict(json.loads(self.path.read_text(encoding="utf-8")))
        self.now: dict[str, Any] = {}

    def get(self, record: Record, stamp: list[list[int]]) -> Facts | None:
        """What is known of a record whose files had this stamp; see ``stamp_of``."""
        known, facts = self.before.get(_key(record), (None, None))
        if known != stamp:
            return None
        facts = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
        colors = {int(value): tuple(color) for value, color in facts["palette"].items()}
        return Facts(**facts | {"palette": colors, "values": {int(key): n for key, n in facts["values"].items()}})

    def put(self, record: Record, stamp: list[list[int]], facts: Facts) -> None:
        """Keep facts that were found after the files had this stamp."""
        settled = all(changed < time.time_ns() - UNSETTLED for _, *times in stamp for changed in times)
        if settled and len(facts.values) <= MOST_VALUES and stamp_of(record) == stamp:
            self.now[_key(record)] = [stamp, asdict(facts)]

    def save(self) -> None:
        """Write what is known, for the next time."""
        with suppress(OSError, SanetError), replaced(self.path) as aside:
            aside.write_text(json.dumps(self.now), encoding="utf-8")


def _key(record: Record) -> str:
    return "\n".join(str(path and path.absolute()) for path in (record.image, record.mask, record.valid))


def stamp_of(record: Record) -> list[list[int]]:
    """Size and times of every file of a record; none where one cannot be asked, which is then an error on opening."""
    with suppress(OSError, ValueError):
        stats = [path.stat() for path in record.paths]
        return [[stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for stat in stats]
    return []
