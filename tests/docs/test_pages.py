"""Every command and snippet of the documentation, run page by page in a folder such as it speaks of.

Data sets are tiny here, training takes one epoch of a tiny network, whatever a page says, and a page is opened and
closed. What is not run is listed in ``commands.LISTED``, with the reason.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import commands
import place as places
import pytest
import running
from pages import PAGES, ROOT, Step, named, steps


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that every page starts in, and the runs that pages have asked for."""
    folder = tmp_path_factory.mktemp("documented")
    places.build(folder)
    return folder


def place_of(page: Path, original: Path, place: Path) -> Path:
    """A copy of the folder, with the runs that the page speaks of and does not make itself."""
    for entry in original.iterdir():
        if entry.name == "whole":
            (place / entry.name).symlink_to(entry)
        elif entry.is_dir() and entry.name != "runs":
            shutil.copytree(entry, place / entry.name)
        elif entry.name == "street.jpg":
            shutil.copy(entry, place)
    said = [" ".join(commands.runnable(text, place)) if kind == "command" else text for kind, text in steps(page)]
    made = {name for text in said for name in re.findall(r"--output runs/([\w-]+)", text)}
    for name in sorted({name for text in said for name in re.findall(r"runs/([\w-]+)", text)} & places.RUNS.keys()):
        if name not in made:
            places.bring(name, original, place)
    return place


def assert_printed(snippet: str, printed: str) -> None:
    """Sizes that stand behind a print in a snippet are printed by it."""
    lines = [re.findall(r"\d+", line) for line in printed.splitlines()]
    for sizes in re.findall(r"^print\(.*\)  # (\(.*)", snippet, re.MULTILINE):
        assert re.findall(r"\d+", sizes) in lines, printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_does_what_it_says(page: Path, original: Path, tmp_path: Path) -> None:
    place = place_of(page, original, tmp_path)
    for kind, text in steps(page):
        if kind == "python":
            assert_printed(text, running.snippet(text, place))
        elif kind == "word" and commands.only_named(text):
            pass
        elif text in commands.LISTED:
            commands.could_be_run(text)
        else:
            commands.run(text, place)


def test_what_is_listed_is_in_a_page() -> None:
    said = {step for page in PAGES for step in steps(page)}
    assert {text for text in (*commands.LISTED, *commands.INSTEAD) if Step("command", text) not in said} == set()


def test_options_and_files_in_the_text_are_there() -> None:
    """They stand in the text by themselves, too."""
    others = {"--nnodes", "--rdzv-endpoint", "--kill-on-bad-exit"}  # torchrun's and srun's
    options = set().union(*(named(page, r"(?<!\S)--[\w.-]+") for page in PAGES))
    assert len(options) > 20
    assert options - others - commands.options() == set()
    files = set().union(*(named(page, r"^(?:benchmarks|examples|recipes|src|tests)/[\w./-]+$") for page in PAGES))
    assert len(files) > 5
    assert {file for file in files if not (ROOT / file).exists()} == set()
