"""Faithfulness: whether the pixels that a map names first are those that a prediction rests on.

Deletion and insertion (Petsiuk et al., "RISE", BMVC 2018) for the class that a network predicts at a point: in the
order of a map, pixels of the image are replaced by those of a blurred copy, or put back into that copy, and the
probability of the class at the point is followed. The areas under both curves, over the share of the pixels, are from 0
to 1; a faithful map has a small one for deletion and a large one for insertion. What lies near the point matters to
every network, so that a map that says nothing else is faithful: nearness is a control, and so is a random map as coarse
as the deepest features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from tqdm import tqdm

from sanet.data.source import SegmentationDataset
from sanet.evaluation.repeated import bootstrap
from sanet.insight.groups import Explainer
from sanet.models.sanet import resize
from sanet.tables import percent, text_table

BLUR = 1 / 16  # of the shorter side: deviation of the blur
STEPS = 5  # shares of the pixels at which a curve is measured
CONTROLS = ("nearness", "random")


@dataclass(frozen=True)
class Faithfulness:
    """Of the maps of a network on some images.

    Attributes:
        names: of the maps: what groups pixels, such as "head 1"; "Grad-CAM"; and the controls.
        areas: (N, M, 2) mean over the points of each image: areas of deletion and of insertion.
    """

    names: tuple[str, ...]
    areas: NDArray[np.float64]

    @property
    def gains(self) -> NDArray[np.float64]:
        """(N, M): insertion less deletion, less the same of nearness."""
        difference = self.areas[..., 1] - self.areas[..., 0]
        gains: NDArray[np.float64] = difference - difference[:, [self.names.index("nearness")]]
        return gains

    def table(self) -> str:
        """Plain text for a terminal: a row for each map, in per cent, with intervals."""
        columns = [intervals(values) for values in (self.areas[..., 0], self.areas[..., 1], self.gains)]
        rows = [*zip(self.names, *columns, strict=True)]
        return text_table(["in per cent", "deletion", "insertion", "insertion - deletion, over nearness"], rows)


def intervals(values: NDArray[np.float64]) -> list[str]:
    """Of (N, M) values of N images the M means in per cent, with the middle 95 % of what other images would give."""
    counted = np.stack([values, np.ones_like(values)], axis=1)[None]
    found = bootstrap([counted], lambda draws, _: draws[:, 0] / draws[:, 1])
    return [f"{percent(mean)} ({percent(low)} to {percent(high)})" for mean, low, high in zip(*found, strict=True)]


def faithfulness(
    explainer: Explainer,
    dataset: SegmentationDataset,
    images: int = 40,
    points: int = 2,
    seed: int = 0,
    progress: bool = True,
) -> Faithfulness:
    """Measure every map of a network.

    Args:
        explainer: of the network.
        dataset: images and their masks.
        images: number drawn.
        points: number drawn in each image, each of another class of its mask.
        seed: seed of the random generators; the same points are drawn for every network.
        progress: show a bar.
    """
    drawn = np.random.default_rng(seed).permutation(len(dataset))[:images].tolist()
    bar = tqdm(drawn, "faithfulness", unit=" images", disable=not progress)
    areas = [found for index in bar for found in [_areas_in(explainer, dataset, index, points, seed)] if len(found)]
    return Faithfulness((*explainer.names, "Grad-CAM", *CONTROLS), np.array([found.mean(axis=0) for found in areas]))


def _areas_in(
    explainer: Explainer, dataset: SegmentationDataset, index: int, points: int, seed: int
) -> NDArray[np.float64]:
    """(P, M, 2) of an image, with a point for each of as many classes as there are."""
    random, sample = np.random.default_rng([seed, index]), dataset[index]
    mask, image = sample.mask.numpy(), explainer.fitted(sample.image)
    encoding, size = explainer.encode(sample.image), image.shape[-2:]
    blurred = torch.from_numpy(gaussian_filter(image.cpu().numpy(), (0, 0, *2 * [BLUR * min(size)])))
    classes = random.permutation(np.unique(mask[mask != dataset.labels.ignore_index]))[:points]
    # All points before any noise, the size of which differs from network to network.
    chosen = [random.choice(np.argwhere(mask == category)) for category in classes]
    areas = []
    for row, column in np.array(chosen, np.int64).reshape(-1, 2).tolist():
        place = row * size[0] // mask.shape[0], column * size[1] // mask.shape[1]
        away = np.linalg.norm(np.indices(size) - np.reshape(place, (2, 1, 1)), axis=0)
        cam = encoding.grad_cam(column, row)
        maps = [*(-group.distance for group in encoding.groups(column, row)), cam]
        maps += [torch.from_numpy(each).float() for each in (-away, random.random(cam.shape))]
        areas.append(areas_of(explainer, image, blurred, maps, place))
    return np.array(areas)


@torch.inference_mode()
def areas_of(
    explainer: Explainer, image: Tensor, blurred: Tensor, maps: Sequence[Tensor], place: tuple[int, int]
) -> NDArray[np.float64]:
    """(M, 2) areas of deletion and of insertion.

    Args:
        explainer: of the network.
        image: (1, C, h, w), as the network takes it.
        blurred: (1, C, h, w).
        maps: M of any size, high where pixels come first.
        place: row and column of the point.
    """
    network, blurred = explainer.network, blurred.to(image)
    scores = torch.cat([resize(each[None, None], image.shape[-2:]) for each in maps])
    ranks = scores.flatten(1).argsort(dim=1, descending=True).argsort(dim=1).view_as(scores)
    category = int(network(image).logits[0, :, *place].argmax())
    curves = []
    for share in (torch.arange(STEPS) + 0.5) / STEPS:  # the middles, so that the area is the mean
        first = (ranks < share * scores[0].numel()).to(image.device)
        both = torch.where(first, blurred, image), torch.where(first, image, blurred)
        logits = [network(given).logits[:, :, *place] / network.temperature for given in both]
        curves.append(torch.stack([each.softmax(dim=1)[:, category].cpu() for each in logits], dim=1))
    areas: NDArray[np.float64] = torch.stack(curves).double().mean(dim=0).numpy()
    return areas
