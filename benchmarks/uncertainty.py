"""How well measures of uncertainty find the errors of the bundled model, and what flips add to that.

python benchmarks/uncertainty.py OUTPUT.csv CAMVID

Every fourth image of CamVid's test, in the SegNet layout, as it is and flipped; of each, drawn labelled pixels. For the
labels of the image alone, and for those of both views together, every measure ranks the pixels: AURC is the area under
the risk-coverage curve (the mean, over all shares of pixels that are kept, of the share of errors among them; lower is
better), AUROC how often an error ranks as less certain than a pixel that is right.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sanet.config import DataConfig, InferenceConfig
from sanet.evaluation.evaluate import dataset_for
from sanet.inference.predictor import Predictor
from sanet.inference.views import class_probabilities, probabilities_of
from sanet.tables import text_table

EVERY, PIXELS = 4, 20_000
MODEL = "streets"
Values = NDArray[np.float64]


def areas(uncertainty: Values, wrong: Values) -> tuple[float, float]:
    """AURC and AUROC of a measure; pixels of one value count as the mean of their orders."""
    order = np.argsort(uncertainty, kind="stable")
    _, first, counts = np.unique(uncertainty[order], return_index=True, return_counts=True)
    errors = np.add.reduceat(wrong[order], first)
    spread = np.repeat(errors / counts, counts)
    risk = np.cumsum(spread) / np.arange(1, len(wrong) + 1)
    ranks = np.repeat(first + (counts + 1) / 2, counts)
    total = wrong.sum()
    above = (ranks * spread).sum() - total * (total + 1) / 2
    return float(risk.mean()), float(above / (total * (len(wrong) - total)))


def entropy(shares: torch.Tensor) -> torch.Tensor:
    """(1, K, H, W) -> (H, W), in nats."""
    return torch.special.entr(shares).sum(dim=1)[0]


@torch.inference_mode()
def measures(predictor: Predictor, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(2, H, W) labels of one view and of both, and by name how uncertain pixels are, (H, W)."""
    settings, both = predictor.inference, InferenceConfig(flip=True)
    alone = class_probabilities(predictor.logits_of, image[None], settings)
    flipped = class_probabilities(predictor.logits_of, image[None].flip(-1), settings).flip(-1)
    mean = (alone + flipped) / 2
    one, two = (probabilities_of(shares, both, predictor.temperature) for shares in (alone, mean))
    found = {
        "1 - confidence": 1 - one.amax(dim=1)[0],
        "entropy": entropy(one),
        "1 - confidence, flips": 1 - two.amax(dim=1)[0],
        "entropy, flips": entropy(two),
        "mutual information, flips": entropy(mean) - (entropy(alone) + entropy(flipped)) / 2,
    }
    return torch.cat([alone.argmax(dim=1), mean.argmax(dim=1)]), found


def main(output: str, camvid: str) -> None:
    """Measure, write and print."""
    predictor = Predictor(MODEL, "cpu")
    dataset, _ = dataset_for(predictor, DataConfig("camvid", camvid), "test")
    wrong, values = list[torch.Tensor](), dict[str, list[torch.Tensor]]()
    for index in tqdm(range(0, len(dataset), EVERY)):
        image, mask, _ = dataset[index]
        labels, found = measures(predictor, image)
        places = torch.where(mask.flatten() != dataset.labels.ignore_index)[0]
        places = places[torch.randint(len(places), (PIXELS,), generator=torch.Generator().manual_seed(index))]
        wrong.append((labels != mask).flatten(1)[:, places])
        for name, each in found.items():
            values.setdefault(name, []).append(each.flatten()[places])
    errors = torch.cat(wrong, dim=1).double().numpy()
    rows = []
    for name, parts in values.items():
        uncertainty = torch.cat(parts).double().numpy()
        for labels_of, each in zip(("one view", "both"), errors, strict=True):
            rows.append([labels_of, name, *(f"{value:.6f}" for value in (each.mean(), *areas(uncertainty, each)))])
    titles = ("labels", "uncertainty", "errors", "AURC", "AUROC")
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with Path(output).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([titles, *rows])
    print(f"temperature {predictor.temperature}")
    print(text_table(titles, rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
