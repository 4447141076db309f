"""Every command and snippet of the documentation, run as it stands, page by page, in a folder such as it speaks of.

Training takes one epoch of a tiny network here, whatever a page says; commands for data sets, machines or visitors that
are not here are parsed, and those for pip and make are looked up.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sanet.cli.main import create_parsers

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *ROOT.glob("docs/*.md")]
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TINY = (
    "--epochs 1 --validate_every 1 --workers 0 --accelerator cpu --model.backbone test_resnet "
    "--model.pretrained_backbone false --model.output_stride 8 --augmentation.crop [32,32]"
)
# What train() is given in a snippet, made as small.
PRELUDE = """
import dataclasses, runpy, sys
import sanet.training.fit as fit
from sanet.config import AugmentationConfig, ModelConfig
train = fit.train
def tiny(config, *args, **kwargs):
    model = dataclasses.replace(config.model, backbone="test_resnet", output_stride=8, pretrained_backbone=False)
    small = {"epochs": 1, "validate_every": 1, "workers": 0, "accelerator": "cpu", "model": model}
    return train(dataclasses.replace(config, **small, augmentation=AugmentationConfig(crop=(32, 32))), *args, **kwargs)
fit.train = tiny
runpy.run_path(sys.argv[1], run_name="__main__")
"""
# Words of commands that need what is not here: data sets, a GPU, a visitor who ends it, an upload.
ELSEWHERE = (
    *("DATA", "DIR", "RUN", "FORMAT", "NAME", "FOLDER", "runs/own", "runs/context", "benchmarks"),
    *("download", "demo", "experiment", "camvid", "recipe"),
)


def blocks(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(text):
    """Lines without comments and continuations; && and ; are split."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [re.sub(r"(^|\s)# .*$", "", line).strip() for line in joined.splitlines()]
    return [part.strip() for line in lines for part in re.split(r"&&|;", line) if part.strip()]


@pytest.fixture(scope="session")
def leaf(tmp_path_factory):
    """A run such as the pages speak of, to be copied."""
    folder = tmp_path_factory.mktemp("documented")
    photos(folder)
    command = "train --data.name folder --data.root photos --data.classes [background,leaf] --output runs/leaf"
    sanet(command.split(), folder)
    return folder / "runs"


@pytest.fixture
def place(tmp_path, request):
    photos(tmp_path)
    (tmp_path / "holiday").mkdir()
    random = np.random.default_rng(1)
    for path in (tmp_path / "holiday" / "beach.jpg", tmp_path / "holiday" / "dune.jpg", tmp_path / "street.jpg"):
        Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8)).save(path)
    return tmp_path


def photos(folder):
    """Ten pictures of a green square on noise, and their masks."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / "photos" / kind).mkdir(parents=True)
    for index in range(10):
        mask = np.zeros((48, 64), np.uint8)
        mask[10:30, 4 * index : 4 * index + 20] = 1
        image = random.integers(0, 256, (48, 64, 3), np.uint8)
        image[mask == 1] = (20, 160, 40)
        Image.fromarray(image).save(folder / "photos" / "images" / f"{index}.png")
        Image.fromarray(mask).save(folder / "photos" / "masks" / f"{index}.png")


def sanet(words, folder):
    small = shlex.split(TINY) if words[0] == "train" else []
    run([sys.executable, "-m", "sanet", *words, *small], folder)


def run(command, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SANET_CAMVID": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def expanded(words, folder):
    """With globs as a shell does them."""
    return [
        name
        for word in words
        for name in (sorted(str(path.relative_to(folder)) for path in folder.glob(word)) if "*" in word else [word])
    ]


def check(command, folder):
    """Run a command, or make sure that it could be."""
    words = expanded(shlex.split(command), folder)
    if words[0] == "torchrun":
        words = words[words.index("-m") + 1 :]
        assert words[0] == "sanet"
        create_parsers()[0].parse_args(words[1:])
    elif words[0] == "sanet":
        if any(re.search(rf"\b{name}\b", command) for name in ELSEWHERE):
            create_parsers()[0].parse_args(words[1:])
        else:
            sanet(words[1:], folder)
    elif words[0] == "make":
        assert all(f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8") for target in words[1:])
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert set(re.findall(r"\w+", words[-1])) <= set(extras["optional-dependencies"]), command
    else:
        assert words[0] in {".", "git"} or words[0].startswith((".venv/bin/", "benchmarks/")), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_does_what_it_says(page, place, leaf):
    found = blocks(page)
    assert {language for language, _ in found} <= {"bash", "python", "text", "yaml"}
    if "--output runs/leaf\n" not in page.read_text(encoding="utf-8"):
        (place / "runs").symlink_to(leaf)
    for language, text in found:
        if language == "bash":
            for command in commands(text):
                check(command, place)
        elif language == "python":
            script = place / "snippet.py"
            script.write_text(text, encoding="utf-8")
            run([sys.executable, "-c", PRELUDE, str(script)], place)
