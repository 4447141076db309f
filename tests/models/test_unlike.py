"""How unlike the training images an image is: against SciPy, by its share of held-out ones, and kept with the model."""

import json

import numpy as np
import pytest
from scipy.stats import t

from sanet.models.networks import create_model, load_model
from sanet.models.unlike import LEAST_SPREAD, UNLIKE, FeatureStatistics
from sanet.structures import SanetError


def features(count, seed, shift=0.0, channels=40):
    """Of images; half of the channels vary ten times as much as the others, and all images vary in size."""
    rng = np.random.default_rng(seed)
    scale = np.where(np.arange(channels) % 2, 10, 1) * rng.lognormal(0, 0.5, (count, 1))
    return (5 + scale * (rng.standard_normal((count, channels)) + shift)).astype(np.float32)


def test_held_out_images_are_as_far_as_it_says():
    """Whatever share is asked for, as many new images of the same kind are beyond it."""
    known = FeatureStatistics.of(features(200, 0), features(200, 1))
    shares = np.array([known.unlike(each) for each in features(2000, 2)])
    for share in (0.1, 0.5, 0.9, 0.99):
        assert (shares <= share).mean() == pytest.approx(share, abs=0.06)
    assert all(known.unlike(each) > UNLIKE for each in features(20, 3, shift=30))


def test_it_is_a_prediction_of_students_distribution():
    training, held_out, (new,) = features(30, 0), features(9, 1), features(1, 2)
    known = FeatureStatistics.of(training, held_out)
    mean, std = training.mean(0, np.float64), training.std(0, dtype=np.float64)
    std = np.maximum(std, 0.1 * std.mean())
    *old, at = (np.log(np.sqrt((((each - mean) / std) ** 2).mean())) for each in (*held_out, new))
    assert np.std(old, ddof=1) > LEAST_SPREAD
    expected = t.cdf((at - np.mean(old)) / (np.std(old, ddof=1) * np.sqrt(1 + 1 / 9)), 8)
    assert known.unlike(new) == pytest.approx(expected, abs=2e-3)


def test_few_or_equal_held_out_images_do_not_make_others_seem_far():
    training = features(50, 0)
    two, many = (FeatureStatistics.of(training, features(count, 1)) for count in (2, 100))
    far = features(1, 2, shift=10)[0]
    assert many.unlike(far) > UNLIKE > two.unlike(far)
    film = FeatureStatistics.of(training, np.repeat(features(1, 3), 30, axis=0))
    assert film.spread == LEAST_SPREAD
    assert FeatureStatistics.of(training, features(1, 1)) is None
    assert FeatureStatistics.of(training[:1].repeat(5, axis=0), features(9, 1)) is None


@pytest.fixture
def model():
    model = create_model("fcn", "test_resnet", num_classes=3)
    channels = model.backbone.levels[-1].channels
    model.statistics = FeatureStatistics.of(features(9, 0, 0, channels), features(9, 1, 0, channels))
    return model


def test_it_is_kept_with_the_model(model, tmp_path):
    model.save_pretrained(tmp_path)
    kept, (new,) = load_model(tmp_path).statistics, features(1, 2, 0, len(model.statistics.mean))
    assert kept.unlike(new) == model.statistics.unlike(new)
    assert (tmp_path / "config.json").stat().st_size < 20_000
    content = json.loads((tmp_path / "config.json").read_text())
    del content["features"]  # as older versions wrote it
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert load_model(tmp_path).statistics is None


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": "1 2 3"},
        {"std": "nan"},
        {"mean": [1]},
        {"spread": 0},
        {"spread": "x"},
        {"center": None},
        {"held_out": 1},
        {"held_out": 2.5},
    ],
)
def test_it_is_read_with_distrust(model, tmp_path, changes):
    model.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["features"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(SanetError, match=r"config\.json"):
        load_model(tmp_path)
