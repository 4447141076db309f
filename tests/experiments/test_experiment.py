"""Whole experiments on a data set that is learnt in seconds: kept, gone on with, failed and stopped."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from time import sleep

import numpy as np
import pytest
from trials import Place, config_of, options_of

import sanet
from brightness import assert_same_weights, weights, write_pictures
from sanet.cli.main import main
from sanet.config import CHECKPOINTS
from sanet.data.decoding import DataError
from sanet.evaluation.results import read_scores
from sanet.experiments import experiment as experiment_module
from sanet.experiments import runner
from sanet.experiments.experiment import experiment
from sanet.experiments.runner import rounds
from sanet.structures import Interrupted, SanetError, UsageError
from sanet.training.checkpoints import CheckpointFolder


def last(results):
    """What there is after all seeds."""
    *_, result = results
    return result


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


@pytest.mark.parametrize("damage", ["pictures.npz is gone", "scores.json is gone"])
def test_scores_that_were_lost_are_taken_again(finished, copy, damage):
    run = finished[1].rows[0].runs[0]
    folder = copy.runs() / run.directory.name / "val"
    before = run.evaluation
    (folder / damage.split()[0]).unlink()
    last(rounds("table3", config_of(copy)))
    found = read_scores(folder)
    assert found.scores == before.scores
    np.testing.assert_array_equal(found.picture_sums, before.picture_sums)


def test_scores_that_were_changed_are_not_replaced(finished, copy):
    row = finished[1].rows[0]
    scores = copy.runs() / row.runs[0].directory.name / "val" / "scores.json"
    scores.write_bytes(scores.read_bytes()[:500])
    before = scores.read_bytes()
    (failure,) = last(rounds("table3", config_of(copy))).failures()
    assert f"{scores} is there already" in failure
    assert scores.read_bytes() == before


@pytest.mark.parametrize("name", ["table.md", "runs.csv", "index.html", "costs.json"])
def test_files_that_were_changed_are_refused_before_the_work(copy, monkeypatch, name):
    with (copy.table() / name).open("ab") as file:
        file.write(b"a note of mine")
    monkeypatch.setattr(runner, "_add_run", None)
    with pytest.raises(UsageError, match=f"--output: .*{name} is there already"):
        experiment("table3", config_of(copy))
    assert (copy.table() / name).read_bytes().endswith(b"a note of mine")


def test_one_that_fails_does_not_lose_the_others(finished, copy, capsys):
    """One whose folder is taken by a file; then it is put right."""
    taken = copy.runs() / finished[1].rows[1].runs[1].directory.name
    shutil.rmtree(taken)
    taken.write_text("not a folder")
    assert main(options_of(copy)) == 1
    found = capsys.readouterr()
    assert re.search(r"sanet: FCN-SE, seed 1: .*Not a directory", found.err)
    assert "1 of 2" in found.out
    text = (copy.table() / "table.md").read_text()
    assert "Not finished; the same command tries again:\n\n- FCN-SE, seed 1: " in text
    assert "Traceback" in (copy.runs() / f"{taken.name}.failed.txt").read_text()
    taken.unlink()
    assert main(options_of(copy)) == 0
    assert "Not finished" not in (copy.table() / "table.md").read_text()
    assert not [*copy.runs().glob("*.failed.txt")]


def test_nothing_at_all_is_an_error(tmp_path):
    write_pictures(tmp_path / "data")
    with pytest.raises(SanetError, match=r"(?s)not one run .*FCN, seed 0.*nowhere"):
        experiment("table3", config_of(Place(tmp_path / "data", tmp_path / "out"), seeds=1, backbones=("nowhere",)))


def test_the_command_on_the_page_makes_it_again(finished, copy, capsys):
    text = (finished[0].table() / "table.md").read_text()
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
    assert (place.table() / "index.html").is_file()


def spoil(file):
    """Other content of the same size, so that it is known by its bytes alone."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    file.write_bytes(bytes(content))


@pytest.fixture
def own(finished, tmp_path):
    """The same runs and the same pictures, both to play with; a folder is known by its place, so it is kept there."""
    kept = tmp_path / "kept"
    shutil.copytree(finished[0].data, kept)
    output = tmp_path / "out"
    shutil.copytree(finished[0].output, output)
    yield Place(finished[0].data, output)
    shutil.rmtree(finished[0].data)
    shutil.copytree(kept, finished[0].data)


def test_runs_of_other_pictures_are_not_taken_for_these(own):
    """A mask that was painted over: every row says so, with the file, what is in it, and the remedy."""
    before = {path: path.stat().st_mtime_ns for path in own.runs().rglob("*") if path.is_file()}
    folder = next(own.runs().glob("fcn-*-seed0"))
    spoil(own.data / "train" / "masks" / "train3.png")
    message = (
        rf"FCN, seed 0: {re.escape(str(folder))}/data.json: trained on pictures and masks with the digest \w{{12}}, "
        rf"but those of train have \w{{12}} now; choose another --output, or delete {re.escape(str(folder))} and "
    )
    with pytest.raises(SanetError, match=message) as caught:
        experiment("table3", config_of(own))
    assert len(str(caught.value).splitlines()) == 1 + 6
    after = {path: path.stat().st_mtime_ns for path in own.runs().rglob("*") if path.is_file()}
    assert {path: time for path, time in after.items() if path.parent != own.runs()} == before


def test_a_run_that_does_not_say_on_what_it_was_trained_is_not_taken(copy):
    (next(copy.runs().glob("fcn-*-seed1")) / "data.json").unlink()
    result = experiment("table3", config_of(copy)).result
    (failure,) = result.failures()
    assert re.search(r"FCN, seed 1: .*/data.json does not say on which pictures", failure)


def test_what_was_begun_on_other_pictures_is_not_gone_on_with(own):
    run = next(own.runs().glob("fcn-*-seed1"))
    shutil.rmtree(run / "model")
    (run / "data.json").rename(run.with_name(f"{run.name}.data.json"))
    spoil(own.data / "train" / "masks" / "train3.png")
    with pytest.raises(SanetError, match=rf"FCN, seed 1: {re.escape(str(run))}.data.json: trained on pictures"):
        experiment("table3", config_of(own))


def test_a_damaged_model_fails_its_row_alone(copy):
    run = next(copy.runs().glob("fcn-*-seed0"))
    (run / "model" / "model.safetensors").write_bytes(b"cut")
    result = experiment("table3", config_of(copy)).result
    (failure,) = result.failures()
    assert failure.startswith("FCN, seed 0: ")
    assert failure.endswith(f"delete {run} and it is trained again")
    assert [len(row.runs) for row in result.rows] == [1, 2, 2]
    assert "1 of 2" in max(copy.tables(), key=lambda folder: folder.stat().st_mtime_ns).joinpath("table.md").read_text()
    shutil.rmtree(run)
    assert not experiment("table3", config_of(copy)).result.failures()


def test_trial_settings_have_a_folder_of_their_own(copy):
    """Of fewer seeds, other crops and so on: the table of before is kept."""
    before = (copy.table() / "table.md").read_text()
    folder = experiment("table3", config_of(copy, seeds=1)).folder
    assert len(copy.tables()) == 2
    assert (folder / "table.md").read_text() != before
    assert experiment("table3", config_of(copy)).folder != folder
    assert next(other for other in copy.tables() if other != folder).joinpath("table.md").read_text() == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("when", ["training", "measuring"])
def test_what_is_finished_is_written_when_it_is_stopped(copy, monkeypatch, capsys, when, number, status):
    """While the third seed is trained, and while costs are measured."""

    def kill(*_):
        os.kill(os.getpid(), number)
        sleep(1)

    for file in copy.table().iterdir():
        file.unlink()
    monkeypatch.setattr(*((runner, "completed") if when == "training" else (experiment_module, "measured_costs")), kill)
    seeds = ["--seeds", "3"] if when == "training" else []
    assert main([*options_of(copy), *seeds]) == status
    assert "what is finished is kept; go on with: the same command" in capsys.readouterr().err
    (folder,) = [folder for folder in copy.tables() if [*folder.iterdir()]]
    text = (folder / "table.md").read_text()
    assert "Not finished: something stopped it, and the same command goes on." in text
    measured = when == "training"  # after the seeds before
    assert ("the median of 30 passes" if measured else "Time and MACs: not measured.") in text
    costs = {"costs.json"} if measured else set()
    assert {file.name for file in folder.glob("[!.]*")} == {"table.md", "runs.csv", "index.html", *costs}
    monkeypatch.undo()
    assert main([*options_of(copy), *seeds]) == 0
    assert "something stopped it" not in (folder / "table.md").read_text()


def test_pictures_that_cannot_be_read_end_it_with_a_table(copy, monkeypatch):
    def fail(*_):
        raise DataError("val0.png cannot be read")

    monkeypatch.setattr(runner, "completed", fail)
    with pytest.raises(DataError, match="val0"):
        experiment("table3", config_of(copy, seeds=3))
    text = (copy.tables()[-1] / "table.md").read_text()
    assert "Not finished: something stopped it" in text
    assert re.search(r"^\| SANet .* \| 2 +\|", text, re.MULTILINE)


def test_where_nothing_can_be_written_nothing_is_begun(finished, tmp_path):
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(
        UsageError, match=r"--output: nothing can be written in .*out/runs \(.+\); name a folder of yours"
    ):
        experiment("table3", config_of(Place(finished[0].data, tmp_path / "out")))
