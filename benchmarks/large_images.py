"""How much memory and time images take that are larger than a window, read whole and by windows.

python benchmarks/large_images.py OUTPUT.csv

A TIFF in tiles, of colours that change every 64 pixels, is labelled by a small network of 11 classes, each time in a
process of its own; what counts is the most memory that the process ever held.
"""

import csv
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import rasterio

import sanet
from sanet.config import OutputConfig
from sanet.inference.journal import Job
from sanet.inference.large import label_large
from sanet.inference.predict import label_files
from sanet.models.networks import create_model

SIZES, WINDOW = ((3000, 3000), (9000, 3000)), 1024  # height and width
BAND, BLOCK = 512, 64


def write_image(path: Path, height: int, width: int) -> None:
    """A TIFF of colours at random, written in bands of rows."""
    rng = np.random.default_rng(0)
    form = {"driver": "GTiff", "count": 3, "dtype": "uint8", "photometric": "rgb", "compress": "deflate", "tiled": True}
    with rasterio.open(path, "w", height=height, width=width, **form) as file:
        for top in range(0, height, BAND):
            rows = min(BAND, height - top)
            small = rng.integers(0, 256, (3, BAND // BLOCK, width // BLOCK + 1), dtype=np.uint8)
            file.write(
                small.repeat(BLOCK, 1).repeat(BLOCK, 2)[:, :rows, :width], window=((top, top + rows), (0, width))
            )


def label(model: str, job: Job, by_window: bool) -> None:
    """Write mask and overlay of an image."""
    predictor = sanet.Predictor(model, "cpu", sanet.InferenceConfig(WINDOW, shorter_side=0))
    if by_window:
        line = label_large(predictor, job, OutputConfig())
    else:
        (line,) = label_files(predictor, [job], OutputConfig())
    assert "error" not in line, line


def most_memory(*arguments: object) -> float:
    """MiB that ``label`` holds at most, in a process that ends with it."""
    if (child := os.fork()) == 0:
        os.execv(sys.executable, [sys.executable, __file__, "label", *map(str, arguments)])
    _, status, usage = os.wait4(child, 0)
    assert status == 0
    return usage.ru_maxrss / 1024


def main(output: str) -> None:
    """Measure, and write a line as soon as it is known."""
    with TemporaryDirectory() as folder, open(output, "w", encoding="utf-8", newline="") as file:
        labels = sanet.LabelSet(tuple("abcdefghijk"))
        create_model("fcn", "test_resnet", labels=labels).save_pretrained(f"{folder}/model")
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["height", "width", "read", "MiB", "seconds"])
        for height, width in SIZES:
            write_image(Path(folder, "image.tif"), height, width)
            for how in ("whole", "by window"):
                start = perf_counter()
                most = most_memory(folder, how)
                table.writerow([height, width, how, round(most), round(perf_counter() - start, 1)])
                file.flush()


if __name__ == "__main__":
    if sys.argv[1] == "label":
        place, how = sys.argv[2:]
        files = {"mask": f"{place}/mask.{'tif' if how == 'by window' else 'png'}", "overlay": f"{place}/overlay.jpg"}
        label(f"{place}/model", Job(f"{place}/image.tif", files), how == "by window")
    else:
        main(sys.argv[1])
