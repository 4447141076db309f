"""The folder that a reader of the documentation works in: pictures, data sets and runs, all of them tiny."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from pages import ROOT
from PIL import Image
from running import TINY, sanet

from miniatures import write_camvid, write_picture, write_voc
from sanet.demo.serve import EXAMPLES

# What the runs that a page speaks of, and does not make itself, are trained with.
RUNS = {
    "leaf": "--data.name folder --data.root photos --data.classes [background,leaf]",
    "fcn": "--data.name folder --data.root photos --data.classes [background,leaf] --model.name fcn",
    "camvid-sanet": "--data.name camvid --data.root camvid",
}


def build(folder: Path) -> None:
    """What all pages find there."""
    write_photos(folder / "photos")
    for name in ("holiday/beach.jpg", "holiday/dune.jpg"):
        write_picture(folder / name)
    shutil.copy(sorted(EXAMPLES.glob("*.jpg"))[0], folder / "street.jpg")
    write_film(folder / "drive.mp4")
    write_camvid(folder / "camvid")
    write_voc(folder / "data")
    # What lies in a clone of the repository, and is named by a page.
    for name in ("recipes", "reproduce", "benchmarks", "src/sanet/models/streets"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
    (folder / "docs" / "results").mkdir(parents=True)
    # The package of a stranger, and its data.
    shutil.copytree(ROOT / "tests" / "extension" / "my_lab", folder / "my_lab")
    for split in ("train", "val", "test"):
        (folder / "leaves" / split).mkdir(parents=True)
        for index in range(4):
            stored = np.random.default_rng(index).integers(0, 256, (4, 48, 64), np.uint8)
            stored[3] = np.where(np.arange(64) < 20 + index, 10, 20)
            stored[0, 0, 0] = ("train", "val", "test").index(split)
            np.save(folder / "leaves" / split / f"{split}{index}.npy", stored)


def bring(run: str, original: Path, place: Path) -> None:
    """A copy of a run, which is trained where a page speaks of it for the first time."""
    kept = original / "runs" / run
    if not kept.is_dir():
        sanet(["train", *RUNS[run].split(), "--output", f"runs/{run}", *TINY["train"]], original)
    shutil.copytree(kept, place / "runs" / run)


def write_film(path: Path) -> None:
    """Three frames of noise."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(3):
            noise = np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "rgb24")))
        container.mux(stream.encode())


def write_photos(folder: Path) -> None:
    """Ten pictures of a green square on noise, and their masks."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index in range(10):
        mask = np.zeros((48, 64), np.uint8)
        mask[10:30, 4 * index : 4 * index + 20] = 1
        image = random.integers(0, 256, (48, 64, 3), np.uint8)
        image[mask == 1] = (20, 160, 40)
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
