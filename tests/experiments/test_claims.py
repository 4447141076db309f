"""Verdicts, and what is said before the figures, of experiments whose scores are given."""

from pathlib import Path
from statistics import fmean
from types import MappingProxyType

import pytest
import torch

from sanet.config import DataConfig
from sanet.deploy.timing import Machine, Timing
from sanet.evaluation.confusion import scores_of, sums_of
from sanet.evaluation.protocol import Protocol
from sanet.evaluation.results import Evaluation
from sanet.experiments.claims import claim_table, claims
from sanet.experiments.config import EXPERIMENTS, ExperimentConfig
from sanet.experiments.costs import Costs, RowCost
from sanet.experiments.page import chart_of, claim_chart
from sanet.experiments.runner import FinishedRun, Result, RowResult
from sanet.experiments.summary import markdown, preface, table
from sanet.experiments.tables import rows_of
from sanet.structures import LabelSet

PICTURES, PIXELS = 20, 1_000_000
RIVALS = ("sanet", "deeplabv3plus", "pspnet", "upernet", "fpn", "segformer")
NOT_MEASURED = Costs(0, 0, Machine("", 0, ""), {}, {})


def evaluated(miou, row, labelled=True):
    """Two classes; every picture has that mIoU, in per cent, or nothing in it is labelled."""
    hits = round(PIXELS * 2 * miou / (100 + miou))
    confusion = torch.tensor([[hits, PIXELS - hits], [PIXELS - hits, hits]]) * labelled
    labels = LabelSet(("dark", "light"))
    names = [f"{index}" for index in range(PICTURES)]
    protocol = Protocol.of(DataConfig("camvid"), "test", names, labels, row.views)
    sums = sums_of(confusion.expand(PICTURES, 2, 2)).numpy()
    whole = confusion * PICTURES
    pictures = dict.fromkeys(names, miou / 100)
    return Evaluation(labels, whole.numpy(), scores_of(whole, labels), pictures, [], protocol, picture_sums=sums)


def result_of(name, scores, labelled=True, **changes):
    """An experiment on CamVid with these mIoU, in per cent, by row and seed."""
    config = ExperimentConfig(DataConfig("camvid", "somewhere"), backbones=("tf_efficientnet_lite0",), **changes)
    results = []
    for row in rows_of(name, config):
        runs = [
            FinishedRun(seed, Path(f"{row.key}-seed{seed}"), evaluated(miou, row, labelled))
            for seed, miou in enumerate(scores.get(row.network, ()))
        ]
        results.append(RowResult(row, runs))
    return Result(name, config, "test", MappingProxyType({}), results)


def around(miou, seeds=3):
    """Runs that differ by a tenth of a point."""
    return [miou + 0.1 * (seed - (seeds - 1) / 2) for seed in range(seeds)]


def verdicts(result, score="miou"):
    return {
        claim.better.row.network + " over " + claim.worse.row.network: claim.verdict
        for claim in claims(result)
        if claim.score == score
    }


@pytest.mark.parametrize(
    ("sanet", "verdict"),
    [
        (around(54.0), "reproduced"),  # the paper has 4.1 more than FCN, 49.0 against 44.9
        (around(54.15), "reproduced"),
        (around(56.0), "reproduced"),
        (around(52.0), "reproduced in part: smaller than in the paper"),
        (around(50.0), "not reproduced: not told from chance"),
        (around(48.0), "not reproduced: the other way round"),
        (around(54.0, seeds=2), "fewer than 3 runs"),
        (around(48.0, seeds=1), "fewer than 3 runs"),
        ([50.0, 54.0, 58.0], "not reproduced: not told from chance"),
    ],
)
def test_verdicts_on_what_the_paper_claims(sanet, verdict):
    result = result_of("table3", {"fcn": [49.0, 50.0, 51.0], "sanet": sanet})
    assert verdicts(result) == {"sanet over fcn": verdict}  # FCN-SE has no runs


@pytest.mark.parametrize(
    ("rival", "verdict"),
    [(around(50), "better"), (around(58), "worse"), (around(54), "not told from chance"), ([50], "fewer than 3 runs")],
)
def test_verdicts_on_what_the_paper_does_not_claim(rival, verdict):
    assert verdicts(result_of("peers", {"sanet": around(54), "fpn": rival})) == {"sanet over fpn": verdict}


def test_a_claim_without_a_figure_in_the_paper_is_reproduced_by_its_sign():
    scores = {"alpha0.2": around(51), "alpha0": around(50.5)}
    assert verdicts(result_of("figure4", scores)) == {"alpha0.2 over alpha0": "reproduced"}


@pytest.mark.parametrize(
    ("sanet", "verdict"),
    [
        (around(54.0), "reproduced"),  # in pixels as in mIoU; the paper has 78.9 against 76.2
        (around(51.5), "reproduced in part: smaller than in the paper"),
        (around(50.0), "not reproduced: not told from chance"),
        (around(48.0), "not reproduced: the other way round"),
    ],
)
def test_what_the_paper_claims_in_pixel_accuracy_is_judged_alike(sanet, verdict):
    result = result_of("table3", {"fcn": around(50), "sanet": sanet})
    assert verdicts(result, "pixel_accuracy") == {"sanet over fcn": verdict}
    found = claims(result)
    assert [claim.text for claim in found] == ["SANet over FCN", "SANet over FCN, pixel accuracy"]
    assert found[1].published == pytest.approx(78.9 - 76.2)
    accuracies = [[2 * miou / (100 + miou) for miou in runs] for runs in (sanet, around(50))]
    assert found[1].difference.mean == pytest.approx(fmean(accuracies[0]) - fmean(accuracies[1]), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"), [("table1", 5), ("table3", 2), ("table6", 0), ("figure4", 0), ("peers", 0)]
)
def test_only_figures_of_the_paper_make_a_claim_in_pixel_accuracy(name, expected):
    networks = {network for claim in EXPERIMENTS[name].claims for network in claim}
    result = result_of(name, {network: around(50) for network in networks})
    assert len(verdicts(result, "pixel_accuracy")) == expected
    assert len(verdicts(result)) == len(EXPERIMENTS[name].claims)


def test_nothing_to_score_is_no_verdict():
    result = result_of("table3", {"fcn": around(50), "sanet": around(54)}, labelled=False)
    assert verdicts(result) == {"sanet over fcn": "nothing to score"}
    (_, (row, _)) = claim_table(claims(result))
    assert row[1:3] == ["—", "—"]
    assert table(result, NOT_MEASURED)[1][0][3:6] == ["—", "—", "—"]


def test_an_interval_needs_three_runs_of_both():
    heading, rows = claim_table(claims(result_of("table3", {"fcn": around(50), "sanet": around(54, seeds=2)})))
    assert heading == ["claim", "difference here", "middle 95 % of the bootstrap", "in the paper", "verdict"]
    assert rows[0] == ["SANet over FCN", "+4.0", "—", "+4.1", "fewer than 3 runs"]
    ((*_, interval, _, _), _) = claim_table(claims(result_of("table3", {"fcn": around(50), "sanet": around(54)})))[1]
    low, high = map(float, interval.split(" to "))
    assert 3.7 < low < 4.0 < high < 4.3


def test_claims_are_drawn_where_their_figures_are():
    scores = {"fcn": around(50), "sanet": around(52), "fcn_se": around(50.5, seeds=1)}
    chart = claim_chart(claims(result_of("table3", scores)))
    better, few, *_ = chart.rows
    (left, first), (right, last) = ((place, float(text)) for place, text in (chart.ticks[0], chart.ticks[-1]))
    assert (left, right) == (0, 100)

    def place(points):
        return pytest.approx(100 * (points - first) / (last - first), abs=0.01)

    assert chart.zero == place(0)
    assert better.dot == place(2.0)
    assert better.paper == place(49.0 - 44.9)
    assert 0 < better.line[0] < better.dot < better.line[1] < 100
    assert (better.kind, better.here) == ("", "+2.0")  # reproduced in part is neither
    assert better.beside[1] == "in the paper +4.1"
    assert few.line is None
    assert few.beside == ["in the paper +4.4"]
    kinds = [
        claim_chart(claims(result_of("table3", {"fcn": around(50), "sanet": around(miou)}))).rows[0].kind
        for miou in (56, 50, 48)
    ]
    assert kinds == ["good", "bad", "bad"]


@pytest.mark.parametrize("spread", [0.0, 0.1, 2.0])
def test_names_in_a_chart_do_not_lie_on_each_other(spread):
    """Six networks of nearly the same cost and score, as rivals may be, and one at the edge with a long name."""
    rows = result_of("peers", {name: [54 + spread * index] for index, name in enumerate(RIVALS)}).rows
    points = chart_of("title", "axis", rows, [3.0, 3.1, 3.2, 3.3, 3.4, 5.0]).points
    boxes = []
    for point in points:
        across, height, anchor = point.label
        left = across if anchor == "start" else across - 6 * len(point.name)
        boxes.append((left, left + 6 * len(point.name), height))
    for index, (left, right, height) in enumerate(boxes):
        for begins, ends, other in boxes[:index]:
            assert right < begins or ends < left or abs(height - other) >= 11.9


def test_nothing_to_score_is_nothing_to_draw():
    result = result_of("table3", {"fcn": around(50), "sanet": around(54)}, labelled=False)
    row, _ = claim_chart(claims(result)).rows
    assert (row.dot, row.line, row.here, row.beside) == (None, None, "—", ["in the paper +4.1"])


def test_table_1_claims_each_step_and_what_all_of_them_add():
    scores = {name: around(50 + index) for index, name in enumerate(("fcn", "sa", "sa-cat", "sanet"))}
    assert [*verdicts(result_of("table1", scores))] == [
        "sa over fcn", "sa-cat over sa", "sanet over sa-cat", "sanet over sa", "sanet over fcn",
    ]  # fmt: skip


def said(result, costs=NOT_MEASURED):
    return "\n".join(preface(result, costs))


def test_what_is_said_of_seeds():
    three, two, one = (
        said(result_of("table3", {"fcn": around(50, n), "sanet": around(54, n)}, seeds=n)) for n in (3, 2, 1)
    )
    assert "Mean ± standard deviation over the seeds, in per cent." in three
    assert "Mean ± standard deviation over the seeds, in per cent." in two
    assert "One seed, in per cent." in one
    assert "86 % with 3 seeds, 91 % with 5 seeds, 93 % with 10 seeds (simulated)" in three
    for text in (one, two):
        assert "bootstrap" not in text
        assert "Fewer than 3 runs of either network have no interval, and are not judged." in text


def test_what_is_said_of_arguments():
    """Which networks have some that their recipes do not."""
    scores = {"fcn": around(50), "sanet": around(54)}
    assert "Arguments of networks, SANet: downsample 2." in said(result_of("table3", scores))
    assert "Arguments of every network, downsample 2." in said(result_of("figure4", {"alpha0.2": around(54)}))
    labels = [row[0] for row in table(result_of("table3", scores), NOT_MEASURED)[1]]
    assert labels == ["FCN", "FCN-SE", "SANet"]
    text = said(result_of("peers", {"sanet": around(54)}))
    assert "SANet: downsample 2; UPerNet: decoder_channels 64; SegFormer decoder: decoder_seg" in text


def test_what_is_said_of_where_the_papers_figures_are_from():
    text = said(result_of("table3", {"sanet": around(54)}))
    assert "The paper's figures (table 3) are those of context59, its own backbones and schedule" in text
    assert "The paper's figures" not in said(result_of("peers", {"sanet": around(54)}))


def test_what_is_said_of_costs():
    result = result_of("table3", {"fcn": around(50), "sanet": around(54)})
    assert "Time and MACs: not measured." in said(result)
    assert "time (ms)" not in table(result, NOT_MEASURED)[0]
    name = result.rows[2].row.name
    costs = Costs(360, 480, Machine("a CPU", 2, "2.0"), {}, {name: RowCost(3_000_000, 10**9, Timing(0.02, 0, 1, 30))})
    assert "the median of 30 passes, the networks in turn, on a CPU, threads: 2, PyTorch 2.0" in said(result, costs)
    heading, (fcn, _, sanet) = table(result, costs)
    assert heading[-3:] == ["parameters (M)", "MACs (G) at 360x480", "time (ms)"]
    assert sanet[-3:] == ["3.00", "1.00", "20"]
    assert fcn[-3:] == ["—", "—", "—"]


def test_what_failed_is_told_with_its_seed():
    result = result_of("table3", {"fcn": around(50), "sanet": around(54, seeds=2)})
    result.rows[2].failures.append("seed 2: no memory")
    text = markdown(result, NOT_MEASURED, claims(result))
    assert "Not finished; the same command tries again:\n\n- SANet, seed 2: no memory" in text
    assert "| 2 of 3 |" in text
