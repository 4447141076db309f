"""Where a model is wrong, counted by loops; wrong labels that were planted; the page, the table and the command."""

import csv
import json
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sanet
from sanet.cli.main import main
from sanet.insight.error_counts import RANGES, ErrorRates, costs_of
from sanet.insight.suspects import NEAR, ODDS, doubts_in
from sanet.models.networks import SegmentationModel
from sanet.structures import LabelSet, SanetError, SegmentationOutput, UsageError
from web_page import Page

UGLY = "<b>&\"'"
NAMES = ("road", UGLY, "tree")
LABELS = LabelSet(NAMES, ((90, 90, 90), (255, 0, 0), (0, 160, 0)))
STEP, SURE = 60, 9.0
PLANTED = (10, 20, 31, 34)  # left, top, right, bottom


class Knowing(SegmentationModel):
    """Reads the class from the red of a pixel, with the same certainty everywhere."""

    seen = 0

    def forward(self, images):
        type(self).seen += len(images)
        classes = (images[:, 0].long() // STEP).clamp(0, 2)
        logits = SURE * torch.nn.functional.one_hot(classes, 3).permute(0, 3, 1, 2).float()
        return SegmentationOutput(logits, logits, None, None)


@pytest.fixture(scope="module")
def model():
    return Knowing("fcn", "test_resnet", LABELS)


def write(root, name, shown, mask):
    """An image that is known to be of these classes, and a mask that may say something else."""
    for kind in ("images", "masks"):
        (root / "val" / kind).mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(name)).integers(0, 256, (*shown.shape, 3), np.uint8)
    noise[..., 0] = STEP * shown + 10
    Image.fromarray(noise).save(root / "val" / "images" / f"{name}.png")
    Image.fromarray(mask.astype(np.uint8)).save(root / "val" / "masks" / f"{name}.png")


@pytest.fixture
def data(tmp_path):
    """Ten images with labels a pixel beside what they show; of one a region has another label."""
    for index in range(10):
        shown = np.zeros((64, 80), int)
        shown[:, 40 + index :] = 2
        shown[: 10 + index] = 1
        mask = np.roll(shown, (1, 1), axis=(0, 1))
        mask[0], mask[:, 0] = 255, 255
        if index == 6:
            left, top, right, bottom = PLANTED
            mask[top:bottom, left:right] = 2
        write(tmp_path / "data", f"{index}{UGLY}", shown, mask)
    return sanet.DataConfig("folder", str(tmp_path / "data"), NAMES)


def random_masks(size, ignored=255):
    """Labels in blocks, small ones on the right, a large one on the left; and a prediction that differs in blocks."""
    rng = np.random.default_rng(0)

    def blocks(side):
        return np.kron(rng.integers(0, 3, (size[0] // side, size[1] // side)), np.ones((side, side), int))

    truth = blocks(4)
    truth[:, : size[1] // 2], truth[20:23] = 1, 2
    prediction = np.where(blocks(10) == 0, (truth + 1) % 3, truth)
    truth[rng.random(size) < 0.003] = ignored
    return truth, prediction


def beside(mask, row, column):
    """The values above, below and beside a pixel; None outside."""
    for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
        yield mask[r, c] if 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] else None


def steps_by_loops(mask):
    rows, columns = np.indices(mask.shape)
    found = np.full(mask.shape, 10**6)
    for row, column in np.ndindex(mask.shape):
        if any(other is not None and other != mask[row, column] for other in beside(mask, row, column)):
            found = np.minimum(found, np.maximum(abs(rows - row), abs(columns - column)))
    return found


def regions_by_loops(mask, ignored):
    """The pixels of every region, which hang together over eight neighbours."""
    left = {place for place in np.ndindex(mask.shape) if mask[place] != ignored}
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            row, column = edge.pop()
            region.add((row, column))
            near = {(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)} & left
            near = {place for place in near if mask[place] == mask[row, column]}
            left -= near
            edge += near
        yield region


@pytest.mark.parametrize("ignored", [255, -1])
def test_rates_are_those_of_loops(ignored):
    expected, found = np.zeros((3, 2, 7), np.int64), ErrorRates()
    for size in ((40, 80), (60, 60)):
        truth, prediction = random_masks(size, ignored)
        found.add(truth, prediction, LabelSet(NAMES, ignore_index=ignored))
        steps, values = steps_by_loops(truth), np.zeros((3, *size))
        for region in regions_by_loops(truth, ignored):
            inside = np.zeros(size, int)
            for place in region:
                inside[place] = 1
            outline = sum(not other for row, column in region for other in beside(inside, row, column))
            for place in region:
                shares = 100 * len(region) / truth.size, 2 * len(region) / outline
                values[(slice(None), *place)] = steps[place], *shares
        for place in zip(*np.nonzero(truth != ignored), strict=True):
            for kind, starts in enumerate(RANGES.values()):
                which = max(at for at, start in enumerate(starts) if start <= values[(kind, *place)])
                expected[kind, :, which] += 1, truth[place] != prediction[place]
    assert np.array_equal(found.counts, expected)
    assert (expected.sum(axis=2) > 1000).all()
    assert (np.count_nonzero(expected[:, 1], axis=1) >= 3).all()
    for rows, counts in zip(found.tables().values(), expected, strict=True):
        assert sum(share for _, share, _ in rows) == pytest.approx(1)
        assert [rate for *_, rate in rows] == pytest.approx([bad / all for all, bad in counts.T if all])


def test_an_image_without_a_boundary_is_far_from_one():
    found = ErrorRates()
    found.add(np.zeros((20, 30), int), np.ones((20, 30), int), LABELS)
    assert found.counts[0].tolist() == [[0] * 6 + [600]] * 2


def test_a_confusion_costs_what_mending_it_gains():
    counts = np.random.default_rng(0).integers(0, 50, (4, 4))
    counts[3], counts[:, 3] = 0, 0  # a class that is absent

    def miou(counts):
        hits = np.diag(counts)
        with np.errstate(invalid="ignore"):
            return np.nanmean(hits / (counts.sum(0) + counts.sum(1) - hits))

    costs = costs_of(counts)
    for true, predicted in np.ndindex(4, 4):
        mended = counts.copy()
        mended[true, true] += 0 if true == predicted else counts[true, predicted]
        mended[true, predicted] = mended[true, predicted] if true == predicted else 0
        assert costs[true, predicted] == pytest.approx(miou(mended) - miou(counts))


def test_the_score_is_that_of_loops():
    truth, prediction = random_masks((40, 460))
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.4, 1, truth.shape).astype(np.float32)
    odds = np.where(truth == prediction, 0, rng.uniform(0, 10, truth.shape)).astype(np.float32)
    near = round(NEAR * np.hypot(*truth.shape))
    assert (near, ODDS) == (2, 50)
    steps = np.minimum(steps_by_loops(truth), steps_by_loops(prediction))
    labelled = truth != 255
    score = sum(
        max(0, odds[place] - log(50)) * min(1, steps[place] / near)
        for place in np.ndindex(truth.shape)
        if labelled[place]
    )
    found, doubts, marks = doubts_in(LABELS, truth, prediction, confidence, odds)
    assert found == pytest.approx(score / labelled.sum(), rel=1e-5)
    assert (found > 0, len(doubts)) == (True, 5)
    for number, doubt in enumerate(doubts, 1):
        rows, columns = np.nonzero(marks == number)
        assert doubt.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert doubt.pixels == len(rows)
        assert doubt.confidence == pytest.approx(confidence[marks == number].mean())
        assert {NAMES[value] for value in truth[marks == number]} == {doubt.label}
        assert {NAMES[value] for value in prediction[marks == number]} == {doubt.predicted}


def test_a_planted_error_comes_first_and_each_image_is_labelled_once(model, data):
    Knowing.seen = 0
    found = sanet.errors(model, data, "val", suspects=3, seed=1)
    assert Knowing.seen == 10
    first, *others = found.suspects
    ((box, label, predicted, confidence, pixels),) = first.regions
    assert first.image == f"6{UGLY}"
    assert (box, label, predicted) == (PLANTED, "tree", "road")
    assert pixels == (PLANTED[2] - PLANTED[0]) * (PLANTED[3] - PLANTED[1])
    assert confidence == pytest.approx(exp(SURE) / (exp(SURE) + 2), rel=1e-5)
    assert first.score > 0
    # A boundary that is a pixel off is none's fault.
    assert [(suspect.score, suspect.regions) for suspect in others] == [(0, [])] * 9
    assert [bool(suspect.example) for suspect in found.suspects] == [True] + [False] * 9
    assert np.array_equal(first.marks > 0, np.pad(np.ones((14, 21), bool), ((20, 30), (10, 49))))


def test_examples_are_the_best_the_worst_and_drawn_ones(model, data):
    found = sanet.errors(model, data, "val", seed=1)
    assert len(found.image_miou) == 10
    order = sorted(found.image_miou, key=lambda name: found.image_miou[name])
    assert [example.name for example in found.examples["worst"]] == order[:4]
    assert [example.name for example in found.examples["best"]] == order[::-1][:4]
    drawn = [
        {example.name for example in sanet.errors(model, data, "val", seed=seed).examples["random"]}
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(names) == 4 for names in drawn)


def test_confusions_show_where_they_are(model, data):
    found = sanet.errors(model, data, "val")
    scores = sanet.evaluate(model, data, "val", progress=False)
    assert np.array_equal(found.confusion, scores.confusion)
    assert found.image_miou == pytest.approx(scores.image_miou)
    costs = [confusion.cost for confusion in found.confusions]
    assert costs == sorted(costs, reverse=True)
    by_pair = {(confusion.label, confusion.predicted): confusion for confusion in found.confusions}
    assert by_pair.keys() == {(NAMES[t], NAMES[p]) for t, p in np.argwhere(found.confusion) if t != p}
    planted = by_pair["tree", "road"]
    assert planted.pixels == found.confusion[2, 0]
    assert planted.example.name == f"6{UGLY}"
    assert ((planted.example.truth == 2) & (planted.example.prediction == 0)).sum() >= 14 * 21


def test_the_page_needs_nothing_and_escapes_names(model, data, tmp_path):
    found = sanet.errors(model, data, "val", tmp_path / "out", suspects=5)
    page = Page(tmp_path / "out" / "errors.html")
    page.assert_needs_nothing()
    assert UGLY not in page.source
    assert "<b>&" not in page.source
    assert f"1. 6{UGLY}" in page.text
    assert f"{UGLY}, taken for road" in page.text or f"road, taken for {UGLY}" in page.text
    assert "labelled tree , predicted road with a confidence of 100.0%, on 294 pixels from column 10, row" in page.text
    wrong = int(found.confusion.sum() - found.confusion.trace())
    assert f"10 images, {found.confusion.sum():,} labelled pixels, of which {wrong:,} are wrong" in page.text
    for title, rows in found.rates.tables().items():
        assert title in page.text
        for name, share, rate in rows:
            assert f"{name} {100 * rate:.1f} {100 * share:.1f}" in page.text
    pictures = 3 * 1 + 4 * len(found.confusions) + 4 * (4 + 4 + 4)
    assert len(page.all("img")) == pictures


def test_the_table_has_all_images_in_their_order(model, data, tmp_path):
    found = sanet.errors(model, data, "val", tmp_path / "out")
    with (tmp_path / "out" / "suspects.csv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [(row["rank"], row["image"], float(row["score"])) for row in rows] == [
        (str(rank), suspect.image, suspect.score) for rank, suspect in enumerate(found.suspects, 1)
    ]
    first = rows[0]
    assert tuple(int(first[side]) for side in ("left", "top", "right", "bottom")) == PLANTED
    assert (first["label"], first["predicted"], first["pixels"]) == ("tree", "road", "294")
    assert float(first["confidence"]) == found.suspects[0].regions[0].confidence
    assert {row["label"] for row in rows[1:]} == {""}


def test_the_suspects_predictions_for_a_tool(model, data, tmp_path):
    sanet.errors(model, data, "val", tmp_path / "out", format="labelme")
    (file,) = (tmp_path / "out" / "labelme").glob("*.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["imagePath"] == f"6{UGLY}.png"
    assert (tmp_path / "out" / "labelme" / content["imagePath"]).read_bytes() == (
        Path(data.root) / "val" / "images" / content["imagePath"]
    ).read_bytes()
    assert {shape["label"] for shape in content["shapes"]} == {*NAMES}
    with pytest.raises(UsageError, match="annotation format"):
        sanet.errors(model, data, "val", tmp_path / "other", format="no such")
    scenes = sanet.DataConfig("scenes")
    network = sanet.create_model("fcn", "test_resnet", labels=sanet.data_source(scenes).labels)
    with pytest.raises(UsageError, match="files of one page"):
        sanet.errors(network, scenes, "val", tmp_path / "scenes", format="labelme")


def test_what_cannot_be_compared_is_refused(data):
    with pytest.raises(SanetError, match="would compare different things"):
        sanet.errors(sanet.create_model("fcn", "test_resnet", num_classes=3), data, "val")
    with pytest.raises(UsageError, match="unknown split"):
        sanet.errors(Knowing("fcn", "test_resnet", LABELS), data, "test")


def test_nothing_labelled_and_windows(model, tmp_path):
    """An image of the ignored value alone is no suspect; windows give what the whole image gives."""
    shown = np.zeros((70, 90), int)
    shown[:, 30:] = 1
    write(tmp_path, "void", shown, np.full(shown.shape, 255))
    mask = shown.copy()
    mask[20:50, 50:80] = 2
    write(tmp_path, "wrong", shown, mask)
    data = sanet.DataConfig("folder", str(tmp_path), NAMES)
    whole = sanet.errors(model, data, "val")
    assert [suspect.image for suspect in whole.suspects] == ["wrong", "void"]
    assert [example.name for example in whole.examples["best"]] == ["wrong"]
    parts = sanet.errors(model, data, "val", inference=sanet.InferenceConfig(window=40))
    flipped = sanet.errors(model, data, "val", inference=sanet.InferenceConfig(flip=True))
    for other in (parts, flipped):
        assert other.suspects[0].score == pytest.approx(whole.suspects[0].score, rel=1e-4)
        assert other.suspects[0].regions[0].box == (50, 20, 80, 50)


def test_the_command(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sanet.create_model("fcn", "test_resnet", labels=LABELS).save_pretrained(tmp_path / "runs" / "a" / "model")
    words = ["errors", "runs/a", "--split", "val", "--data.name", "folder", "--data.root", "data"]
    words += ["--data.classes", json.dumps(NAMES), "--device", "cpu", "--suspects", "2", "--shorter_side", "64"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert {path.name for path in Path("runs/a/errors-val").iterdir()} == {".sanet.sums", "errors.html", "suspects.csv"}
    assert "runs/a/errors-val/errors.html" in said
    assert "shorter side 64" in Page(tmp_path / "runs/a/errors-val/errors.html").text
    assert main([*words, "--output", "out", "--format", "coco"]) == 0
    assert {path.name for path in Path("out").iterdir()} == {".sanet.sums", "errors.html", "suspects.csv", "coco"}
    Path("out/suspects.csv").write_text("mine")
    assert main([*words, "--output", "out"]) == 2
    assert Path("out/suspects.csv").read_text() == "mine"
