"""The confusion matrix against counting loops and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from sanet.evaluation.confusion import ConfusionMatrix, scores_of
from sanet.structures import LabelSet

IGNORE = 255
LABELS = LabelSet(("sky", "road", "car", "tree"))


def picture(seed, classes=4, size=(6, 7), ignored=0.2):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, classes, size, generator=generator)
    prediction = torch.where(
        torch.rand(size, generator=generator) < 0.5, truth, torch.randint(0, classes, size, generator=generator)
    )
    truth[torch.rand(size, generator=generator) < ignored] = IGNORE
    return truth, prediction


def count(pairs, labels=LABELS):
    matrix = ConfusionMatrix(labels)
    for truth, prediction in pairs:
        matrix.update(truth, prediction)
    return matrix


def loops(pairs, classes=4):
    """What every score says in words, pixel by pixel."""
    pixels = [
        (t, p)
        for truth, prediction in pairs
        for t, p in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True)
        if t != IGNORE
    ]
    iou, accuracy, frequency = {}, {}, 0.0
    for k in range(classes):
        both = sum(t == k and p == k for t, p in pixels)
        either = sum(t == k or p == k for t, p in pixels)
        true = sum(t == k for t, p in pixels)
        iou[k] = both / either if either else math.nan
        accuracy[k] = both / true if true else math.nan
        frequency += true / len(pixels) * iou[k] if true else 0
    mean = lambda values: sum(v for v in values if v == v) / sum(v == v for v in values)  # noqa: E731
    return {
        "iou": iou,
        "accuracy": accuracy,
        "miou": mean(iou.values()),
        "mean_accuracy": mean(accuracy.values()),
        "pixel_accuracy": sum(t == p for t, p in pixels) / len(pixels),
        "frequency_weighted_iou": frequency,
        "pixels": len(pixels),
    }


def check(pairs, labels=LABELS):
    scores, expected = count(pairs, labels).scores(), loops(pairs, len(labels))
    for name in ("miou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou", "pixels"):
        assert getattr(scores, name) == pytest.approx(expected[name], abs=1e-12), name
    for k, name in enumerate(labels.names):
        assert scores.class_iou[name] == pytest.approx(expected["iou"][k], abs=1e-12, nan_ok=True)
        assert scores.class_accuracy[name] == pytest.approx(expected["accuracy"][k], abs=1e-12, nan_ok=True)


def test_counts_against_loops():
    pairs = [picture(seed) for seed in range(3)]
    expected = np.zeros((4, 4), int)
    for truth, prediction in pairs:
        for t, p in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True):
            if t != IGNORE:
                expected[t, p] += 1
    assert count(pairs).counts.tolist() == expected.tolist()
    assert count(pairs).counts.dtype == torch.int64


def test_scores_against_loops():
    check([picture(seed) for seed in range(3)])


@settings(max_examples=60)
@given(data=st.data(), classes=st.integers(1, 6))
def test_scores_against_loops_for_any_pixels(data, classes):
    """Few pixels, so that classes are often absent from one side or both."""
    labels = LabelSet(tuple(map(str, range(classes))))
    values = st.integers(0, classes - 1)
    pixels = st.lists(st.tuples(st.one_of(values, st.just(IGNORE)), values), max_size=12)
    pairs = [
        (torch.tensor([t for t, _ in some], dtype=torch.int64), torch.tensor([p for _, p in some], dtype=torch.int64))
        for some in data.draw(st.lists(pixels, min_size=1, max_size=3))
    ]
    if all((truth == IGNORE).all() for truth, _ in pairs):
        assert math.isnan(count(pairs, labels).scores().miou)
    else:
        check(pairs, labels)


@pytest.mark.parametrize("seed", range(4))
def test_against_scikit_learn(seed):
    truth, prediction = picture(seed, size=(20, 30))
    labelled = truth != IGNORE
    t, p = truth[labelled].numpy(), prediction[labelled].numpy()
    matrix = count([(truth, prediction)])
    scores = matrix.scores()
    assert matrix.counts.tolist() == metrics.confusion_matrix(t, p, labels=range(4)).tolist()
    assert list(scores.class_iou.values()) == pytest.approx(metrics.jaccard_score(t, p, average=None).tolist())
    assert scores.miou == pytest.approx(metrics.jaccard_score(t, p, average="macro"))
    assert scores.frequency_weighted_iou == pytest.approx(metrics.jaccard_score(t, p, average="weighted"))
    assert scores.pixel_accuracy == pytest.approx(metrics.accuracy_score(t, p))
    assert scores.mean_accuracy == pytest.approx(metrics.balanced_accuracy_score(t, p))


def test_rows_are_the_truth():
    assert count([(torch.tensor([1]), torch.tensor([3]))]).counts[1, 3] == 1


def test_many_pictures_count_like_one_big_one():
    pairs = [picture(seed, size=(5, 5 + seed)) for seed in range(5)]
    truth, prediction = (torch.cat([pair[i].flatten() for pair in pairs]) for i in (0, 1))
    assert torch.equal(count(pairs).counts, count([(truth, prediction)]).counts)


def test_the_set_is_not_the_mean_of_its_pictures():
    """One picture all sky and all right; one with a single pixel of road, called sky: 1 and 0 alone."""
    right = (torch.zeros(99, dtype=torch.int64), torch.zeros(99, dtype=torch.int64))
    wrong = (torch.tensor([1]), torch.tensor([0]))
    alone = [count([pair]).scores().miou for pair in (right, wrong)]
    assert alone == [1.0, 0.0]
    assert count([right, wrong]).scores().miou == pytest.approx((99 / 100 + 0) / 2)


def test_update_returns_the_counts_of_its_call_alone():
    matrix = ConfusionMatrix(LABELS)
    pairs = [picture(seed) for seed in range(2)]
    returned = [matrix.update(*pair) for pair in pairs]
    assert torch.equal(returned[1], count(pairs[1:]).counts)
    assert torch.equal(sum(returned), matrix.counts)
    assert scores_of(returned[1], LABELS) == count(pairs[1:]).scores()


def test_reset_forgets():
    matrix = count([picture(0)])
    matrix.reset()
    matrix.update(*picture(1))
    assert torch.equal(matrix.counts, count([picture(1)]).counts)


def test_counts_stay_out_of_checkpoints():
    assert count([picture(0)]).state_dict() == {}


def test_classes_absent_from_truth_and_prediction_count_nowhere():
    """sky: 2 of 3 right, one called road; car and tree appear on neither side."""
    scores = count([(torch.tensor([0, 0, 0]), torch.tensor([0, 0, 1]))]).scores()
    assert scores.class_iou["sky"] == pytest.approx(2 / 3)
    assert scores.class_iou["road"] == 0  # predicted but never true: a mistake, and it counts
    assert math.isnan(scores.class_iou["car"])
    assert math.isnan(scores.class_accuracy["road"])  # nothing of it to find
    assert scores.miou == pytest.approx((2 / 3 + 0) / 2)
    assert scores.mean_accuracy == pytest.approx(2 / 3)


def test_predictions_on_ignored_pixels_count_nowhere():
    truth, prediction = picture(0)
    elsewhere = torch.where(truth == IGNORE, (prediction + 1) % 4, prediction)
    assert not torch.equal(elsewhere, prediction)
    assert torch.equal(count([(truth, elsewhere)]).counts, count([(truth, prediction)]).counts)


def test_background_is_left_out_of_its_own_mean_only():
    pairs = [picture(seed) for seed in range(2)]
    plain = count(pairs).scores()
    labels = LabelSet(LABELS.names, background=1)
    scores = count(pairs, labels).scores()
    without = [value for name, value in scores.class_iou.items() if name != "road"]
    assert plain.miou_without_background is None
    assert scores.miou == plain.miou
    assert scores.miou_without_background == pytest.approx(sum(without) / 3)
    assert scores.miou_without_background != pytest.approx(scores.miou)


@pytest.mark.parametrize(
    ("truth", "prediction", "words"),
    [
        ([0, 4], [0, 0], "truth.*0..3"),
        ([0, -1], [0, 0], "truth.*-1"),
        ([0, 254], [0, 0], "254"),
        ([0, 1], [0, 4], "prediction.*0..3"),
        ([0, 1], [0, -1], "prediction.*-1"),
        ([0, 1], [0, 255], "prediction.*255"),
        ([0, 1], [0], "shape|truth is"),
    ],
)
def test_values_that_are_no_class_raise_and_leave_the_counts(truth, prediction, words):
    matrix = count([picture(0)])
    before = matrix.counts.clone()
    with pytest.raises(ValueError, match=words):
        matrix.update(torch.tensor(truth), torch.tensor(prediction))
    assert torch.equal(matrix.counts, before)


def test_nothing_counted_is_nan_and_none_in_json():
    scores = ConfusionMatrix(LabelSet(LABELS.names, background=0)).scores()
    assert scores.pixels == 0
    for name in ("miou", "miou_without_background", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
        assert math.isnan(getattr(scores, name)), name
