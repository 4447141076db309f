"""How well the outlines of the classes are found: boundary IoU, and boundary F1.

Sources: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021, equation (5),
for classes instead of objects; Csurka et al., "What is a good evaluation measure for semantic segmentation?", BMVC
2013, section 3. Pixels are summed over all images before the quotient, as for mIoU, where Csurka et al. take the mean
of the images.
"""

from __future__ import annotations

from math import ceil, hypot

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.spatial import KDTree

# Distances, as shares of an image's diagonal: those of the papers.
IOU_RATIO, F1_RATIO = 0.02, 0.0075
NOTHING = 2**31 - 1  # in place of the ignore value


def distance_of(ratio: float, shape: tuple[int, ...]) -> int:
    """A share of the diagonal of an image (H, W) in whole pixels, one at least."""
    return max(1, round(ratio * hypot(*shape)))


def region_counts(
    prediction: NDArray[np.int64], mask: NDArray[np.int64], labelled: NDArray[np.bool_], classes: int, ratio: float
) -> NDArray[np.int64]:
    """(3, K): pixels of the boundary regions of each class in an image (H, W), in both, true and predicted.

    The boundary region of a class is what of it lies within a distance of its outline, the border of the image
    included, in steps to one of eight neighbours. Ignored pixels are left out of the regions, and are no outline.
    """
    distance = distance_of(ratio, mask.shape)
    found, true = (_near_others(labels, labelled, distance) for labels in (prediction, mask))
    both = found & true & (prediction == mask)
    pairs = (mask, both), (mask, true), (prediction, found)
    return np.stack([np.bincount(labels[where], minlength=classes) for labels, where in pairs])


def outline_counts(
    prediction: NDArray[np.int64], mask: NDArray[np.int64], labelled: NDArray[np.bool_], classes: int
) -> NDArray[np.int64]:
    """(4, K): predicted outline pixels near a true one of their class, all of these, true ones near, and all.

    An outline pixel has a labelled pixel of another class above, below or beside it; so the border of the image is no
    outline, nor is that of what is ignored. Near is within ``F1_RATIO`` of the diagonal.
    """
    # The distance of whole pixels, squared, is whole: half of one more allows for rounding alone.
    limit = (distance_of(F1_RATIO, mask.shape) ** 2 + 0.5) ** 0.5
    apart, points = ceil(2 * limit), []
    for labels in (prediction, mask):
        rows, columns = np.nonzero(outline_of(labels, labelled))
        # Classes are far apart in a dimension of their own, so that pixels are near those of their class alone.
        points.append(np.column_stack([rows, columns, labels[rows, columns] * apart]))
    trees = [KDTree(found, compact_nodes=False, balanced_tree=False) for found in points]
    counts = []
    for found, tree in zip(points, reversed(trees), strict=True):
        near = np.isfinite(tree.query(found, distance_upper_bound=limit)[0]) if tree.n else np.zeros(len(found), bool)
        which = found[:, 2] // apart
        counts += [np.bincount(part, minlength=classes) for part in (which[near], which)]
    return np.stack(counts)


def _near_others(labels: NDArray[np.int64], labelled: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Where a labelled pixel has one of another class, or the outside of the image, within a distance."""
    window = 2 * distance + 1
    low, high = (
        operation(np.where(labelled, labels, empty).astype(np.int32), window, mode="constant", cval=empty)
        for operation, empty in ((minimum_filter, NOTHING), (maximum_filter, -1))
    )
    near: NDArray[np.bool_] = low != high
    near[:distance] = near[-distance:] = True
    near[:, :distance] = near[:, -distance:] = True
    return near & labelled


def outline_of(labels: NDArray[np.int64], labelled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W): the labelled pixels with a labelled one of another class above, below or beside them."""
    outline = np.zeros(labels.shape, np.bool_)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = (labels[here] != labels[there]) & labelled[here] & labelled[there]
        outline[here] |= differ
        outline[there] |= differ
    return outline
