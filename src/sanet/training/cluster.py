"""The processes that torchrun or SLURM has started, joined for the length of a job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from sanet.config import Accelerator
from sanet.inference.device import choose_device
from sanet.structures import UsageError

# The first process may check a large dataset while the others wait for it.
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class Cluster:
    """Where a job runs.

    Attributes:
        machines: how many share the job.
        processes: on each of them.
        gpu: whether every process has a GPU.
    """

    machines: int
    processes: int
    gpu: bool

    @property
    def idle(self) -> int:
        """GPUs of this machine that a process which is alone leaves unused."""
        return torch.cuda.device_count() - 1 if self.alone and self.gpu and torch.cuda.is_available() else 0

    @property
    def alone(self) -> bool:
        """Whether there is one process only."""
        return self.machines * self.processes == 1


@contextmanager
def joined(accelerator: Accelerator) -> Iterator[Cluster]:
    """Let the processes of a job find each other, and part at the end.

    Raises:
        UsageError: a GPU is asked for, and there is none, or fewer than processes.
    """
    gpu = _has_gpu(accelerator)
    environment = _environment()
    if environment is None or environment.world_size() == 1:
        yield Cluster(1, 1, gpu)
        return
    local = _processes_here(environment)
    if gpu and torch.cuda.device_count() < local:
        raise UsageError(
            f"{local} processes on this machine, but {torch.cuda.device_count()} GPUs that each of "
            "them sees; start one for each (SLURM: --gpus-per-node, not --gpus-per-task)"
        )
    begun = not dist.is_initialized()
    if begun:
        device = torch.device("cuda", environment.local_rank()) if gpu else None
        if device is not None:
            torch.cuda.set_device(device)
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            rank=environment.global_rank(),
            world_size=environment.world_size(),
            timeout=PATIENCE,
            device_id=device,
        )
    complete = False
    try:
        yield Cluster(environment.world_size() // local, local, gpu)
        complete = True
    finally:
        # After a failure NCCL would wait for the others, who wait for this process; its end tells torchrun to end them.
        if begun and (complete or not gpu):
            dist.destroy_process_group()


def _has_gpu(accelerator: Accelerator) -> bool:
    found = choose_device().type != "cpu"
    if accelerator == "gpu" and not found:
        raise UsageError('accelerator "gpu": PyTorch finds none here; choose "cpu" or "auto"')
    return found and accelerator != "cpu"


def _environment() -> ClusterEnvironment | None:
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if SLURMEnvironment.detect() else None


def _processes_here(environment: ClusterEnvironment) -> int:
    if isinstance(environment, TorchElasticEnvironment):
        return int(os.environ["LOCAL_WORLD_SIZE"])
    machines = int(os.environ.get("SLURM_NNODES", "1"))
    if environment.world_size() % machines:
        raise UsageError(f"{environment.world_size()} SLURM tasks on {machines} machines; give each the same number")
    return environment.world_size() // machines
