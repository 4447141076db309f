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
        device: of this process.
    """

    machines: int
    processes: int
    device: torch.device

    @property
    def idle(self) -> int:
        """GPUs of this machine that a process which is alone leaves unused."""
        return torch.cuda.device_count() - 1 if self.alone and self.device.type == "cuda" else 0

    @property
    def alone(self) -> bool:
        """Whether there is one process only."""
        return self.machines * self.processes == 1


@contextmanager
def joined(accelerator: Accelerator) -> Iterator[Cluster]:
    """Let the processes of a job find each other, and part at the end.

    Raises:
        UsageError: a device is asked for that there is not, or there are fewer GPUs than processes.
    """
    device = choose_device(None if accelerator in ("auto", "gpu") else accelerator)
    if accelerator == "gpu" and device.type == "cpu":
        raise UsageError('accelerator "gpu": PyTorch finds none here; choose "cpu" or "auto"')
    environment = _environment()
    if environment is None or environment.world_size() == 1:
        yield Cluster(1, 1, device)
        return
    local, gpu = _processes_here(environment), device.type == "cuda"
    if device.type != "cpu" and torch.cuda.device_count() < local:
        raise UsageError(
            f"{local} processes on this machine, but {torch.cuda.device_count()} GPUs that each of "
            "them sees; start one for each (SLURM: --gpus-per-node, not --gpus-per-task)"
        )
    begun = not dist.is_initialized()
    if gpu:
        device = torch.device("cuda", environment.local_rank())
    if begun:
        if gpu:
            torch.cuda.set_device(device)
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
        dist.init_process_group(
            "nccl" if gpu else "gloo",
            rank=environment.global_rank(),
            world_size=environment.world_size(),
            timeout=PATIENCE,
            device_id=device if gpu else None,
        )
    complete = False
    try:
        yield Cluster(environment.world_size() // local, local, device)
        complete = True
    finally:
        # After a failure NCCL would wait for the others, who wait for this process; its end tells torchrun to end them.
        if begun and (complete or not gpu):
            dist.destroy_process_group()


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
