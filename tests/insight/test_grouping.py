"""The area under the ROC curve against scikit-learn, and the score on networks of which it is known."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import sanet
from sanet.insight.grouping import GroupingScores, grouping_scores, roc_area
from sanet.insight.groups import Encoding, Explainer, HeadMaps
from sanet.structures import LabelSet, Sample, UsageError

LABELS = LabelSet(("left", "right", "never"), ignore_index=255)


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=60))
def test_the_area_equals_scikit_learns(pairs):
    scores, positive = torch.tensor([float(score) for score, _ in pairs]), np.array([mark for _, mark in pairs])
    if positive.any() and not positive.all():
        assert roc_area(scores, positive) == pytest.approx(roc_auc_score(positive, scores.numpy()), abs=1e-12)


class Images:
    """Images whose halves are two classes, with a band without labels."""

    labels = LABELS

    def __init__(self, *sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        height, width = self.sizes[index]
        mask = torch.zeros(height, width, dtype=torch.int64)
        mask[:, width // 2 :] = 1
        mask[:4] = 255
        return Sample(torch.zeros(3, height, width, dtype=torch.uint8), mask, str(index))


class Known:
    """Heads whose attention is the truth, the row alone, and the same everywhere."""

    names = ("head 1", "head 2", "level 4")

    def encode(self, image):
        height, width = image.shape[-2:]
        perfect, blind = torch.zeros(2, height, width), torch.ones(2, height, width)
        perfect[0, :, width // 2 :] = 1
        rows = torch.arange(height).float()[None, :, None].expand(2, height, width)
        heads = [HeadMaps(stage, maps, maps, maps) for stage, maps in ((1, perfect), (2, rows), (4, blind))]
        prediction = torch.zeros(height, width, dtype=torch.int64)
        return Encoding((height, width), (height, width), LABELS, prediction, heads, None)


def test_a_perfect_head_has_one_and_a_blind_one_half():
    found = grouping_scores(Known(), Images((40, 60), (33, 50)), progress=False)
    assert found.names == Known.names
    np.testing.assert_allclose(found.scores[0, :2], 1)
    np.testing.assert_allclose(found.scores[1, :2], 0.5, atol=0.04)
    np.testing.assert_allclose(found.scores[2, :2], 0.5)
    assert np.isnan(found.scores[:, 2]).all()
    assert found.points.tolist() == [6, 6, 0]  # three in each of two images


def test_the_points_are_the_same_for_every_network():
    images = Images((50, 70))
    torch.manual_seed(0)
    models = [sanet.create_model("sanet", "test_resnet", num_classes=3, output_stride=8) for _ in range(2)]
    one, other = (grouping_scores(Explainer(model, "cpu"), images, progress=False) for model in models)
    again = grouping_scores(Explainer(models[0], "cpu"), images, progress=False)
    np.testing.assert_array_equal(one.scores, again.scores)
    np.testing.assert_array_equal(one.points, other.points)
    assert not np.array_equal(one.scores, other.scores)


def test_nothing_drawn_is_a_mistake():
    for points, pixels in ((0, 2000), (3, 0), (-1, 5)):
        with pytest.raises(UsageError, match=f"points {points} and pixels {pixels}: 1 or more"):
            grouping_scores(Known(), Images((40, 60)), points, pixels, progress=False)


def test_images_with_nothing_to_group_are_left_out():
    class Plain(Images):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return sample._replace(mask=torch.full_like(sample.mask, 255 if index else 0))

    found = grouping_scores(Known(), Plain((40, 40), (40, 40)), progress=False)
    assert found.points.sum() == 0


def test_the_table_has_a_row_for_each_class():
    areas = np.array([[0.5, 0.75, np.nan], [1, 0.5, np.nan]])
    scores = GroupingScores(LABELS, ("head 1", "level 4"), areas, np.array([3, 6, 0]), np.array([0.5, 1]))
    lines = [line.split() for line in scores.table().splitlines()]
    assert lines[2] == ["left", "50.0", "100.0", "3"]
    assert lines[4] == ["never", "—", "—", "0"]
    assert lines[-2] == ["mean", "over", "classes", "62.5", "75.0", "9"]
    assert lines[-1][-2:] == ["0.50", "1.00"]


def test_reach_is_one_where_nearness_says_nothing_and_small_around_the_point():
    """The attention of the first head is the place, of the second nothing, of the third the row."""

    class Placed(Known):
        def encode(self, image):
            height, width = image.shape[-2:]
            place = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).float()
            noise = torch.rand(2, height, width, generator=torch.Generator().manual_seed(0))
            heads = [HeadMaps(stage, maps, maps, maps) for stage, maps in ((1, place), (2, noise), (3, place[:1]))]
            return super().encode(image)._replace(heads=heads)

    found = grouping_scores(Placed(), Images((90, 90), (60, 80)), points=20, progress=False)
    around, anywhere, row = found.reach
    assert anywhere == pytest.approx(1, abs=0.05)
    assert around < 0.5
    assert around < row < 1


def test_the_documented_table_is_that_of_the_raw_files():
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "seeing.md").read_text(encoding="utf-8")
    lines = text.partition("## Are they groups?")[2].partition("\n## ")[0].splitlines()

    def raw(name, row):
        text = (docs / "results" / "grouping" / f"{name}.txt").read_text(encoding="utf-8")
        return np.array(re.findall(r" (\d+\.\d+)", re.search(rf"^{row}.*", text, re.MULTILINE)[0]), float)

    rows = [line.strip("| ").split(" | ") for line in lines if re.match(r"\| .* \d+\.\d", line)]
    sources = [(run, *row) for row in (("mean", 1), ("reach", 2)) for run in ("trained", "untrained", "own")]
    for (name, *cells), (run, row, digits) in zip(rows, sources, strict=True):
        values = np.stack([raw(run, row)] if run == "own" else [raw(f"{run}-{seed}", row) for seed in range(3)])
        expected = [f"{mean:.{digits}f}" for mean in values.mean(axis=0)]
        if len(values) > 1:
            spread = values.std(axis=0, ddof=1)
            expected = [f"{mean} ± {each:.{digits}f}" for mean, each in zip(expected, spread, strict=True)]
        assert cells == expected, name
