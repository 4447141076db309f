"""How far a model's confidence can be believed: its error, and the temperature that makes it smaller.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, log, nan

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from sanet.data.source import SegmentationDataset
from sanet.inference.predictor import Predictor
from sanet.inference.views import score_bands
from sanet.models.unlike import FeatureStatistics
from sanet.record import TEMPERATURES

TEMPERATURE, RISK_AREA = "temperature", "risk_coverage_area"  # in the facts of an evaluation
BINS = 15  # as in the paper
RISKS = 801  # a hundred for each power of ten of what confidence lacks to 1
IMAGES, PIXELS = 200, 2000  # that a temperature is fitted to: images, evenly spaced, and drawn pixels of each
LOOKED_AT = 50  # images of a split whose features are kept in statistics
LARGEST = 4096**2  # pixels of an image beyond which it is left out


def reliability(confidence: Tensor, correct: Tensor) -> Tensor:
    """(3, BINS) float64: pixels, sum of their confidence, and how many are correct, by confidence from 0 to 1.

    Args:
        confidence: (N,) float in [0, 1].
        correct: (N,) bool.
    """
    bins = (confidence.double() * BINS).ceil().long().clamp(1, BINS) - 1
    rows = torch.ones_like(confidence, dtype=torch.float64), confidence.double(), correct.double()
    return torch.stack([torch.bincount(bins, row, BINS) for row in rows])


def calibration_error(counts: NDArray[np.float64]) -> float:
    """Expected calibration error in [0, 1] of what ``reliability`` counted, equation (3); NaN without pixels."""
    pixels, confidence, correct = counts
    return float(np.abs(confidence - correct).sum() / pixels.sum()) if pixels.sum() else nan


def risk_counts(confidence: Tensor, correct: Tensor) -> Tensor:
    """(2, RISKS) float64: pixels, and how many are wrong, by rising confidence; arguments as of ``reliability``."""
    bins = ((1 - confidence.double()).clamp(1e-8, 1).log10() * -100).long()
    return torch.stack([torch.bincount(bins, row.double(), RISKS) for row in (torch.ones_like(bins), ~correct)])


def risk_area(counts: Tensor) -> float:
    """Area under the risk-coverage curve of what ``risk_counts`` counted, in [0, 1]; NaN without pixels.

    It is the mean, over all shares of the pixels, of the share of errors among those of the highest confidence (Geifman
    and El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017). Pixels of one bin have no order.
    """
    pixels, wrong = counts[:, counts[0] > 0].flip(1)
    after, errors, rate = pixels.cumsum(0), wrong.cumsum(0) - wrong, wrong / pixels
    before = after - pixels
    parts = rate * pixels + (errors - rate * before) * (after / before.clamp(min=1)).log()
    return float(parts.sum() / after[-1]) if len(after) else nan


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature under which the labels are most likely.

    Args:
        logits: (N, K).
        labels: (N,) int64.
    """

    def loss(logarithm: float) -> float:
        return float(F.cross_entropy(logits / exp(logarithm), labels))

    ends = tuple(map(log, TEMPERATURES))
    return round(exp(minimize_scalar(loss, bounds=ends, method="bounded").x), 4)


@torch.inference_mode()
def temperature_of(predictor: Predictor, dataset: SegmentationDataset) -> float:
    """The temperature of a model, fitted to drawn pixels of a split that it was not trained on.

    Its views are not averaged for that: it belongs to the model, not to its inference settings.
    """
    logits, labels = [], []
    for index, image, mask in spaced(predictor, dataset, IMAGES):
        draws = torch.Generator().manual_seed(index)
        places = torch.where(mask != dataset.labels.ignore_index)[0]
        if len(places) == 0:
            continue
        places = places[torch.randint(len(places), (PIXELS,), generator=draws)].sort().values
        first = 0
        for band in score_bands(predictor.logits_of, image[None], predictor.inference):
            here = places[(places >= first) & (places < first + band[0, 0].numel())] - first
            logits.append(band[0].flatten(1)[:, here.to(band.device)].T.float().cpu())
            first += band[0, 0].numel()
        labels.append(mask[places])
    return fitted_temperature(torch.cat(logits), torch.cat(labels)) if labels else 1.0


@torch.inference_mode()
def statistics_of(
    predictor: Predictor, training: SegmentationDataset, held_out: SegmentationDataset
) -> FeatureStatistics | None:
    """What a model is to know of the images that it was trained on; None where there are too few."""

    def features_of(dataset: SegmentationDataset, count: int) -> NDArray[np.float32]:
        rows = [predictor.features_of(image) for _, image, _ in spaced(predictor, dataset, count)]
        return np.array(rows, np.float32)

    count = min(LOOKED_AT, 2 * len(held_out))
    return FeatureStatistics.of(features_of(training, count), features_of(held_out, LOOKED_AT))


def spaced(predictor: Predictor, dataset: SegmentationDataset, count: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Evenly spaced images of a split: number, (C, H, W) as the network takes it, and labels (H * W,) int64."""
    # As they are stored, which the model maps by its own range; a run's source has mapped them already.
    dataset = SegmentationDataset(dataset.source.reading(predictor.images.without_range()), dataset.records)
    stored = dataset.source.reads_files and predictor.images.of_values
    for index in np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int)).tolist():
        sample = dataset[index]
        if sample.mask.numel() <= LARGEST:
            image = sample.image.to(predictor.device)
            yield index, predictor.seen(image) if stored else image, sample.mask.flatten().long()
