"""The paper's loss, equations (6) to (9), and other terms that can be added to it or take its place.

A term is called as ``term(output, batch, context)``, with a ``SegmentationOutput``, a ``Batch`` and a ``LossContext``,
and returns a scalar. Ignored pixels are left out of every mean, and a mean over nothing is zero; so is a term of what a
network does not predict. The paper prints (7) to (9) without their minus signs; they are ordinary cross entropies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torchvision.ops import sigmoid_focal_loss

from sanet import distributed
from sanet.config import ClassWeighting, LossConfig
from sanet.references import Kind, name_of
from sanet.structures import Batch, LabelSet, SegmentationOutput, UsageError, choose


@dataclass(frozen=True)
class LossContext:
    """What a term may need beside the output and the batch.

    Attributes:
        labels: the classes; pixels of ``labels.ignore_index`` are to be left out.
        class_weights: (K,) factors of the pixels of each class, or None for ones.
        step: steps that have been taken.
    """

    labels: LabelSet
    class_weights: Tensor | None = None
    step: int = 0


Term = Callable[[SegmentationOutput, Batch, LossContext], Tensor]


def mean_over_processes(count: Tensor, least: float = 1.0) -> Tensor:
    """The mean of a count, such as of labelled pixels, over all processes: what a term divides its own sum by.

    The gradients of all processes are averaged, and a pixel of one must not weigh more than a pixel of another that
    has more of them. Every process has to call.

    Args:
        count: scalar.
        least: what the sum over all processes is raised to, so that a division by zero pixels gives zero.
    """
    return distributed.all_reduce_sum(count).clamp(min=least) / distributed.world_size()


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum over all processes, with gradients, for terms that are no mean of pixels. Every process has to call."""
    if not distributed.is_distributed():
        return values
    total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return total


def mask_term(
    output: SegmentationOutput, batch: Batch, context: LossContext, *, label_smoothing: float = 0.0
) -> Tensor:
    """Equation (7): cross entropy of the main prediction, the mean over labelled pixels.

    ``label_smoothing`` is the share of the target that is spread over all classes, as in PyTorch's ``cross_entropy``.
    """
    return _cross_entropy(output.mask, batch.mask, context, label_smoothing)


def dense_term(
    output: SegmentationOutput, batch: Batch, context: LossContext, *, label_smoothing: float = 0.0
) -> Tensor:
    """Equation (9): the same of the dense prediction; the sum over those of several stages."""
    if output.dense is None:
        return output.mask.new_zeros(())
    stages = torch.split(output.dense, output.mask.shape[1], dim=1)
    return torch.stack([_cross_entropy(stage, batch.mask, context, label_smoothing) for stage in stages]).sum()


def category_term(
    output: SegmentationOutput,
    batch: Batch,
    context: LossContext,
    *,
    target: Literal["presence", "share"] = "presence",
) -> Tensor:
    """Equation (8): binary cross entropy of (B, K) logits, summed over classes, the mean over images with labels.

    The target is "presence", the class has a pixel in the image; or "share", its share of the labelled pixels.
    """
    if output.category is None:
        return output.mask.new_zeros(())
    counts = count_pixels(batch.mask, context.labels)
    labelled = counts.sum(dim=1)
    if choose("target of the loss term category", target, ("presence", "share")) == "presence":
        expected = (counts > 0).float()
    else:
        expected = counts / labelled.clamp(min=1)[:, None]
    losses = F.binary_cross_entropy_with_logits(output.category.float(), expected, reduction="none").sum(dim=1)
    counted = (labelled > 0).to(losses.dtype)
    return (losses * counted).sum() / mean_over_processes(counted.sum())


def ohem_term(
    output: SegmentationOutput, batch: Batch, context: LossContext, *, threshold: float = 0.7, keep: float = 1 / 16
) -> Tensor:
    """Online hard example mining: (7) over the pixels whose own class has a low probability (Shrivastava et al., 2016).

    Pixels below the probability ``threshold`` are hard; of the labelled pixels of a process at least the share ``keep``
    is taken, the hardest ones.
    """
    losses, weights = _labelled_losses(output, batch, context)
    hard = losses > -torch.log(losses.new_tensor(threshold))
    least = round(keep * len(losses))
    if int(hard.sum()) < least:
        hard = torch.zeros_like(hard).index_fill(0, losses.topk(least).indices, True)
    return (losses * weights)[hard].sum() / mean_over_processes(weights[hard].sum(), torch.finfo(losses.dtype).tiny)


def focal_term(output: SegmentationOutput, batch: Batch, context: LossContext, *, gamma: float = 2.0) -> Tensor:
    """Cross entropy times (1 - p) ** gamma, with p the probability of a pixel's class (Lin et al., ICCV 2017)."""
    losses, weights = _labelled_losses(output, batch, context)
    focused = (1 - torch.exp(-losses)).clamp(min=0) ** gamma * losses
    return (focused * weights).sum() / mean_over_processes(weights.sum(), torch.finfo(losses.dtype).tiny)


def border_term(
    output: SegmentationOutput, batch: Batch, context: LossContext, *, gamma: float = 2.0, window: int = 7
) -> Tensor:
    """Sigmoid focal loss of the border logits, summed over their stages, the mean over labelled pixels.

    A pixel is at a border where the ``window`` x ``window`` pixels around it have two classes (Yu et al., CVPR 2018,
    equation (5), with a window for the edges that they find in the masks and dilate).
    """
    if output.border is None:
        return output.mask.new_zeros(())
    target, labelled = batch.mask[:, None].float(), batch.mask[:, None] != context.labels.ignore_index
    highest = F.max_pool2d(target.masked_fill(~labelled, -1.0), window, 1, window // 2)
    lowest = -F.max_pool2d((-target).masked_fill(~labelled, -len(context.labels)), window, 1, window // 2)
    logits = _resized(output.border, batch.mask)
    losses: Tensor = sigmoid_focal_loss(logits, (highest > lowest).float().expand_as(logits), alpha=-1, gamma=gamma)
    return (losses * labelled).sum() / mean_over_processes(labelled.sum().to(losses.dtype))


def dice_term(output: SegmentationOutput, batch: Batch, context: LossContext, *, smooth: float = 0.0) -> Tensor:
    """1 - (2 |P ∩ Y| + smooth) / (|P| + |Y| + smooth), the mean over the classes that the global batch has.

    P are the probabilities of the main prediction, Y the masks (Milletari et al., "V-Net", 2016).
    """
    logits, target = _labelled(output, batch, context)
    probabilities, truth = logits.softmax(dim=1), F.one_hot(target, logits.shape[1]).to(logits.dtype)
    sums = torch.stack([(probabilities * truth).sum(0), probabilities.sum(0), truth.sum(0)])
    intersection, predicted, true = sum_over_processes(sums).unbind()
    present = true > 0
    dice = (2 * intersection + smooth) / (predicted + true + smooth).clamp(min=1e-7)
    missing: Tensor = ((1 - dice) * present).sum()
    return missing / present.sum().clamp(min=1)


def lovasz_term(output: SegmentationOutput, batch: Batch, context: LossContext) -> Tensor:
    """Lovász-Softmax over the classes that the batch of a process has (Berman et al., CVPR 2018)."""
    logits, target = _labelled(output, batch, context)
    errors = (F.one_hot(target, logits.shape[1]).to(logits.dtype) - logits.softmax(dim=1)).abs()
    losses = []
    for index in torch.unique(target).tolist():
        sorted_errors, order = errors[:, index].sort(descending=True)
        truth = (target[order] == index).to(logits.dtype)
        intersection = truth.sum() - truth.cumsum(0)
        jaccard = 1 - intersection / (truth.sum() + (1 - truth).cumsum(0))
        losses.append(sorted_errors @ jaccard.diff(prepend=jaccard.new_zeros(1)))
    return torch.stack(losses).mean() if losses else logits.sum()


LOSSES = Kind(
    "loss.terms",
    {
        "mask": mask_term,
        "category": category_term,
        "dense": dense_term,
        "ohem": ohem_term,
        "dice": dice_term,
        "lovasz": lovasz_term,
        "focal": focal_term,
        "border": border_term,
    },
)


def absent_terms(settings: LossConfig, output: SegmentationOutput) -> list[str]:
    """The terms with a weight that stay 0, since the network does not predict what they compare."""
    chosen = [name for name in ("category", "dense", "border") if name in settings.terms and settings.term(name)[0]]
    return [name for name in chosen if getattr(output, name) is None]


class SegmentationLoss(nn.Module):
    """The weighted sum of its terms; by default L = L_mask + 0.2 L_cat + 0.8 L_den, equation (6).

    Args:
        settings: the terms.
        labels: the classes.
        class_weights: (K,) factors of the pixels of each class, or None for ones.

    Attributes:
        names: of the terms, as they are logged.

    Raises:
        UsageError: an unknown term, or options that it does not have.
    """

    class_weights: Tensor | None

    def __init__(self, settings: LossConfig, labels: LabelSet, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.labels = labels
        self.register_buffer("class_weights", class_weights)
        self.names = tuple(map(name_of, settings.terms))
        self.weights = [settings.term(term)[0] for term in settings.terms]
        self.terms: list[Term] = [
            LOSSES.build({"name": term, "options": settings.term(term)[1]}) for term in settings.terms
        ]
        self.modules_of_terms = nn.ModuleList(term for term in self.terms if isinstance(term, nn.Module))

    def forward(self, output: SegmentationOutput, batch: Batch, step: int = 0) -> dict[str, Tensor]:
        """Compare an output with the masks of its batch.

        Returns:
            Scalars: "loss", which is to be minimised, and each term by name, not yet multiplied by its weight.
        """
        context = LossContext(self.labels, self.class_weights, step)
        values = {
            name: _scalar(name, term(output, batch, context)) for name, term in zip(self.names, self.terms, strict=True)
        }
        total = torch.zeros_like(next(iter(values.values())))
        for weight, value in zip(self.weights, values.values(), strict=True):
            total = total + weight * value
        return {"loss": total, **values}


def _scalar(name: str, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim:
        raise UsageError(f"loss.terms.{name}: it has to return a tensor without dimensions")
    return value


def _cross_entropy(logits: Tensor, target: Tensor, context: LossContext, label_smoothing: float) -> Tensor:
    """Of (B, K, h, w) logits, brought to the masks' size; the mean over labelled pixels."""
    weights, ignore_index = context.class_weights, context.labels.ignore_index
    losses = F.cross_entropy(
        _resized(logits, target),
        target,
        weight=weights,
        ignore_index=ignore_index,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    labelled = target != ignore_index
    total = labelled.sum().to(losses.dtype) if weights is None else weights[target[labelled]].sum()
    return losses / mean_over_processes(total, torch.finfo(losses.dtype).tiny)


def _resized(logits: Tensor, target: Tensor) -> Tensor:
    return F.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)


def _labelled(output: SegmentationOutput, batch: Batch, context: LossContext) -> tuple[Tensor, Tensor]:
    """(N, K) logits of the main prediction and (N,) classes of the labelled pixels."""
    labelled = batch.mask != context.labels.ignore_index
    return _resized(output.mask, batch.mask).movedim(1, -1)[labelled], batch.mask[labelled]


def _labelled_losses(output: SegmentationOutput, batch: Batch, context: LossContext) -> tuple[Tensor, Tensor]:
    """(N,) cross entropies of the labelled pixels, and their (N,) weights."""
    logits, target = _labelled(output, batch, context)
    losses = F.cross_entropy(logits, target, reduction="none")
    return losses, torch.ones_like(losses) if context.class_weights is None else context.class_weights[target]


def count_pixels(target: Tensor, labels: LabelSet) -> Tensor:
    """(B, K) pixels of each class in each of the masks (B, H, W)."""
    batch = torch.arange(len(target), device=target.device).view(-1, 1, 1).expand_as(target)
    labelled = target != labels.ignore_index
    flat = batch[labelled] * len(labels) + target[labelled]
    return torch.bincount(flat, minlength=len(target) * len(labels)).view(len(target), -1)


def class_weights(pixels: Tensor, weighting: ClassWeighting) -> Tensor | None:
    """(K,) factors for the pixels of each class; their mean over all pixels is 1.

    Args:
        pixels: (K,) pixels of each class in the training split.
        weighting: "none" for no weights; "sqrt" for 1 / sqrt(share), a milder form of median frequency balancing
            (Eigen and Fergus, 2015); "fourth_root" for 1 / share^(1/4), milder still; "log" for 1 / ln(1.02 + share)
            (Paszke et al., "ENet", 2016).
    """
    if weighting == "none":
        return None
    share = pixels.double() / pixels.sum()
    power = 0.25 if weighting == "fourth_root" else 0.5
    weights = 1 / torch.log(1.02 + share) if weighting == "log" else share**-power
    weights[share == 0] = 0  # never asked for
    return (weights / (weights * share).sum()).float()
