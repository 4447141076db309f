"""What makes two scores comparable, as data that can be hashed and compared.

A protocol has two parts. The ground truth, which images are scored against which labels, has to match before scores can
be compared; the inference settings, in which sizes the network saw the images, are shown beside them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Self

from sanet.config import DataConfig, InferenceConfig, plain
from sanet.data.fingerprint import names_digest
from sanet.structures import LabelSet


@dataclass(frozen=True)
class Protocol:
    """How a score came about: its ground truth, which is all but the last field, and the inference settings.

    Pixels are counted at the original size of each image. Which model was scored, on what device and by how many
    processes, is not part of it.

    Args:
        data: name of the dataset.
        allow_subset: whether only a part of the published dataset was meant.
        split: the split.
        images: number of its images.
        names_sha256: SHA-256 of the sorted names of the images, one a line.
        images_sha256: SHA-256 of the pixels of all images; None where it is not known.
        labels_sha256: SHA-256 of the class indices of all their pixels; likewise.
        classes: class names, in the order of their indices.
        ignore_index: mask value that the scores ignore.
        background: "class NAME" that means "none of the others", "ignored", or "none".
        inference: sliding window, multi-scale and flip; None of masks that were scored without a model.
    """

    data: str
    allow_subset: bool
    split: str
    images: int
    names_sha256: str
    images_sha256: str | None
    labels_sha256: str | None
    classes: tuple[str, ...]
    ignore_index: int
    background: str
    inference: InferenceConfig | None

    @classmethod
    def of(
        cls, data: DataConfig, split: str, names: Sequence[str], labels: LabelSet, inference: InferenceConfig | None
    ) -> Self:
        """How `sanet evaluate` and `score` score the images of these names."""
        background = "ignored" if labels.background_ignored else "none"
        if labels.background is not None:
            background = f"class {labels.names[labels.background]}"
        if inference is not None:
            inference = replace(inference, shorter_side=inference.shorter_side or None)
        truth = (names_digest(names), None, None, labels.names, labels.ignore_index, background)
        return cls(data.name, data.allow_subset, split, len(names), *truth, inference)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """Back from JSON; raises TypeError where fields are missing or unknown."""
        given = content["inference"]
        inference = None if given is None else InferenceConfig(**given)
        return cls(**{**content, "classes": tuple(content["classes"]), "inference": inference})

    def with_contents(self, contents: Mapping[str, tuple[bytes, bytes]]) -> Self:
        """The same of images and labels with these SHA-256, by the names of the images."""
        images, labels = (digest_of({name: both[part].hex() for name, both in contents.items()}) for part in (0, 1))
        return replace(self, images_sha256=images, labels_sha256=labels)

    def ground_truth(self) -> dict[str, Any]:
        """The fields that have to match."""
        return {name: value for name, value in vars(self).items() if name != "inference"}

    @property
    def digest(self) -> str:
        """SHA-256 of the ground truth, 64 hexadecimal digits; scores with the same one can be compared."""
        return digest_of(self.ground_truth())

    def differences(self, other: Protocol) -> list[str]:
        """Every field of the ground truth that differs, with the values of this one and the other."""
        theirs = other.ground_truth()
        return [
            f"{_words(name)}: {plain_text(value)} against {plain_text(theirs[name])}"
            for name, value in self.ground_truth().items()
            if value != theirs[name]
        ]

    def inference_text(self) -> str:
        """In which sizes the network saw the images, in words."""
        if self.inference is None:
            return "masks"
        return ", ".join(f"{_words(name)} {plain_text(value)}" for name, value in vars(self.inference).items())

    def shown(self) -> dict[str, Any]:
        """For a reader: the number of the classes, and of the digests the beginning."""
        values = {**self.ground_truth(), "classes": len(self.classes)}
        values |= {} if self.inference is None else vars(self.inference)
        return {
            _words(name): value[:12] if name.endswith("_sha256") else value
            for name, value in values.items()
            if value is not None
        }


def _words(name: str) -> str:
    return name.replace("_", " ").replace("sha256", "SHA-256")


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
    return f"{value:g}" if isinstance(value, float) else str(value)
