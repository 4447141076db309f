"""The bootstrap against loops, brute force and the truth of a simulation."""

import csv
from pathlib import Path
from runpy import run_path
from statistics import mean, stdev

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanet.evaluation.confusion import scores_of, sums_of
from sanet.evaluation.repeated import COVERAGE, SCORES, Spread, paired_bootstrap
from sanet.structures import LabelSet

ROOT = Path(__file__).parents[2]
coverage = run_path(str(ROOT / "benchmarks" / "coverage.py"))["coverage"]


def confusions(rng, runs, pictures, classes, accuracy=0.5):
    """(S, N, K, K) counts: about that share of the pixels is right."""
    counts = rng.integers(0, 20, (runs, pictures, classes, classes))
    counts += (np.eye(classes, dtype=np.int64) * rng.integers(0, 200, (runs, pictures, 1, 1)) * accuracy).astype(int)
    return counts


def sums(counts):
    return sums_of(torch.from_numpy(counts)).numpy()


def miou(counts):
    """Of a (K, K) matrix, as `sanet evaluate` has it."""
    return score_of("miou", counts)


def score_of(name, counts):
    labels = LabelSet(tuple(f"class {index}" for index in range(len(counts))))
    return getattr(scores_of(torch.from_numpy(counts), labels), name)


@pytest.mark.parametrize("score", list(SCORES))
@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 7), st.integers(2, 5))
def test_equals_a_loop_over_the_draws(score, seed, runs, others, pictures, classes):
    rng = np.random.default_rng(seed)
    first, second = confusions(rng, runs, pictures, classes), confusions(rng, others, pictures, classes)
    if seed % 3 == 0:  # a class that some pictures do not have
        for counts in (first, second):
            counts[:, ::2, 0, :] = counts[:, ::2, :, 0] = 0
    found = paired_bootstrap(sums(first), sums(second), score, resamples=40, seed=seed)
    random = np.random.default_rng(seed)
    draws = random.multinomial(pictures, np.full(pictures, 1 / pictures), size=40)
    seeds = [random.multinomial(count - 1, np.full(count, 1 / count), size=40) if count > 1 else np.ones((40, 1))
             for count in (runs, others)]  # fmt: skip
    differences = []
    for number, draw in enumerate(draws):
        drawn = [index for index, times in enumerate(draw) for _ in range(times)]
        ours, theirs = (
            np.average([drawn_score(score, run, drawn) for run in counts], weights=seeds[which][number])
            for which, counts in enumerate((first, second))
        )
        if not np.isnan(ours - theirs):  # a draw may have no labelled pixel
            differences.append(ours - theirs)
    ours, theirs = (mean(score_of(score, run.sum(axis=0)) for run in counts) for counts in (first, second))
    assert found.mean == pytest.approx(ours - theirs, abs=1e-12)
    np.testing.assert_allclose([found.low, found.high], np.percentile(differences, [2.5, 97.5]), atol=1e-12)


def drawn_score(score, run, drawn):
    """Of pictures of a run (N, K, K); true classes of the set that were not drawn are in no mean."""
    counts = sum(run[index] for index in drawn)
    if score == "pixel_accuracy":
        return sum(counts[k, k] for k in range(len(counts))) / counts.sum() if counts.sum() else np.nan
    true, everywhere = counts.sum(axis=1), run.sum(axis=0).sum(axis=1)
    ious = [
        counts[k, k] / union
        for k in range(len(counts))
        if (union := true[k] + counts[:, k].sum() - counts[k, k]) and (true[k] or not everywhere[k])
    ]
    return mean(ious) if ious else np.nan


def test_a_network_is_not_better_than_itself():
    counts = sums(confusions(np.random.default_rng(0), 2, 9, 3))
    found = paired_bootstrap(counts, counts)
    assert found.mean == 0
    assert found.low < 0 < found.high  # two seeds
    alone = paired_bootstrap(counts[:1], counts[:1])
    assert (alone.mean, alone.low, alone.high) == (0, 0, 0)


def test_the_other_way_round_has_the_other_sign():
    rng = np.random.default_rng(1)
    good, bad = (sums(confusions(rng, 2, 30, 4, accuracy)) for accuracy in (0.9, 0.3))
    one, other = paired_bootstrap(good, bad), paired_bootstrap(bad, good)
    assert one.low > 0 > other.high
    np.testing.assert_allclose([one.mean, one.low, one.high], [-other.mean, -other.high, -other.low], atol=0.02)


def test_pairs_are_what_makes_it_sharp():
    """A network that is a little better on every picture, though pictures differ much more than that."""
    rng = np.random.default_rng(2)
    hard = rng.integers(100, 900, 60)
    first, second = (np.zeros((1, 60, 2, 2), np.int64) for _ in range(2))
    for counts, gain in ((first, 10), (second, 0)):
        counts[0, :, 0, 0] = counts[0, :, 1, 1] = hard + gain
        counts[0, :, 0, 1] = counts[0, :, 1, 0] = 1000 - hard - gain
    found = paired_bootstrap(sums(first), sums(second))
    assert 0 < found.low < found.mean < found.high < 2 * found.mean
    alone = [miou(first[0, rng.integers(0, 60, 60)].sum(axis=0)) for _ in range(300)]
    assert np.percentile(alone, 97.5) - np.percentile(alone, 2.5) > 10 * (found.high - found.low)


def test_the_interval_covers_the_difference_of_the_population():
    """Of 200 samples from the same population, 95 % should; chance allows for 90 to 99 %."""
    rng = np.random.default_rng(3)
    first, second = (confusions(rng, 1, 4000, 3, accuracy) for accuracy in (0.6, 0.5))
    true = miou(first[0].sum(axis=0)) - miou(second[0].sum(axis=0))
    covered = 0
    for number in range(200):
        drawn = rng.integers(0, 4000, 80)
        found = paired_bootstrap(sums(first[:, drawn]), sums(second[:, drawn]), resamples=300, seed=number)
        covered += found.low <= true <= found.high
    assert 180 <= covered <= 198


def test_other_pictures_cannot_be_paired():
    rng = np.random.default_rng(4)
    with pytest.raises(ValueError, match="not the same images"):
        paired_bootstrap(sums(confusions(rng, 1, 5, 3)), sums(confusions(rng, 1, 6, 3)))


def test_a_class_that_a_draw_lacks_decides_nothing():
    """A pixel of a class that is true in one picture of a hundred would count 0 or nothing in a third of the draws."""
    first = np.zeros((1, 100, 3, 3), np.int64)
    first[0, :, 0, 0] = first[0, :, 1, 1] = 1000
    first[0, 0, 2, 2] = 1000
    second = first.copy()
    second[0, 50, 0, 0], second[0, 50, 0, 2] = 999, 1
    found = paired_bootstrap(sums(first), sums(second))
    assert 0 < found.mean < 0.001
    assert 0 <= found.low <= found.high < 0.002


@pytest.mark.parametrize(
    ("runs", "least", "most"),
    [(2, 0.58, 0.75), (3, 0.80, 0.92), (5, 0.86, 0.96), pytest.param(10, 0.88, 0.98, marks=pytest.mark.slow)],
)
def test_seeds_are_in_the_interval(runs, least, most):
    """Equal networks, pictures without noise: of 300 intervals as many hold 0 as the figures that the tables state.

    95 % are meant, but few runs know little of their own deviation; of two no verdict is given.
    """
    held = coverage(runs, 300)
    assert least < held < most
    assert least < recorded()[runs] < most
    if runs in COVERAGE:
        assert COVERAGE[runs] == round(100 * recorded()[runs])


def recorded():
    """What the whole simulation found, by the number of runs."""
    with (ROOT / "docs" / "results" / "coverage.csv").open(encoding="utf-8") as file:
        return {int(runs): float(held) for runs, _, held in list(csv.reader(file))[1:]}


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_a_spread_is_mean_and_sample_deviation(values):
    found = Spread.of(values)
    assert found.mean == pytest.approx(mean(values))
    assert found.deviation == pytest.approx(stdev(values)) if len(values) > 1 else np.isnan(found.deviation)


def test_a_spread_of_what_has_no_score_has_none():
    found = Spread.of([50.0, float("nan")])
    assert np.isnan(found.mean)
    assert np.isnan(found.deviation)
