"""Commands and snippets in clean processes of their own: what they do is theirs, and so is how they end."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from urllib.request import urlopen

import clean

PATIENCE = 300  # seconds
LOG = "log.txt"
# What makes a command small; it stands behind what a page says, and the last one counts.
TINY = {
    "train": shlex.split(
        "--epochs 1 --validate_every 1 --num_workers 0 --accelerator cpu --model.backbone test_resnet "
        "--model.pretrained_backbone false --model.output_stride 8 --augmentation.crop [32,32]"
    ),
    "repeat": shlex.split(
        "--seeds 1 --base.epochs 1 --base.validate_every 1 --base.num_workers 0 --base.accelerator cpu "
        "--base.augmentation '{crop: [32, 32]}' "
        "--base.model '{backbone: test_resnet, pretrained_backbone: false, output_stride: 8}'"
    ),
    "predict --engine ray": ["--workers", "1"],
    "profile --time": shlex.split("--sizes [[64,64]] --repeats 1 --backbones [test_resnet]"),
}
# The numbers that make the scripts of benchmarks/ small.
FEW = {
    "check_data.py": {"COUNT": 8},
    "engines.py": {"IMAGES": 1},
    "faithfulness.py": {"IMAGES": 2},
    "films.py": {"LENGTHS": (2, 3)},
    "large_images.py": {"SIZES": ((300, 200),), "WINDOW": 64},
    "label_errors.py": {"EACH": 1, "SEEDS": (0, 11)},
    "label_next.py": {
        "START": 1,
        "EACH": 1,
        "ROUNDS": 1,
        "SEEDS": (0,),
        "STEPS": 1,
        "CROP": (32, 32),
        "MODEL": 'sanet.ModelConfig(backbone="test_resnet", pretrained_backbone=False, output_stride=8)',
    },
    "loading.py": {"PICTURES": 4, "BATCH": 4, "PASSES": 2, "EPOCH": 1},
    "page.py": {"ROUNDS": 1},
    "ratios.py": {"BACKBONE": "'test_resnet'", "SIDE": 64, "ROUNDS": 1},
    "parts.py": {"PASSES": 1, "WARM_UP": 0},
    "throughput.py": {"ROUNDS": 1},
    "uncertainty.py": {"PIXELS": 100},
    "unlike.py": {"IMAGES": 4},
    "serving.py": {"ROUNDS": 1, "EACH": 32, "FEW": 8},
}


def carried_out(function: Callable[..., object], folder: Path, *arguments: object) -> str:
    """What a function printed that was run in a folder; it has to end well, or with exit status 0."""
    log = folder / LOG
    process = clean.start(_inside, function, folder, log, arguments)
    return _ended(process, log, arguments)


def _ended(process: BaseProcess, log: Path, what: object) -> str:
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
    printed = log.read_text(encoding="utf-8") if log.exists() else ""
    assert process.exitcode == 0, f"{what}: exit status {process.exitcode}\n{printed[-5000:]}"
    assert "Traceback" not in printed, f"{what}\n{printed[-5000:]}"
    return printed


def _inside(function: Callable[..., object], folder: Path, log: Path, arguments: tuple[object, ...]) -> None:
    os.chdir(folder)
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    function(*arguments)


def sanet(words: list[str], folder: Path) -> str:
    """What ``sanet`` with these words prints."""
    return carried_out(_main, folder, words)


def _main(words: list[str]) -> None:
    from sanet.cli.main import main

    sys.argv = ["sanet", *words]
    sys.exit(main())


def snippet(text: str, folder: Path) -> str:
    """What a Python file prints."""
    (folder / "snippet.py").write_text(text, encoding="utf-8")
    return carried_out(_snippet, folder, "snippet.py")


def _snippet(path: str) -> None:
    import dataclasses

    import sanet.training.fit as fit
    from sanet.config import AugmentationConfig, TrainConfig

    train = fit.train

    def tiny(config: TrainConfig, *args: object, **kwargs: object) -> object:
        model = dataclasses.replace(config.model, backbone="test_resnet", output_stride=8, pretrained_backbone=False)
        small = {"epochs": 1, "validate_every": 1, "num_workers": 0, "accelerator": "cpu", "model": model}
        config = dataclasses.replace(config, **small, augmentation=AugmentationConfig(crop=(32, 32)))
        return train(config, *args, **kwargs)

    fit.train = tiny
    sys.argv = [path]
    sys.path.insert(0, ".")
    runpy.run_path(path, run_name="__main__")


def script(words: list[str], folder: Path) -> str:
    """What a script of benchmarks/ prints, with the numbers of FEW; the folder has its own copy of it."""
    path = folder / words[0]
    start = 'if __name__ == "__main__":'
    before, found, after = path.read_text(encoding="utf-8").partition(start)
    few = FEW[path.name]
    assert found, f"{path} ends in what it does as a program"
    assert all(re.search(rf"\b{name}\b", before) for name in few)
    numbers = "".join(f"{name} = {value}\n" for name, value in few.items())
    path.write_text(f"{before}{numbers}{start}{after}", encoding="utf-8")
    return carried_out(_program, folder, words)


def _program(words: list[str]) -> None:
    subprocess.run([sys.executable, *words], check=True)


def small(words: list[str]) -> list[str]:
    """What makes a command of ``sanet`` small: that of all its words which TINY has under one name."""
    return [
        word
        for name, tiny in TINY.items()
        if words[0] == name.split()[0] and {*name.split()} <= {*words}
        for word in tiny
    ]


@contextmanager
def serving(words: list[str], folder: Path, said: str) -> Iterator[str]:
    """What a command that serves says of its address, on a free port, while this is open; Ctrl-C ends it."""
    log = folder / f"{words[0]}-{LOG}"
    log.unlink(missing_ok=True)
    server = clean.start(_inside, _main, folder, log, ([*words, "--port", _free_port()],))
    try:
        yield _address(server, log, said)
        os.kill(server.pid, signal.SIGINT)
        _ended(server, log, words)
    finally:
        server.kill()
        server.join()


def page(words: list[str], folder: Path) -> None:
    """Open the page of ``sanet demo``."""
    with (
        serving(words, folder, r"^open (\S+) in a browser") as address,
        urlopen(address, timeout=PATIENCE) as answer,
    ):
        assert answer.status == 200
        assert "<html" in answer.read().decode()


def _free_port() -> str:
    """Of any number, so that several tests do not try the same."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return str(tried.getsockname()[1])


def _address(server: BaseProcess, log: Path, said: str) -> str:
    """Where it answers, once it says so."""
    end, printed = time.monotonic() + PATIENCE, ""
    while time.monotonic() < end and server.is_alive():
        printed = log.read_text(encoding="utf-8") if log.exists() else ""
        if found := re.search(said, printed, re.MULTILINE):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"no address: {printed}")
