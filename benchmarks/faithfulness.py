"""Whether SANet's groups are more faithful than the features of networks: deletion and insertion on CamVid's val.

python benchmarks/faithfulness.py FOLDER CAMVID NAME MODEL SIDE

Measures a model with a shorter side of SIDE pixels and writes FOLDER/NAME.csv, a row for each image and map; then
prints what all files of FOLDER say: what each map has over nearness to the point, and over the deepest features of its
own network and of every other that saw as many images.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.insight.faithfulness import Faithfulness, faithfulness, intervals
from sanet.insight.groups import Explainer
from sanet.tables import text_table

IMAGES, POINTS, LEVEL = 20, 1, 4


def measured(camvid: str, model: str, side: int) -> Faithfulness:
    """Of a model, its deepest features included."""
    images = data_source(DataConfig("camvid", camvid)).open("val")
    return faithfulness(Explainer(model, "cpu", side, LEVEL), images, IMAGES, POINTS)


def write(path: Path, found: Faithfulness) -> None:
    """A row for each image, in the order drawn, and map."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "map", "deletion", "insertion"])
        for number, image in enumerate(found.areas):
            table.writerows(
                [number, name, *(f"{area:.5f}" for area in areas)]
                for name, areas in zip(found.names, image, strict=True)
            )


def read(path: Path) -> Faithfulness:
    """What ``write`` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    names = tuple(dict.fromkeys(row["map"] for row in rows))
    areas: NDArray[np.float64] = np.array([[row["deletion"], row["insertion"]] for row in rows], np.float64)
    return Faithfulness(names, areas.reshape(-1, len(names), 2))


def main(folder: str, camvid: str, name: str, model: str, side: str) -> None:
    """Measure, write and print."""
    write(Path(folder, f"{name}.csv"), measured(camvid, model, int(side)))
    networks = {path.stem: read(path) for path in sorted(Path(folder).glob("*.csv"))}
    features = {name: found.gains[:, found.names.index(f"level {LEVEL}")] for name, found in networks.items()}
    for name, found in networks.items():
        print(f"{name}, {len(found.areas)} images\n{found.table()}\n")
        alike = {other: gains for other, gains in features.items() if len(gains) == len(found.areas)}
        columns = [intervals(found.gains - gains[:, None]) for gains in alike.values()]
        print(text_table([f"over level {LEVEL} of", *alike], [*zip(found.names, *columns, strict=True)]), end="\n\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
