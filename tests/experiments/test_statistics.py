"""The bootstrap against loops, brute force and the truth of a simulation."""

from statistics import mean, stdev

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sanet.evaluation.confusion import scores_of, sums_of
from sanet.experiments.statistics import Spread, paired_bootstrap
from sanet.structures import LabelSet


def confusions(rng, runs, pictures, classes, accuracy=0.5):
    """(S, N, K, K) counts: about that share of the pixels is right."""
    counts = rng.integers(0, 20, (runs, pictures, classes, classes))
    counts += (np.eye(classes, dtype=np.int64) * rng.integers(0, 200, (runs, pictures, 1, 1)) * accuracy).astype(int)
    return counts


def sums(counts):
    return sums_of(torch.from_numpy(counts)).numpy()


def miou(counts):
    """Of a (K, K) matrix, as `sanet evaluate` has it."""
    labels = LabelSet(tuple(f"class {index}" for index in range(len(counts))))
    return scores_of(torch.from_numpy(counts), labels).miou


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3), st.integers(1, 7), st.integers(2, 5))
def test_equals_a_loop_over_the_draws(seed, runs, others, pictures, classes):
    rng = np.random.default_rng(seed)
    first, second = confusions(rng, runs, pictures, classes), confusions(rng, others, pictures, classes)
    if seed % 3 == 0:  # a class that some pictures do not have
        for counts in (first, second):
            counts[:, ::2, 0, :] = counts[:, ::2, :, 0] = 0
    found = paired_bootstrap(sums(first), sums(second), resamples=40, seed=seed)
    draws = np.random.default_rng(seed).multinomial(pictures, np.full(pictures, 1 / pictures), size=40)
    differences = []
    for draw in draws:
        drawn = [index for index, times in enumerate(draw) for _ in range(times)]
        ours = mean(miou(sum(run[index] for index in drawn)) for run in first)
        theirs = mean(miou(sum(run[index] for index in drawn)) for run in second)
        if not np.isnan(ours - theirs):  # a draw may have no labelled pixel
            differences.append(ours - theirs)
    whole = mean(miou(run.sum(axis=0)) for run in first) - mean(miou(run.sum(axis=0)) for run in second)
    assert found.mean == pytest.approx(whole, abs=1e-12)
    np.testing.assert_allclose([found.low, found.high], np.percentile(differences, [2.5, 97.5]), atol=1e-12)
    assert found.chance == pytest.approx(np.mean(np.array(differences) <= 0))


def test_a_network_is_not_better_than_itself():
    counts = sums(confusions(np.random.default_rng(0), 2, 9, 3))
    found = paired_bootstrap(counts, counts)
    assert (found.mean, found.low, found.high, found.chance) == (0, 0, 0, 1)


def test_the_other_way_round_has_the_other_sign():
    rng = np.random.default_rng(1)
    good, bad = (sums(confusions(rng, 2, 30, 4, accuracy)) for accuracy in (0.9, 0.3))
    one, other = paired_bootstrap(good, bad), paired_bootstrap(bad, good)
    assert one.low > 0
    assert one.chance == 0
    np.testing.assert_allclose([one.mean, one.low, one.high], [-other.mean, -other.high, -other.low], atol=1e-12)


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
    with pytest.raises(ValueError, match="not the same pictures"):
        paired_bootstrap(sums(confusions(rng, 1, 5, 3)), sums(confusions(rng, 1, 6, 3)))


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6), st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_spreads_are_apart_where_their_intervals_do_not_touch(one, other):
    first, second = Spread.of(one), Spread.of(other)
    assert first.mean == pytest.approx(mean(one))
    assert first.deviation == pytest.approx(stdev(one))
    gap = max(mean(one) - stdev(one) - mean(other) - stdev(other), mean(other) - stdev(other) - mean(one) - stdev(one))
    if abs(gap) > 1e-9:
        assert first.apart(second) == second.apart(first) == (gap > 0)


def test_one_run_has_no_interval():
    assert not Spread.of([1.0]).apart(Spread.of([50.0, 51.0]))
    assert not Spread.of([50.0, 51.0]).apart(Spread.of([1.0]))
