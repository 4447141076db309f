"""Boundary IoU: how well the outlines of the classes are found.

Source: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021, equation (5),
for classes instead of objects: pixels are summed over all images before the quotient, as for mIoU.
"""

from __future__ import annotations

from math import hypot

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class BoundaryIoU(Metric):
    """Mean over the classes of the IoU of their boundary regions, in [0, 1]; NaN where no class has a boundary.

    The boundary region of a class is what of it lies within a distance of its outline, the border of the image
    included, in steps to one of eight neighbours. Ignored pixels are left out of the regions, and are no outline.

    Args:
        num_classes: K.
        ignore_index: value of the pixels to leave out.
        ratio: the distance, as a share of the image's diagonal (paper: 0.02); one pixel at least.
    """

    higher_is_better = True
    counts: Tensor

    def __init__(self, num_classes: int, ignore_index: int = 255, ratio: float = 0.02) -> None:
        super().__init__()
        self.num_classes, self.ignore_index, self.ratio = num_classes, ignore_index, ratio
        self.add_state("counts", torch.zeros(2, num_classes, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Count the boundary regions of an image: labels (H, W) int64, predicted and true."""
        distance = max(1, round(self.ratio * hypot(*mask.shape)))
        labelled = mask != self.ignore_index
        found, true = (
            self._regions(labels.masked_fill(~labelled, self.ignore_index), labelled, distance)
            for labels in (prediction, mask)
        )
        sums = torch.stack([(found & true).sum(dim=(1, 2)), (found | true).sum(dim=(1, 2))])
        self.counts += sums.to(self.counts)

    def _regions(self, labels: Tensor, labelled: Tensor, distance: int) -> Tensor:
        """(K, H, W) bool."""
        classes = torch.arange(self.num_classes, device=labels.device)[:, None, None]
        members = labels == classes
        # What is not of the class grows into it; beyond the image nothing is of any class, what is ignored is of all.
        outside = F.pad((~members & labelled).float(), [distance] * 4, value=1.0)
        width = 2 * distance + 1
        near = F.max_pool2d(F.max_pool2d(outside, (1, width), stride=1), (width, 1), stride=1)
        return members & (near > 0)

    def class_iou(self) -> Tensor:
        """(K,) float64; NaN for a class that has no boundary."""
        return self.counts[0] / self.counts[1]

    def compute(self) -> Tensor:
        """The mean over the classes that have a boundary."""
        return self.class_iou().nanmean()
