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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import tifffile
from tqdm import tqdm

from sanet.data import decoding, duplicates, images, values
from sanet.data import source as source_code
from sanet.data.decoding import DataError, load_image, load_mask
from sanet.data.images import spread_of
from sanet.data.kept import cache_folder
from sanet.data.source import Record, Source, valid_pixels
from sanet.data.values import MaskCoding, value_counts
from sanet.files import replaced, sum_of
from sanet.structures import Color, SanetError

Size = tuple[int, int]
# Decoding leaves the interpreter to others; more threads would mostly hold more large images in memory.
THREADS = min(16, os.cpu_count() or 1)
UNSETTLED = 2_000_000_000  # nanoseconds within which some file systems give two changes the same time
# So many values on so few of the pixels come from smoothing; in CamVid, smoothed or as JPEG, on less than half of that.
STRAY_VALUES, STRAY_SHARE = 5, 0.01
MOST_VALUES = 1000  # of a mask that is kept; what has more is no mask


@dataclass
class Facts:
    """What an image and its mask hold; sizes are width and height, None where nothing could be read."""

    digest: str = ""  # SHA-256 of the image's file, or of its pixels where it has none
    size: Size | None = None  # of the image, upright
    stored_size: Size | None = None  # before the EXIF rotation
    transparent: bool = False
    spread: list[list[float]] = field(default_factory=list)  # of each channel of stored values: see ``spread_of``
    mask_size: Size | None = None
    values: dict[int, int] = field(default_factory=dict)  # numbers of pixels
    palette: dict[int, Color] = field(default_factory=dict)  # of the values, where the mask has one
    lossy: bool = False  # the format of the mask changes values
    invalid: int = 0  # pixels that ``Record.valid`` excludes
    image_error: str = ""  # why the image cannot be used
    mask_error: str = ""
    look: int | None = None  # of the image, see ``sanet.data.duplicates``
    colors: dict[int, int] = field(default_factory=dict)  # numbers of pixels, where the mask has colours and no numbers


class KeptFacts:
    """The facts of these records, whose masks are stored and read so, from one check to the next."""

    def __init__(self, source: Source, records: Sequence[Record]) -> None:
        folders = sorted({str(path.parent.absolute()) for record in records for path in record.paths})
        code = b"".join(
            Path(str(module.__file__)).read_bytes() for module in (decoding, duplicates, images, source_code, values)
        )
        libraries = PIL.__version__, np.__version__, tifffile.__version__
        how = source.coding.format, source.coding.variable, source.drawn, source.images.without_range().plain()
        key = json.dumps([folders, how, libraries, sha256(code).hexdigest()])
        self.path = cache_folder() / f"check-{sha256(key.encode()).hexdigest()[:32]}.json"
        self.before: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            self.before = dict(json.loads(self.path.read_text(encoding="utf-8")))
        self.now: dict[str, Any] = {}

    def get(self, record: Record, stamp: list[list[int]]) -> Facts | None:
        """What is known of a record whose files had this stamp; see ``stamp_of``."""
        known, facts = self.before.get(_key(record), (None, None))
        if known != stamp:
            return None
        self.now[_key(record)] = self.before[_key(record)]
        sizes = {name: tuple(value) for name, value in facts.items() if name.endswith("size") and value}
        palette = {int(value): tuple(color) for value, color in facts["palette"].items()}
        counts = {name: {int(key): n for key, n in facts[name].items()} for name in ("values", "colors")}
        return Facts(**facts | sizes | {"palette": palette} | counts)

    def put(self, record: Record, stamp: list[list[int]], facts: Facts) -> None:
        """Keep facts that were found after the files had this stamp."""
        settled = all(changed < time.time_ns() - UNSETTLED for _, *times in stamp for changed in times)
        usable = not facts.image_error and not facts.mask_error and len(facts.values) <= MOST_VALUES
        if settled and usable and stamp_of(record) == stamp:
            self.now[_key(record)] = [stamp, asdict(facts)]

    def save(self) -> None:
        """Write what is known, for the next time."""
        if self.now == self.before:
            return
        with suppress(OSError, SanetError), replaced(self.path) as aside:
            aside.write_text(json.dumps(self.now), encoding="utf-8")


def read_facts(source: Source, records: Sequence[Record], progress: bool = True) -> list[Facts]:
    """What is in the files of records, of a source that reads files: known from before, or decoded.

    Args:
        source: says how masks are stored.
        records: a line that is there twice is opened once.
        progress: show a progress bar, if it takes more than a moment.
    """
    kept = KeptFacts(source, records)

    def facts_of(record: Record) -> Facts:
        stamp = stamp_of(record)
        facts = kept.get(record, stamp)
        if facts is None:
            facts = _decoded(record, source)
            kept.put(record, stamp, facts)
        return facts

    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(facts_of, records)
        facts = [*tqdm(found, "check data", total=len(records), unit=" images", delay=1, disable=not progress)]
    kept.save()
    return facts


def _decoded(record: Record, source: Source) -> Facts:
    facts = Facts()
    if record.image:
        try:
            facts.digest = sum_of(record.image)
            if source.images.of_values:
                facts.size, facts.spread = spread_of(record.image, source.images)
            else:
                image = load_image(record.image)
                facts.size, facts.stored_size = (image.pixels.shape[1], image.pixels.shape[0]), image.size
                facts.transparent, facts.look = image.transparent, duplicates.look_of(image.pixels)
        except DataError as error:
            facts.image_error = str(error).removeprefix(f"{record.image} ")
    if record.mask:
        try:
            mask = source.stored_mask(record)
            inside = valid_pixels(record, mask.values.shape)
            facts.mask_size, facts.invalid = (mask.values.shape[1], mask.values.shape[0]), int((~inside).sum())
            facts.values, facts.palette, facts.lossy = value_counts(mask.values[inside]), mask.palette, mask.lossy
        except DataError as error:
            facts.mask_error = str(error).removeprefix(f"{record.mask} ")
            with suppress(DataError):
                facts.colors = value_counts(load_mask(record.mask, MaskCoding("color")).values)
    return facts


def _key(record: Record) -> str:
    paths = [str(path and path.absolute()) for path in (record.image, record.mask, record.valid)]
    return "\n".join([*paths, record.name])  # one file may hold the masks of many


def stamp_of(record: Record) -> list[list[int]]:
    """Size and times of every file of a record; none where one cannot be asked, which is then an error on opening."""
    with suppress(OSError, ValueError):
        stats = [path.stat() for path in record.paths]
        return [[stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for stat in stats]
    return []
