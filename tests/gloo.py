"""Runs a function in several processes that share a job, as torchrun would start them."""

import os
import pickle
import traceback
from functools import partial

import torch.distributed as dist

from clean import CLEAN, start


def run_in_processes(count, function, *arguments, machines=1):
    """The results of ``function(*arguments)`` in ``count`` processes, in the order of their ranks.

    As far as they can tell, they are spread over so many machines.

    The function may be local; what it returns has to pickle.
    """
    port = free_port()
    pipes = [CLEAN.Pipe(duplex=False) for _ in range(count)]
    workers = [
        start(partial(_run, rank, count, machines, port, function, arguments), pipes[rank][1]) for rank in range(count)
    ]
    outcomes = [
        pickle.loads(receiver.recv_bytes()) if receiver.poll(120) else (False, "no answer") for receiver, _ in pipes
    ]
    for worker in workers:
        worker.join(10)
        worker.kill()
    failures = [f"process {rank}: {outcome}" for rank, (succeeded, outcome) in enumerate(outcomes) if not succeeded]
    assert not failures, "\n".join(failures)
    return [outcome for _, outcome in outcomes]


def free_port():
    """A port of this machine that nobody listens at."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _run(rank, count, machines, port, function, arguments, sender):
    here = count // machines
    place = {"RANK": rank, "LOCAL_RANK": rank % here, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": here}
    place["GROUP_RANK"] = rank // here
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in (place | address).items()})
    try:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=count)
        # As bytes: `send` would share the memory of tensors, which is gone when this process ends before they are read.
        sender.send_bytes(pickle.dumps((True, function(*arguments))))
        dist.barrier()
        dist.destroy_process_group()
    except BaseException:
        sender.send_bytes(pickle.dumps((False, traceback.format_exc())))
