"""What copying scores: every image gets the mask of the training image that looks most like it.

A network that is worth its training scores more. Where copying scores well, images of the split are much like those of
train, as frames of one film are, and a network's score says little about other images.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from sanet.data.images import image_of
from sanet.data.source import SegmentationDataset
from sanet.evaluation.confusion import ConfusionMatrix, Scores

COPYING = "copying the most similar training image's mask"  # in facts
SIDE = 16  # of the thumbnails that are compared, in pixels
SECONDS = 30.0
SHARE = 0.6  # of the time, for the training images


@dataclass(frozen=True)
class Copied:
    """The outcome of ``copy_nearest``.

    Attributes:
        scores: of the copied masks.
        images: images of the split that were scored.
        candidates: training images of which each got the most similar one's mask.
        complete: these are all images of both splits.
        seconds: that it took.
    """

    scores: Scores
    images: int
    candidates: int
    complete: bool
    seconds: float

    @property
    def facts(self) -> dict[str, Any]:
        """What it scores, and how many images took part, for the facts of an evaluation."""
        scores, extent = self.scores, {"images": self.images, "training images": self.candidates}
        return {COPYING: {"miou": scores.miou, "pixel_accuracy": scores.pixel_accuracy, **extent}}

    def __str__(self) -> str:
        part = "" if self.complete else f", on {self.images} images, of {self.candidates} training images"
        return (
            f"copying the mask of the most similar training image: mIoU {self.scores.miou:.3f}, pixel accuracy "
            f"{self.scores.pixel_accuracy:.3f}{part} ({self.seconds:.0f} s)"
        )


def copy_nearest(train: SegmentationDataset, split: SegmentationDataset, seconds: float = SECONDS) -> Copied:
    """Score the masks of the nearest training images on a split.

    The nearest has the least squared difference of colours averaged over 16x16 fields. Its mask is resized by the
    nearest neighbour; what it ignores counts as its most frequent class.

    Args:
        train: the training images.
        split: the images that are scored.
        seconds: after which a part has to do, drawn evenly from all: that of the training images within 60 % of the
            time, and at least one image of each.

    Raises:
        DataError: an image or a mask cannot be read.
    """
    start = monotonic()
    order = np.random.default_rng(0).permutation(len(train)).tolist()
    found: list[Tensor] = []
    for index in order:
        if found and monotonic() > start + SHARE * seconds:
            break
        found.append(thumbnail(_image(train, index)))
    thumbnails, confusion, images = torch.stack(found), ConfusionMatrix(split.labels), 0
    for index in np.random.default_rng(0).permutation(len(split)).tolist():
        if images and monotonic() > start + seconds:
            break
        image, mask, _ = split[index]
        nearest = order[int((thumbnails - thumbnail(image)).square().sum(dim=1).argmin())]
        copied = filled(train[nearest].mask, train.labels.ignore_index)
        confusion.update(mask, resized(copied, mask.shape[0], mask.shape[1]))
        images += 1
    complete = (len(found), images) == (len(train), len(split))
    return Copied(confusion.scores(), images, len(found), complete, monotonic() - start)


def thumbnail(image: Tensor) -> Tensor:
    """(C * 256,) float32: an image (C, H, W), averaged over 16x16 fields."""
    return adaptive_avg_pool2d(image.float(), SIDE).flatten()


def resized(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask (H, W) at another size, by the nearest neighbour."""
    rows, columns = (
        ((torch.arange(n) + 0.5) * (m / n)).long() for n, m in zip((height, width), mask.shape, strict=True)
    )
    return mask[rows][:, columns]


def filled(mask: Tensor, ignore_index: int) -> Tensor:
    """A mask with its most frequent class, or class 0 where it has none, in place of the ignore value."""
    labelled = mask[mask != ignore_index]
    return mask.where(mask != ignore_index, labelled.mode().values if len(labelled) else 0)


def _image(dataset: SegmentationDataset, index: int) -> Tensor:
    """An image (C, H, W) without its mask, where that saves time."""
    if not dataset.source.reads_files:
        return dataset[index].image
    return image_of(dataset.records[index].files[0], dataset.source.images)
