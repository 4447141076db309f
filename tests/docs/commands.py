"""How a command of a page is made one that can be run here, and the few that cannot."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tomllib
from contextlib import chdir, redirect_stderr
from io import StringIO
from itertools import pairwise
from pathlib import Path

import running
import timm
from pages import ROOT

from sanet.cli.main import COMMANDS, create_parsers

# What stands in the pages for something of the reader's.
READERS = {
    "CAMVID": "camvid",
    "DATA": "data",
    "DIR": "camvid",
    "FOLDER": "photos/images",
    "MODEL": "runs/leaf",
    "NAME": "table3",
    "PICTURE": "street.jpg",
    "RUN": "runs/camvid-sanet",
    "X": "20",
    "Y": "30",
}
# Where a command alone needs something else, or more.
INSTEAD = {
    "sanet experiment NAME": "sanet experiment NAME --data.name camvid --data.root DIR",
    "sanet experiment figure4": "sanet experiment figure4 --data.name camvid --data.root DIR",
    # The server takes results on all of VOC's test pictures only, which are one here.
    "sanet submit RUN --data.root DATA --competition comp6 --scales … --flip true": (
        "sanet submit runs/voc --data.root whole --data.allow_subset false "
        "--competition comp6 --scales [0.5] --flip true"
    ),
    "torchrun --nproc-per-node 8 -m sanet train --recipe table1-sanet-resnet101 "
    "--data.root DATA --output runs/context": (
        "torchrun --standalone --nproc-per-node 2 -m sanet train --recipe table1-sanet-resnet101 --data.root DATA "
        "--output runs/context --data.allow_subset true --batch_size 2"
    ),
}
LOCKS = (
    "uv pip compile --universal --generate-hashes --no-annotate --no-strip-extras --python-version 3.11 "
    "--group build pyproject.toml"
)
INSTALLS = "installs what is installed here, from the network"
ARCHIVES = "fetches archives of 3 to 20 GB"
CHECKS = "a part of CI of its own"
CLUSTER = "needs more machines, or GPUs, and any command of train stands behind it"
# What is not run, and why.
LISTED = {
    'pip install -e ".[datasets]"': INSTALLS,
    'pip install -e ".[demo]"': INSTALLS,
    'pip install -e ".[export]"': INSTALLS,
    'pip install -e ".[figures]"': INSTALLS,
    'pip install -e ".[peers]"': INSTALLS,
    "make install": INSTALLS,
    "make demo": "trains for minutes",
    "make test": "runs this",
    "make lint": CHECKS,
    "make docs": CHECKS,
    "make format": "changes the repository",
    ".venv/bin/pre-commit install": "changes the repository",
    f"{LOCKS} --all-extras -o requirements-dev.txt": INSTALLS,
    f"{LOCKS} -c requirements-dev.txt -o requirements.txt": INSTALLS,
    ". .venv/bin/activate": "changes the reader's shell",
    "sanet download voc --root DATA": ARCHIVES,
    "sanet download voc_aug --root DATA": ARCHIVES,
    "sanet download context --root DATA": ARCHIVES,
    "sanet download coco --root DATA": ARCHIVES,
    "torchrun --nproc-per-node GPUS -m sanet train …": CLUSTER,
    "srun --ntasks-per-node GPUS python -m sanet train …": CLUSTER,
    "torchrun … -m sanet evaluate": CLUSTER,
}


def runnable(command: str, place: Path) -> list[str]:
    """Its words, with what a reader puts in, and globs, as a shell has them."""
    words = [READERS.get(word, word) for word in shlex.split(INSTEAD.get(command, command))]
    if "--output RUN" in command:  # a new one each time
        count = len(list((place / "runs").glob("new*"))) if (place / "runs").is_dir() else 0
        words[words.index("--output") + 1] = f"runs/new{count}"
    return [
        name
        for word in words
        for name in (sorted(str(path.relative_to(place)) for path in place.glob(word)) if "*" in word else [word])
    ]


def run(command: str, place: Path) -> None:
    """Run it, made small.

    Raises:
        AssertionError: it fails, or is none that is known here.
    """
    words = runnable(command, place)
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    if "sanet" in words:
        with chdir(place):
            _require_right(words[words.index("sanet") + 1 :])
    if program == "sanet" and arguments[0] == "demo":
        running.page(arguments, place)
    elif program == "sanet":
        running.sanet([*arguments, *_small(arguments)], place)
    elif program == "torchrun":
        sanet = arguments[arguments.index("sanet") + 1 :]
        running.carried_out(_together, place, [*arguments, *_small(sanet)])
    elif program == "python" and arguments[0].startswith("benchmarks/"):
        # As in the tests of the page, CI alone insists on a browser.
        if arguments[0] != "benchmarks/page.py" or shutil.which("chromium") or os.environ.get("CI"):
            running.script(arguments, place)
    else:
        raise AssertionError(f"neither run nor listed in {Path(__file__).name}: {command}")


def _require_right(words: list[str]) -> None:
    """What is small may hide a mistake of the page: its own values have to be right as well."""
    create_parsers()[0].parse_args(words)
    for option, value in pairwise(words):
        if option in {"--backbones", "--model.backbone"}:
            assert all(timm.is_model(name) for name in re.findall(r"\w+", value)), value


def _together(words: list[str]) -> None:
    from torch.distributed.run import main

    main(words)


def _small(words: list[str]) -> list[str]:
    """What makes a command of ``sanet`` small: that of all its words which TINY has under one name."""
    return [
        word
        for name, tiny in running.TINY.items()
        if words[0] == name.split()[0] and {*name.split()} <= {*words}
        for word in tiny
    ]


def only_named(word: str) -> bool:
    """Whether ``sanet WORD`` needs more than that to be run, and so names the command only; it has to be one."""
    with redirect_stderr(StringIO()):
        try:
            create_parsers()[0].parse_args(word.split()[1:])
        except SystemExit:
            assert word.split()[1] in COMMANDS, word
            return True
    return False


def could_be_run(command: str) -> None:
    """Make sure of what can be known of a command without running it."""
    words = shlex.split(command)
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), command
    elif words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert set(re.findall(r"\w+", words[-1])) <= set(project["optional-dependencies"]), command
    elif "sanet" in words:
        arguments = words[words.index("sanet") + 1 :]
        assert arguments[0] in COMMANDS, command
        if "…" not in command:
            create_parsers()[0].parse_args(arguments)


def options() -> set[str]:
    """All that the commands of ``sanet`` know."""
    return {option for parser in create_parsers()[1].values() for option in parser._option_string_actions}
