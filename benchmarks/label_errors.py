"""How well the ranking of `sanet errors` finds masks that are wrong, beside other scores.

python benchmarks/label_errors.py OUTPUT.csv CAMVID

With the bundled model. CAMVID is in the SegNet layout. Of val 30 masks are damaged, by seed: a third shifted by 5 to 20
pixels in a random direction; in a third, within a box of a sixth to a third of each side, the two most frequent classes
swapped; in a third a connected region of 1 to 5 % of the image left out, whose pixels get the label that is most
frequent around it. OUTPUT.csv has the scores of every mask as published (no seed), and of every damaged one; what is
printed follows from it. Seed 0 is the one that counts; the others say how much chance there is in it.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from tqdm import tqdm

from sanet.config import DataConfig
from sanet.data.source import SegmentationDataset
from sanet.evaluation.evaluate import dataset_for
from sanet.evaluation.regions import EIGHT, connected_regions
from sanet.inference.predictor import Predictor
from sanet.insight.suspects import LEAST, doubts_in
from sanet.structures import LabelSet
from sanet.tables import text_table

EACH, SEEDS = 10, (0, *range(11, 21))  # seeds 1 to 10 were looked at when the score was chosen
SHIFTED = "Seq05VD_f02610"  # of test, as published
SCORES = (
    "sanet errors",
    "mean cross-entropy",
    "mean margin of wrong pixels",
    "margin of the largest region",
    "softmin",
)
KINDS = ("shifted", "swapped", "left out")
Mask = NDArray[np.int64]


def scores(labels: LabelSet, truth: Mask, probabilities: NDArray[np.float32]) -> list[float]:
    """What each of ``SCORES`` says of a mask (H, W), from (K, H, W)."""
    prediction, confidence = probabilities.argmax(axis=0), probabilities.max(axis=0)
    labelled = truth != labels.ignore_index
    given = np.take_along_axis(probabilities, np.where(labelled, truth, 0)[None], axis=0)[0]
    wrong, margin = labelled & (prediction != truth), confidence - given
    pairs = np.where(wrong, truth * len(labels) + prediction, 0)
    numbers, _ = connected_regions(pairs, wrong, len(labels) ** 2)
    largest = np.bincount(numbers[wrong], margin[wrong], minlength=1).max() / labelled.sum()
    soft = np.exp(-given[labelled] / 0.1)  # temperature and form of cleanlab's label quality of images
    return [
        doubts_in(labels, truth, prediction, confidence, np.log(confidence / given))[0],
        float(-np.log(given[labelled]).mean()),
        float(margin[wrong].mean()) if wrong.any() else 0.0,
        float(largest),
        float(1 - (given[labelled] * soft).sum() / soft.sum()),
    ]


def shifted(mask: Mask, labels: LabelSet, rng: np.random.Generator) -> Mask:
    """By 5 to 20 pixels, the rim repeated."""
    length, angle = rng.integers(5, 21), rng.uniform(0, 2 * np.pi)
    places = (
        np.clip(np.arange(side) - round(length * part), 0, side - 1)
        for side, part in zip(mask.shape, (np.sin(angle), np.cos(angle)), strict=True)
    )
    return mask[np.ix_(*places)]


def swapped(mask: Mask, labels: LabelSet, rng: np.random.Generator) -> Mask:
    """The two most frequent classes of a box, of which each has a tenth of it at least."""
    damaged, classes = mask.copy(), len(labels)
    while True:
        sides = [int(rng.integers(side // 6, side // 3 + 1)) for side in mask.shape]
        starts = [int(rng.integers(0, side - part + 1)) for side, part in zip(mask.shape, sides, strict=True)]
        box = tuple(slice(start, start + part) for start, part in zip(starts, sides, strict=True))
        before = mask[box]
        counts = np.bincount(before[before != labels.ignore_index], minlength=classes)
        first, second = np.argsort(-counts, kind="stable")[:2]
        if counts[second] >= 0.1 * before.size:
            damaged[box] = np.where(before == first, second, np.where(before == second, first, before))
            return damaged


def left_out(mask: Mask, labels: LabelSet, rng: np.random.Generator) -> Mask | None:
    """A connected region of 1 to 5 % of the image; None where it has none."""
    numbers, _ = connected_regions(mask, mask != labels.ignore_index, len(labels))
    areas = np.bincount(numbers.ravel()) / mask.size
    fitting = [number for number in range(1, len(areas)) if 0.01 <= areas[number] <= 0.05]
    if not fitting:
        return None
    region = numbers == fitting[rng.integers(len(fitting))]
    around = mask[binary_dilation(region, EIGHT) & ~region]
    return np.where(region, np.bincount(around[around != labels.ignore_index]).argmax(), mask)


def damages(masks: list[Mask], labels: LabelSet, seed: int) -> dict[int, tuple[str, Mask]]:
    """By number of the image how its mask is damaged, and the damaged one; at least one stays as it is."""
    rng, found = np.random.default_rng(seed), dict[int, tuple[str, Mask]]()
    order = rng.permutation(len(masks)).tolist()
    for index in order[: len(masks) - 1]:
        if len(found) == 3 * EACH:
            break
        kind = KINDS[len(found) % 3]
        damaged = {"shifted": shifted, "swapped": swapped, "left out": left_out}[kind](masks[index], labels, rng)
        if damaged is not None:
            found[index] = kind, damaged
    return found


def rows(predictor: Predictor, dataset: SegmentationDataset, split: str, seeds: tuple[int, ...]) -> list[list[object]]:
    """Seed, split, image, damage and scores of all masks, damaged and not."""
    found: list[list[object]] = []
    masks = [dataset[index].mask.numpy() for index in range(len(dataset))] if seeds else []
    planned = {seed: damages(masks, dataset.labels, seed) for seed in seeds}
    for index in tqdm(range(len(dataset)), split):
        image, mask, name = dataset[index]
        likely = np.maximum(predictor(image, detail="probabilities").probabilities.astype(np.float32), LEAST)
        found.append(["", split, name, "", *scores(dataset.labels, mask.numpy(), likely)])
        for seed, damaged in planned.items():
            if index in damaged:
                kind, wrong = damaged[index]
                found.append([seed, split, name, kind, *scores(dataset.labels, wrong, likely)])
    return found


def auroc(found: list[list[object]], seed: int, score: int, kind: str | None) -> float:
    """How often a damaged mask of val has a higher score than one as published, of an image that is not damaged."""
    damaged = {str(row[2]): row for row in found if row[0] == seed}
    high = np.array([row[4 + score] for row in damaged.values() if kind in (None, row[3])], np.float64)
    low = np.array([row[4 + score] for row in found if row[:2] == ["", "val"] and row[2] not in damaged], np.float64)
    pairs = high[:, None] - low
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean()) if pairs.size else float("nan")


def main(output: str, camvid: str) -> None:
    """Measure, print and write."""
    predictor, data, found = Predictor("streets", "cpu"), DataConfig("camvid", camvid), list[list[object]]()
    for split, seeds in (("val", SEEDS), ("test", ())):
        found += rows(predictor, dataset_for(predictor, data, split)[0], split, seeds)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with Path(output).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("seed", "split", "image", "damage", *SCORES))
        table.writerows([*row[:4], *(f"{value:.6g}" for value in row[4:])] for row in found)
    lines = []
    for place, name in enumerate(SCORES):
        others = [auroc(found, seed, place, None) for seed in SEEDS[1:]]
        test = sorted((row for row in found if row[1] == "test"), key=lambda row: -row[4 + place])  # type: ignore
        rank = next((str(rank) for rank, row in enumerate(test, 1) if row[2] == SHIFTED), "none")
        numbers = [auroc(found, SEEDS[0], place, kind) for kind in (None, *KINDS)]
        spread = f"{np.mean(others):.3f} ± {np.std(others):.3f}"
        lines.append((name, *(f"{number:.3f}" for number in numbers), spread, rank))
    print(text_table(("AUROC", "all", *KINDS, f"all, {len(SEEDS) - 1} other seeds", f"rank of {SHIFTED}"), lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
