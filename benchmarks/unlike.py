"""How well scores tell images of one dataset from those of another, for a model that was trained on the first.

python benchmarks/unlike.py OUTPUT.csv MODEL TRAIN OWN OTHER...

Folders of images: some that the model was trained on, others of the same dataset, and of other datasets. Of each folder
40 images, evenly spaced, count. OUTPUT.csv has the scores of every image; what is printed is how often an image of
another dataset has a higher score than one of OWN, and how many are far out by what `sanet predict` says.
"""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sanet.inference.inputs import SUFFIXES
from sanet.inference.predictor import Predictor
from sanet.models.unlike import UNLIKE
from sanet.tables import text_table

IMAGES, RANK = 40, 16
SCORES = ("distance", "nearest training image", f"rank {RANK}", "1 - mean confidence")
Vectors = NDArray[np.float32]


def spaced(folder: str) -> list[Path]:
    """Images of a folder, evenly spaced by name."""
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
    return [paths[at] for at in np.unique(np.linspace(0, len(paths) - 1, IMAGES).round().astype(int))]


def others(training: Vectors) -> list[Callable[[Vectors], float]]:
    """The distance from the nearest training image, and Mahalanobis' with a covariance of low rank and noise."""
    mean, std = training.mean(axis=0), training.std(axis=0) + 1e-6
    _, values, axes = np.linalg.svd(training - mean, full_matrices=False)
    rank = min(RANK, len(training) // 2)
    rest = float((values[rank:] ** 2).sum()) / len(training) / (training.shape[1] - rank)
    spread = values[:rank] ** 2 / len(training) + rest

    def low_rank(features: Vectors) -> float:
        along = axes[:rank] @ (features - mean)
        return float((along**2 / spread).sum() + (((features - mean) ** 2).sum() - (along**2).sum()) / rest)

    return [lambda features: float(np.linalg.norm((training - features) / std, axis=1).min()), low_rank]


def main(output: str, model: str, train: str, *folders: str) -> None:
    """Measure, write and print."""
    predictor = Predictor(model, "cpu")
    statistics = predictor.network.statistics  # type: ignore[union-attr]
    assert statistics is not None, "the model has no statistics of its training images"
    training = np.array([predictor(path).features for path in tqdm(spaced(train), train)])
    further, rows = others(training), list[list[object]]()
    found: dict[str, list[list[float]]] = {folder: [] for folder in folders}
    for folder in folders:
        for path in tqdm(spaced(folder), folder):
            prediction = predictor(path, detail="confidence")
            features = prediction.features
            scores = [statistics.distance(features), *(score(features) for score in further)]
            found[folder].append([*scores, 1 - float(prediction.confidence.mean()), float(prediction.unlike)])
            name = Path(*Path(folder).parts[-2:]).as_posix()
            rows.append([name, path.name, *(f"{value:.5g}" for value in found[folder][-1])])
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with Path(output).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["folder", "image", *SCORES, "unlike"], *rows])
    own, lines = np.array(found[folders[0]]), []
    for folder in folders:
        values = np.array(found[folder])
        pairs = values[:, None, :-1] - own[None, :, :-1]
        auroc = ((pairs > 0) + 0.5 * (pairs == 0)).mean(axis=(0, 1))
        lines.append((folder, *(f"{value:.3f}" for value in auroc), f"{(values[:, -1] >= UNLIKE).mean():.0%}"))
    print(text_table(("AUROC", *SCORES, "far out"), lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
