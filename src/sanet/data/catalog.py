"""The data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sanet.config import DataConfig
from sanet.data import camvid, coco, context, folder, scenes, voc
from sanet.data.loading import SegmentationDataset
from sanet.structures import LabelSet, choose


class Source(Protocol):
    """A data set before any picture is opened."""

    @property
    def labels(self) -> LabelSet:
        """The classes."""

    @property
    def splits(self) -> tuple[str, ...]:
        """What ``open`` takes."""

    def open(self, split: str) -> SegmentationDataset:
        """The pictures of one split."""


DATASETS: dict[str, Callable[[DataConfig], Source]] = {
    "camvid": camvid.source,
    "coco": coco.source,
    "context59": context.source59,
    "context60": context.source60,
    "folder": folder.source,
    "scenes": scenes.source,
    "voc": voc.source,
    "voc_aug": voc.source_augmented,
}


def data_source(config: DataConfig) -> Source:
    """The data set that a configuration names.

    Raises:
        UsageError: an unknown name; the message lists the choices.
        DataError: the root folder is not there or has no layout that is known.
    """
    return DATASETS[choose("data set", config.name, tuple(DATASETS))](config)
