"""Kills a training run at sixty random moments, with 0, 1 and 2 loader workers; every run ends as an unbroken one.

A third of the kills come while files are written. It takes minutes, so it is no test of the suite; its log is in
``benchmarks``::

    PYTHONPATH=tests:tests/training python tests/training/kills.py
"""

import dataclasses
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from test_nothing_lost import assert_same_run, begin_or_go_on, clear_if_not_begun, in_child, killed_at_call

import sanet
from brightness import small_run, write_pictures
from sanet.training.fit import train

KILLS = 20  # with each number of workers


def broken_run(config, rng, most, seconds):
    """Train to the end, which takes so many seconds, through at most so many kills; returns what each of them hit."""
    kills = []
    while True:
        clear_if_not_begun(config)
        if len(kills) < most and len(kills) % 3 == 2:
            number = rng.randint(1, 40)
            child = in_child(killed_at_call, config, number)
            child.join()
            if child.exitcode == 0:
                return kills
            kills.append(f"call {number}")
        else:
            child = in_child(begin_or_go_on, config)
            delay = rng.uniform(0, seconds)
            child.join(delay if len(kills) < most else None)
            if child.exitcode is not None:
                assert child.exitcode == 0
                return kills
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills.append(f"{delay:.1f} s")


def main():
    """Print a line for every run."""
    with tempfile.TemporaryDirectory() as name:
        folder, total = Path(name), 0
        write_pictures(folder / "data")
        unbroken = dataclasses.replace(
            small_run(folder / "data", folder / "unbroken"),
            model=sanet.ModelConfig("danet", "test_resnet", output_stride=8, pretrained_backbone=False),
            batch_size=2,
            epochs=4,
            checkpoint_minutes=1e-9,
        )
        begun = time.monotonic()
        child = in_child(train, unbroken)
        child.join()
        seconds = time.monotonic() - begun
        for workers in (0, 1, 2):
            rng, done, run = random.Random(workers), 0, 0
            while done < KILLS:
                config = dataclasses.replace(unbroken, output=str(folder / f"{workers}-{run}"), num_workers=workers)
                kills = broken_run(config, rng, KILLS - done, seconds)
                assert_same_run(config, unbroken)
                done, run, total = done + len(kills), run + 1, total + len(kills)
                print(
                    f"workers {workers}, run {run}: killed {len(kills)} times ({', '.join(kills)}), the same",
                    flush=True,
                )
        print(f"{total} kills; weights, optimiser, schedule, metrics, scores and best model equal to the last bit")


if __name__ == "__main__":
    main()
