"""A stranger's package takes part in everything that the built-in parts do, and none of its files is ours."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sanet
from sanet import references
from sanet.cli.main import main

HERE = Path(__file__).parent
PARTS = sorted((HERE / "my_lab").glob("*.py"))
SETTINGS = {
    "data": {"name": "my_lab.data:Leaves"},
    "model": {"name": "my_lab.heads:PSP", "backbone": "lab_resnet", "output_stride": 8, "pretrained_backbone": False}
    | {"options": {"windows": [2], "hidden": 4}},
    "loss": {"terms": {"mask": 1.0, "my_lab.losses:Tversky": {"weight": 0.5, "options": {"beta": 0.7}}}},
    "optimizer": {"name": "my_lab.optimizers:Lion", "learning_rate": 0.001, "options": {"betas": [0.9, 0.95]}},
    "augmentation": {"crop": [40, 40]},
    "transforms": [{"name": "my_lab.augment:Stain", "options": {"strength": 0.1}}],
    "batch_transforms": ["my_lab.augment:half_mix"],
    "metrics": {"boundary": {"name": "my_lab.metrics:BoundaryF1", "options": {"pixels": 1}}},
    "monitor": "val/boundary",
    "epochs": 2,
    "batch_size": 4,
    "accelerator": "cpu",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with the package, its data and a configuration; the working directory of all commands."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "my_lab").symlink_to(HERE / "my_lab")
    rng = np.random.default_rng(0)
    for split, count in {"train": 8, "val": 3, "test": 2}.items():
        (folder / "leaves" / split).mkdir(parents=True)
        for index in range(count):
            stored = rng.integers(0, 60, (4, 48, 64), dtype=np.uint8)
            stored[3] = 20
            stored[3, :, : rng.integers(20, 50)] = 10
            stored[:3] += np.where(stored[3] == 10, 150, 20).astype(np.uint8)
            stored[3, :2] = 0  # neither leaf nor soil
            np.save(folder / "leaves" / split / f"{split}{index}.npy", stored)
            Image.fromarray(stored[:3].transpose(1, 2, 0)).save(folder / f"{split}{index}.png")
    callbacks = [{"name": "my_lab.callbacks:EpochDiary", "options": {"file": str(folder / "diary.txt")}}]
    (folder / "run.json").write_text(json.dumps(SETTINGS | {"callbacks": callbacks}))
    return folder


def sanet_in(lab, *words, opened=True):
    """A command of its own process, as a user types it."""
    given = [sys.executable, "-m", "sanet", *(["--import", "my_lab"] if opened else []), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(given, cwd=lab, env=environment, capture_output=True, text=True, check=False)


def succeed(lab, *words):
    done = sanet_in(lab, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(lab):
    """The directory of a finished run, trained with loader workers."""
    succeed(lab, "train", "--config", "run.json", "--data.root", "leaves", "--output", "run", "--num_workers", 2)
    return lab / "run"
