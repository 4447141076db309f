"""The loss of SANet, equations (6) to (9).

The paper prints (7) to (9) without their minus signs; they are ordinary cross entropies. Ignored pixels are left
out of the means, and a mean over nothing is zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanet import distributed
from sanet.config import CategoryTarget, ClassWeighting
from sanet.structures import SegmentationOutput


class LossTerms(NamedTuple):
    """Scalars. ``total`` is what is minimised; the others are not yet multiplied by their weights."""

    total: Tensor
    mask: Tensor
    category: Tensor
    dense: Tensor


class SegmentationLoss(nn.Module):
    """L = L_mask + alpha L_cat + beta L_den, equation (6). A term whose output is None counts as zero.

    Args:
        num_classes: K.
        ignore_index: mask value that counts nowhere.
        alpha: weight of the categorical loss.
        beta: weight of the dense loss.
        category_target: "presence", the class has a pixel in the picture; or "share", its share of the pixels.
        class_weights: (K,) factors of the pixels of each class in (7) and (9), or None for ones.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        num_classes: int,
        ignore_index: int,
        alpha: float = 0.2,
        beta: float = 0.8,
        category_target: CategoryTarget = "presence",
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.alpha, self.beta, self.category_target = alpha, beta, category_target
        self.register_buffer("class_weights", class_weights)

    def forward(self, output: SegmentationOutput, target: Tensor) -> LossTerms:
        """Compare an output with the masks (B, H, W) int64 of its batch."""
        mask = self.pixel_loss(output.mask, target)  # (7)
        zero = mask.new_zeros(())
        category = zero if output.category is None else self.category_loss(output.category, target)  # (8)
        dense = zero if output.dense is None else self.pixel_loss(output.dense, target)  # (9)
        return LossTerms(mask + self.alpha * category + self.beta * dense, mask, category, dense)  # (6)

    def pixel_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross entropy of (B, K, h, w) logits, brought to the masks' size; the mean over labelled pixels."""
        logits = F.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
        losses = F.cross_entropy(
            logits, target, weight=self.class_weights, ignore_index=self.ignore_index, reduction="sum"
        )
        labelled = target != self.ignore_index
        if self.class_weights is None:
            total_weight = labelled.sum().to(losses.dtype)
        else:
            total_weight = self.class_weights[target[labelled]].sum()
        return losses / shared_by_all(total_weight, torch.finfo(losses.dtype).tiny)

    def category_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Binary cross entropy of (B, K) logits, summed over classes, the mean over pictures with labels."""
        counts = self.count_pixels(target)
        labelled = counts.sum(dim=1)
        if self.category_target == "presence":
            expected = (counts > 0).float()
        else:
            expected = counts / labelled.clamp(min=1)[:, None]
        losses = F.binary_cross_entropy_with_logits(logits.float(), expected, reduction="none").sum(dim=1)
        counted = (labelled > 0).to(losses.dtype)
        return (losses * counted).sum() / shared_by_all(counted.sum(), 1.0)

    def count_pixels(self, target: Tensor) -> Tensor:
        """(B, K) pixels of each class in each picture."""
        batch = torch.arange(len(target), device=target.device).view(-1, 1, 1).expand_as(target)
        labelled = target != self.ignore_index
        flat = batch[labelled] * self.num_classes + target[labelled]
        return torch.bincount(flat, minlength=len(target) * self.num_classes).view(len(target), -1)


def shared_by_all(weight: Tensor, least: float) -> Tensor:
    """What all processes count together, divided among them; zero becomes ``least``.

    Their gradients are averaged, and a pixel of one must not weigh more than a pixel of another that has more of them.
    """
    return distributed.all_reduce_sum(weight).clamp(min=least) / distributed.world_size()


def class_weights(pixels: Tensor, balance: ClassWeighting) -> Tensor | None:
    """(K,) factors for the pixels of each class; their mean over all pixels is 1.

    Args:
        pixels: (K,) pixels of each class in the training split.
        balance: "none" for no weights; "sqrt" for 1 / sqrt(share), a milder form of median frequency balancing
            (Eigen and Fergus, 2015); "fourth_root" for 1 / share^(1/4), milder still; "log" for 1 / ln(1.02 + share)
            (Paszke et al., "ENet", 2016).
    """
    if balance == "none":
        return None
    share = pixels.double() / pixels.sum()
    weights = 1 / torch.log(1.02 + share) if balance == "log" else share ** -(0.25 if balance == "fourth_root" else 0.5)
    weights[share == 0] = 0  # never asked for
    return (weights / (weights * share).sum()).float()
