"""The processes that share a job: one alone, or several that torchrun or SLURM has started.

Every function is a no-op in a process that is alone, so that callers need not ask.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


def together() -> bool:
    """Whether there are other processes to talk to."""
    return dist.is_available() and dist.is_initialized()


def count() -> int:
    """How many processes share the job."""
    return dist.get_world_size() if together() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if together() else 0


def first() -> bool:
    """Whether this is the process that writes files and talks to the terminal."""
    return rank() == 0


def total(values: Tensor) -> Tensor:
    """The sum of the tensors of all processes, as a new tensor; all of them have to call."""
    summed = values.clone()
    if together():
        dist.all_reduce(summed)
    return summed


def gathered(value: Value) -> list[Value]:
    """The values of all processes in the order of their ranks; all of them have to call."""
    if not together():
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return cast("list[Value]", values)


def from_first(value: Value) -> Value:
    """The value of the first process, in all of them; all of them have to call."""
    if not together():
        return value
    values: list[Any] = [value]
    dist.broadcast_object_list(values)
    return cast("Value", values[0])
