"""Tables on a dataset that is learnt in seconds: kept, resumed, failed, compared."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import sanet
from brightness import CLASSES, assert_same_weights, weights, write_pictures
from sanet.config import DataConfig, TrainConfig
from sanet.evaluation.repeated import paired_bootstrap
from sanet.models.networks import load_model
from sanet.repeated.config import RepeatConfig
from sanet.repeated.result import rows_of
from sanet.repeated.runner import repeat
from sanet.settings import settings_of
from sanet.structures import SanetError, UsageError

BASE = {
    "model": {"backbone": "test_resnet", "output_stride": 8, "pretrained_backbone": False},
    "augmentation": {"crop": [40, 40]},
    "epochs": 2,
    "batch_size": 4,
    "num_workers": 0,
    "accelerator": "cpu",
}
ROWS = {
    "fcn": {"model": {"name": "fcn"}, "label": "FCN", "published": {"miou": 44.0}},
    "sanet": {"loss": {"terms": {"mask": 1.0}}, "published": {"miou": 49.5, "miou_with_background": 48.0}},
}
QUOTED = {"CRF-RNN": {"miou": 39.3, CLASSES[1]: 12.3, "macs": 7.0}}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeat")
    write_pictures(folder / "data", train=4, val=3)
    data = DataConfig("folder", str(folder / "data"), CLASSES)
    how = {"seeds": 3, "output": str(folder / "out"), "quoted": QUOTED}
    return RepeatConfig(ROWS, BASE, (("sanet", "fcn"),), "A table", data, **how)


@pytest.fixture(scope="module")
def finished(table):
    return repeat(table)


@pytest.fixture
def copy(table, finished, tmp_path):
    shutil.copytree(table.output, tmp_path / "out")
    return replace(table, output=str(tmp_path / "out"))


def test_every_row_has_a_run_with_every_seed(table, finished):
    assert [row.label for row in finished.rows] == ["FCN", "sanet"]
    for row in finished.rows:
        assert list(row.runs) == [0, 1, 2]
        one, other = (weights(row.directory_of(seed)) for seed in (0, 1))
        assert any(not np.array_equal(one[name], other[name]) for name in one)
        assert row.config.augmentation.crop == (40, 40)
    with open(f"{table.output}/table.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["row"] for line in lines] == ["fcn"] * 3 + ["sanet"] * 3
    assert float(lines[4]["miou"]) == finished.rows[1].runs[1].scores.miou
    assert float(lines[0]["published_miou"]) == 0.44
    model = load_model(finished.rows[0].directory_of(0) / "model")
    assert int(lines[0]["parameters"]) == sum(parameter.numel() for parameter in model.parameters())


def test_differences_are_paired_over_images_and_seeds(table, finished):
    (found,) = finished.comparisons()
    fcn, sanet = finished.rows
    assert found.difference == paired_bootstrap(sanet.image_sums(), fcn.image_sums())
    mean = np.mean([run.scores.miou for run in sanet.runs.values()]) - np.mean(
        [run.scores.miou for run in fcn.runs.values()]
    )
    assert found.difference.mean == pytest.approx(mean)
    assert found.published == pytest.approx(5.5)
    text = Path(f"{table.output}/table.md").read_text()
    assert f"{100 * mean:+.1f}" in text
    assert found.verdict in text


def cells_of(text, first):
    """Rows of the pipe table whose first header is that, by their first cells."""
    lines = iter([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    header, _ = next(line for line in lines if line[0] == first), next(lines)
    return {line[0]: dict(zip(header, line, strict=True)) for line in iter(lambda: next(lines), [""])}


def test_what_was_published_stands_beside_it_and_is_called_so(table, finished):
    text = Path(f"{table.output}/table.md").read_text()
    rows, classes = cells_of(text, "row"), cells_of(text, "IoU")
    assert [rows[name]["published mIoU"] for name in ("FCN", "sanet", "CRF-RNN (quoted)")] == ["44.0", "49.5", "39.3"]
    # These data have none, with which to compare what was published.
    assert (rows["sanet"]["mIoU with background"], rows["sanet"]["published mIoU with background"]) == ("—", "48.0")
    assert [rows[name]["published MACs (G)"] for name in ("FCN", "CRF-RNN (quoted)")] == ["—", "7.0"]
    assert set(rows["CRF-RNN (quoted)"].values()) == {"CRF-RNN (quoted)", "39.3", "7.0", "—"}
    assert classes.keys() == {"FCN", "sanet", "CRF-RNN (quoted)"}
    assert classes["CRF-RNN (quoted)"][CLASSES[1]] == "12.3"
    assert "CRF-RNN (quoted)" in Path(f"{table.output}/table.html").read_text()
    with pytest.raises(UsageError, match=r"quoted.CRF-RNN 39\.3"):
        replace(table, quoted={"CRF-RNN": 39.3})
    with pytest.raises(UsageError, match=r"rows.fcn.published"):
        rows_of(replace(table, rows={"fcn": {"published": "44"}}, comparisons=()))


def test_the_page_needs_nothing_else(table, finished):
    page = Path(f"{table.output}/table.html").read_text()
    assert page.count("data:image/png;base64,") == 1 + 3 * 3  # the chart; labels and two networks of three images
    assert 'src="http' not in page


def test_what_is_finished_is_kept_and_what_is_missing_is_made_again(copy, finished, capsys):
    lost = finished.rows[1].directory_of(1).name
    shutil.rmtree(f"{copy.output}/runs/{lost}")
    found = repeat(copy)
    said = capsys.readouterr().out
    assert said.count("finished already") == 5
    assert said.count("left in all") == 2  # of six, behind the fourth, which is the first that takes time
    assert_same_weights(weights(found.rows[1].directory_of(1)), weights(finished.rows[1].directory_of(1)))
    assert found.rows[1].runs[1].scores == finished.rows[1].runs[1].scores


def test_scores_are_kept_without_the_weights(copy, finished, capsys):
    for model in Path(copy.output).glob("runs/*-seed0/model"):
        shutil.rmtree(model)
    found = repeat(copy)
    assert capsys.readouterr().out.count("finished already") == 6
    assert [row.model[0] for row in found.rows] == [1, 1]
    lines = csv.DictReader(Path(f"{copy.output}/table.csv").read_text().splitlines())
    assert all(float(line["parameters"]) > 0 for line in lines)


def test_tables_in_one_folder_share_runs(copy, capsys):
    other = replace(copy, rows={"again": ROWS["fcn"], **ROWS}, comparisons=(), seeds=1)
    assert [list(row.runs) for row in repeat(other).rows] == [[0], [0], [0]]
    assert capsys.readouterr().out.count("finished already") == 3


@pytest.mark.slow
def test_other_images_are_other_runs(copy, finished, tmp_path, capsys):
    shutil.copytree(copy.data.root, tmp_path / "data")
    (image,) = (tmp_path / "data" / "train" / "images").glob("train0.png")
    shutil.copy(tmp_path / "data" / "train" / "images" / "train2.png", image)
    shutil.copy(
        tmp_path / "data" / "train" / "masks" / "train2.png", tmp_path / "data" / "train" / "masks" / image.name
    )
    moved = replace(copy, data=replace(copy.data, root=str(tmp_path / "data")), seeds=1, costs=False)
    found = repeat(moved)
    assert "finished already" not in capsys.readouterr().out
    assert found.rows[0].directory_of(0) != finished.rows[0].directory_of(0)


def test_a_row_that_fails_leaves_the_others(copy):
    class Broken(nn.Module):
        def __init__(self, levels, num_classes):
            super().__init__()
            raise RuntimeError("no such head")

    rows = {"broken": {"model": {"name": Broken}}, "fcn": ROWS["fcn"]}
    found = repeat(replace(copy, rows=rows, comparisons=(), seeds=2))
    assert [len(row.runs) for row in found.rows] == [0, 2]
    assert len(found.failures()) == 2
    assert "no such head" in Path(f"{copy.output}/table.md").read_text()
    with pytest.raises(SanetError, match="no such head"):
        repeat(replace(copy, rows={"broken": rows["broken"]}, comparisons=()))


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ({"model": {"name": "my_lab.heads:PSP"}}, "--import my_lab"),
        ({"model": {"backbone": "resnet50x"}}, "resnet50"),
        ({"model": {"name": "fcn", "options": {"groops": 2}}}, "groops"),
        ({"loss": {"terms": {"msk": 1.0}}}, "mask"),
        ({"loss": {"terms": {"dice": {"options": {"smoth": 1}}}}}, "smoth"),
        ({"optimizer": {"name": "adamv"}}, "adamw"),
        ({"optimizer": {"options": {"momentun": 0.8}}}, "momentun"),
        ({"metrics": {"f1": "torchmetrics.classification:F2Score"}}, "F2Score"),
        ({"monitor": "val/mio"}, "val/miou"),
    ],
    ids=str,
)
def test_a_row_that_names_what_does_not_exist_is_refused_before_the_first_training(table, row, word, tmp_path):
    given = replace(table, rows={"fcn": ROWS["fcn"], "wrong": row}, comparisons=(), output=str(tmp_path / "out"))
    with pytest.raises(UsageError, match=r"rows\.wrong: ") as caught:
        repeat(given)
    assert word in str(caught.value)
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.slow
def test_only_the_rows_that_name_opened_code_are_made_again_when_it_changes(copy, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "some_lab.py"
    text = "from sanet.models.sanet import FCNHead\nclass Head(FCNHead): pass\n"
    code.write_text(text)
    sanet.use("some_lab")
    rows = {"fcn": ROWS["fcn"], "own": {"model": {"name": "some_lab:Head"}}}
    given = replace(copy, rows=rows, comparisons=(), seeds=1, costs=False)
    repeat(given)
    assert capsys.readouterr().out.count("finished already") == 1
    code.write_text(f"{text}# changed\n")
    repeat(given)
    said = capsys.readouterr().out
    assert said.count("finished already") == 1
    assert "not taken over" in said
    assert "the code of some_lab" in said
    repeat(given)
    assert capsys.readouterr().out.count("finished already") == 2


def test_what_differs_from_a_run_that_is_not_taken_over_is_named(copy, finished, capsys):
    rows = {"fcn": {**ROWS["fcn"], "epochs": 1, "optimizer": {"learning_rate": 0.02}}}
    repeat(replace(copy, rows=rows, comparisons=(), seeds=1, costs=False))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "not taken over" in line]
    assert finished.rows[0].directory_of(0).name in line
    assert line.endswith("differs in optimizer.learning_rate, epochs")


@pytest.mark.slow
def test_chosen_metrics_stand_beside_the_scores(copy):
    metric = {
        "name": "torchmetrics.classification:MulticlassF1Score",
        "options": {"num_classes": 2, "ignore_index": 255},
    }
    rows = {"fcn": ROWS["fcn"], "sanet": {**ROWS["sanet"], "metrics": {"f1": metric}}}
    found = repeat(replace(copy, rows=rows, seeds=2, costs=False))
    values = [run.metrics["f1"] for run in found.rows[1].runs.values()]
    assert found.rows[1].spread("f1").mean == pytest.approx(np.mean(values))
    header, *lines = [
        [cell.strip() for cell in line.split("|")]
        for line in Path(f"{copy.output}/table.md").read_text().splitlines()
        if line.startswith("|")
    ]
    column = header.index("f1")
    assert lines[1][column] == "—"
    assert lines[2][column] == f"{np.mean(values):.4g} ± {np.std(values, ddof=1):.2g}"
    with open(f"{copy.output}/table.csv", newline="") as file:
        assert [line["metric f1"] for line in csv.DictReader(file)] == ["", "", *map(str, values)]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rows": {}, "comparisons": ()}, "rows"),
        ({"rows": {"a": {"epoch": 3}}, "comparisons": ()}, "epochs"),
        ({"rows": {"a": {"model": {"nam": "fcn"}}}, "comparisons": ()}, "name"),
        ({"rows": {"a": 3}, "comparisons": ()}, "rows.a 3"),
        ({"rows": {"a": {"seed": 3}}, "comparisons": ()}, "seed"),
        ({"base": {"data": {"name": "voc"}}}, "data"),
        ({"rows": {"a": {"epochs": 0}}, "comparisons": ()}, "epochs"),
    ],
    ids=str,
)
def test_settings_that_do_not_exist_are_named(table, changes, word):
    with pytest.raises(UsageError, match=word):
        rows_of(replace(table, **changes))


def test_a_comparison_names_rows():
    with pytest.raises(UsageError, match="fnc"):
        RepeatConfig(ROWS, comparisons=(("sanet", "fnc"),))


def test_settings_are_those_of_train():
    assert settings_of(TrainConfig, {}) == TrainConfig()
    found = settings_of(TrainConfig, {"model": {"options": {"downsample": 2}}, "augmentation": {"scale": [1, 2]}})
    assert (found.model.options, found.augmentation.scale) == ({"downsample": 2}, (1, 2))
