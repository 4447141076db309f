"""What goes wrong in one of several processes ends all of them, and none waits for another for ever."""

import dataclasses
import errno
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from brightness import small_run, write_pictures
from gloo import run_in_processes
from sanet import distributed
from sanet.config import CHECKPOINTS
from sanet.evaluation import evaluate as evaluation
from sanet.models.networks import create_model
from sanet.structures import Interrupted, SanetError
from sanet.training.checkpoints import CheckpointFolder
from sanet.training.fit import train
from sanet.training.sharing import freeze_unused, synchronize_batch_norm
from sanet.training.task import SegmentationTask


def endings(function):
    """How each of two processes ended: the name of the error, and its message."""

    def end():
        try:
            function()
        except (Exception, KeyboardInterrupt) as error:
            return type(error).__name__, str(error)
        return "", ""

    return run_in_processes(2, end)


@pytest.fixture
def config(tmp_path):
    write_pictures(tmp_path / "data", val=5)
    return small_run(tmp_path / "data", tmp_path / "run")


@pytest.mark.slow
def test_what_the_first_process_raises_is_raised_in_all():
    def fail():
        raise UnicodeDecodeError("utf-8", b"a", 0, 1, "no")

    def stop():
        raise Interrupted("stopped", Interrupted.ON_REQUEST)

    assert [name for name, _ in endings(lambda: distributed.broadcast_from_main(fail))] == ["UnicodeDecodeError"] * 2
    assert endings(lambda: distributed.broadcast_from_main(stop)) == [("Interrupted", "stopped")] * 2


@pytest.mark.slow
def test_a_faulty_data_set(config, tmp_path):
    next((tmp_path / "data").rglob("train0.png")).unlink()
    for name, message in endings(lambda: train(config)):
        assert name == "DataError"
        assert "without a" in message


@pytest.mark.slow
def test_a_folder_that_is_used(config):
    Path(config.output).mkdir()
    (Path(config.output) / "thesis.tex").touch()
    found = endings(lambda: train(config))
    assert found[0] == found[1]
    assert "is not empty" in found[0][1]


@pytest.mark.slow
def test_a_loss_that_is_not_finite(config):
    real = SegmentationTask.loss_of

    def loss_of(task, batch):
        terms = real(task, batch)
        return {**terms, "loss": terms["loss"] * float("nan")} if distributed.rank() == 1 else terms

    def run():
        SegmentationTask.loss_of = loss_of
        train(config)

    found = endings(run)
    assert found[0] == found[1]
    assert "not finite in epoch 1, batch 0 (loss nan" in found[0][1]


@pytest.mark.slow
def test_a_full_disk(config):
    real, calls = torch.save, 0

    def save(content, path, **options):
        nonlocal calls
        calls += isinstance(path, Path)  # and not what is sent to the other process
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(content, path, **options)

    def run():
        torch.save = save
        train(config)

    found = endings(run)
    assert found[0] == found[1]
    assert "MB free" in found[0][1]


@pytest.mark.slow
def test_a_stop_in_a_validation_that_one_process_hears(config):
    real = SegmentationTask.validation_step

    def step(task, batch, index):
        if distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(task, batch, index)

    def run():
        SegmentationTask.validation_step = step
        train(config)

    assert [name for name, _ in endings(run)] == ["Interrupted"] * 2
    run_in_processes(2, lambda: train(config, resume=True) and None)


@pytest.mark.slow
def test_an_evaluation_that_fails_in_one_process(config):
    train(dataclasses.replace(config, epochs=1))

    def run():
        real = evaluation.Predictor.judged

        def judged(predictor, image):
            if distributed.rank() == 1:
                raise RuntimeError("device lost")
            return real(predictor, image)

        evaluation.Predictor.judged = judged
        evaluation.evaluate(Path(config.output) / "model", config.data, "val", progress=False)

    assert endings(run) == [("RuntimeError", "device lost")] * 2


def test_parameters_that_no_output_depends_on_are_left_alone():
    """The last stage of an HRNet makes all scales, of which FCN takes one."""

    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
            self.norm = nn.BatchNorm2d(2)

        def forward(self, images):
            return self.norm(self.used(images)), None

    model = Partly()
    assert freeze_unused(model) == ["unused.weight", "unused.bias"]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, True, False, False, True, True]
    assert model.norm.num_batches_tracked == 0
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    for name in ("sanet", "fcn", "danet"):
        assert freeze_unused(create_model(name, "test_resnet", num_classes=3, output_stride=8)) == []


@pytest.mark.slow
def test_processes_share_a_step_of_a_network_with_unused_parameters(config):
    model = dataclasses.replace(config.model, name="fcn", backbone="hrnet_w18_small", output_stride=32)
    # The second step would find the gradients of the first incomplete.
    run_in_processes(2, lambda: train(dataclasses.replace(config, model=model, epochs=1)) and None)
    assert CheckpointFolder(Path(config.output) / CHECKPOINTS).listed()[-1].step == 2


def test_batch_norm_of_vectors_is_synchronised_too():
    def moments(share):
        norm = nn.BatchNorm1d(5).double()
        if distributed.is_distributed():
            norm = synchronize_batch_norm(norm, gpu=False)
        images = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return norm(images[share]).detach(), norm.running_mean, norm.running_var

    whole = moments(slice(None))
    shares = run_in_processes(2, lambda: moments(slice(0, 4) if distributed.rank() == 0 else slice(4, 6)))
    torch.testing.assert_close(torch.cat([share[0] for share in shares]), whole[0])
    for share in shares:
        torch.testing.assert_close(share[1:], whole[1:])


def test_errors_that_do_not_pickle_keep_their_message():
    class Local(Exception):
        pass

    assert isinstance(distributed.portable(SanetError("x")), SanetError)
    assert str(distributed.portable(Local("what"))) == "what"
