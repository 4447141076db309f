"""Boundary IoU against a loop written from the paper, and its limits."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from sanet.evaluation.boundary import BoundaryIoU
from sanet.evaluation.metrics import create_metrics
from sanet.structures import UsageError


def region(members, ignored, distance):
    """Cheng et al.: a mask minus its erosion, with nothing beyond the border of the image."""
    eroded = binary_erosion(members | ignored, np.ones((3, 3)), iterations=distance, border_value=0)
    return members & ~eroded & ~ignored


@pytest.mark.parametrize("ignored_share", [0.0, 0.1])
@pytest.mark.parametrize(("height", "width", "ratio"), [(40, 60, 0.02), (33, 90, 0.05), (20, 20, 0.2)])
def test_it_is_the_papers(height, width, ratio, ignored_share):
    draw = np.random.default_rng(0)
    metric = BoundaryIoU(3, 255, ratio)
    sums = np.zeros((2, 3))
    for _ in range(3):
        blocks = draw.integers(0, 3, (2, -(-height // 7), -(-width // 7)))
        prediction, mask = blocks.repeat(7, 1).repeat(7, 2)[:, :height, :width]
        ignored = draw.random(mask.shape) < ignored_share
        mask = np.where(ignored, 255, mask)
        metric.update(torch.from_numpy(prediction), torch.from_numpy(mask))
        distance = max(1, round(ratio * (height**2 + width**2) ** 0.5))
        for number in range(3):
            found, true = (region(labels == number, ignored, distance) for labels in (prediction, mask))
            sums[:, number] += (found & true).sum(), (found | true).sum()
    np.testing.assert_allclose(metric.class_iou(), sums[0] / sums[1])
    assert metric.compute() == pytest.approx((sums[0] / sums[1]).mean())


def test_a_perfect_prediction_has_one_and_a_missing_class_does_not_count():
    mask = torch.zeros(30, 30, dtype=torch.int64)
    mask[10:20, 10:20] = 1
    metric = BoundaryIoU(3)
    metric.update(mask, mask)
    assert metric.compute() == 1
    assert metric.class_iou()[2].isnan()


def test_a_class_that_is_too_many_is_named():
    """Such as the ignore index of CamVid, 11, where nothing is said of it."""
    mask = torch.zeros(30, 30, dtype=torch.int64)
    mask[10:20] = 11
    with pytest.raises(UsageError, match=r"class 11.*num_classes.* 11.*ignore_index.* 255"):
        BoundaryIoU(11).update(torch.zeros_like(mask), mask)
    metric = BoundaryIoU(11, 11)
    metric.update(torch.zeros_like(mask), mask)
    assert metric.compute() == 1


def test_it_sees_an_outline_that_iou_hardly_sees():
    """The same shift costs a large region little IoU, and its boundary much."""
    mask = torch.zeros(200, 200, dtype=torch.int64)
    mask[20:180, 20:180] = 1
    metric = BoundaryIoU(2)
    metric.update(mask.roll(6, dims=1), mask)
    iou = ((mask == 1) & (mask.roll(6, 1) == 1)).sum() / ((mask == 1) | (mask.roll(6, 1) == 1)).sum()
    assert iou > 0.9
    assert metric.class_iou()[1] < 0.65


def test_it_is_named_without_opening_a_module():
    options = {"num_classes": 3, "ignore_index": 11}
    (metric,) = create_metrics({"x": {"name": "sanet.evaluation.boundary:BoundaryIoU", "options": options}}).values()
    assert (metric.num_classes, metric.ignore_index, metric.ratio) == (3, 11, 0.02)


def test_what_moves_to_the_device_is_no_float64_which_apples_gpus_lack():
    metric = BoundaryIoU(3)
    metric.update(torch.randint(0, 3, (32, 32)), torch.randint(0, 3, (32, 32)))
    assert {state.dtype for state in metric.metric_state.values()} == {torch.int64}
