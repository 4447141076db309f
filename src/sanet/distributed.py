"""The processes that share a job: one alone, or several that torchrun or SLURM has started.

Every function is a no-op in a process that is alone, so that callers need not ask.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch import Tensor

from sanet.structures import SanetError

Value = TypeVar("Value")


def is_distributed() -> bool:
    """Whether there are other processes to talk to."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """How many processes share the job."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if is_distributed() else 0


def is_main_process() -> bool:
    """Whether this is the process that writes files and talks to the terminal."""
    return rank() == 0


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of the tensors of all processes, as a new tensor; all of them have to call."""
    summed = values.clone()
    if is_distributed():
        dist.all_reduce(summed)
    return summed


def all_gather(value: Value) -> list[Value]:
    """The values of all processes in the order of their ranks; all of them have to call."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return cast("list[Value]", values)


def broadcast_from_main(compute: Callable[[], Value]) -> Value:
    """What the first process computes, in all of them; all of them have to call.

    What it raises instead is raised in all of them, so that none waits for a process that has ended.
    """
    if not is_distributed():
        return compute()
    found: list[Any] = [None, None]
    failure: BaseException | None = None
    if is_main_process():
        try:
            found[0] = compute()
        except BaseException as error:
            failure, found[1] = error, portable(error)
    dist.broadcast_object_list(found)
    if failure or found[1]:
        raise failure or found[1]
    return cast("Value", found[0])


def portable(error: BaseException) -> BaseException:
    """An error that reaches other processes: itself, or its message where it does not pickle."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return SanetError(str(error))
    return error
