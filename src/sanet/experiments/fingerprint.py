"""On which pictures a run was trained and scored: digests that lie beside it, by which other pictures are noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.data.fingerprint import fingerprint
from sanet.evaluation.protocol import digest_of
from sanet.files import replaced

KEPT = "data.json"
TRAINED = "train"


def digests_of(config: DataConfig, split: str) -> dict[str, str]:
    """Digests of the split that is trained on and of the one that is scored, by their names.

    They stand for the classes, the names of the pictures in their order and, of data sets in files, the sizes of the
    picture files and the bytes of the masks, of others the samples: what a copy of the data set elsewhere has as well.

    Raises:
        DataError: the data set, or a file of it, cannot be read.
        UsageError: no such split.
    """
    source = data_source(config)
    return {name: digest_of(fingerprint(source, name)) for name in (TRAINED, split)}


def read(file: Path) -> dict[str, str]:
    """The digests that a file keeps, by split; none where there is no such file, or it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(digest) for name, digest in content.items()} if isinstance(content, dict) else {}


def write(file: Path, digests: Mapping[str, str]) -> None:
    """Keep them, with those of other splits that the file has; it is there whole, or as it was."""
    text = json.dumps(read(file) | dict(digests), indent=1)
    with replaced(file) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
