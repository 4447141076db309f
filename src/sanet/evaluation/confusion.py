"""One integer confusion matrix over a whole set, and the scores that follow from it.

The rule for absent classes: a class that neither the ground truth nor the prediction of the whole set contains has no
IoU (NaN) and is left out of every mean. A class that is predicted but never true has IoU 0 and counts; it has no
accuracy, since there is nothing of it to find.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Any

import torch
from torch import Tensor, nn

from sanet.structures import LabelSet

# What the means of Scores are called.
SCORE_NAMES = {
    "miou": "mean IoU",
    "miou_without_background": "mean IoU without background",
    "miou_with_background": "mean IoU with background (as IoU 0)",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
}


@dataclass(frozen=True)
class Scores:
    """Shares in [0, 1]; NaN where there is nothing to score.

    Attributes:
        miou: mean IoU over the classes present in ground truth or prediction.
        miou_without_background: the same without the background class; None where the set has none.
        miou_with_background: the same with the background as one more class of IoU 0; None unless the set ignores it.
        pixel_accuracy: correct pixels over labelled pixels.
        mean_accuracy: mean over the true classes of the share found ("mean class accuracy").
        frequency_weighted_iou: IoU of each class weighted by its share of the labelled pixels.
        class_iou: IoU by class name.
        class_accuracy: accuracy by class name.
        pixels: labelled pixels counted.
    """

    miou: float
    miou_without_background: float | None
    miou_with_background: float | None
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    class_iou: dict[str, float]
    class_accuracy: dict[str, float]
    pixels: int


class ConfusionMatrix(nn.Module):
    """(K, K) int64 ``counts`` of pixels, whose rows are the ground truth; a buffer, on the device of its parent."""

    counts: Tensor

    def __init__(self, labels: LabelSet) -> None:
        super().__init__()
        self.labels = labels
        self.register_buffer("counts", torch.zeros(len(labels), len(labels), dtype=torch.int64), persistent=False)

    def update(self, truth: Tensor, prediction: Tensor) -> Tensor:
        """Add pixels of two int64 tensors of the same shape; returns the (K, K) counts of this call.

        Raises:
            ValueError: shapes differ, or a value is neither a class nor, in the truth, the ignore index.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth is {tuple(truth.shape)} but prediction is {tuple(prediction.shape)}")
        classes = len(self.labels)
        labelled = truth != self.labels.ignore_index
        flat_truth, flat_prediction = truth[labelled], prediction[labelled]
        for what, values in (("truth", flat_truth), ("prediction", flat_prediction)):
            if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < classes:
                raise ValueError(f"{what} has values outside 0..{classes - 1}: {values.min()} to {values.max()}")
        counts = torch.bincount(flat_truth * classes + flat_prediction, minlength=classes**2).view(classes, classes)
        self.counts += counts
        return counts

    def reset(self) -> None:
        """Back to zero."""
        self.counts.zero_()

    def scores(self) -> Scores:
        """Scores of everything counted so far."""
        return scores_of(self.counts, self.labels)


def sums_of(counts: Tensor) -> Tensor:
    """(…, 3, K) int64 of (…, K, K) confusion matrices: pixels found, true and predicted of each class."""
    return torch.stack([counts.diagonal(dim1=-2, dim2=-1), counts.sum(dim=-1), counts.sum(dim=-2)], dim=-2)


def iou_of(sums: Tensor) -> Tensor:
    """(…, K) float64 IoU of such sums (…, 3, K); 0 / 0 is NaN, which is the rule for absent classes."""
    hits, truth, prediction = sums.double().unbind(dim=-2)
    return hits / (truth + prediction - hits)


def means_of(sums: Tensor, labels: LabelSet, missing: Tensor) -> dict[str, Tensor]:
    """The means of ``Scores`` that there are, (…,) each, of such sums (…, 3, K); classes of ``missing`` have no IoU."""
    iou = iou_of(sums).masked_fill(missing, nan)
    hits, truth, _ = sums.double().unbind(dim=-2)
    miou, pixels = iou.nanmean(dim=-1), truth.sum(dim=-1)
    means = {"miou": miou}
    if labels.background is not None:
        foreground = torch.arange(len(labels)) != labels.background
        means["miou_without_background"] = iou[..., foreground].nanmean(dim=-1)
    if labels.background_ignored:
        present = (~iou.isnan()).sum(dim=-1)
        means["miou_with_background"] = miou * present / (present + 1)
    return means | {
        "pixel_accuracy": hits.sum(dim=-1) / pixels,
        "mean_accuracy": (hits / truth).nanmean(dim=-1),
        "frequency_weighted_iou": ((truth / pixels[..., None]) * iou.nan_to_num()).sum(dim=-1),
    }


def scores_of(counts: Tensor, labels: LabelSet) -> Scores:
    """Scores of a (K, K) int64 confusion matrix whose rows are the ground truth."""
    sums = sums_of(counts.cpu())
    hits, truth, _ = sums.double()
    means: dict[str, Any] = dict.fromkeys(("miou_without_background", "miou_with_background"))
    means |= {name: mean.item() for name, mean in means_of(sums, labels, torch.zeros(len(labels)).bool()).items()}
    return Scores(
        **means,
        class_iou=dict(zip(labels.names, iou_of(sums).tolist(), strict=True)),
        class_accuracy=dict(zip(labels.names, (hits / truth).tolist(), strict=True)),
        pixels=int(truth.sum().item()),
    )
