"""What makes two scores comparable, as data that can be hashed and compared.

A protocol has two parts. The ground truth, which images are scored against which labels, has to match before scores can
be compared; the feeding, in which sizes the network saw the images, is shown beside them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from hashlib import sha256
from typing import Any, Self

from sanet.config import DataConfig, InferenceConfig, plain
from sanet.data.fingerprint import names_digest
from sanet.structures import LabelSet, UsageError

NAMES = {
    "data": "data set",
    "partial": "partial",
    "split": "split",
    "pictures": "pictures",
    "names_sha256": "SHA-256 of their names",
    "images_sha256": "SHA-256 of the images",
    "labels_sha256": "SHA-256 of the labels",
    "classes": "classes",
    "ignore_index": "ignored value",
    "background": "background",
    "absent_classes": "absent classes",
    "resolution": "resolution",
    "scales": "scales",
    "mirror": "mirror",
    "window": "window",
    "shorter_side": "shorter side",
}
FEEDING = ("scales", "mirror", "window", "shorter_side")


@dataclass(frozen=True)
class Protocol:
    """How a score came about: its ground truth, and the fields of ``FEEDING``.

    Which model was scored, on what device and by how many processes, is not part of it.

    Args:
        data: name of the data set.
        partial: whether only a part of the published data set was meant.
        split: the split.
        pictures: how many it holds.
        names_sha256: of the sorted names of the pictures, one a line.
        classes: class names, in the order of their indices.
        ignore_index: value of the truth that counts nowhere.
        background: "class NAME" that means "none of the others", "ignored", or "none".
        absent_classes: what becomes of a class that is neither true nor predicted anywhere.
        resolution: at which size pixels are counted.
        scales: factors by which pictures were resized.
        mirror: whether pictures were looked at mirrored too.
        window: pictures of more than window**2 pixels went through windows of this side.
        shorter_side: of the pictures as the network saw them at scale 1; None for their own size.
        images_sha256: of the pixels of all images; None where it is not known, as in files from before it was kept.
        labels_sha256: of the class indices of all their pixels; likewise.
    """

    data: str
    partial: bool
    split: str
    pictures: int
    names_sha256: str
    classes: tuple[str, ...]
    ignore_index: int
    background: str
    absent_classes: str
    resolution: str
    scales: tuple[float, ...]
    mirror: bool
    window: int
    shorter_side: int | None = None
    images_sha256: str | None = None
    labels_sha256: str | None = None

    @classmethod
    def of(cls, data: DataConfig, split: str, names: Sequence[str], labels: LabelSet, views: InferenceConfig) -> Self:
        """How `sanet evaluate` scores the pictures of these names."""
        background = "none" if labels.background is None else f"class {labels.names[labels.background]}"
        return cls(
            data=data.name,
            partial=data.allow_subset,
            split=split,
            pictures=len(names),
            names_sha256=names_digest(names),
            classes=labels.names,
            ignore_index=labels.ignore_index,
            background="ignored" if labels.background_ignored else background,
            absent_classes="in no mean",
            resolution="original",
            scales=views.scales,
            mirror=views.flip,
            window=views.window,
            shorter_side=views.shorter_side or None,
        )

    @classmethod
    def read(cls, content: dict[str, Any]) -> Self:
        """Back from JSON.

        Raises:
            UsageError: fields that are missing, or more than there are.
        """
        names = {item.name for item in fields(cls)}
        required = {item.name for item in fields(cls) if item.default is MISSING}
        wrong = sorted((content.keys() - names) | (required - content.keys()))
        if wrong:
            raise UsageError(f"fields of the protocol that are missing, or unknown: {', '.join(wrong)}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        return cls(**values)

    def with_contents(self, contents: dict[str, tuple[bytes, bytes]]) -> Self:
        """The same of images and labels with these SHA-256, by the names of the images."""
        images, labels = (
            digest_of({name: digests[part].hex() for name, digests in contents.items()}) for part in (0, 1)
        )
        return replace(self, images_sha256=images, labels_sha256=labels)

    def without_contents(self) -> Self:
        """The same of whatever images and labels."""
        return replace(self, images_sha256=None, labels_sha256=None)

    @property
    def digest(self) -> str:
        """SHA-256 of the ground truth, 64 hexadecimal digits; scores with the same one can be compared."""
        return digest_of({name: value for name, value in asdict(self).items() if name not in FEEDING})

    def differences(self, other: Protocol) -> list[str]:
        """Every field of the ground truth that differs, with the values of this one and the other."""
        return [
            f"{name}: {plain_text(getattr(self, field))} against {plain_text(getattr(other, field))}"
            for field, name in NAMES.items()
            if field not in FEEDING and getattr(self, field) != getattr(other, field)
        ]

    def feeding(self) -> str:
        """In which sizes the network saw the images, in words."""
        return ", ".join(f"{NAMES[field]} {plain_text(getattr(self, field))}" for field in FEEDING)

    def shown(self) -> dict[str, Any]:
        """For a reader: classes by number, and of the digests the beginning."""
        values = {field: getattr(self, field) for field in NAMES if getattr(self, field) is not None}
        values |= {"classes": len(self.classes)}
        short = {field: value[:12] for field, value in values.items() if field.endswith("_sha256")}
        return {NAMES[field]: value for field, value in (values | short).items()}


def digest_of(content: Any) -> str:
    """SHA-256 of the canonical JSON: keys sorted, no spaces, UTF-8, tuples as lists; numbers must be finite."""
    text = json.dumps(plain(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return sha256(text.encode()).hexdigest()


def plain_text(value: Any) -> str:
    """A setting as a reader would write it."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain_text(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain_text(entry) for entry in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
