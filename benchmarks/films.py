"""How much memory `sanet predict` takes for films of several lengths.

python benchmarks/films.py OUTPUT.csv

A film of made-up pictures, 640x360, is labelled by a small network in a process of its own, with its overlay and its
masks; what counts is the most memory that the process ever held.
"""

import csv
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np

from sanet.cli.main import main
from sanet.models.networks import create_model
from sanet.structures import LabelSet

LENGTHS, WIDTH, HEIGHT, REPEATED = (100, 400, 1600), 640, 360, 50  # frames; of so many different ones


def write_film(path: Path, count: int) -> None:
    """A film of blocks of colours that change with every frame."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (REPEATED, HEIGHT // 40, WIDTH // 40, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(count):
            pixels = blocks[number % REPEATED].repeat(40, 0).repeat(40, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())


def most_memory(arguments: list[str]) -> float:
    """MiB that a command holds at most, in a process that ends with it."""
    if (child := os.fork()) == 0:
        os._exit(main(arguments))
    _, status, usage = os.wait4(child, 0)
    assert status == 0
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    with TemporaryDirectory() as folder, open(sys.argv[1], "w", newline="") as file:
        create_model("fcn", "test_resnet", labels=LabelSet(("sky", "road", "car"))).save_pretrained(f"{folder}/model")
        table = csv.writer(file)
        table.writerow(["frames", "MiB"])
        for length in LENGTHS:
            film = Path(folder, f"{length}.mp4")
            write_film(film, length)
            options = ["--model", f"{folder}/model", "--output", f"{folder}/out", "--device", "cpu"]
            table.writerow([length, round(most_memory(["predict", str(film), *options, "--film_masks", "true"]))])
