"""Every score of an evaluation against scikit-learn, SciPy and loops written from the papers."""

from __future__ import annotations

from itertools import product
from math import hypot, isnan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, binary_erosion
from sklearn.metrics import precision_recall_fscore_support

from sanet.evaluation.confusion import ConfusionMatrix
from sanet.evaluation.measures import image_counts, rule_of, table_of
from sanet.structures import LabelSet

K, IGNORED = 4, 255
LABELS = LabelSet(("a", "b", "c", "nowhere"))
SIZES = [(1, 1), (1, 9), (7, 5), (24, 31), (40, 120)]


def images(seed, count=3, size=None, ignored=0.1):
    """Blocks of three classes with some noise, predicted and true; of the truth a share is ignored, in blocks too."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        height, width = size or SIZES[rng.integers(len(SIZES))]
        blocks = rng.integers(0, 3, (-(-height // 6), -(-width // 6)))
        truth = blocks.repeat(6, 0).repeat(6, 1)[:height, :width]
        prediction = np.roll(truth, rng.integers(0, 3, 2), (0, 1))
        noise = rng.random(truth.shape) < 0.05
        prediction = np.where(noise, rng.integers(0, 3, truth.shape), prediction)
        void = (rng.random(blocks.shape) < ignored).repeat(6, 0).repeat(6, 1)[:height, :width]
        found.append((prediction, np.where(void, IGNORED, truth)))
    return found


def counts_of(pairs, labels=LABELS):
    counts = []
    for prediction, truth in (map(torch.from_numpy, pair) for pair in pairs):
        confusion = ConfusionMatrix(labels).update(truth, prediction)
        counts.append(image_counts(prediction, truth, confusion, labels).numpy())
    return np.stack(counts)


def values(table, name):
    return [interval.value for interval in table.classes[name][:-1]]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_dice_precision_and_recall_are_those_of_scikit_learn(seed):
    pairs = images(seed)
    table = table_of([counts_of(pairs)], LABELS)
    truth, prediction = (np.concatenate([pair[which].ravel() for pair in pairs]) for which in (1, 0))
    prediction, truth = prediction[truth != IGNORED], truth[truth != IGNORED]
    if not len(truth):
        assert all(isnan(value) for name in ("dice", "precision", "recall") for value in values(table, name))
        return
    expected = precision_recall_fscore_support(truth, prediction, labels=range(K), zero_division=np.nan)
    for name, column in zip(("precision", "recall", "dice"), expected[:3], strict=True):
        np.testing.assert_allclose(values(table, name), column)
    assert isnan(values(table, "dice")[3])


def boundary_iou(pairs):
    """Cheng et al., equation (5): the IoU of what masks have within a distance of their outlines."""
    sums = np.zeros((2, K))
    for prediction, truth in pairs:
        distance, ignored = max(1, round(0.02 * hypot(*truth.shape))), truth == IGNORED
        for index in range(K):
            members = [(labels == index) & ~ignored for labels in (prediction, truth)]
            found, true = (
                one & ~binary_erosion(one | ignored, np.ones((3, 3)), iterations=distance, border_value=0)
                for one in members
            )
            sums[:, index] += (found & true).sum(), (found | true).sum()
    with np.errstate(invalid="ignore"):
        return sums[0] / sums[1]


def outline(labels, ignored, index):
    """Pixels of a class beside a pixel of another one, in a loop."""
    points = []
    for row, column in product(*map(range, labels.shape)):
        if labels[row, column] != index or ignored[row, column]:
            continue
        for other in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= other[0] < labels.shape[0] and 0 <= other[1] < labels.shape[1]
            if inside and not ignored[other] and labels[other] != index:
                points.append((row, column))
                break
    return points


def boundary_f1(pairs):
    """Csurka et al., section 3, over all images: the share of outline pixels that the other outline comes near to."""
    scores = []
    for index in range(K):
        near, every = np.zeros(2), np.zeros(2)
        for prediction, truth in pairs:
            limit, ignored = max(1, round(0.0075 * hypot(*truth.shape))), truth == IGNORED
            found, true = (outline(labels, ignored, index) for labels in (prediction, truth))
            for which, (one, other) in enumerate(((found, true), (true, found))):
                every[which] += len(one)
                near[which] += sum(any(hypot(a - c, b - d) <= limit for c, d in other) for a, b in one)
        precision, recall = (near[which] / every[which] if every[which] else 0 for which in (0, 1))
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
        scores.append(f1 if every.any() else np.nan)
    return scores


def components(members):
    """Pixels that hang together over eight neighbours, by growing from one of them."""
    left, regions = members.copy(), []
    while left.any():
        seed = np.zeros_like(members)
        seed[tuple(np.argwhere(left)[0])] = True
        regions.append(binary_dilation(seed, np.ones((3, 3)), iterations=0, mask=members))
        left &= ~regions[-1]
    return regions


def regions(pairs):
    """Kirillov et al., section 4.1: matches with an IoU above 0.5, of regions without what is void."""
    found_true, every = np.zeros(K), np.zeros((2, K))
    for prediction, truth in pairs:
        ignored = truth == IGNORED
        for index in range(K):
            true, found = components((truth == index) & ~ignored), components((prediction == index) & ~ignored)
            for one in found:
                hits = [(one & other).sum() / (one | other).sum() > 0.5 for other in true]
                assert sum(hits) <= 1
                found_true[index] += any(hits)
            every[:, index] += len(found), len(true)
    with np.errstate(invalid="ignore"):
        return found_true / every[0], found_true / every[1]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_boundaries_and_regions_are_those_of_loops(seed):
    pairs = images(seed, 2, ignored=0.25 * (seed % 2))
    table = table_of([counts_of(pairs)], LABELS)
    np.testing.assert_allclose(values(table, "boundary_iou"), boundary_iou(pairs))
    np.testing.assert_allclose(values(table, "boundary_f1"), boundary_f1(pairs))
    precision, recall = regions(pairs)
    np.testing.assert_allclose(values(table, "region_precision"), precision)
    np.testing.assert_allclose(values(table, "region_recall"), recall)


def test_boundary_f1_allows_the_distance_and_not_more():
    """Outlines of a 400x300 image are near within 4 pixels, 0.0075 x 500 rounded."""
    truth = np.zeros((300, 400), np.int64)
    truth[:, 200:] = 1
    for shift, expected in ((4, 1), (5, 0)):
        prediction = np.zeros_like(truth)
        prediction[:, 200 + shift :] = 1
        assert values(table_of([counts_of([(prediction, truth)])], LABELS), "boundary_f1")[:2] == [expected] * 2
    assert rule_of([(300, 400), (300, 400)]) == (
        "Boundary IoU: within 10 pixels (2 % of the diagonal) of an outline; "
        "boundary F1: within 4 pixels (0.75 % of the diagonal)"
    )


def test_a_perfect_prediction_has_one_everywhere_and_an_absent_class_nothing():
    pairs = [(np.where(truth == IGNORED, 0, truth), truth) for _, truth in images(3, 6, (24, 31))]
    table = table_of([counts_of(pairs)], LABELS)
    for name, intervals in table.classes.items():
        assert [interval.value for interval in intervals[:3]] == [1, 1, 1], name
        assert isnan(intervals[3].value), name
        assert intervals[4].value == pytest.approx(np.mean([interval.value for interval in intervals[:3]]))


def test_nothing_labelled_scores_nothing():
    void = np.full((5, 5), IGNORED)
    table = table_of([counts_of([(np.zeros((5, 5), np.int64), void)] * 2)], LABELS)
    assert all(isnan(interval.value) for found in table.classes.values() for interval in found)


MEASURED = ("dice", "boundary_iou", "boundary_f1", "region_recall")


def resampled(counts, groups, index, draws):
    """Percentiles of scores over draws of groups of images, one at a time."""
    rng = np.random.default_rng(7)
    found, units = [], sorted(set(groups))
    for _ in range(draws):
        drawn = [place for unit in rng.choice(units, len(units)) for place in np.flatnonzero(np.equal(groups, unit))]
        classes = table_of([counts[drawn]], LABELS).classes
        found.append([classes[name][index].value for name in MEASURED])
    return np.nanpercentile(found, [2.5, 97.5], axis=0).T


@pytest.mark.parametrize("groups", [None, np.array([0, 0, 0, 1, 1, 2, 2, 3, 4, 4])])
def test_intervals_are_those_of_images_or_groups_drawn_one_by_one(groups):
    counts = counts_of(images(5, 10, (24, 31)))
    classes = table_of([counts], LABELS, groups).classes
    drawn = resampled(counts, range(10) if groups is None else groups, 1, 200)
    for name, (low, high) in zip(MEASURED, drawn, strict=True):
        interval, spread = classes[name][1], high - low
        np.testing.assert_allclose([interval.low, interval.high], [low, high], atol=0.25 * spread)
        assert interval.low <= interval.value <= interval.high


def test_pairs_of_one_model_differ_by_nothing_and_of_two_with_opposite_signs():
    one, other = counts_of(images(1, 12, (24, 31))), counts_of(images(1, 12, (24, 31)))
    rng = np.random.default_rng(0)
    worse = counts_of([(rng.integers(0, 3, truth.shape), truth) for _, truth in images(1, 12, (24, 31))])
    for interval in [*table_of([one, other], LABELS).means.values()]:
        assert interval == (0, 0, 0)
    better, lower = table_of([one, worse], LABELS), table_of([worse, one], LABELS)
    for key, interval in better.means.items():
        assert interval.low > 0
        np.testing.assert_allclose(interval, [-lower.means[key][place] for place in (0, 2, 1)])
    assert better.classes["boundary_f1"][-1].low > 0


def test_one_image_or_one_group_has_no_interval():
    counts = counts_of(images(1, 4, (24, 31)))
    for found in (table_of([counts[:1]], LABELS), table_of([counts], LABELS, np.zeros(4, np.int64))):
        assert isnan(found.means["miou"].low)
        assert not isnan(found.means["miou"].value)
    assert set(table_of([counts[:, :3]], LABELS).classes) == {"iou", "dice", "precision", "recall"}
