"""What a split is made of, as digests by which other images or masks are noticed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from sanet.data.decoding import DataError
from sanet.data.source import Record, Source, read_sample, records_of
from sanet.data.values import meanings
from sanet.files import sum_of


def fingerprint(source: Source, split: str) -> dict[str, str]:
    """Digests of one split, the same for a copy of the dataset elsewhere.

    Returns:
        "names": of the names of its images, see ``names_digest``; "images": of the sizes of their files; "masks": of
        the classes, of how masks are read, and of the bytes of their files. What has no file stands for itself.

    Raises:
        UsageError: no such split.
        DataError: a file cannot be read.
    """
    records = sorted(records_of(source, split), key=lambda record: record.name)
    try:
        once = cache(sum_of)  # one file may hold the masks of many
        contents = [_contents(source, record, split in source.unlabelled, once) for record in records]
    except OSError as error:
        remedy = "`sanet check-data` lists all such files"
        raise DataError(f"{error.filename} cannot be read ({error.strerror}); {remedy}") from error
    reading = [source.labels.names, [*meanings(source.labels, source.coding).items()], source.coding.variable]
    reading += [source.drawn] if source.drawn else []
    return {
        "names": names_digest(record.name for record in records),
        "images": _digest([image for image, _ in contents]),
        "masks": _digest([reading, *(mask for _, mask in contents)]),
    }


def names_digest(names: Iterable[str]) -> str:
    """SHA-256 of names, sorted, one a line."""
    return sha256("\n".join(sorted(names)).encode()).hexdigest()


def _contents(source: Source, record: Record, unlabelled: bool, sum_of: Callable[[Path], str]) -> tuple[Any, Any]:
    image: Any = record.image.stat().st_size if record.image else None
    mask: Any = [sum_of(path) for path in (record.mask, record.valid) if path]
    if image is None or not (mask or unlabelled):
        sample = read_sample(source, record)
        image = sha256(sample.image.numpy().tobytes()).hexdigest() if image is None else image
        mask = mask or sha256(sample.mask.numpy().tobytes()).hexdigest()
    return image, mask


def _digest(content: Any) -> str:
    return sha256(json.dumps(content).encode()).hexdigest()
