"""Which connected regions of each class are found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

EIGHT = np.ones((3, 3))  # neighbours


def matched_regions(
    prediction: NDArray[np.int64], mask: NDArray[np.int64], labelled: NDArray[np.bool_], classes: int
) -> NDArray[np.int64]:
    """(3, K): connected regions of each class in an image (H, W) that are matched, true and predicted.

    A region is what of one class hangs together over eight neighbours. Two regions of one class match where their IoU
    is above 0.5, which at most one pair of each can reach: the matching of Kirillov et al., "Panoptic Segmentation",
    CVPR 2019, section 4.1. What the ground truth ignores is taken out of both before there are regions, so that a
    perfect prediction matches whatever it says there.
    """
    found, kinds = connected_regions(prediction, labelled, classes)
    true, true_kinds = connected_regions(mask, labelled, classes)
    areas, true_areas = np.bincount(found.ravel()), np.bincount(true.ravel())
    same = labelled & (prediction == mask)
    pairs, common = np.unique(true[same] * len(kinds) + found[same], return_counts=True)
    of_true, of_found = np.divmod(pairs, len(kinds))
    match = 3 * common > areas[of_found] + true_areas[of_true]  # 2 x intersection > union
    chosen = kinds[of_found[match]], true_kinds[1:], kinds[1:]
    return np.stack([np.bincount(part, minlength=classes) for part in chosen])


def connected_regions(
    labels: NDArray[np.int64], labelled: NDArray[np.bool_], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What of each class hangs together over eight neighbours, where there are labels.

    Returns:
        (H, W) numbers of the regions, from 1, and 0 where nothing is labelled; (R + 1,) the class of each number.
    """
    labels = np.where(labelled, labels, -1)
    numbers, kinds = np.zeros(labels.shape, np.int64), [np.zeros(1, np.int64)]
    total = 0
    for index, place in enumerate(find_objects(labels + 1, classes)):
        if place is not None:
            parts, count = label(labels[place] == index, EIGHT)
            numbers[place] += np.where(parts > 0, parts + total, 0)
            kinds.append(np.full(count, index))
            total += count
    return numbers, np.concatenate(kinds)
