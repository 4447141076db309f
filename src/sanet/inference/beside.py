"""Several images at once: as a batch; or, on a CPU, side by side, which takes less time than all threads for each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from threading import Barrier
from typing import TypeVar

import torch
from torch import Tensor

MOST = 4  # at once, since each takes its memory
Item = TypeVar("Item")
Result = TypeVar("Result")


def grouped(images: Iterable[Tensor], batch: int, area: int) -> Iterator[list[Tensor]]:
    """Images (C, H, W) that follow each other and are of one size, up to ``batch`` of them and ``area`` pixels."""
    held: list[Tensor] = []
    for image in images:
        if held and image.shape != held[0].shape:
            yield held
            held = []
        held.append(image)
        if len(held) >= batch or (len(held) + 1) * image[0].numel() > area:
            yield held
            held = []
    if held:
        yield held


def side_by_side(
    work: Callable[[Item], Result], items: Iterator[Item], most: int, fits: Callable[[Item], bool]
) -> Iterator[Result]:
    """Results in the order of the items, of which two more are read ahead than are done at once, so that none waits.

    Args:
        work: what is done with an item, in a thread where PyTorch has one thread.
        items: one that is alone is done at once, with all threads.
        most: items at once, of which more than ``MOST`` are not done.
        fits: whether an item is done beside others; else it waits for them, and gets all threads.
    """
    count = min(most, MOST)
    start = [*islice(items, min(count, 2))]
    if len(start) < 2:
        yield from map(work, chain(start, items))
        return
    with _single_threads(count) as pool:
        running = deque[Future[Result]]()
        for item in chain(start, items):
            beside = fits(item)
            while len(running) > (count if beside else 0):  # the next one is there when one is done
                yield running.popleft().result()
            if beside:
                running.append(pool.submit(work, item))
            else:
                yield work(item)
        while running:
            yield running.popleft().result()


def _single_threads(count: int) -> ThreadPoolExecutor:
    """Threads in which PyTorch computes with one thread each; elsewhere it keeps as many as it had."""
    pool, before, begun = ThreadPoolExecutor(count), torch.get_num_threads(), Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # which gives a new thread what the others have, and would do it later
        torch.set_num_threads(1)
        begun.wait()

    for _ in range(count):
        pool.submit(begin)
    begun.wait()
    torch.set_num_threads(before)
    return pool
