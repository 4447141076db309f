"""Results that are written, read back, and set side by side."""

import dataclasses
import json
import re
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest
import torch

from sanet.config import DataConfig, InferenceConfig
from sanet.evaluation.compare import compare
from sanet.evaluation.confusion import scores_of, sums_of
from sanet.evaluation.protocol import Protocol
from sanet.evaluation.results import Evaluation, read_scores, write_scores
from sanet.structures import LabelSet, SanetError, UsageError

UGLY = '<b>&"ü'
LABELS = LabelSet(("sky", UGLY, "ghost"), background=0)


def evaluation_of(seed=0, labels=LABELS, names=("a", "b", "void"), inference=InferenceConfig(), labelled=b"", **facts):
    """Counts of all classes but the last one, mIoUs of all pictures but the last one."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, 10**12, (len(labels), len(labels)))
    counts[-1] = counts[:, -1] = 0
    miou = dict(zip(names, [*generator.random(len(names) - 1).tolist(), nan], strict=True))
    contents = {name: (name.encode(), labelled + name.encode()) for name in names}
    protocol = Protocol.of(DataConfig("camvid"), "test", names, labels, inference).with_contents(contents)
    return Evaluation(
        labels, counts, scores_of(torch.from_numpy(counts), labels), miou, [], protocol, facts, metrics={"f1": 0.5}
    )


def written(folder, *evaluations):
    paths = []
    for index, evaluation in enumerate(evaluations):
        paths.append(folder / f"run{index}")
        paths[-1].mkdir()
        write_scores(paths[-1] / "scores.json", evaluation)
    return paths


def test_json_is_strict_and_holds_the_numbers(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    evaluation = evaluation_of(path=Path("run"), unknown=nan, **{UGLY: [1, (2,)]})
    (folder,) = written(tmp_path, evaluation)
    content = json.loads((folder / "scores.json").read_text(encoding="utf-8"), parse_constant=refuse)
    scores = dataclasses.asdict(evaluation.scores)
    for name in ("class_iou", "class_accuracy"):
        scores[name] = {key: None if isnan(value) else value for key, value in scores[name].items()}
    assert content["scores"] == scores
    assert content["scores"]["class_iou"]["ghost"] is None
    assert content["confusion"] == evaluation.confusion.tolist()
    assert LabelSet(**content["labels"]) == LABELS
    assert content["image_miou"] == {**evaluation.image_miou, "void": None}
    assert content["facts"] == {"path": "run", "unknown": None, UGLY: [1, [2]]}
    assert Protocol.read(content["protocol"]) == evaluation.protocol


@pytest.mark.parametrize("labels", [LABELS, LabelSet(("x", "y")), LabelSet(("x", "y"), background_ignored=True)])
def test_what_was_written_is_read_back(tmp_path, labels):
    evaluation = evaluation_of(labels=labels, model="m")
    (folder,) = written(tmp_path, evaluation)
    for path in (folder, str(folder), folder / "scores.json"):
        found = read_scores(path)
        assert np.array_equal(found.confusion, evaluation.confusion)
        assert found.confusion.dtype == np.int64
        for name in ("scores", "image_miou"):  # NaN is equal to nothing
            assert repr(getattr(found, name)) == repr(getattr(evaluation, name))
        for name in ("labels", "protocol", "facts", "worst", "metrics"):
            assert getattr(found, name) == getattr(evaluation, name)


@pytest.mark.parametrize(
    "change",
    [
        "",
        "[]",
        "{}",
        {"format": 3},
        {"format": None},  # as of 0.1.0
        {"protocol": {"data": "camvid"}},
        {"labels": None},
        {"confusion": [[1]]},
        {"confusion": "text"},
        {"image_miou": 3},
        {"metrics": None},
    ],
    ids=str,
)
def test_what_is_no_result_is_named(tmp_path, change):
    (folder,) = written(tmp_path, evaluation_of())
    path = folder / "scores.json"
    if isinstance(change, dict):
        change = json.dumps(json.loads(path.read_text(encoding="utf-8")) | change)
    path.write_text(change, encoding="utf-8")
    with pytest.raises(SanetError, match=re.escape(str(path))):
        read_scores(path)


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(SanetError, match=r"nowhere"):
        read_scores(tmp_path / "nowhere")
    with pytest.raises(SanetError, match=r"scores\.json"):
        read_scores(tmp_path)


def test_counts_of_the_images_come_back_and_have_to_fit(tmp_path):
    plain = evaluation_of()
    sums = np.zeros((3, 3, 3), np.int64)
    sums[1] = sums_of(torch.from_numpy(plain.confusion)).numpy()
    one, other = written(tmp_path, dataclasses.replace(plain, image_sums=sums), evaluation_of(1))
    assert np.array_equal(read_scores(one).image_sums, sums)
    assert read_scores(other).image_sums is None
    (other / "image_counts.npz").write_bytes((one / "image_counts.npz").read_bytes())
    with pytest.raises(SanetError, match=r"image_counts\.npz does not belong"):
        read_scores(other)
    (one / "image_counts.npz").write_bytes(b"PK\3\4")
    with pytest.raises(SanetError, match=re.escape(str(one))):
        read_scores(one)


def test_results_stand_side_by_side(tmp_path):
    results = [evaluation_of(seed) for seed in range(3)]
    paths = written(tmp_path, *results)
    table = compare([paths[0], paths[1] / "scores.json", str(paths[2])])
    lines = table.splitlines()
    fed = f"({results[0].protocol.inference_text()})"
    assert lines[:3] == [f"[1] {paths[0]} {fed}", f"[2] {paths[1] / 'scores.json'} {fed}", f"[3] {paths[2]} {fed}"]
    assert lines[3] == f"camvid test, 3 images; SHA-256 of the ground truth {results[0].protocol.digest[:12]}"
    assert len({len(line) for line in lines[5:-1]}) == 1

    def column(pick):
        return [f"{100 * pick(result):.1f}" for result in results]

    text = {name: values for line in lines[5:-1] for name, values in [_row(line, 3)]}
    assert text["sky"] == column(lambda result: result.scores.class_iou["sky"])
    assert text[UGLY] == column(lambda result: result.scores.class_iou[UGLY])
    assert text["ghost"] == ["absent"] * 3
    assert text["mean IoU"] == column(lambda result: result.scores.miou)
    assert text["mean IoU without background"] == column(lambda result: result.scores.miou_without_background)
    assert "mean IoU with background (as IoU 0)" not in text
    assert text["pixel accuracy"] == column(lambda result: result.scores.pixel_accuracy)
    a, b = ([result.image_miou[name] for result in results] for name in ("a", "b"))
    assert text["mean of the images' mIoU"] == [f"{50 * (x + y):.1f}" for x, y in zip(a, b, strict=True)]
    differences = [50 * (a[i] - a[0] + b[i] - b[0]) for i in (1, 2)]
    assert text["images' mIoU against [1], mean"] == ["—", *(f"{value:+.1f}" for value in differences)]
    counts = [f"{(a[i] > a[0]) + (b[i] > b[0])}/0/{(a[i] < a[0]) + (b[i] < b[0])}" for i in (1, 2)]
    assert text["better/same/worse"] == ["—", *counts]


def _row(line, columns):
    """The name at the left, and the values."""
    words = line.split()
    return " ".join(words[:-columns]), words[-columns:]


def test_a_result_against_itself_and_alone(tmp_path):
    (path,) = written(tmp_path, evaluation_of())
    text = dict(_row(line, 2) for line in compare([path, path]).splitlines()[4:-1])
    assert text["images' mIoU against [1], mean"] == ["—", "+0.0"]
    assert text["better/same/worse"] == ["—", "0/2/0"]
    assert "against [1]" not in compare([path])
    with pytest.raises(UsageError, match="name the results"):
        compare([])


def test_a_picture_that_one_result_cannot_score_is_in_no_pair(tmp_path):
    other = evaluation_of(1)
    paths = written(tmp_path, evaluation_of(0), dataclasses.replace(other, image_miou={**other.image_miou, "a": nan}))
    text = dict(_row(line, 2) for line in compare(paths).splitlines()[4:-1])
    assert sum(map(int, text["better/same/worse"][1].split("/"))) == 1


def test_other_ground_truth_is_refused_with_every_difference(tmp_path):
    paths = written(
        tmp_path,
        evaluation_of(),
        evaluation_of(1),
        evaluation_of(2, names=("a", "c", "void")),
        evaluation_of(3, labelled=b"corrected"),
    )
    with pytest.raises(SanetError) as caught:
        compare(paths)
    message = str(caught.value)
    assert f"{paths[0]} against {paths[2]}: names SHA-256" in message
    assert f"{paths[0]} against {paths[3]}: labels SHA-256" in message
    assert f"{paths[0]} against {paths[3]}: images SHA-256" not in message
    assert str(paths[1]) not in message
    assert compare(paths[:2])


def test_another_feeding_is_shown_beside_the_scores(tmp_path):
    paths = written(
        tmp_path, evaluation_of(), evaluation_of(1, inference=InferenceConfig(512, flip=True, shorter_side=720))
    )
    first, second, *_ = compare(paths).splitlines()
    assert "window 512, scales 1, flip yes, shorter side 720" in second
    assert "window 1024, scales 1, flip no, shorter side none" in first
