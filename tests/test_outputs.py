"""No command replaces what it did not write itself, at any of the places that it writes to."""

import os
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sanet import files
from sanet.cli.main import main
from sanet.data.download import DATASETS
from sanet.models.networks import create_model
from sanet.structures import LabelSet

SCENES = ["--data.name", "scenes", "--split", "val"]
# What each command is asked, and what it writes then. The model is an empty folder: refused before one is read.
WRITES = {
    "evaluate": (
        ["nowhere", *SCENES, "--output", "out"],
        ["out/scores.json", "out/image_counts.npz", "out/report.html"],
    ),
    "errors": (
        ["nowhere", *SCENES, "--output", "out", "--format", "labelme"],
        ["out/errors.html", "out/suspects.csv", "out/labelme/a.json"],
    ),
    "next": (
        ["photos", "--model", "nowhere", "--output", "out", "--format", "labelme"],
        ["out/next.csv", "out/labelme/a.json"],
    ),
    "predict": (
        ["photos", "--model", "model", "--output", "out"],
        ["out/masks/a.png", "out/overlays/a.jpg", "out/predictions.jsonl", "out/masks"],
    ),
    "explain": (
        ["nowhere", "photos/a.png", "--point", "1", "1", "--output", "out/g.svg", "--save_arrays", "out/g.npz"],
        ["out/g.svg", "out/g.npz"],
    ),
    "visualize": (["photos/a.png", "--models", "nowhere", "--output", "out/c.pdf"], ["out/c.pdf"]),
    "export": (["nowhere", "--output", "out/m.onnx"], ["out/m.onnx", "out/m.onnx.json"]),
    "profile": (
        ["--output", "out"],
        ["out/profile.csv", "out/profile.md", "out/accuracy-cost.png", "out/accuracy-cost.svg"],
    ),
    "train": ([*SCENES[:2], "--output", "out"], ["out/config.yaml", "out/notes.txt", "out/model"]),
    "download": (["voc", "--root", "out"], [f"out/archives/{DATASETS['voc'][-1].name}"]),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, with an image, and a folder for the output."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "out", "nowhere"):
        Path(folder).mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save("photos/a.png")
    return tmp_path


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def asked(command, options, capsys):
    """The exit status, and what is said on stderr."""
    capsys.readouterr()
    status = main([command, *options])
    return status, capsys.readouterr().err


PLACES = [(command, output) for command, (_, outputs) in WRITES.items() for output in outputs]
# Each in turn; tests/test_files.py tries all of them.
KINDS = [
    "file" if command == "download" or output == "out/masks" else kind
    for (command, output), kind in zip(PLACES, cycle(["file", "link", "folder", "pipe"]))
]


@pytest.mark.parametrize(
    ("command", "output", "kind"), [(*place, kind) for place, kind in zip(PLACES, KINDS, strict=True)]
)
def test_a_foreign_file_is_refused_before_the_work(place, request, capsys, command, output, kind):
    if command == "predict":
        request.getfixturevalue("model")
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_bytes(b"mine")
    elif kind == "link":
        Path("mine").write_bytes(b"mine")
        path.symlink_to(place / "mine")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = contents(place)
    status, said = asked(command, WRITES[command][0], capsys)
    assert status == 2
    assert "--" in said
    assert str(path.parent if command == "train" else path.name) in said
    assert {path: content for path, content in contents(place).items() if path in before} == before
    left = {path.name for path in contents(place).keys() - before.keys()}
    assert left <= ({".sanet.lock"} if command == "download" else set())


@pytest.fixture
def model(place):
    torch.manual_seed(0)
    create_model("sanet", "test_resnet", labels=LabelSet(("sky", "road", "car"))).save_pretrained("model")


MADE = {
    "explain": (["model", "photos/a.png", "--point", "1", "1", "--output", "out/g.png", "--save_arrays", "out/g.npz"]),
    "visualize": (["photos/a.png", "--models", "model", "--output", "out/c.png"]),
    "predict": (["photos", "--model", "model", "--output", "out", "--shorter_side", "64"]),
    "profile": (["--networks", "[fcn]", "--backbones", "[test_resnet]", "--sizes", "[[64, 64]]", "--output", "out"]),
}


@pytest.mark.parametrize("command", MADE)
def test_what_a_command_wrote_it_replaces_until_somebody_changes_it(model, place, capsys, command):
    assert asked(command, MADE[command], capsys)[0] == 0
    again = [*MADE[command], "--flip", "true"] if command == "predict" else MADE[command]
    assert asked(command, again, capsys)[0] == 0
    written = [path for path in Path("out").rglob("*.*") if not files.hidden(path) and path.name[:11] != "predictions"]
    assert len(written) == {"visualize": 1}.get(command, 2)
    for path in written:
        whole = path.read_bytes()
        path.write_bytes(whole + b"a note of mine")
        status, said = asked(command, MADE[command], capsys)
        assert (status, path.name in said) == (2, True)
        assert path.read_bytes() == whole + b"a note of mine"
        path.write_bytes(whole)
    assert asked(command, MADE[command], capsys)[0] == 0


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("explain", ["--output", "photos/a.png"]),
        ("explain", ["--output", "photos/b.png"]),
        ("explain", ["--output", "out/a.npz.png", "--save_arrays", "photos/b.png"]),
        ("explain", ["--output", "out/g.png", "--save_arrays", "out/g.png"]),
        ("visualize", ["--output", "photos/a.png"]),
        ("visualize", ["--output", "photos/b.png"]),
    ],
)
def test_an_input_or_another_output_is_never_the_output(place, capsys, command, options):
    """Also one that sanet has written, or that has another name."""
    files.note(Path("photos/a.png"), Path("photos/a.png"))
    Path("photos/b.png").symlink_to(place / "photos/a.png")
    before = contents(place)
    given = {
        "explain": ["nowhere", "photos/a.png", "--point", "1", "1"],
        "visualize": ["photos/a.png", "--models", "nowhere"],
    }
    status, said = asked(command, [*given[command], *options], capsys)
    assert status == 2
    assert "read by the same command" in said
    assert contents(place) == before


FULL = """
import resource, sys
from sanet.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["explain", "profile"])
def test_a_full_disk_is_one_line_and_leaves_nothing(model, place, command):
    """No file can grow beyond some bytes."""
    done = subprocess.run([sys.executable, "-c", FULL, "100", command, *MADE[command]], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("sanet: ")]
    assert "out/" in said
    assert list(Path("out").iterdir()) == []
