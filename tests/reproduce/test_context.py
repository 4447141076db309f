"""PASCAL Context: every one of 459 labels becomes the right class of the 59, background or nothing."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from miniatures import CONTEXT_TRAIN, CONTEXT_VAL, write_context
from reproduce import context
from sanet.config import DataConfig, TrainConfig
from sanet.data.check import check_data
from sanet.evaluation.confusion import SCORE_NAMES, ConfusionMatrix, scores_of
from sanet.evaluation.protocol import Protocol
from sanet.evaluation.report import score_table
from sanet.evaluation.results import Evaluation
from sanet.structures import SanetError
from sanet.training.task import logged_names

# The classes of the other projects that train on PASCAL Context, in their order: that of the labels' numbers.
ALPHABETICAL = """
    aeroplane bag bed bedclothes bench bicycle bird boat book bottle building bus cabinet car cat ceiling chair cloth
    computer cow cup curtain dog door fence floor flower food grass ground horse keyboard light motorbike mountain
    mouse person plate platform pottedplant road rock sheep shelves sidewalk sign sky snow sofa table track train tree
    truck tvmonitor wall water window wood
"""
PROTOCOLS = pytest.mark.parametrize("name", ["context59", "context60"])


def open_root(root: Path, name: str, allow_subset: bool = True) -> context.Context59:
    kind = {"context59": context.Context59, "context60": context.Context60}[name]
    return kind(str(root), allow_subset)


def expected_class(label: int, name: str) -> int:
    """By the definition, one label at a time."""
    for index, number in enumerate(context.CLASSES.values()):
        if number == label:
            return index + (name == "context60")
    return 0 if name == "context60" else 255


@PROTOCOLS
def test_miniature(tmp_path: Path, name: str) -> None:
    labels = write_context(tmp_path)
    found = open_root(tmp_path, name)
    assert found.splits == ("train", "val")
    for split, names in (("train", CONTEXT_TRAIN), ("val", CONTEXT_VAL)):
        dataset = pickle.loads(pickle.dumps(found.open(split)))
        assert dataset.names == list(names)
        for index, picture in enumerate(names):
            mask = dataset[index].mask.numpy()
            assert mask.dtype == np.int64
            for place, label in np.ndenumerate(labels[picture]):
                assert mask[place] == expected_class(int(label), name)
    diagnosis = check_data(found, progress=False)
    assert diagnosis.findings == []
    masks = np.stack([found.open("val")[index].mask.numpy() for index in range(2)])
    assert diagnosis.pixels["val"].tolist() == [int((masks == index).sum()) for index in range(len(found.labels))]
    assert diagnosis.ignored["val"] == int((masks == 255).sum())


def test_the_protocol_is_in_the_labels() -> None:
    assert (len(context.Context59.labels), len(context.Context60.labels)) == (59, 60)
    assert (context.Context59.labels.background, context.Context59.labels.background_ignored) == (None, True)
    assert (context.Context60.labels.background, context.Context60.labels.background_ignored) == (0, False)
    assert context.Context60.labels.names == ("background", *context.Context59.labels.names)
    assert context.COUNTS == {"train": 4998, "val": 5105}
    full = {number: context.FULL_NAMES.get(name, name) for name, number in context.CLASSES.items()}
    assert [full[number] for number in sorted(full)] == ALPHABETICAL.split()


@PROTOCOLS
def test_every_label_has_one_meaning(tmp_path: Path, name: str) -> None:
    write_context(tmp_path)
    table = open_root(tmp_path, name).table
    assert list(table) == [expected_class(label, name) for label in range(460)]
    counts = np.bincount(table, minlength=256)
    assert counts[:60].tolist() == ([401] + [1] * 59 if name == "context60" else [1] * 59 + [0])


@PROTOCOLS
def test_unknown_labels_are_named(tmp_path: Path, name: str) -> None:
    write_context(tmp_path)
    found = open_root(tmp_path, name)
    path = tmp_path / "trainval" / f"{CONTEXT_VAL[0]}.mat"
    scipy.io.savemat(path, {"LabelMap": np.full((48, 64), 460, np.uint16)})
    with pytest.raises(SanetError, match=rf"{CONTEXT_VAL[0]}\.mat .* to 460"):
        found.open("val")[0]


def test_lists_of_names_are_checked_where_they_are(tmp_path: Path) -> None:
    write_context(tmp_path)
    for name, old, new, message in (
        ("labels.txt", "113: dog", "113: hound", r"labels\.txt gives 'dog' the number None, not 113"),
        ("labels.txt", "397: table", "397: stool", r"labels\.txt gives 'table' the number None, not 397"),
        ("59_labels.txt", "12: dog", "12: wolf", r"does not name the 59 classes: dog, wolf"),
        ("59_labels.txt", "12: dog", "twelve: dog", r"has a line that is not like"),
        ("labels.txt", "113: dog", "dog", r"has a line that is not like"),
    ):
        path = tmp_path / name
        text = path.read_text()
        path.write_text(text.replace(old, new))
        with pytest.raises(SanetError, match=message):
            open_root(tmp_path, "context59")
        path.write_text(text)
    # The task's own names of three classes, and those of the full list, are the same classes.
    text = (tmp_path / "59_labels.txt").read_text().replace("diningtable", "table")
    (tmp_path / "59_labels.txt").write_text(f"0: background\n{text}")
    open_root(tmp_path, "context59")
    # Windows' ends of lines, its byte order mark and spaces at the end change no name.
    for name in ("labels.txt", "59_labels.txt"):
        path = tmp_path / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b" \t\r\n"))
    open_root(tmp_path, "context59")
    for name in ("labels.txt", "59_labels.txt"):
        (tmp_path / name).unlink()
    assert open_root(tmp_path, "context59").open("val").names == list(CONTEXT_VAL)


@PROTOCOLS
def test_counts_and_folders(tmp_path: Path, name: str) -> None:
    with pytest.raises(SanetError, match="JPEGImages"):
        open_root(tmp_path, name)
    write_context(tmp_path)
    with pytest.raises(SanetError, match=r"train\.txt has 3 .*4998"):
        open_root(tmp_path, name, allow_subset=False)
    (tmp_path / "trainval").rename(tmp_path / "elsewhere")
    with pytest.raises(SanetError, match="trainval"):
        open_root(tmp_path, name)


def test_a_val_picture_in_train_is_refused(tmp_path: Path) -> None:
    write_context(tmp_path, train=(*CONTEXT_TRAIN, CONTEXT_VAL[1]))
    with pytest.raises(SanetError, match=f"also in val: .*{CONTEXT_VAL[1]}"):
        open_root(tmp_path, "context60").open("train")


def test_the_ignored_background_is_one_more_class_of_iou_0() -> None:
    rng = np.random.default_rng(0)
    counts = torch.from_numpy(rng.integers(0, 9, (59, 59)))
    counts[7], counts[:, 7] = 0, 0  # an absent class
    scores = scores_of(counts, context.Context59.labels)
    present = [iou for iou in scores.class_iou.values() if iou == iou]
    assert len(present) == 58
    assert scores.miou == pytest.approx(sum(present) / 58)
    assert scores.miou_with_background == pytest.approx(sum(present) / 59)
    # Counting the ignored pixels as background that was never found gives the same.
    whole = torch.zeros(60, 60, dtype=torch.int64)
    whole[1:, 1:] = counts
    whole[0, 1] = 0
    whole[0, 2] = 0
    as_60 = scores_of(whole, context.Context60.labels)
    assert as_60.miou_without_background == pytest.approx(scores.miou)
    nothing = ConfusionMatrix(context.Context59.labels).scores().miou_with_background
    assert nothing is not None
    assert nothing != nothing


def test_both_scores_are_printed_beside_each_other() -> None:
    for labels, shown, hidden in (
        (context.Context59.labels, "miou_with_background", "miou_without_background"),
        (context.Context60.labels, "miou_without_background", "miou_with_background"),
    ):
        counts = torch.eye(len(labels), dtype=torch.int64)
        protocol = Protocol.of(DataConfig(), "val", [], labels, None)
        evaluation = Evaluation(labels, counts.numpy(), scores_of(counts, labels), {}, [], protocol)
        shown_lines = filter(None, score_table(evaluation).splitlines()[:-1])
        lines = {line.rsplit(maxsplit=1)[0]: line.split()[-1] for line in shown_lines}
        assert lines[SCORE_NAMES["miou"]] == "100.0"
        assert lines[SCORE_NAMES[shown]] == ("98.3" if labels is context.Context59.labels else "100.0")
        assert SCORE_NAMES[hidden] not in lines
        assert f"val/{shown}" in logged_names(TrainConfig(), labels)
        assert f"val/{hidden}" not in logged_names(TrainConfig(), labels)
