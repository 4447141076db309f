"""Processes that are forked from a clean one, which has imported much and run nothing.

Forked from the tests' own process, with the threads that earlier tests have left in it, they would hang now and then.
"""

import multiprocessing
import os

import cloudpickle

CLEAN = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
CLEAN.set_forkserver_preload(["sanet.training.fit", "sanet.cli.main", "lightning.pytorch.strategies"])


def start(function, *arguments):
    """A process that runs a function, which may be local; pipes among the arguments work."""
    process = CLEAN.Process(target=_run, args=(cloudpickle.dumps(function), *arguments))
    process.start()
    return process


def _run(pickled, *arguments):
    import torch

    torch.set_num_threads(1)
    cloudpickle.loads(pickled)(*arguments)
