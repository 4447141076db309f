"""A loss term: the Tversky index (Salehi et al., 2017), of which Dice is a special case."""

import torch.nn.functional as F
from torch import Tensor

from sanet import Batch, LossContext, SegmentationOutput


class Tversky:
    """One minus the mean over classes of TP / (TP + alpha FP + beta FN).

    Args:
        alpha: weight of what is labelled falsely.
        beta: weight of what is missed.
    """

    def __init__(self, alpha: float = 0.5, beta: float = 0.5) -> None:
        self.alpha, self.beta = alpha, beta

    def __call__(self, output: SegmentationOutput, batch: Batch, context: LossContext) -> Tensor:
        """The loss of a batch, a scalar."""
        size, count = batch.mask.shape[-2:], len(context.labels)
        logits = F.interpolate(output.mask.float(), size=size, mode="bilinear", align_corners=False)
        labelled = (batch.mask != context.labels.ignore_index)[:, None]
        truth = F.one_hot(batch.mask.clamp(0, count - 1), count).movedim(-1, 1) * labelled
        found = logits.softmax(dim=1) * labelled
        hits, false, missed = (
            part.sum(dim=(0, 2, 3)) for part in (found * truth, found * (1 - truth), (1 - found) * truth)
        )
        return 1 - ((hits + 1) / (hits + self.alpha * false + self.beta * missed + 1)).mean()
