"""How often the interval of the bootstrap holds the true difference, by the number of runs: a simulation.

python benchmarks/coverage.py OUTPUT.csv [PAIRS]

Two equal networks, whose true difference is 0: their runs differ by the chance of their seeds alone, which is normal,
and pictures bring no noise. So this is about how little three runs know of their own deviation, at its worst; the
figures that `sanet repeat` states are these. They depend on no machine.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sanet.evaluation.repeated import paired_bootstrap

RUNS, PAIRS = (2, 3, 5, 10), 20_000
PIXELS, HITS, DEVIATION = 100_000, 60_000, 1000  # of each of two classes; how many a run finds, and of runs


def sums(rng: np.random.Generator, runs: int) -> NDArray[np.int64]:
    """(S, 2, 3, 2), as ``paired_bootstrap`` takes them: runs of a network on two pictures that are alike."""
    found = rng.normal(HITS, DEVIATION, runs).astype(np.int64)
    one_picture = np.full((runs, 3, 2), PIXELS)
    one_picture[:, 0] = found[:, None]  # what one class loses the other gains, so as many are predicted as are true
    return np.stack([one_picture, one_picture], axis=1)


def coverage(runs: int, pairs: int = PAIRS) -> float:
    """Share of the pairs whose interval holds 0."""
    rng = np.random.default_rng(runs)
    held = 0
    for seed in range(pairs):
        found = paired_bootstrap(sums(rng, runs), sums(rng, runs), seed=seed)
        held += found.low <= 0 <= found.high
    return held / pairs


def main() -> None:
    """Measure, print and write."""
    output, pairs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else PAIRS
    with output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["runs of each network", "pairs", "intervals that hold the true difference"])
        for runs in RUNS:
            row = [runs, pairs, coverage(runs, pairs)]
            writer.writerow(row)
            print(*row, flush=True)


if __name__ == "__main__":
    main()
