"""Whole experiments on a data set that is learnt in seconds: kept, gone on with, failed, and what they write."""

import csv
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from brightness import CLASSES, assert_same_weights, weights, write_pictures
from sanet.cli.main import main
from sanet.config import DataConfig
from sanet.evaluation.results import read_scores
from sanet.experiments.config import ExperimentConfig
from sanet.experiments.experiment import experiment
from sanet.experiments.runner import run_experiment
from sanet.experiments.statistics import paired_bootstrap
from sanet.structures import SanetError

OPTIONS = [
    "experiment", "table3", "--data.name", "folder", "--data.classes", "[dark, light]", "--seeds", "2", "--epochs", "1",
    "--crop", "[40, 40]", "--backbones", "[test_resnet]", "--pretrained_backbone", "false", "--workers", "0",
    "--accelerator", "cpu",
]  # fmt: skip


def config_of(folder, **changes):
    config = ExperimentConfig(
        data=DataConfig("folder", str(folder / "data"), CLASSES),
        output=str(folder / "out"),
        seeds=2,
        epochs=1,
        crop=(40, 40),
        backbones=("test_resnet",),
        pretrained_backbone=False,
        workers=0,
        accelerator="cpu",
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which table 3 has been run; not to be changed."""
    folder = tmp_path_factory.mktemp("experiment")
    write_pictures(folder / "data")
    return folder, experiment("table3", config_of(folder))


@pytest.fixture
def copy(finished, tmp_path):
    """The same to play with."""
    shutil.copytree(finished[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_every_row_has_a_run_with_every_seed(finished):
    folder, result = finished
    assert [row.row.network for row in result.rows] == ["fcn", "fcn_se", "sanet"]
    assert result.split == "val"  # there is no test split
    seen = set()
    for row in result.rows:
        assert [run.seed for run in row.runs] == [0, 1]
        assert not row.failures
        for run in row.runs:
            found = read_scores(run.directory / "val")
            assert found.scores == run.evaluation.scores
            np.testing.assert_array_equal(found.picture_sums, run.evaluation.picture_sums)
            seen.add(run.directory.name)
        one, other = (weights(run.directory) for run in row.runs)
        assert any(not np.array_equal(one[name], other[name]) for name in one)
    assert {path.name for path in (folder / "out" / "runs").iterdir()} == seen


def test_what_is_finished_is_kept(copy, capsys):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file() and "runs" in path.parts}
    experiment("table3", config_of(copy))
    after = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file() and "runs" in path.parts}
    assert after == before
    out = capsys.readouterr().out
    assert out.count("finished already") == 6
    assert "training" not in out


def test_tables_share_runs(copy, capsys):
    result = run_experiment("table1", config_of(copy))
    assert [row.row.network for row in result.rows] == ["fcn", "sa", "sa-cat", "sanet"]
    assert capsys.readouterr().out.count("finished already") == 4  # FCN and SANet, of two seeds each


def test_more_seeds_add_runs(copy, capsys):
    result = run_experiment("table3", config_of(copy, seeds=3))
    assert all([run.seed for run in row.runs] == [0, 1, 2] for row in result.rows)
    assert capsys.readouterr().out.count("finished already") == 6


def test_what_was_interrupted_goes_on_and_comes_out_the_same(finished, copy):
    run = finished[1].rows[2].runs[1].directory
    damaged = copy / "out" / "runs" / run.name
    shutil.rmtree(damaged / "model")
    shutil.rmtree(damaged / "val")
    result = run_experiment("table3", config_of(copy))
    assert_same_weights(weights(damaged), weights(run))
    assert result.rows[2].runs[1].evaluation.scores == finished[1].rows[2].runs[1].evaluation.scores


def test_scores_that_were_lost_are_taken_again(finished, copy):
    run = finished[1].rows[0].runs[0].directory
    damaged = copy / "out" / "runs" / run.name
    (damaged / "val" / "pictures.npz").unlink()
    run_experiment("table3", config_of(copy))
    np.testing.assert_array_equal(read_scores(damaged / "val").picture_sums, read_scores(run / "val").picture_sums)


def test_one_that_fails_does_not_lose_the_others(finished, copy, capsys):
    """One whose folder is taken by a file, and one whose scores were changed; then both are put right."""
    runs = copy / "out" / "runs"
    taken = runs / finished[1].rows[1].runs[1].directory.name
    changed = runs / finished[1].rows[2].runs[0].directory.name / "val" / "scores.json"
    shutil.rmtree(taken)
    taken.write_text("not a folder")
    original = changed.read_text()
    changed.write_text(original.replace('"miou": 0.', '"miou": 0.9', 1))
    options = [*OPTIONS, "--data.root", str(copy / "data"), "--output", str(copy / "out")]
    assert main(options) == 1
    found = capsys.readouterr()
    assert re.search(r"sanet: FCN-SE, seed 1: .*Not a directory", found.err)
    assert re.search(r"sanet: SANet, seed 0: .*was changed after it was written", found.err)
    assert "1 of 2" in found.out
    assert "Failed; the same command tries again" in (copy / "out" / "table3" / "table.md").read_text()
    assert "Traceback" in (runs / f"{taken.name}.failed.txt").read_text()
    taken.unlink()
    changed.write_text(original)
    assert main(options) == 0
    assert "Failed" not in (copy / "out" / "table3" / "table.md").read_text()
    assert not [*runs.glob("*.failed.txt")]


def test_nothing_at_all_is_an_error(tmp_path):
    write_pictures(tmp_path / "data")
    with pytest.raises(SanetError, match=r"(?s)not one run .*FCN, seed 0.*nowhere"):
        experiment("table3", config_of(tmp_path, seeds=1, backbones=("nowhere",)))


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.images, self.references, self.text, self.open = [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.references += [values[name] for name in ("src", "href") if name in values]
        self.images += [values["alt"]] if tag == "img" else []

    def handle_data(self, data):
        self.text += data


def test_the_files_say_what_was_found(finished):
    folder, result = finished
    text = (folder / "out" / "table3" / "table.md").read_text()
    page = Page((folder / "out" / "table3" / "index.html").read_text())
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert len(page.images) == 3 * 5  # three pictures; each as it is, as it should be, and under three networks
    with (folder / "out" / "table3" / "runs.csv").open(encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert len(records) == 6
    for row in result.rows:
        values = [100 * run.evaluation.scores.miou for run in row.runs]
        mine = [record for record in records if record["row"] == row.row.name]
        assert [100 * float(record["miou"]) for record in mine] == pytest.approx(values)
        shown = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
        line = next(line for line in text.splitlines() if line.startswith(f"| {row.row.recipe.label} "))
        assert shown in line
        assert shown in page.text
        assert f" {row.row.recipe.published['miou']} " in line
    fcn, _, sanet = (row.picture_sums() for row in result.rows)
    difference = paired_bootstrap(sanet, fcn)
    claim = next(line for line in text.splitlines() if line.startswith("| SANet over FCN "))
    assert f"{100 * difference.mean:+.1f} " in claim
    assert f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}" in claim
    assert "+4.1 " in claim  # 49.0 - 44.9, the paper's table 3


def test_costs_are_measured_once_and_with_every_new_row(copy):
    kept = copy / "out" / "table3" / "costs.json"
    before = json.loads(kept.read_text())
    experiment("table3", config_of(copy))
    assert json.loads(kept.read_text()) == before
    removed = before["rows"].pop("fcn/test_resnet")
    kept.write_text(json.dumps(before))
    experiment("table3", config_of(copy))
    again = json.loads(kept.read_text())["rows"]["fcn/test_resnet"]
    assert (again["parameters"], again["macs"]) == (removed["parameters"], removed["macs"])


@pytest.mark.parametrize("name", ["figure4", "table6"])
def test_charts(name, tmp_path):
    """Curves with a point for each weight, and accuracy over cost with a name for each network."""
    write_pictures(tmp_path / "data", train=4, val=2)
    experiment(name, config_of(tmp_path, seeds=1))
    text = (tmp_path / "out" / name / "index.html").read_text()
    charts = re.findall(r"<figure>\s*<h3>(.*?)</h3>\s*<svg.*?</svg>", text, re.DOTALL)
    points = [chart.count("<circle") for chart in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    if name == "figure4":
        assert charts == ["mIoU over α, β = 0.8", "mIoU over β, α = 0.2"]
        assert points == [6, 6]
    else:
        assert charts == ["mIoU over time", "mIoU over MACs", "mIoU over parameters"]
        assert points == [3, 3, 3]
        names = re.findall(r'class="name"[^>]*>(.*?)</text>', text)
        assert [sorted(names[first : first + 3]) for first in (0, 3, 6)] == [["DeepLabV3+", "FCN", "SANet"]] * 3
