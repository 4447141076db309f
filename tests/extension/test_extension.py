"""A stranger's package takes part in everything that the built-in parts do, and none of its files is ours."""

import ast
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import sanet
from sanet.cli.main import main
from sanet.demo.config import DemoConfig
from sanet.demo.serve import served
from sanet.testing import check_network

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


def sanet_in(folder, *words, opened=True, processes=1):
    """A command of its own process, or of several, as a user types it."""
    shared = (
        ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    )
    given = [sys.executable, "-m", *shared, "sanet", *(["--import", "my_lab"] if opened else []), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(given, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def succeed(lab, *words):
    done = sanet_in(lab, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def run(lab):
    """The directory of a finished run, trained with loader workers."""
    succeed(lab, "train", "--config", "run.json", "--data.root", "leaves", "--output", "run", "--num_workers", 2)
    return lab / "run"


def test_the_package_imports_only_public_names():
    for path in PARTS:
        assert len(path.read_text().splitlines()) <= 45
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sanet":
                assert node.module == "sanet"
                assert {alias.name for alias in node.names} <= set(sanet.__all__)


def test_the_page_of_the_documentation_is_made_of_its_files():
    page = (HERE.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    for path in PARTS:
        if path.name != "__init__.py":
            assert f'```python title="my_lab/{path.name}"\n{path.read_text(encoding="utf-8")}```' in page


@pytest.mark.slow
def test_training_takes_every_part(lab, run):
    lines = [*csv.DictReader((run / "metrics.csv").open())]
    assert len(lines) == 2
    assert all(float(line["train/my_lab.losses:Tversky"]) > 0 for line in lines)
    assert 0 <= float(lines[-1]["val/boundary"]) <= 1
    assert (lab / "diary.txt").read_text().splitlines()[:2] == ["epoch 0, 1 in all", "epoch 1, 2 in all"]
    record = json.loads((run / "record.json").read_text())
    assert record["modules"] == ["my_lab"]
    assert set(record["code"]) == {"my_lab"}


@pytest.mark.slow
def test_a_run_resumes_only_where_the_package_is_opened(lab, run):
    refused = sanet_in(lab, "train", "--resume", "run", "--epochs", 3, opened=False)
    assert refused.returncode != 0
    assert "--import my_lab" in refused.stderr
    shutil.copytree(run, lab / "longer")
    succeed(lab, "train", "--resume", "longer", "--epochs", 3)
    assert (lab / "diary.txt").read_text().splitlines()[-1] == "epoch 2, 3 in all"
    assert len((lab / "longer" / "metrics.csv").read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_run_of_changed_code_is_refused(lab, run):
    shutil.copytree(run, lab / "changed")
    shutil.copytree(HERE / "my_lab", lab / "other" / "my_lab")
    source = lab / "other" / "my_lab" / "losses.py"
    source.write_text(source.read_text().replace("+ 1)", "+ 2)"))
    given = [
        sys.executable,
        "-m",
        "sanet",
        "--import",
        "my_lab",
        "train",
        "--resume",
        str(lab / "changed"),
        "--epochs",
        "3",
    ]
    done = subprocess.run(given, cwd=lab / "other", capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "my_lab" in done.stderr


@pytest.mark.slow
def test_the_model_is_scored_used_and_exported(lab, run):
    succeed(lab, "evaluate", "run", "--split", "test", "--output", "scores", "--device", "cpu")
    scores = json.loads((lab / "scores" / "scores.json").read_text())
    assert scores["protocol"]["data"] == "my_lab.data:Leaves"
    succeed(lab, "predict", "test0.png", "--model", "run", "--output", "labelled", "--device", "cpu")
    labelled = np.array(Image.open(lab / "labelled" / "masks" / "test0.png"))
    succeed(lab, "export", "run", "--output", "run.onnx")
    succeed(lab, "predict", "test0.png", "--model", "run.onnx", "--output", "exported", "--device", "cpu")
    exported = np.array(Image.open(lab / "exported" / "masks" / "test0.png"))
    assert (labelled == exported).mean() > 0.99
    refused = sanet_in(lab, "predict", "test0.png", "--model", "run", "--output", "refused", opened=False)
    assert refused.returncode != 0
    assert "--import my_lab" in refused.stderr


@pytest.mark.slow
def test_check_data_and_check_network_know_the_parts(lab, monkeypatch, capsys):
    monkeypatch.chdir(lab)
    monkeypatch.syspath_prepend(lab)
    words = ["check-data", "--data.name", "my_lab.data:Leaves", "--data.root", "leaves"]
    assert main(["--import", "my_lab", *words]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["images", "8", "3", "2"]
    from my_lab.heads import PSP

    check_network(PSP, windows=(2,), hidden=4)


@pytest.mark.slow
def test_a_table_of_repeated_runs_has_a_row_of_ones_own(lab, run):
    row = {name: value for name, value in SETTINGS.items() if name not in ("data", "monitor", "metrics")}
    table = {
        "rows": {"psp": {}, "fcn": {"model": {"name": "fcn", "options": {}}}},
        "base": row | {"epochs": 1, "num_workers": 0},
        "comparisons": [["psp", "fcn"]],
        "data": {"name": "my_lab.data:Leaves", "root": "leaves"},
        "seeds": 1,
    }
    (lab / "table.yaml").write_text(json.dumps(table))
    succeed(lab, "repeat", "table.yaml", "--output", "repeated")
    assert "my_lab.heads:PSP" in (lab / "repeated" / "table.md").read_text()


@pytest.mark.slow
def test_two_processes_share_a_run(lab):
    words = ["--config", "run.json", "--data.root", "leaves", "--output", "shared", "--num_workers", "0"]
    done = sanet_in(lab, "train", *words, processes=2)
    assert done.returncode == 0, done.stderr
    assert (lab / "shared" / "model" / "config.json").exists()


@pytest.mark.slow
def test_spawned_workers_load_the_source(lab, monkeypatch):
    monkeypatch.chdir(lab)
    monkeypatch.syspath_prepend(lab)
    sanet.use("my_lab")
    dataset = sanet.data_source(sanet.DataConfig("my_lab.data:Leaves", "leaves")).open("train")
    loader = DataLoader(dataset, 1, num_workers=2, multiprocessing_context="spawn", collate_fn=list)
    for index, (sample,) in enumerate(loader):
        assert torch.equal(sample.image, dataset[index].image)
        assert torch.equal(sample.mask, dataset[index].mask)


@pytest.mark.slow
def test_the_page_labels_with_the_head(lab, run, monkeypatch):
    monkeypatch.chdir(lab)
    sanet.use("my_lab")
    with served([str(run / "model")], DemoConfig(port=0, device="cpu")) as address:
        from gradio_client import Client

        assert Client(address, verbose=False).view_api(return_format="dict")
