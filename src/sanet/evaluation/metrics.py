"""Metrics of one's own, beside the scores of the confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sanet.evaluation.confusion import SCORE_NAMES
from sanet.references import Kind
from sanet.structures import SanetError, UsageError, failure

if TYPE_CHECKING:
    from torchmetrics import Metric

# Labels of an image with two classes.
EXAMPLE = torch.arange(32 * 32).reshape(32, 32) // 512

METRICS = Kind(
    "metrics",
    {},
    dict.fromkeys(
        ("torchmetrics.classification", "torchmetrics.segmentation", "sanet.evaluation.boundary"), "torchmetrics:Metric"
    ),
)


def create_metrics(settings: Mapping[str, Any]) -> dict[str, Metric]:
    """The metrics of these references, by the names that the user gives.

    Raises:
        UsageError: an unknown metric, options that it does not have, or a name that is taken.
        SanetError: one that fails, or has no single number; the message has its name.
    """
    if not settings:
        return {}
    from torchmetrics import Metric  # takes a second, which only those pay who ask for one

    metrics = {}
    for name, reference in settings.items():
        metric = METRICS.build(reference)
        if not isinstance(metric, Metric):
            raise UsageError(f"metrics.{name}: {reference!r} is no torchmetrics.Metric")
        if name in SCORE_NAMES or name.startswith("iou/"):
            raise UsageError(f"metrics.{name}: there is a score of this name, val/{name}; choose another name")
        with _named(name):  # what its code raises is known now, not after an epoch
            float(metric(EXAMPLE, EXAMPLE))
        metric.reset()
        metrics[name] = metric
    return metrics


def update_metrics(metrics: Mapping[str, Metric], prediction: Tensor, mask: Tensor) -> None:
    """Count an image: class indices (H, W) int64, in the mask also the ignore index.

    Raises:
        SanetError: a metric failed; the message has its name.
    """
    for name, metric in metrics.items():
        with _named(name):
            metric.update(prediction.to(metric.device), mask.to(metric.device))


def compute_metrics(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The value of each metric over the images of all processes, which all have to call; counting starts again.

    Raises:
        SanetError: a metric failed, or its value is no single number; the message has its name.
    """
    values = {}
    for name, metric in metrics.items():
        with _named(name):
            values[name] = float(metric.compute())
            metric.reset()
    return values


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except SanetError:
        raise
    except Exception as error:  # whatever its code raises
        raise SanetError(f"metrics.{name}: {failure(error)}") from error
