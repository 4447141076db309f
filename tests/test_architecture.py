"""The house rules that a parser can check: imports point one way, and nothing grows too big."""

import ast
import traceback
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from brightness import write_pictures
from sanet.cli.main import main
from sanet.training import task

SOURCE = Path(__file__).parents[1] / "src" / "sanet"
# Low to high; a file imports from its own layer and those before it. Keys are folders and files of src/sanet.
LAYERS = [
    {
        "structures",
        "settings",
        "yaml_files",
        "config",
        "data_config",
        "reading",
        "distributed",
        "files",
        "references",
        "record",
        "tables",
    },
    {"models", "data", "inference"},
    {"training", "evaluation"},
    {"insight", "deploy", "demo", "serve"},
    {"experiments", "repeated"},
    {"cli", "testing"},
]
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or not path.name.startswith("__"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())


def imported_modules(path):
    """Every module named by an import statement anywhere in a file."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            modules |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return modules


def parts_of_sanet(path):
    """The folders and files of src/sanet that a file imports from, itself left out."""
    own = path.relative_to(SOURCE).with_suffix("").parts[0]
    return own, {name.split(".")[1] for name in imported_modules(path) if name.startswith("sanet.")} - {own}


def test_the_sources_are_found():
    assert {"structures.py", "sanet.py", "losses.py"} <= {path.name for path in FILES}


@each_file
def test_imports_point_down(path):
    own, imported = parts_of_sanet(path)
    for part in {own, *imported}:
        assert part in RANK, f"give {part} a layer in {Path(__file__).name}"
    assert {part for part in imported if RANK[part] > RANK[own]} == set()
    assert not (own == "evaluation" and "training" in imported)


def test_no_two_modules_import_each_other():
    names = {".".join(("sanet", *path.relative_to(SOURCE).with_suffix("").parts)): path for path in FILES}
    graph = {name: imported_modules(path) & names.keys() - {name} for name, path in names.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert len(order) == len(names)


@each_file
def test_nothing_inside_imports_the_package_root(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert "sanet" not in {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "sanet":
            parts = {path.stem for path in SOURCE.iterdir()}
            assert {alias.name for alias in node.names} <= parts, f"line {node.lineno}"


@each_file
def test_lightning_stays_in_training(path):
    room = path.relative_to(SOURCE).parts[0]
    if room != "training":
        roots = {name.split(".")[0] for name in imported_modules(path)}
        assert not roots & {"lightning", "pytorch_lightning", *(["torchmetrics"] if room != "evaluation" else [])}


@each_file
def test_sizes_stay_within_the_budget(path):
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, FUNCTIONS):
            assert node.end_lineno - node.lineno + 1 <= 60, f"{node.name} in line {node.lineno}"
            if node.name == "__init__":
                given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                assert len(given) - 1 <= 10, f"constructor in line {node.lineno}"


class Arrived(Exception):
    """Carries the rate, and the files of src/sanet that it came through."""


def test_a_setting_walks_straight_from_argv_to_the_optimiser(tmp_path, monkeypatch):
    """The calls above the optimiser: few files, and none that lies above the one before it."""

    def arrive(model, settings):
        files = dict.fromkeys(Path(frame.filename) for frame in traceback.extract_stack())
        raise Arrived(settings.learning_rate, [path.relative_to(SOURCE) for path in files if path in FILES])

    monkeypatch.setattr(task, "create_optimizer", arrive)
    write_pictures(tmp_path / "data")
    settings = {
        "output": tmp_path / "run",
        "data.name": "folder",
        "data.root": tmp_path / "data",
        "data.classes": "[dark, light]",
        "augmentation.crop": "[40, 40]",
        "model.backbone": "test_resnet",
        "model.pretrained_backbone": "false",
        "optimizer.learning_rate": 0.123,
        "num_workers": 0,
    }
    with pytest.raises(Arrived) as arrival:
        main(["train", *(word for name, value in settings.items() for word in (f"--{name}", str(value)))])
    rate, rooms = arrival.value.args
    assert rate == 0.123
    assert len(rooms) <= 15
    ranks = [RANK[room.with_suffix("").parts[0]] for room in rooms]
    assert ranks == sorted(ranks, reverse=True)
