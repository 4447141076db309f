"""Boundary IoU as a metric, such as for the validation of a run; every evaluation has it, see ``outlines.py``."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from sanet.evaluation.confusion import iou_of
from sanet.evaluation.outlines import IOU_RATIO, region_counts
from sanet.structures import UsageError


class BoundaryIoU(Metric):
    """Mean over the classes of the IoU of their boundary regions, in [0, 1]; NaN where no class has a boundary.

    See ``region_counts``.

    Args:
        num_classes: K.
        ignore_index: value of the pixels to leave out.
        ratio: the distance, as a share of the image's diagonal (paper: 0.02); one pixel at least.
    """

    higher_is_better = True
    counts: Tensor

    def __init__(self, num_classes: int, ignore_index: int = 255, ratio: float = IOU_RATIO) -> None:
        super().__init__()
        self.num_classes, self.ignore_index, self.ratio = num_classes, ignore_index, ratio
        self.add_state("counts", torch.zeros(3, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, mask: Tensor) -> None:
        """Count the boundary regions of an image: labels (H, W) int64, predicted and true.

        Raises:
            UsageError: there are more classes.
        """
        found, true = prediction.cpu().numpy(), mask.cpu().numpy()
        labelled = true != self.ignore_index
        if (largest := max(found.max(), true.max(where=labelled, initial=0))) >= self.num_classes:
            raise UsageError(
                f"there is a class {largest}; give num_classes, which is {self.num_classes}, and ignore_index, "
                f"which is {self.ignore_index}, as the data have them"
            )
        counts = region_counts(found, true, labelled, self.num_classes, self.ratio)
        self.counts += torch.from_numpy(counts).to(self.counts)

    def class_iou(self) -> Tensor:
        """(K,) float64; NaN for a class that has no boundary."""
        return iou_of(self.counts.cpu())  # Apple's GPUs have no float64

    def compute(self) -> Tensor:
        """The mean over the classes that have a boundary."""
        return self.class_iou().nanmean()
