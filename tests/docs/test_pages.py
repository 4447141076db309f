"""The documentation: its commands, options, files and snippets exist; and, slowly, do what it says.

The slow part runs every command and snippet, page by page, in a folder such as it speaks of. Datasets are tiny there,
training takes one epoch of a tiny network, whatever a page says, and a page is opened and closed.
"""

from __future__ import annotations

import ast
import re
import shutil
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import commands
import place as places
import pytest
import running
from pages import PAGES, ROOT, named, steps

import sanet
from sanet.cli.main import COMMANDS
from sanet.repeated.result import rows_of
from sanet.settings import settings_of
from sanet.yaml_files import parse

# Where the pages have a model served; the port is another here.
SERVED = "http://127.0.0.1:8000"
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@each_page
def test_a_page_names_what_exists(page: Path) -> None:
    for kind, text in steps(page):
        if kind == "word":
            assert text.split()[1] in COMMANDS
        elif kind == "command":
            commands.understood(text)
        elif kind == "settings":
            assert rows_of(settings_of(sanet.RepeatConfig, parse(text)))
        else:
            assert_names(ast.parse(text))


def assert_names(tree: ast.Module) -> None:
    """Whatever a snippet uses of this package is public, and exists."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sanet":
            assert node.attr in sanet.__all__ or import_module(f"sanet.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "sanet":
            assert all(hasattr(import_module(str(node.module)), alias.name) for alias in node.names)


def test_options_and_files_in_the_text_exist() -> None:
    """They stand in the text by themselves, too."""
    # Those of torchrun, srun, uv and OpenVINO.
    others = {"--nnodes", "--rdzv-endpoint", "--kill-on-bad-exit", "--resolution", "--opt_out"}
    options = set().union(*(named(page, r"(?<!\S)--[\w.-]+") for page in PAGES))
    assert len(options) > 5
    tables = set(re.findall(r"--[\w-]+", (ROOT / "reproduce" / "__main__.py").read_text(encoding="utf-8")))
    left = options - others - tables
    assert {f"--{option[2:].replace('-', '_')}" for option in left} - commands.options() == set()
    pattern = r"^(?:benchmarks|examples|recipes|reproduce|src|tests)/[\w./-]+$"
    files = set().union(*(named(page, pattern) for page in PAGES))
    assert files
    assert {file for file in files if not (ROOT / file).exists()} == set()


def test_messages_that_are_explained_are_said() -> None:
    page = (ROOT / "docs" / "trouble.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "src").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    said = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert len(explained) > 5
    assert {text for text in explained if not any(text in each for each in said)} == set()


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: sanet\.(\w+)$", page, re.MULTILINE)) == sanet.__all__


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that every page starts in, and the runs that pages have asked for."""
    folder = tmp_path_factory.mktemp("documented")
    places.build(folder)
    return folder


def place_of(page: Path, original: Path, place: Path) -> Path:
    """A copy of the folder, with the runs that the page speaks of and does not make itself."""
    for entry in original.iterdir():
        if entry.is_dir() and entry.name != "runs":
            shutil.copytree(entry, place / entry.name)
        elif entry.name in {"street.jpg", "drive.mp4"}:
            shutil.copy(entry, place)
    said = [" ".join(commands.words_of(text)) if kind == "command" else text for kind, text in steps(page)]
    made = {name for text in said for name in re.findall(r"--output runs/([\w-]+)", text)} - {"camvid-sanet"}
    for name in sorted({name for text in said for name in re.findall(r"runs/([\w-]+)", text)} & places.RUNS.keys()):
        if name not in made:
            places.bring(name, original, place)
    return place


def assert_printed(snippet: str, printed: str) -> None:
    """Sizes that stand behind a print in a snippet are printed by it."""
    lines = [re.findall(r"\d+", line) for line in printed.splitlines()]
    for sizes in re.findall(r"^print\(.*\)  # (\(.*)", snippet, re.MULTILINE):
        assert re.findall(r"\d+", sizes) in lines, printed


@pytest.mark.slow
@each_page
def test_a_page_does_what_it_says(page: Path, original: Path, tmp_path: Path) -> None:
    place, address = place_of(page, original, tmp_path), SERVED
    with ExitStack() as open_until_the_end:
        for kind, text in steps(page):
            text = text.replace(SERVED, address)
            if kind == "settings":
                (place / text.split(":")[0].removeprefix("# ")).write_text(text, encoding="utf-8")
            elif kind == "python":
                assert_printed(text, running.snippet(text, place))
            elif kind == "command" and text.startswith("sanet serve "):
                server = running.serving(commands.words_of(text)[1:], place, r"^served at (http://[^\s,]+)")
                address = open_until_the_end.enter_context(server)
            elif kind == "command" and not commands.NOT_RUN.match(text):
                commands.run(text, place)
