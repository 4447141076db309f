"""How a command of a page is understood, and how it is made one that can be run here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterable
from contextlib import chdir
from itertools import pairwise
from pathlib import Path

import running
import timm
from pages import ROOT
from reproduce.__main__ import parser as tables

from sanet.cli.main import COMMANDS, command_of, split_words
from sanet.cli.parsing import create_parser

# What stands in the pages for something of the reader's.
READERS = {
    "CAMVID": "camvid",
    "DATA": "data",
    "DIR": "camvid",
    "FOLDER": "photos/images",
    "GPUS": "2",
    "IMAGE": "street.jpg",
    "MODEL": "runs/leaf",
    "OTHER": "photos/images",
    "OWN": "camvid/test",
    "PRED": "photos/masks",
    "RUN": "runs/camvid-sanet",
    "TRAIN": "camvid/train",
    "TRUTH": "photos",
    "X": "20",
    "Y": "30",
}
# What is not run: it installs, downloads, takes minutes, changes the repository, or needs more machines than one. A
# table of reproduce/ takes hours; tests/reproduce runs a small one.
NOT_RUN = re.compile(r"(make|pip|git|uv|srun|\.|\S*pre-commit|sanet download) |.*-m reproduce |.*…")


def words_of(command: str) -> list[str]:
    """Its words, with what a reader puts in."""
    return [READERS.get(word, word) for word in shlex.split(command)]


def understood(command: str) -> None:
    """Make sure of what can be known of a command without running it: its options, values, files and targets.

    Raises:
        AssertionError: it cannot be right.
        SystemExit: ``sanet`` does not know an option.
        SanetError: a value is invalid.
    """
    words = words_of(command)
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), command
    elif words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert set(re.findall(r"\w+", words[-1])) <= set(project["optional-dependencies"]), command
    elif words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), command
    elif "reproduce" in words:
        if "…" not in command:
            tables().parse_args(words[words.index("reproduce") + 1 :])
    elif "sanet" in words:
        given = command_in(words)
        assert given[0] in COMMANDS, command
        if "…" not in command:
            with chdir(ROOT):
                command_of(_without_own_files(given))


def command_in(words: list[str]) -> list[str]:
    """The command of ``sanet`` and what follows it, without the modules that are opened."""
    return split_words(words[words.index("sanet") + 1 :])[1]


def _without_own_files(words: list[str]) -> list[str]:
    """Without the files of settings that the reader has made."""
    if words[0] == "repeat" and not Path(words[1]).exists():
        return ["repeat", *words[2:]]
    own = {path for option, path in pairwise(words) if option == "--config" and not Path(path).exists()}
    return [word for word, following in zip(words, [*words[1:], ""], strict=True) if not {word, following} & own]


def run(command: str, place: Path) -> None:
    """Run it, made small.

    Raises:
        AssertionError: it fails, or its program is none that is known here.
    """
    words = _filled(words_of(command), place)
    program, arguments = words[0], words[1:]
    if "--import" not in words:
        _require_backbones(words)
    if program == "sanet" and arguments[0] == "demo":
        running.page(arguments, place)
    elif program == "sanet":
        running.sanet([*arguments, *running.small(command_in(words))], place)
    elif program == "torchrun":
        first = arguments.index("-m")
        here = ["--standalone", "--nproc-per-node", "2", *arguments[first:]]
        running.carried_out(_together, place, [*here, *running.small(arguments[first + 2 :])])
    elif program == "python" and arguments[0].startswith("benchmarks/"):
        # As in the tests of the page, CI alone insists on a browser.
        if arguments[0] != "benchmarks/page.py" or shutil.which("chromium") or os.environ.get("CI"):
            running.script(arguments, place)
    elif program == "curl":
        if shutil.which("curl") or os.environ.get("CI"):
            subprocess.run(words, cwd=place, check=True)
    else:
        raise AssertionError(f"not known in {Path(__file__).name}: {command}")


def _filled(words: list[str], place: Path) -> list[str]:
    """With globs as a shell has them, and a new folder for the output that a page calls RUN."""
    if READERS["RUN"] in words and words[words.index(READERS["RUN"]) - 1] == "--output":
        count = len([*place.glob("runs/new*")])
        words = [f"runs/new{count}" if word == READERS["RUN"] else word for word in words]
    return [
        name
        for word in words
        for name in (sorted(str(path.relative_to(place)) for path in place.glob(word)) if "*" in word else [word])
    ]


def _require_backbones(words: Iterable[str]) -> None:
    """What is small may hide a mistake of the page: the backbones that it names have to exist."""
    for option, value in pairwise(words):
        if option in {"--backbones", "--model.backbone"}:
            assert all(timm.is_model(name) for name in re.findall(r"\w+", value)), value


def _together(words: list[str]) -> None:
    from torch.distributed.run import main

    main(words)


def options() -> set[str]:
    """All that the commands of ``sanet`` know."""
    parsers = [create_parser(name, command) for name, command in COMMANDS.items()]
    return {"--import"} | {option for parser in parsers for option in parser._option_string_actions}
