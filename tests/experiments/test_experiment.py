"""Whole experiments on a data set that is learnt in seconds: kept, gone on with, failed, and what they write."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from time import sleep
from typing import NamedTuple

import numpy as np
import pytest

import sanet
from brightness import CLASSES, assert_same_weights, weights, write_pictures
from sanet.cli.main import main
from sanet.config import CHECKPOINTS, DataConfig
from sanet.evaluation.results import read_scores
from sanet.experiments.config import ExperimentConfig
from sanet.experiments.experiment import experiment
from sanet.experiments.runner import rounds
from sanet.experiments.statistics import paired_bootstrap
from sanet.structures import Interrupted, SanetError
from sanet.training.checkpoints import CheckpointFolder


class Place(NamedTuple):
    """Where the pictures lie, and where the runs go."""

    data: Path
    output: Path

    def runs(self):
        return self.output / "runs"


def config_of(place, **changes):
    config = ExperimentConfig(
        data=DataConfig("folder", str(place.data), CLASSES),
        output=str(place.output),
        seeds=2,
        epochs=3,
        crop=(40, 40),
        backbones=("test_resnet",),
        pretrained_backbone=False,
        workers=0,
        accelerator="cpu",
    )
    return replace(config, **changes)


def options_of(place):
    """The same for the command line."""
    return [
        "experiment", "table3", "--data.name", "folder", "--data.classes", "[dark, light]", "--seeds", "2", "--epochs",
        "3", "--crop", "[40, 40]", "--backbones", "[test_resnet]", "--pretrained_backbone", "false", "--workers", "0",
        "--accelerator", "cpu", "--data.root", str(place.data), "--output", str(place.output),
    ]  # fmt: skip


def last(results):
    """What there is after all seeds."""
    *_, result = results
    return result


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A place in which table 3 has been run; not to be changed."""
    folder = tmp_path_factory.mktemp("experiment")
    place = Place(folder / "data", folder / "out")
    write_pictures(place.data)
    return place, experiment("table3", config_of(place)).result


@pytest.fixture
def copy(finished, tmp_path):
    """The same runs, to play with."""
    place = Place(finished[0].data, tmp_path / "out")
    shutil.copytree(finished[0].output, place.output)
    return place


def test_every_row_has_a_run_with_every_seed(finished):
    place, result = finished
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
    assert {path.name for path in place.runs().iterdir()} == seen
    assert len({tuple(run.evaluation.scores.miou for run in row.runs) for row in result.rows}) == 3


def test_what_is_finished_is_kept(copy, capsys):
    before = {path: path.stat().st_mtime_ns for path in copy.runs().rglob("*") if path.is_file()}
    experiment("table3", config_of(copy))
    assert {path: path.stat().st_mtime_ns for path in copy.runs().rglob("*") if path.is_file()} == before
    out = capsys.readouterr().out
    assert out.count("finished already") == 6
    assert "training" not in out


def test_tables_share_runs(copy, capsys):
    result = last(rounds("table1", config_of(copy)))
    assert [row.row.network for row in result.rows] == ["fcn", "sa", "sa-cat", "sanet"]
    assert capsys.readouterr().out.count("finished already") == 4  # FCN and SANet, of two seeds each


def test_more_seeds_add_runs_and_there_is_a_table_after_each(copy, capsys):
    found = [[len(row.runs) for row in result.rows] for result in rounds("table3", config_of(copy, seeds=3))]
    assert found[-1] == [3, 3, 3]
    assert capsys.readouterr().out.count("finished already") == 6


def test_other_pictures_are_other_runs(copy, tmp_path, capsys):
    """A folder is known by its place: masks may be others under the same names."""
    other = Place(tmp_path / "other", copy.output)
    write_pictures(other.data, train=4, val=2)
    next(rounds("table3", config_of(other)))
    assert capsys.readouterr().out.count("training") == 3


def test_pictures_that_came_later_are_scored_without_training(finished, tmp_path, capsys):
    place = Place(tmp_path / "data", tmp_path / "out")
    write_pictures(place.data, train=4, val=2)
    config = config_of(place, seeds=1)
    experiment("table3", config)
    written = {path: path.stat().st_mtime_ns for path in place.runs().glob("*/model/*")}
    for kind in ("images", "masks"):
        folder = place.data / "val" / kind
        shutil.copy(folder / "val0.png", folder / "val9.png")
    result = experiment("table3", config).result
    assert {path: path.stat().st_mtime_ns for path in place.runs().glob("*/model/*")} == written
    assert all(len(row.runs[0].evaluation.picture_miou) == 3 for row in result.rows)


def test_what_was_interrupted_goes_on_and_comes_out_the_same(finished, copy):
    """A run that got a SIGTERM after its first checkpoint."""
    row = finished[1].rows[2]
    stopped = copy.runs() / row.runs[1].directory.name
    shutil.rmtree(stopped)
    folder = CheckpointFolder(stopped / CHECKPOINTS)

    def watch():
        while not folder.listed():
            sleep(0.002)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    with pytest.raises(Interrupted):
        sanet.train(replace(row.row.config, output=str(stopped), seed=1))
    assert not (stopped / "model").exists()
    result = last(rounds("table3", config_of(copy)))
    assert_same_weights(weights(stopped), weights(row.runs[1].directory))
    assert result.rows[2].runs[1].evaluation.scores == row.runs[1].evaluation.scores


@pytest.mark.parametrize("damage", ["pictures.npz is gone", "scores.json is cut", "scores.json is of another time"])
def test_scores_that_were_lost_are_taken_again(finished, copy, damage):
    run = finished[1].rows[0].runs[0]
    folder = copy.runs() / run.directory.name / "val"
    scores, before = folder / "scores.json", finished[1].rows[0].runs[0].evaluation
    if damage == "pictures.npz is gone":
        (folder / "pictures.npz").unlink()
    elif damage == "scores.json is cut":
        scores.write_text(scores.read_text()[:500])
    else:
        shutil.copy(copy.runs() / finished[1].rows[2].runs[1].directory.name / "val" / "scores.json", scores)
    last(rounds("table3", config_of(copy)))
    found = read_scores(folder)
    assert found.scores == before.scores
    np.testing.assert_array_equal(found.picture_sums, before.picture_sums)


def test_one_that_fails_does_not_lose_the_others(finished, copy, capsys):
    """One whose folder is taken by a file; then it is put right."""
    taken = copy.runs() / finished[1].rows[1].runs[1].directory.name
    shutil.rmtree(taken)
    taken.write_text("not a folder")
    assert main(options_of(copy)) == 1
    found = capsys.readouterr()
    assert re.search(r"sanet: FCN-SE, seed 1: .*Not a directory", found.err)
    assert "1 of 2" in found.out
    text = (copy.output / "table3-folder" / "table.md").read_text()
    assert "Not finished; the same command tries again:\n\n- FCN-SE, seed 1: " in text
    assert "Traceback" in (copy.runs() / f"{taken.name}.failed.txt").read_text()
    taken.unlink()
    assert main(options_of(copy)) == 0
    assert "Not finished" not in (copy.output / "table3-folder" / "table.md").read_text()
    assert not [*copy.runs().glob("*.failed.txt")]


def test_nothing_at_all_is_an_error(tmp_path):
    write_pictures(tmp_path / "data")
    with pytest.raises(SanetError, match=r"(?s)not one run .*FCN, seed 0.*nowhere"):
        experiment("table3", config_of(Place(tmp_path / "data", tmp_path / "out"), seeds=1, backbones=("nowhere",)))


def test_the_command_on_the_page_makes_it_again(finished, copy, capsys):
    text = (finished[0].output / "table3-folder" / "table.md").read_text()
    command = shlex.split(re.search(r"```\n(.*)\n```", text)[1].replace("DIR", str(finished[0].data)))
    assert command[0] == "sanet"
    assert main([*command[1:], "--output", str(copy.output)]) == 0
    assert capsys.readouterr().out.count("finished already") == 6


def test_under_torchrun_the_processes_share_every_run(tmp_path):
    place = Place(tmp_path / "data", tmp_path / "out")
    write_pictures(place.data, train=8, val=3)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sanet"]
    options = [*options_of(place), "--seeds", "1", "--epochs", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("training") == 3  # the first process alone talks
    assert len(read_scores(next(place.runs().glob("sanet-*")) / "val").picture_miou) == 3
    assert (place.output / "table3-folder" / "index.html").is_file()


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text):
        super().__init__()
        self.images, self.references, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.references += [values[name] for name in ("src", "href") if name in values]
        self.images += [values["alt"]] if tag == "img" else []

    def handle_data(self, data):
        self.text += data


def test_the_files_say_what_was_found(finished):
    place, result = finished
    text = (place.output / "table3-folder" / "table.md").read_text()
    page = Page((place.output / "table3-folder" / "index.html").read_text())
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert len(page.images) == 3 * 5  # three pictures; each as it is, as it should be, and under three networks
    with (place.output / "table3-folder" / "runs.csv").open(encoding="utf-8") as file:
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
    assert "fewer than 3 runs" in claim
    assert "+4.1 " in claim  # 49.0 - 44.9, the paper's table 3


@pytest.mark.parametrize("change", ["runs", "height", "machine"])
def test_costs_are_measured_once_and_anew_for_anything_else(copy, change):
    kept = copy.output / "table3-folder" / "costs.json"
    before = json.loads(kept.read_text())
    experiment("table3", config_of(copy))
    assert json.loads(kept.read_text()) == before
    changed = {"runs": {**before["runs"], "fcn/test_resnet": "another"}, "height": 7, "machine": ["a GPU", 1, "2.0"]}
    old = {
        **before,
        change: changed[change],
        "rows": {name: {**row, "macs": 1} for name, row in before["rows"].items()},
    }
    kept.write_text(json.dumps(old))
    experiment("table3", config_of(copy))
    again = json.loads(kept.read_text())
    assert again[change] == before[change]
    for name, row in before["rows"].items():
        assert [again["rows"][name][key] for key in ("parameters", "macs")] == [row["parameters"], row["macs"]]


@pytest.mark.parametrize("name", ["figure4", "table6"])
def test_charts(name, tmp_path):
    """Curves with a point for each weight, and accuracy over cost with a name for each network."""
    write_pictures(tmp_path / "data", train=4, val=2)
    experiment(name, config_of(Place(tmp_path / "data", tmp_path / "out"), seeds=1, epochs=1))
    text = (tmp_path / "out" / f"{name}-folder" / "index.html").read_text()
    charts = re.findall(r"<figure>\s*<h3>(.*?)</h3>\s*<svg.*?</svg>", text, re.DOTALL)
    points = [chart.count("<circle") for chart in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    if name == "figure4":
        assert charts == ["mIoU over α, β = 0.8", "mIoU over β, α = 0.2"]
        assert points == [6, 6]
    else:
        assert charts == ["mIoU over time", "mIoU over MACs", "mIoU over parameters"]
        assert points == [3, 3, 3]
        names = re.findall(r'class="name"[^>]*>(.*?)</text>', text)
        assert [sorted(names[first : first + 3]) for first in (0, 3, 6)] == [
            ["DeepLabV3+", "FCN", "SANet"]
        ] * 3
