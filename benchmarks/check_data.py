"""How long `sanet check-data` takes for 5,000 images of 500x375, at first and once more.

python benchmarks/check_data.py OUTPUT.json
"""

import json
import os
import resource
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from PIL import Image

from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.data.check import check_data

COUNT, WIDTH, HEIGHT = 5000, 500, 375


def main(output: str) -> None:
    """Make the images, check them twice, and write seconds and memory."""
    with TemporaryDirectory() as folder:
        os.environ["SANET_CACHE"] = str(Path(folder, "cache"))
        make(Path(folder, "data"), COUNT)
        seconds = []
        for _ in range(2):
            start = perf_counter()
            report = check_data(data_source(DataConfig("auto", str(Path(folder, "data")))), progress=False)
            seconds.append(round(perf_counter() - start, 2))
    found = {
        "images": sum(report.images.values()),
        "seconds": seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cores": os.cpu_count(),
    }
    Path(output).write_text(json.dumps(found, indent=1) + "\n")


def make(root: Path, count: int) -> None:
    """Photographs in JPEG, as far as their coding is concerned, and masks of three classes in PNG."""
    draw = np.random.default_rng(0)
    for place in ("images", "masks"):
        (root / place).mkdir(parents=True)
    for index in range(count):
        small = Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8)).resize((WIDTH, HEIGHT), Image.BICUBIC)
        noisy = np.asarray(small, np.int16) + draw.integers(-12, 13, (HEIGHT, WIDTH, 3), np.int16)
        name = f"{index:05}"
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{name}.jpg", quality=90)
        cells = Image.fromarray(draw.integers(0, 3, (6, 8)).astype(np.uint8)).resize((WIDTH, HEIGHT), Image.NEAREST)
        cells.save(root / "masks" / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
