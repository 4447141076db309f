from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from math import nan
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sanet.config import DataConfig, InferenceConfig
from sanet.evaluation.confusion import ConfusionMatrix, scores_of
from sanet.evaluation.protocol import Protocol
from sanet.evaluation.report import score_table, write_report
from sanet.evaluation.results import TRAINED, Evaluation, Example
from sanet.structures import LabelSet
from web_page import Page

UGLY = '<b>&"'


def protocol_of(labels: LabelSet, names: Sequence[str] = ()) -> Protocol:
    contents = {name: (b"image of " + name.encode(), b"labels of " + name.encode()) for name in names}
    inference = InferenceConfig(scales=(1, 1.5), flip=True)
    return Protocol.of(DataConfig("camvid"), "test", names, labels, inference).with_contents(contents)


def evaluation_of(labels: LabelSet, size: tuple[int, int] = (40, 60), used: int | None = None) -> Evaluation:
    """Two pictures with classes 0 to used - 1, a fifth of the pixels wrong, some ignored."""
    generator = np.random.default_rng(0)
    confusion, examples = ConfusionMatrix(labels), []
    for name in ("first.png", f"{UGLY}.png"):
        truth = generator.integers(0, used or len(labels), size)
        wrong = generator.random(size) < 0.2
        prediction = np.where(wrong, (truth + 1) % (used or len(labels)), truth)
        truth[:3] = labels.ignore_index
        miou = scores_of(confusion.update(torch.from_numpy(truth), torch.from_numpy(prediction)), labels).miou
        image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        examples.append(Example(name, image, truth, prediction, miou))
    mious = {example.name: example.miou for example in examples} | {"void.png": nan}
    facts = {"path": Path("run"), UGLY: UGLY, "unknown": nan}
    return Evaluation(
        labels, confusion.counts.numpy(), confusion.scores(), mious, examples, protocol_of(labels, [*mious]), facts
    )


@pytest.fixture
def evaluation() -> Evaluation:
    """Sky, road, a class with an ugly name, and one that is absent."""
    labels = LabelSet(("sky", "road", UGLY, "ghost"), ((0, 0, 255), (90, 90, 90), (255, 0, 0), (0, 255, 0)))
    return evaluation_of(labels, used=3)


def report(path: Path, evaluation: Evaluation, history: list[dict[str, float]]) -> Page:
    write_report(path / "report.html", evaluation, history, f"A {UGLY} title")
    return Page(path / "report.html")


def test_the_page_needs_nothing_but_itself(tmp_path: Path, evaluation: Evaluation) -> None:
    page = report(tmp_path, evaluation, [{"epoch": 0, "train/loss": 1.0}])
    assert len(page.all("img")) == 8
    page.assert_needs_nothing()


def test_names_are_escaped_wherever_they_stand(tmp_path: Path, evaluation: Evaluation) -> None:
    page = report(tmp_path, evaluation, [])
    assert UGLY not in page.source
    for text in (f"A {UGLY} title", f"{UGLY}.png", f"{UGLY} {UGLY}", "sky", "road"):
        assert text in page.text
    assert f"ground truth of {UGLY}.png" in [image["alt"] for image in page.all("img")]


def test_a_picture_comes_first_and_the_protocol_last(tmp_path: Path, evaluation: Evaluation) -> None:
    """Of the run's sentence nothing but its text reaches the page."""
    sentence = "sanet, trained for <script>alert(1)</script>'\"{{ 7 * 7 }}"
    shown = replace(evaluation, typical=evaluation.worst[0], facts={**evaluation.facts, TRAINED: sentence})
    page = report(tmp_path, shown, [{"epoch": 0, "train/loss": 1.0}])
    tags = [tag for tag, _ in page.elements]
    assert tags[tags.index("body") :][:5] == ["body", "h1", "div", "figure", "img"]
    places = [page.source.index(mark) for mark in ('class="panels"', 'class="scores"', 'class="trained"', "<h2>")]
    assert places == sorted(places)
    assert page.all("script") == []
    assert page.text.count(sentence) == 1
    *_, title, protocol = re.split("<h2>(.*)</h2>", page.source)
    digests = [digest[:12] for digest in vars(shown.protocol).values() if re.fullmatch("[0-9a-f]{64}", str(digest))]
    assert (title, len(digests)) == ("Protocol", 3)
    assert all(page.source.count(digest) == protocol.count(digest) == 1 for digest in digests)


def test_the_page_shows_the_scores(tmp_path: Path, evaluation: Evaluation) -> None:
    text = report(tmp_path, evaluation, []).text
    scores = evaluation.scores
    assert f"mean IoU {scores.miou:.1%}" in text
    assert f"pixel accuracy {scores.pixel_accuracy:.1%}" in text
    assert f"mean class accuracy {scores.mean_accuracy:.1%}" in text
    assert f"frequency-weighted IoU {scores.frequency_weighted_iou:.1%}" in text
    assert "without background" not in text
    assert f"sky {100 * scores.class_iou['sky']:.1f} {100 * scores.class_accuracy['sky']:.1f}" in text
    assert "3 of 4 classes present" in text
    assert "window 1024 scales 1, 1.5 flip yes" in text
    assert f"labels SHA-256 {str(evaluation.protocol.labels_sha256)[:12]}" in text
    assert "path run" in text


def test_the_score_without_background_is_shown_where_there_is_one(tmp_path: Path) -> None:
    evaluation = evaluation_of(LabelSet(("other", "leaf"), background=0))
    score = evaluation.scores.miou_without_background
    assert score is not None
    assert f"mean IoU without background {score:.1%}" in report(tmp_path, evaluation, []).text
    assert re.search(rf"^mean IoU without background +{100 * score:.1f} *$", score_table(evaluation), re.MULTILINE)


def test_an_absent_class_is_absent_and_not_0(tmp_path: Path, evaluation: Evaluation) -> None:
    text = report(tmp_path, evaluation, []).text
    assert "ghost absent" in text
    assert "ghost 0.0" not in text
    assert re.search(r"^ghost +absent +— +— +—$", score_table(evaluation), re.MULTILINE)


def test_a_class_predicted_but_never_true_is_0(tmp_path: Path) -> None:
    labels = LabelSet(("sky", "ghost"))
    confusion = ConfusionMatrix(labels)
    confusion.update(torch.zeros(4, dtype=torch.int64), torch.tensor([0, 0, 0, 1]))
    evaluation = Evaluation(labels, confusion.counts.numpy(), confusion.scores(), {"a": 0.375}, [], protocol_of(labels))
    page = report(tmp_path, evaluation, [])
    assert "sky 75.0 75.0 ghost 0.0 —" in page.text
    assert "no true pixel" in page.text
    assert page.all("img") == []
    assert re.search(r"^ghost +0\.0 +0\.0 +0\.0 +—$", score_table(evaluation), re.MULTILINE)


def test_nothing_scored_at_all_still_makes_a_page(tmp_path: Path) -> None:
    labels = LabelSet(("sky", "road"))
    confusion = ConfusionMatrix(labels)
    evaluation = Evaluation(labels, confusion.counts.numpy(), confusion.scores(), {}, [], protocol_of(labels))
    assert "mean IoU —" in report(tmp_path, evaluation, []).text
    assert re.search(r"^mean IoU +— *$", score_table(evaluation), re.MULTILINE)


def test_classes_are_sorted_by_iou_with_absent_ones_last(tmp_path: Path, evaluation: Evaluation) -> None:
    bars = report(tmp_path, evaluation, []).text.split("Dashed line")[1].split("Confusions")[0]
    iou = evaluation.scores.class_iou
    order = sorted((name for name in iou if name != "ghost"), key=lambda name: -iou[name])
    places = [bars.index(f"{name} {100 * iou[name]:.1f}") for name in order] + [bars.index("ghost absent")]
    assert places == sorted(places)


@pytest.mark.parametrize("history", [[], [{"epoch": 0, "lr-SGD": 0.1, "val/iou/sky": 0.3}], [{"train/loss": 1.0}]])
def test_no_curve_no_section(tmp_path: Path, evaluation: Evaluation, history: list[dict[str, float]]) -> None:
    page = report(tmp_path, evaluation, history)
    assert "Learning curves" not in page.text
    assert page.all("svg") == []


def test_curves_skip_missing_values(tmp_path: Path, evaluation: Evaluation) -> None:
    history = [
        {"epoch": 0, "step": 9, "train/loss": 2.0, "train/mask": nan},
        {"epoch": 0, "step": 9, "val/miou": 0.25, "val/iou/sky": 0.9, "train/loss": nan},
        {"epoch": 1, "step": 19, "train/loss": 1.0},
        {"epoch": 2, "step": 29, "train/loss": 0.5},
        {"epoch": 2, "step": 29, "val/miou": 0.2},
    ]
    page = report(tmp_path, evaluation, history)
    assert "train/loss 0.5" in page.text
    assert "mean IoU best 25.0%, epoch 1" in page.text
    assert "train/mask" not in page.text
    assert "sky best" not in page.text
    # Each curve has a stroke of its own; two epochs are twice as far from epoch 1 as one, and lower is less.
    strokes = [path for path in page.all("path") if "stroke-linecap: square" in path.get("style", "")]
    points = [re.findall(r"([-\d.]+) ([-\d.]+)", path["d"]) for path in strokes if "clip-path" in path]
    losses, scores = ([(float(x), float(y)) for x, y in curve] for curve in points)
    assert (len(losses), len(scores)) == (3, 2)
    assert losses[2][0] - losses[0][0] == pytest.approx(2 * (losses[1][0] - losses[0][0]), abs=0.2)
    assert losses[0][1] < losses[1][1] < losses[2][1]
    assert scores[1][1] > scores[0][1]


def test_the_same_curves_are_the_same_page(tmp_path: Path, evaluation: Evaluation) -> None:
    history = [{"epoch": epoch, "train/loss": 1e-7 * epoch, f"train/{UGLY}": 9e9} for epoch in range(13)]
    first = report(tmp_path, evaluation, history).source
    assert report(tmp_path, evaluation, history).source == first
    assert UGLY not in first


def test_the_confusion_matrix_shows_the_shares_of_each_row(tmp_path: Path, evaluation: Evaluation) -> None:
    page = report(tmp_path, evaluation, [])
    share = evaluation.confusion[0] / evaluation.confusion[0].sum()
    cells = {cell["title"]: cell["class"] for cell in page.all("td") if "title" in cell}
    assert cells[f"sky → sky: {share[0]:.1%}"].split()[:2] == ["cell", "ok"]
    assert cells[f"sky → road: {share[1]:.1%}"].split()[:2] == ["cell", "no"]
    assert len(cells) == 6
    assert f"sky {100 * share[0]:.0f} {100 * share[1]:.0f}" in page.text.split("predicted →")[1]


@pytest.mark.parametrize(("classes", "numbered"), [(21, True), (22, False)])
def test_few_classes_have_numbers_in_the_matrix(tmp_path: Path, classes: int, numbered: bool) -> None:
    evaluation = evaluation_of(LabelSet(tuple(f"c{index}" for index in range(classes))), size=(80, 120))
    page = report(tmp_path, evaluation, [])
    assert len([cell for cell in page.all("td") if "cell" in cell.get("class", "")]) == classes**2
    matrix = page.text.split("predicted →")[1].split("Worst images")[0].split()
    assert any(word.isdecimal() for word in matrix) == numbered


def test_wide_pictures_shrink_and_their_masks_keep_pure_colours(tmp_path: Path) -> None:
    labels = LabelSet(("sky", "road"), ((10, 200, 30), (250, 20, 90)))
    page = report(tmp_path, evaluation_of(labels, size=(50, 1000)), [])
    pictures = [Image.open(BytesIO(b64decode(image["src"].split(",")[1]))) for image in page.all("img")]
    assert {picture.size for picture in pictures} == {(640, 32)}
    truth = pictures[1].convert("RGB").getcolors()
    assert {color for _, color in truth or []} == {*labels.colors, (255, 255, 255)}


def test_the_worst_images_come_in_the_order_given(tmp_path: Path, evaluation: Evaluation) -> None:
    text = report(tmp_path, evaluation, []).text
    first, second = evaluation.worst
    assert text.index(f"{first.name} {first.miou:.1%}") < text.index(f"{second.name} {second.miou:.1%}")


def test_the_table_is_aligned_and_states_its_rule(evaluation: Evaluation) -> None:
    *lines, rule = score_table(evaluation).splitlines()
    assert "absent" in rule
    header, line, *rows = lines[:6]
    assert {len(row) for row in (header, line, *rows)} == {len(line)}
    assert [row.split()[0] for row in rows] == list(evaluation.labels.names)
    for row in rows[:3]:
        name, iou, _, _, accuracy = row.split()
        assert float(iou) == pytest.approx(100 * evaluation.scores.class_iou[name], abs=0.051)
        assert float(accuracy) == pytest.approx(100 * evaluation.scores.class_accuracy[name], abs=0.051)
    assert re.search(rf"^mean IoU +{100 * evaluation.scores.miou:.1f} *$", "\n".join(lines), re.MULTILINE)
