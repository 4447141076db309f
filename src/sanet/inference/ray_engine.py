"""Prediction on a Ray cluster (extra ``scale``): for collections that are too large for one process.

The cluster that ``RAY_ADDRESS`` names is used, and left as it is; without one, Ray is started on this machine, for
as long as it takes. On several machines, images, model and output have to lie on a file system that all of them
share, under the same names, and ``sanet`` has to be installed on each. The workers label, and write masks and overlays
beside their places, which those are given where the call was made, with a line of ``predictions.jsonl``. Only names
and lines travel between them.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from sanet import references
from sanet.config import InferenceConfig, OutputConfig
from sanet.inference.journal import Job, Line
from sanet.inference.predict import Engine, label_files
from sanet.structures import SanetError, UsageError, first_line

# How often a worker that died is started again, and what it was at is tried again.
RETRIES = 3
# Bytes that a Ray started here may hold; a line has less than a thousand.
STORE = 200_000_000
RESUME = "what is done is kept, and the same call resumes from there, with fewer workers if memory was short"


class Pool(NamedTuple):
    """The workers: how many, where they compute, and with how many threads each."""

    workers: int
    device: str
    threads: int


class RayEngine(Engine):
    """Labels with one predictor in each of many processes.

    A worker that dies, as for want of memory, is started again, and what it was at is tried again, three times. With as
    many threads a worker as ``Engine`` has, the results are the same bit for bit; with another number PyTorch adds in
    another order, and a pixel in some millions can tip over.

    Args:
        model: see ``Engine``.
        device: "cpu"; or "cuda", by default where the cluster has GPUs: a worker has one to itself.
        inference: sliding window, multi-scale and flip.
        outputs: what is written of each image.
        workers: largest number of workers; by default as many as the cluster has GPUs or, without them, CPU cores.
        batch: see ``Engine``; of each worker.

    Raises:
        SanetError: Ray is not installed; or the model cannot be read.
        UsageError: a device that Ray cannot share out.
    """

    def __init__(
        self,
        model: str,
        device: str | None = None,
        inference: InferenceConfig = InferenceConfig(),
        outputs: OutputConfig = OutputConfig(),
        workers: int | None = None,
        batch: int = 8,
    ) -> None:
        _ray()
        if device not in (None, "cpu", "cuda"):
            raise UsageError(f"device {device!r}: Ray shares the GPUs out; give cpu, cuda or none")
        # What is wrong with the model is said before anything is started.
        super().__init__(model, "cpu", inference, outputs, batch)
        self.model = os.path.abspath(model) if os.path.exists(model) else model
        self.device, self.workers = device, workers

    def results(self, jobs: Sequence[Job]) -> Iterator[Line]:
        """See ``Engine``; SanetError where a worker failed for good, the cluster is gone, or it has no GPU as asked."""
        with _running() as ray:
            pool = self._pool(ray.cluster_resources(), len(jobs))
            gpus = 1 if pool.device == "cuda" else 0
            actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=RETRIES, max_task_retries=RETRIES)(Worker)
            relative = any(not os.path.isabs(name) for job in jobs for name in (job.image, job.main))
            opened = self.model, pool.device, self.predictor.inference, self.outputs, self.predictor.batch
            made = opened, self.fingerprint, pool.threads, os.getcwd() if relative else None, references.opened()
            workers = ray.util.ActorPool([actor.remote(*made) for _ in range(pool.workers)])
            try:
                yield from workers.map_unordered(lambda worker, job: worker.label.remote(job), jobs)
            except ray.exceptions.RayTaskError as error:
                raise SanetError(f"a worker stopped: {first_line(error.cause)}; {RESUME}") from error
            except ray.exceptions.RayError as error:
                raise SanetError(f"Ray gave up: {first_line(error)}; {RESUME}") from error

    def _pool(self, resources: dict[str, float], jobs: int) -> Pool:
        cpus, gpus = max(1, int(resources.get("CPU", 1))), int(resources.get("GPU", 0))
        device = self.device or ("cuda" if gpus else "cpu")
        if device == "cuda" and not gpus:
            raise UsageError("device 'cuda' cannot be used: the Ray cluster has no GPU")
        available = gpus if device == "cuda" else cpus
        workers = min(self.workers or available, available, jobs)
        return Pool(workers, device, cpus // workers)


class Worker:
    """A process of the pool, with an engine of its own that is made of what ``opened`` says.

    Relative names start at ``directory``; ``modules`` are those that the user has opened, which the model may need.
    """

    def __init__(
        self,
        opened: tuple[str, str, InferenceConfig, OutputConfig, int],
        fingerprint: str,
        threads: int,
        directory: str | None = None,
        modules: Sequence[str] = (),
    ) -> None:
        self.opened, self.fingerprint, self.threads = opened, fingerprint, threads
        self.directory, self.modules = directory, modules
        self.engine: Engine | None = None  # an error while a worker is made looks as if its process had died

    def _open(self) -> Engine:
        if self.directory is not None:
            os.chdir(self.directory)
        references.use(*self.modules)
        torch.set_num_threads(min(self.threads, os.cpu_count() or 1))
        engine = Engine(*self.opened)
        if engine.fingerprint != self.fingerprint:
            raise SanetError(f"{self.opened[0]} is another model there")
        return engine

    def label(self, job: Job) -> Line:
        """See ``label_files``; SanetError for what is not the image's fault."""
        try:
            self.engine = self.engine or self._open()
            return next(label_files(self.engine.predictor, [job], self.engine.outputs))
        except Exception as error:
            raise SanetError(
                f"{job.image}, on {socket.gethostname()}: {first_line(error)} (all machines need the same images, "
                "model and output, on a shared disk)"
            ) from None


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise SanetError("the engine ray needs Ray: pip install 'sanet-segmentation[scale]'") from error
    return ray


@contextmanager
def _running() -> Iterator[Any]:
    """Ray, connected: to what this process is connected to already, to ``RAY_ADDRESS``, or to one started here."""
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    local = {"include_dashboard": False, "object_store_memory": STORE} if address == "local" else {}
    try:
        ray.init(address=address, logging_level=logging.CRITICAL, log_to_driver=False, **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SanetError(f"Ray at {address} cannot be reached: {error}; see RAY_ADDRESS") from error
    try:
        yield ray
    finally:
        ray.shutdown()
