"""Several processes take the steps that one takes."""

import dataclasses
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import sanet
from brightness import checkpoint, loss_of, small_run, write_pictures
from gloo import free_port, run_in_processes
from sanet import distributed
from sanet.data.loading import Batching, EpochSampler
from sanet.models.networks import NETWORKS, create_model
from sanet.structures import UsageError
from sanet.training.cluster import Cluster, joined
from sanet.training.fit import train
from sanet.training.metrics import read_metrics
from sanet.training.sharing import freeze_unused, synchronize_batch_norm
from sanet.training.task import SegmentationTask

# Sums are taken in another order, over two steps of SGD in float32.
CLOSE = {"rtol": 1e-4, "atol": 2e-6}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """19 pictures to train on, of which 3 are left out of every epoch of steps of 16; 5 to validate."""
    folder = tmp_path_factory.mktemp("data") / "data"
    write_pictures(folder, train=19, val=5)
    return folder


def steps_of_16(root, output, **changes):
    return dataclasses.replace(
        small_run(root, output),
        model=sanet.ModelConfig("sanet", "test_resnet", output_stride=8, pretrained_backbone=False),
        loss=sanet.LossConfig(class_weighting="sqrt"),
        # Where CLOSE was measured. At three times the rate 134 of the 41,472 weights of one convolution differ by more,
        # by up to 9e-6.
        optimizer=sanet.OptimizerConfig(head_lr_multiplier=10.0),
        batch_size=16,
        epochs=2,
        **changes,
    )


def assert_same_steps(one, other):
    """The weights, momenta and statistics after the steps, what was logged on the way, and the scores."""
    found, expected = checkpoint(Path(one)), checkpoint(Path(other))
    for name, value in expected["state_dict"].items():
        torch.testing.assert_close(
            found["state_dict"][name], value, **CLOSE, msg=lambda text, name=name: f"{name}: {text}"
        )
    momenta = [
        [entry["momentum_buffer"] for entry in state["optimizer_states"][0]["state"].values()]
        for state in (found, expected)
    ]
    for mine, theirs in zip(*momenta, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-5)
    rows = zip(read_metrics(Path(one)), read_metrics(Path(other)), strict=True)
    for row, wanted in rows:
        assert row.keys() == wanted.keys()
        for name, value in wanted.items():
            assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-3), name


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])  # one has activations in its norms
def test_two_processes_with_8_take_the_steps_of_one_with_16(root, tmp_path, backbone):
    alone, together = (steps_of_16(root, tmp_path / name) for name in ("alone", "together"))
    alone, together = (
        dataclasses.replace(config, model=dataclasses.replace(config.model, backbone=backbone))
        for config in (alone, together)
    )
    train(alone)
    scores = run_in_processes(2, lambda: train(together).evaluation.scores.miou)
    assert scores[0] == scores[1]
    assert_same_steps(together.output, alone.output)


@pytest.mark.slow
def test_two_machines_train_as_one(root, tmp_path):
    alone, together = (steps_of_16(root, tmp_path / name) for name in ("alone", "together"))
    train(alone)
    run_in_processes(2, lambda: train(together) and None, machines=2)
    assert_same_steps(together.output, alone.output)


@pytest.mark.slow
def test_more_processes_than_pictures_to_validate(tmp_path):
    write_pictures(tmp_path / "data", train=4, val=1)
    alone, together = (
        dataclasses.replace(small_run(tmp_path / "data", tmp_path / name), epochs=1) for name in ("alone", "together")
    )
    train(alone)
    run_in_processes(2, lambda: train(together) and None)
    assert_same_steps(together.output, alone.output)


@pytest.mark.slow
def test_bfloat16_in_two_processes(root, tmp_path):
    config = steps_of_16(root, tmp_path / "run", precision="bf16-mixed")
    run_in_processes(2, lambda: train(config) and None)
    assert all(math.isfinite(row["train/loss"]) for row in read_metrics(Path(config.output)))


@pytest.mark.slow
def test_tasks_of_slurm_find_each_other():
    """What srun puts into the environment of two tasks on one machine."""

    def place(theirs, ours):
        for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"):
            os.environ[f"WAS_{name}"] = os.environ.pop(name)
        torch.distributed.destroy_process_group()
        rank = os.environ["WAS_RANK"]
        slurm = {
            "NTASKS": "2",
            "PROCID": rank,
            "LOCALID": rank,
            "NODEID": "0",
            "NNODES": "1",
            "NTASKS_PER_NODE": "2",
            "JOB_ID": str(os.getppid()),
            "JOB_NAME": "x",
        }
        os.environ.update({f"SLURM_{name}": value for name, value in slurm.items()})
        os.environ["MASTER_PORT"] = str(theirs)
        with joined("cpu") as cluster:
            found = cluster, distributed.rank(), distributed.all_gather(distributed.rank())
        assert not distributed.is_distributed()
        # The test's own end of the processes waits for the group that it began.
        os.environ["MASTER_PORT"] = str(ours)
        torch.distributed.init_process_group("gloo", rank=int(rank), world_size=2)
        return found

    found = run_in_processes(2, place, free_port(), free_port())
    assert [(cluster.machines, cluster.processes, cluster.device.type) for cluster, *_ in found] == [(1, 2, "cpu")] * 2
    assert [rest for _, *rest in found] == [[0, [0, 1]], [1, [0, 1]]]


def test_a_process_that_was_started_alone_is_alone():
    with joined("cpu") as cluster:
        assert cluster == Cluster(1, 1, torch.device("cpu"))
        assert cluster.alone
        assert cluster.idle == 0


@pytest.mark.skipif(torch.accelerator.is_available(), reason="of a machine without a GPU")
@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps", "xpu"])
def test_a_device_that_is_not_there_is_refused(root, tmp_path, accelerator):
    with pytest.raises(UsageError, match=accelerator):
        train(dataclasses.replace(small_run(root, tmp_path / "run"), accelerator=accelerator))
    assert not (tmp_path / "run").exists()
    with joined("auto") as cluster:
        assert cluster.device == torch.device("cpu")


@pytest.mark.slow
def test_processes_that_go_on_end_as_those_that_were_not_stopped(root, tmp_path):
    unbroken, broken = (steps_of_16(root, tmp_path / name, checkpoint_minutes=1e-9) for name in ("unbroken", "broken"))
    unbroken, broken = (dataclasses.replace(config, batch_size=4, epochs=2) for config in (unbroken, broken))
    run_in_processes(2, lambda: train(unbroken) and None)
    real, calls = SegmentationTask.training_step, 0

    def step(task, batch, index):
        nonlocal calls
        calls += 1
        if calls == 6 and distributed.rank() == 1:  # one process hears it, both stop
            os.kill(os.getpid(), signal.SIGTERM)
        return real(task, batch, index)

    def stopped():
        SegmentationTask.training_step = step
        try:
            train(broken)
        except sanet.structures.Interrupted as stop:
            return stop.status
        finally:
            SegmentationTask.training_step = real

    assert run_in_processes(2, stopped) == [75, 75]
    assert checkpoint(Path(broken.output))["global_step"] == 6  # in the middle of the second epoch
    run_in_processes(2, lambda: train(broken, resume=True) and None)
    found, expected = checkpoint(Path(broken.output)), checkpoint(Path(unbroken.output))
    for name, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], value), name
    assert read_metrics(Path(broken.output)) == read_metrics(Path(unbroken.output))


def test_accumulating_computes_the_same_gradients_up_to_batch_norm():
    """Without batch norm in the way, a step in four parts is the step, where the parts have equally many labels."""

    def gradients(parts):
        torch.manual_seed(0)
        model = nn.Conv2d(3, 2, 3, padding=1)
        generator = torch.Generator().manual_seed(1)
        images = torch.rand(8, 3, 8, 8, generator=generator)
        masks = torch.randint(0, 2, (8, 8, 8), generator=generator)
        for image, mask in zip(images.chunk(parts), masks.chunk(parts), strict=True):
            logits = model(image)
            (loss_of(sanet.SegmentationOutput(logits, logits, None, None), mask)["loss"] / parts).backward()
        return model.weight.grad

    torch.testing.assert_close(gradients(4), gradients(1))


def test_a_step_in_parts_is_one_step_of_the_schedule(root, tmp_path):
    config = steps_of_16(root, tmp_path / "run", gradient_accumulation=4)
    train(config)
    assert checkpoint(Path(config.output))["global_step"] == 2
    whole = dataclasses.replace(config, output=str(tmp_path / "whole"), gradient_accumulation=1)
    train(whole)
    rates = [[row["learning_rate"] for row in read_metrics(Path(run.output))] for run in (config, whole)]
    assert rates[0] == rates[1]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "parts"), [(1, 1), (2, 1), (1, 4), (2, 2), (4, 1), (3, 1)])
def test_every_step_has_the_same_pictures_whoever_computes_it(count, parts):
    def keys():
        sampler = EpochSampler(53, 7, Batching(12, parts))
        sampler.set_epoch(3)
        keys = list(sampler)
        assert len(keys) == len(sampler)
        return keys, sampler.batch

    alone = EpochSampler(53, 7, Batching(12))
    alone.set_epoch(3)
    order = list(alone)
    assert len(set(order)) == 48
    shares = run_in_processes(count, keys)
    for step in range(4):
        found = set()
        for own, batch in shares:
            assert batch * parts * count == 12
            found |= set(own[step * batch * parts : (step + 1) * batch * parts])
        assert found == set(order[step * 12 : (step + 1) * 12])


def test_a_step_that_does_not_divide_is_refused():
    with pytest.raises(UsageError, match=r"batch_size 10.*multiple of their product, 4"):
        EpochSampler(100, 0, Batching(10, 4))
    with pytest.raises(UsageError, match="of only 3 images"):
        EpochSampler(3, 0, Batching(8, 2))


def test_going_on_skips_what_is_done_in_that_epoch_only():
    whole = EpochSampler(10, 1, Batching(4, 2))
    rest = EpochSampler(10, 1, Batching(4, 2, done=(2, 3)))
    for epoch in range(4):
        whole.set_epoch(epoch)
        rest.set_epoch(epoch)
        assert list(rest) == list(whole)[6 if epoch == 2 else 0 :]
        assert len(rest) == len(whole) == 8


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize("network", ["sanet", "fcn"])
def test_synchronising_keeps_activations_names_and_parameters(network, gpu):
    torch.manual_seed(0)
    model = create_model(network, "test_efficientnet", num_classes=3, output_stride=16).eval()
    images = torch.rand(2, 3, 64, 64)
    before, names = model(images).logits, list(model.state_dict())
    parameters = {id(parameter) for parameter in model.parameters()}
    count = len(norms(model))
    synchronize_batch_norm(model, gpu)
    assert torch.equal(model(images).logits, before)
    assert list(model.state_dict()) == names
    assert {id(parameter) for parameter in model.parameters()} == parameters
    assert len(norms(model)) == count
    assert all("Sync" in type(module).__name__ for module in norms(model))


@pytest.mark.slow
def test_synchronised_batch_norm_is_that_of_the_whole_batch():
    def moments(share):
        """Output, gradients and running statistics of some of six pictures."""
        torch.manual_seed(0)
        norm = synchronize_batch_norm(nn.BatchNorm2d(5), gpu=False)
        if not distributed.is_distributed():
            norm = nn.BatchNorm2d(5)
        nn.init.normal_(norm.weight)
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(6, 5, 4, 3, generator=generator, dtype=torch.float64).mul_(3).add_(7)
        factors = torch.randn(6, 5, 4, 3, generator=generator, dtype=torch.float64)
        norm.double()
        own = images[share].requires_grad_()
        output = norm(own)
        (output.sin() * factors[share]).sum().backward()
        grads = [distributed.all_reduce_sum(parameter.grad) for parameter in norm.parameters()]
        return output.detach(), own.grad, *grads, norm.running_mean, norm.running_var, norm.num_batches_tracked

    whole = moments(slice(None))
    shares = run_in_processes(2, lambda: moments(slice(0, 4) if distributed.rank() == 0 else slice(4, 6)))
    for position in (0, 1):
        torch.testing.assert_close(torch.cat([share[position] for share in shares]), whole[position])
    for share in shares:
        for found, expected in zip(share[2:], whole[2:], strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_one_value_for_each_channel_in_all_processes_uses_the_running_statistics():
    def output():
        norm = synchronize_batch_norm(nn.BatchNorm2d(2), gpu=False)
        values = torch.ones(0 if distributed.rank() else 1, 2, 1, 1)
        return norm(values).flatten().tolist()

    found = run_in_processes(2, output)
    assert found[0] == pytest.approx([1, 1], abs=1e-4)
    assert found[1] == []


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_takes_part_in_every_step(network):
    """Else the gradients of several processes would wait for one that never comes."""
    if network.startswith("smp_"):
        pytest.importorskip("segmentation_models_pytorch")
    stride = 8 if network in {"smp_deeplabv3", "smp_deeplabv3plus"} or not network.startswith("smp_") else 32
    model = create_model(network, "test_resnet", num_classes=3, output_stride=stride)
    output = model(torch.rand(2, 3, 64, 64))
    loss_of(output, torch.randint(0, 3, (2, 64, 64)))["loss"].backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.zero_grad(set_to_none=True)
    assert freeze_unused(model) == []


@pytest.mark.slow
def test_the_command_line_under_torchrun(root, tmp_path):
    """Two real processes of the command line, started as on a cluster; then their evaluation together."""
    config = steps_of_16(root, tmp_path / "run")
    config.save(tmp_path / "config.yaml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sanet"]
    trained = subprocess.run(
        [*launch, "train", "--config", str(tmp_path / "config.yaml")], capture_output=True, text=True, timeout=240
    )
    assert trained.returncode == 0, trained.stderr[-2000:]
    assert trained.stdout.count("\nreport ") == 1
    scored = subprocess.run(
        [*launch, "evaluate", config.output, "--split", "val", "--device", "cpu"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert scored.returncode == 0, scored.stderr[-2000:]
    assert scored.stdout.count("report:") == 1
    alone = steps_of_16(root, tmp_path / "alone")
    train(alone)
    assert_same_steps(config.output, alone.output)
