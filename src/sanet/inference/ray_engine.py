"""Prediction on a Ray cluster (extra ``scale``): for collections that are too large for one process.

The cluster that ``RAY_ADDRESS`` names is used, and left as it is; without one, Ray is started on this machine, for
as long as it takes. On several machines, pictures, model and output have to lie on a file system that all of them
share, under the same names, and ``sanet`` has to be installed on each. The workers label, and write masks and overlays
beside their places, which those are given where the call was made, with a line of ``predictions.jsonl``. Only names
and lines travel between them.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any

import torch

from sanet.inference.memory import Job, Line
from sanet.inference.predict import PredictorSettings, label_file
from sanet.structures import SanetError, UsageError, first_line

# Pictures that a worker takes at a time. Their lines come back together, and are lost together when it is killed.
CHUNK = 8
# Ray keeps a book on every chunk: in very large collections they grow.
MOST_CHUNKS = 10_000
# How often a worker that died is started anew, and what it was at is tried again.
RETRIES = 3
# Bytes that a Ray started here may hold; a line has less than a thousand.
STORE = 200_000_000

STOPPED = "stopped"
GO_ON = "what is done is kept, and the same call goes on from there, with fewer workers if memory was short"


@dataclass(frozen=True)
class Pool:
    """The workers: how many, where they compute, and with how many threads each."""

    workers: int
    device: str
    threads: int


class RayEngine:
    """Labels with one predictor in each of many processes; see ``Engine``.

    A worker that dies, as for want of memory, is started anew, and what it was at is tried again, three times. With as
    many threads a worker as ``LocalEngine`` has, the results are the same bit for bit; with another number PyTorch
    adds in another order, and a pixel in some millions can tip over.

    Args:
        settings: the model; with device "cuda", or by default where the cluster has GPUs, a worker has one to itself.
        workers: how many at most; by default as many as the cluster has GPUs or, without them, CPU cores.

    Raises:
        SanetError: Ray is not installed; or the model cannot be read.
        UsageError: less than one worker, or a device that Ray cannot share out.
    """

    def __init__(self, settings: PredictorSettings, workers: int | None = None) -> None:
        _ray()
        if workers is not None and workers < 1:
            raise UsageError(f"workers {workers}: 1 or more")
        if settings.device not in (None, "cpu", "cuda"):
            raise UsageError(f"device {settings.device!r}: Ray shares the GPUs out; give cpu, cuda or none")
        # What is wrong with the model is said here, before anything is started.
        opened = replace(settings, device="cpu").open()
        self.labels = opened.labels
        settings = replace(settings, views=opened.views)
        self.fingerprint: str | None = settings.fingerprint()
        here = Path(settings.model)
        self.settings = replace(settings, model=str(here.absolute())) if here.exists() else settings
        self.workers = workers

    def results(self, jobs: Sequence[Job]) -> Iterator[Line]:
        """See ``Engine``.

        Raises:
            SanetError: a worker failed for good, or the cluster is gone.
            UsageError: device "cuda", but the cluster has no GPU.
        """
        with _running() as ray:
            pool = self._pool(ray.cluster_resources(), len(jobs))
            try:
                # No batches ahead: threads that fetch them would outlive the loop, and take this process with them when
                # Ray is shut down; a result is small. Closed here, so that all else has ended by then.
                batches = self._labelled(ray, jobs, pool).iter_batches(batch_size=None, prefetch_batches=0)
                with closing(iter(batches)) as results:
                    for text in chain.from_iterable(batch["line"] for batch in results):
                        line = json.loads(text)
                        if STOPPED in line:
                            raise SanetError(f"a worker stopped: {line[STOPPED]}; {GO_ON}")
                        yield line
            except ray.exceptions.RayError as error:
                raise SanetError(f"Ray gave up: {first_line(error)}; {GO_ON}") from error

    def _pool(self, resources: dict[str, float], jobs: int) -> Pool:
        cpus, gpus = max(1, int(resources.get("CPU", 1))), int(resources.get("GPU", 0))
        device = self.settings.device or ("cuda" if gpus else "cpu")
        if device == "cuda" and not gpus:
            raise UsageError("device 'cuda' cannot be used: the Ray cluster has no GPU")
        available = gpus if device == "cuda" else cpus
        workers = min(self.workers or available, available, jobs)
        return Pool(workers, device, cpus // workers)

    def _labelled(self, ray: Any, jobs: Sequence[Job], pool: Pool) -> Any:
        """The data set of lines, which is computed as it is read."""
        # Small enough that all workers have something to do until the end.
        chunk = max(1, min(CHUNK, len(jobs) // (4 * pool.workers)), ceil(len(jobs) / MOST_CHUNKS))
        rows = [{"job": json.dumps(job)} for job in jobs]
        data = ray.data.from_items(rows, override_num_blocks=ceil(len(jobs) / chunk))
        data.context.enable_progress_bars = False
        data.context.target_max_block_size = 2**20  # else Ray takes every result for 128 MB, and holds workers back
        relative = any(not os.path.isabs(name) for job in jobs for name in job)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # retries have no other name yet
            return data.map_batches(
                Worker,
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=pool.workers),
                fn_constructor_args=(
                    replace(self.settings, device=pool.device),
                    self.fingerprint,
                    pool.threads,
                    os.getcwd() if relative else None,
                ),
                num_cpus=1,
                num_gpus=1 if pool.device == "cuda" else None,
                max_task_retries=RETRIES,
            )


class Worker:
    """A process of the pool, with a predictor of its own. What goes wrong in it is told in a line, as results are.

    Args:
        settings: the model.
        fingerprint: of the model where the call was made.
        threads: of PyTorch and ONNX Runtime; no more than the machine has cores.
        directory: where relative names start; None where there are none.
    """

    def __init__(self, settings: PredictorSettings, fingerprint: str, threads: int, directory: str | None) -> None:
        self.problem = ""
        try:
            if directory is not None:
                os.chdir(directory)
            torch.set_num_threads(min(threads, os.cpu_count() or 1))
            self.predictor = settings.open()
            if settings.fingerprint() != fingerprint:
                self.problem = f"{settings.model} is another model on {socket.gethostname()}"
        except (SanetError, OSError) as error:
            self.problem = f"on {socket.gethostname()}, {error}"

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Jobs -> lines, both as JSON, which also holds names that are no proper text."""
        return {"line": [json.dumps(line) for line in self.lines([Job(*json.loads(job)) for job in batch["job"]])]}

    def lines(self, jobs: Sequence[Job]) -> Iterator[Line]:
        """The results, until something goes wrong that is not a picture's fault."""
        if self.problem:
            yield {STOPPED: f"{self.problem}; all machines need the same pictures, model and output, on a shared disk"}
            return
        for job in jobs:
            try:
                line = label_file(self.predictor, job)
            except Exception as error:
                yield {STOPPED: f"{job.image}: {first_line(error)}"}
                return
            yield line


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise SanetError("the engine ray needs Ray: pip install 'sanet-segmentation[scale]'") from error
    return ray


@contextmanager
def _running() -> Iterator[Any]:
    """Ray, connected: to what this process is connected to already, to ``RAY_ADDRESS``, or to one started here."""
    ray = _ray()
    logger = logging.getLogger("ray.data")
    level = logger.level
    ours = not ray.is_initialized()
    try:
        logger.setLevel(logging.CRITICAL)  # what goes wrong is raised
        if ours:
            address = os.environ.get("RAY_ADDRESS", "local")
            local = {"include_dashboard": False, "object_store_memory": STORE} if address == "local" else {}
            try:
                ray.init(address=address, logging_level=logging.CRITICAL, log_to_driver=False, **local)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise SanetError(f"Ray at {address} cannot be reached: {error}; see RAY_ADDRESS") from error
        yield ray
    finally:
        logger.setLevel(level)
        if ours:
            ray.shutdown()
