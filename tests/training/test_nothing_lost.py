"""Runs that are killed, stopped or starved go on, and end as if nothing had happened."""

import contextlib
import dataclasses
import errno
import io
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import sanet
from brightness import assert_same_weights, checkpoint, small_run, weights, write_pictures
from clean import CLEAN, start
from sanet.cli.main import main
from sanet.config import CHECKPOINTS
from sanet.structures import Interrupted, SanetError, UsageError
from sanet.training import checkpoints
from sanet.training.checkpoints import AtomicCheckpointIO, CheckpointFolder, read_checkpoint
from sanet.training.fit import train
from sanet.training.metrics import read_metrics
from sanet.training.task import SegmentationTask


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run that nothing happened to; its network drops out at random. A checkpoint at every step."""
    folder = tmp_path_factory.mktemp("unbroken")
    write_pictures(folder / "data")
    config = dataclasses.replace(
        small_run(folder / "data", folder / "run"),
        model=sanet.ModelConfig("danet", "test_resnet", output_stride=8, pretrained_backbone=False),
        batch_size=2,
        epochs=2,
        checkpoint_minutes=1e-9,
    )
    train(config)
    return config


def assert_same_run(config, unbroken):
    """The same weights, optimiser, schedule, metrics, scores and best model, to the last bit."""
    here, there = Path(config.output), Path(unbroken.output)
    found, expected = checkpoint(here), checkpoint(there)
    assert_same_weights(found["state_dict"], expected["state_dict"])
    momenta = [
        [entry["momentum_buffer"] for entry in end["optimizer_states"][0]["state"].values()]
        for end in (found, expected)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*momenta, strict=True))
    assert found["lr_schedulers"] == expected["lr_schedulers"]
    assert read_metrics(here) == read_metrics(there)
    scores = [json.loads((run / "scores.json").read_text()) for run in (here, there)]
    for one in scores:  # where the model is, and how long it was trained
        del one["facts"]["model"], one["facts"]["trained"]
    assert scores[0] == scores[1]
    assert_same_weights(weights(here), weights(there))


def in_child(function, *arguments):
    """A process of its own that runs the function; it says nothing."""
    return start(quietly, function, *arguments)


def quietly(function, *arguments):
    os.setsid()
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
        function(*arguments)


def begin_or_go_on(config):
    train(config, resume=bool(CheckpointFolder(Path(config.output) / CHECKPOINTS).listed()))


def clear_if_not_begun(config):
    """What the error of such a directory asks for: nothing of the run was written but its configuration."""
    output = Path(config.output)
    if output.exists() and not CheckpointFolder(output / CHECKPOINTS).listed():
        for path in sorted(output.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        output.rmdir()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_at_random_moments_ends_as_an_unbroken_one(unbroken, tmp_path, seed):
    rng = random.Random(seed)
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"))
    kills = 0
    for _ in range(100):
        clear_if_not_begun(config)
        child = in_child(begin_or_go_on, config)
        child.join(rng.uniform(0, 0.15 + 0.05 * kills))
        if child.exitcode is not None:
            break
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += 1
    assert child.exitcode == 0
    assert kills >= 2
    assert_same_run(config, unbroken)


def killed_at_call(config, number):
    """Train, and be killed at one of the calls by which files are written, counted from 1; some tear the file."""
    count = 0

    def dying(real, torn=None):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == number:
                if torn:
                    torn(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    def half(content, path):
        stream = io.BytesIO()
        save(content, stream)
        Path(path).write_bytes(stream.getvalue()[: stream.tell() // 2])

    save = torch.save
    torch.save = dying(torch.save, half)
    os.fsync = dying(os.fsync)
    Path.replace = dying(Path.replace)
    Path.unlink = dying(Path.unlink)
    begin_or_go_on(config)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 20, 33, 60])
def test_a_kill_inside_the_writing_loses_nothing(unbroken, tmp_path, number):
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"))
    child = in_child(killed_at_call, config, number)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    clear_if_not_begun(config)
    begin_or_go_on(config)
    assert_same_run(config, unbroken)


def killed_after(config, step):
    """Train, and be killed as soon as so many steps are behind a checkpoint."""
    real = CheckpointFolder.add

    def add(folder, count, score):
        real(folder, count, score)
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    CheckpointFolder.add = add
    train(config)


def wait_for_the_end_of_all(group):
    """Nobody of the group of processes is left soon after its first one was killed."""
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError("processes that load images are left")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("step", [5, 7])  # at the end of the first epoch, and inside the second
def test_a_run_goes_on_with_the_right_images_however_many_workers_load_them(unbroken, tmp_path, step, workers):
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"), num_workers=workers)
    child = in_child(killed_after, config, step)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert CheckpointFolder(Path(config.output) / CHECKPOINTS).listed()[-1].step == step
    wait_for_the_end_of_all(child.pid)
    child = in_child(begin_or_go_on, config)
    child.join()
    assert child.exitcode == 0
    assert_same_run(config, unbroken)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "number"),
    [
        ("training_step", signal.SIGTERM),
        ("validation_step", signal.SIGINT),
        pytest.param("training_step", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("validation_step", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_stop_finishes_the_step_saves_and_says_so(unbroken, tmp_path, monkeypatch, number, place):
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"), checkpoint_minutes=60)
    real, calls = getattr(SegmentationTask, place), 0

    def step(task, batch, index):
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), number)
        return real(task, batch, index)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, place, step)
        with pytest.raises(Interrupted, match=number.name) as stop:
            train(config)
    assert stop.value.status == {signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    assert signal.getsignal(number) == before
    # The third of five steps is finished; in the first validation, all but the last one are.
    expected = 3 if place == "training_step" else 4
    assert CheckpointFolder(Path(config.output) / CHECKPOINTS).listed()[-1].step == expected
    train(config, resume=True)
    assert_same_run(config, dataclasses.replace(unbroken))


def test_the_command_line_ends_with_the_documented_status(unbroken, tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"))
    config.save(tmp_path / "config.yaml")
    real = SegmentationTask.training_step

    def step(task, batch, index):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(task, batch, index)

    monkeypatch.setattr(SegmentationTask, "training_step", step)
    assert main(["train", "--config", str(tmp_path / "config.yaml")]) == 75
    assert f"sanet train --resume {config.output}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_job_leaves_its_loaders_alone(unbroken, tmp_path, number):
    """As Ctrl-C in a terminal, or a scheduler: every process of the group gets it."""
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"), num_workers=2, epochs=500)
    config.save(tmp_path / "config.yaml")
    command = [sys.executable, "-m", "sanet", "train", "--config", str(tmp_path / "config.yaml")]
    with open(tmp_path / "log", "w") as log:
        job = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        folder = CheckpointFolder(Path(config.output) / CHECKPOINTS)
        while not folder.listed() and job.poll() is None:
            time.sleep(0.05)
        os.killpg(job.pid, number)
        status = job.wait(60)
    assert status == {signal.SIGTERM: 75, signal.SIGINT: 130}[number], (tmp_path / "log").read_text()[-2000:]
    with pytest.raises(ProcessLookupError):
        os.killpg(job.pid, 0)  # nobody of the group is left
    done = folder.listed()[-1].step
    shorter = dataclasses.replace(config, epochs=done // 5 + 1)
    train(shorter, resume=True)


def test_a_damaged_checkpoint_is_passed_over(unbroken, tmp_path, capsys):
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"))
    train(config)
    folder = CheckpointFolder(Path(config.output) / CHECKPOINTS)
    newest, fallback = folder.listed()[-1].file, folder.listed()[-2].file
    path = folder.folder / newest
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # the same size
    path.write_bytes(content)
    train(config, resume=True)
    said = capsys.readouterr().err
    assert f"{newest} is damaged" in said
    assert f"{fallback} is taken instead" in said
    assert_same_run(config, unbroken)


def test_without_a_whole_checkpoint_nothing_goes_on(unbroken, tmp_path):
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"))
    train(config)
    for path in (Path(config.output) / CHECKPOINTS).glob("*.ckpt"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SanetError, match="no complete checkpoint"):
        train(config, resume=True)


def go_on_with_small_files(limit, config, sender):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        train(config, resume=True)
    except SanetError as error:
        sender.send(str(error))


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before_and_says_what_is_needed(unbroken, tmp_path):
    """Files above a limit cannot be written, as on a full disk: a real failure of a real write."""
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"), epochs=1, checkpoint_minutes=60)
    train(config)
    folder = CheckpointFolder(Path(config.output) / CHECKPOINTS)
    before = {path.name: path.read_bytes() for path in folder.folder.iterdir()}
    receiver, sender = CLEAN.Pipe(duplex=False)
    size = folder.newest().stat().st_size
    child = in_child(go_on_with_small_files, size // 2, dataclasses.replace(config, epochs=2), sender)
    assert receiver.poll(60)
    message = receiver.recv()
    child.join()
    assert "MB free" in message
    after = {path.name: path.read_bytes() for path in folder.folder.iterdir()}
    assert after == before
    train(dataclasses.replace(config, epochs=2), resume=True)


def test_no_space_is_named_whoever_reports_it(tmp_path, monkeypatch):
    path = tmp_path / "step.ckpt"
    path.write_bytes(b"before")

    def no_space(content, target):
        Path(target).write_bytes(b"ha")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(SanetError, match="MB free"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(2)}}, path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("step.ckpt", b"before")]


@pytest.mark.slow
def test_two_runs_in_one_folder(unbroken, tmp_path):
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"), epochs=200)
    child = in_child(train, config)
    try:
        folder = CheckpointFolder(Path(config.output) / CHECKPOINTS)
        for _ in range(200):
            if folder.listed():
                break
            time.sleep(0.05)
        for resume in (False, True):
            with pytest.raises(SanetError, match=f"in use by another run .process {child.pid} on"):
                train(config, resume=resume)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    assert (Path(config.output) / ".sanet.lock").exists()  # the lock itself fell with the process
    with pytest.raises(SanetError, match="sanet train --resume"):
        train(config)


class Payload:
    """Says so when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_with_a_payload_is_refused_and_not_executed(unbroken, tmp_path):
    marker = tmp_path / "executed"
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"))
    train(config)
    folder = CheckpointFolder(Path(config.output) / CHECKPOINTS)
    content = read_checkpoint(folder.newest())
    for write in (torch.save, lambda value, path: Path(path).write_bytes(pickle.dumps(value))):
        path = folder.path(folder.listed()[-1].step)
        write({**content, "hyper_parameters": Payload(marker)}, path)
        folder.add(folder.listed()[-1].step, None)  # with the right hash, as one who means harm would
        with pytest.raises(SanetError, match="not unpickled"):
            train(config, resume=True)
        with pytest.raises(SanetError, match="not unpickled"):
            train(
                dataclasses.replace(
                    config,
                    output=str(tmp_path / "other"),
                    model=dataclasses.replace(config.model, init_from=str(path)),
                )
            )
        assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()  # it would have worked


def test_a_list_that_is_torn_is_named(unbroken, tmp_path):
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"), epochs=1)
    train(config)
    index = Path(config.output) / CHECKPOINTS / checkpoints.INDEX
    index.write_text(index.read_text()[:20])
    with pytest.raises(SanetError, match=r"index\.json cannot be read"):
        train(config, resume=True)


def test_only_what_is_needed_is_kept(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step, score in enumerate([0.1, 0.7, None, 0.7, float("nan"), 0.3, None], start=1):
        folder.path(step).write_bytes(bytes([step]))
        folder.add(step, score)
    assert [entry.step for entry in folder.listed()] == [2, 6, 7]
    assert folder.best() == folder.path(2)  # the earlier of two equals
    assert folder.newest() == folder.path(7)
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {folder.path(step).name for step in (2, 6, 7)}
    assert json.loads((tmp_path / "index.json").read_text())[0]["score"] == 0.7


@pytest.mark.slow
def test_going_on_in_the_middle_of_an_epoch_takes_the_same_processes(unbroken, tmp_path):
    config = dataclasses.replace(unbroken, output=str(tmp_path / "run"))
    child = in_child(killed_at_call, config, 30)
    child.join()
    path = CheckpointFolder(Path(config.output) / CHECKPOINTS).newest()
    content = read_checkpoint(path)
    content["sanet"]["processes"] = 2
    torch.save(content, path)
    CheckpointFolder(path.parent).add(content["global_step"], None)
    with pytest.raises(UsageError, match="by 2 processes, and this run has 1"):
        train(config, resume=True)
