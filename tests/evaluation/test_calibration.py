"""Calibration, against sums written from the paper and temperatures that are known."""

import numpy as np
import pytest
import torch

from sanet.evaluation.calibration import calibration_error, fitted_temperature, reliability


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    """Of labels that are drawn as calibrated logits say, which were multiplied by it since."""
    draws = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(40_000, 5, generator=draws)
    labels = torch.multinomial(logits.softmax(1), 1, generator=draws)[:, 0]
    found = fitted_temperature(logits * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    errors = []
    for divisor in (1.0, found):
        shares = (logits * temperature / divisor).softmax(1)
        confidence, classes = shares.max(1)
        errors.append(calibration_error(reliability(confidence, classes == labels).numpy()))
    assert errors[1] < 0.01
    assert temperature == 1 or errors[0] > 0.05


def test_bins_equal_a_loop():
    draws = np.random.default_rng(0)
    confidence, correct = draws.random(500), draws.random(500) < 0.5
    confidence[:3] = 0, 1, 1 / 15
    error = 0.0
    for number in range(15):
        inside = [
            index for index, value in enumerate(confidence)
            if number / 15 < value <= (number + 1) / 15 or (number == 0 and value == 0)
        ]  # fmt: skip
        if inside:
            error += len(inside) / 500 * abs(correct[inside].mean() - confidence[inside].mean())
    counts = reliability(torch.from_numpy(confidence), torch.from_numpy(correct)).numpy()
    assert counts[0].sum() == 500
    assert calibration_error(counts) == pytest.approx(error)
    assert np.isnan(calibration_error(np.zeros((3, 15))))
