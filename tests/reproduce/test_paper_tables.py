"""The paper's tables, on its data and on other; reproduce/ needs nothing of the package but its public names."""

import ast
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from reproduce.__main__ import main
from reproduce.published import EFFICIENTNET_B7, PUBLISHED, RESNET101, published_table
from reproduce.recipes import RECIPES, recipe
from reproduce.tables import SMALL, TABLES, table_of

import sanet
from brightness import CLASSES, write_pictures
from sanet.config import DataConfig
from sanet.repeated.result import rows_of
from sanet.structures import SanetError

HERE = Path(__file__).parents[2]
CAMVID = DataConfig("camvid", "DIR")
PAPERS = {name: DataConfig(next(r for key, r in RECIPES.items() if key.startswith(f"{name}-")).config.data.name, "DIR")
          for name in TABLES}  # fmt: skip


@pytest.mark.parametrize("path", sorted((HERE / "reproduce").glob("*.py")), ids=lambda path: path.name)
def test_reproduce_imports_only_what_the_package_offers(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "sanet":
            assert node.module == "sanet"
            assert {alias.name for alias in node.names} <= set(sanet.__all__)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sanet":
            assert node.attr in sanet.__all__


@pytest.mark.parametrize("name", TABLES)
def test_on_the_papers_data_a_row_is_its_recipe(name):
    table = table_of(name, PAPERS[name], output="runs")
    rows = {row.name: row for row in rows_of(table)}
    for key, found in RECIPES.items():
        if key.startswith(f"{name}-"):
            backbone = found.config.model.backbone
            row = rows[f"{key.removeprefix(f'{name}-').rpartition('-')[0]}/{backbone}"]
            ours, theirs = asdict(row.config), asdict(found.config)
            for incidental in ("data", "output"):
                del ours[incidental], theirs[incidental]
            assert ours == theirs
            assert row.published == found.published
    for pair in table.comparisons:
        assert set(pair) <= rows.keys()


@pytest.mark.parametrize("name", TABLES)
def test_on_other_data_a_row_keeps_its_network_and_its_loss(name):
    table = table_of(name, CAMVID, ("test_resnet",), epochs=3, crop=(64, 96), settings={"accelerator": "cpu"}, seeds=2)
    assert (table.seeds, table.inference, table.split) == (2, sanet.InferenceConfig(), None)
    for row in rows_of(table):
        network = row.name.partition("/")[0]
        theirs = next(found for key, found in RECIPES.items() if key.startswith(f"{name}-{network}-")).config
        assert (row.config.model.name, row.config.loss.terms) == (theirs.model.name, theirs.loss.terms)
        assert row.config.loss.class_weighting == SMALL.loss.class_weighting
        assert (row.config.epochs, row.config.augmentation.crop) == (3, (64, 96))
        assert (row.config.model.backbone, row.config.accelerator) == ("test_resnet", "cpu")
        if theirs.model.name == "sanet":
            assert row.config.model.options == {**theirs.model.options, "downsample": 2}


def test_the_claims_of_table_1():
    table = table_of("table1", CAMVID, ("tf_efficientnet_lite0",))
    assert list(table.rows) == [f"{name}/tf_efficientnet_lite0" for name in ("fcn", "sa", "sa-cat", "sanet")]
    assert len(table.comparisons) == 5


def test_figures_of_the_paper():
    assert recipe("table1-sanet-resnet50").published == {"miou": 51.9, "pixel_accuracy": 79.3}
    assert recipe("table6-sanet-resnet101").published == {"miou": 83.2, "macs": 204.7, "parameters": 55.5}
    assert recipe("table5-sanet-resnet101").config.epochs == 50
    assert recipe("figure4-alpha0.4-resnet50").config.loss.terms["category"] == 0.4
    config = recipe("table3-fcn_se-resnet101").config
    assert (config.batch_size, config.optimizer.learning_rate, config.epochs, config.model.output_stride) == (
        16,
        1e-3,
        20,
        8,
    )
    assert config.optimizer.weight_decay == 1e-4
    assert config.schedule.name == "poly"


@pytest.mark.parametrize(("name", "count"), [("table2", 11), ("table4", 13), ("table5", 12), ("table6", 5)])
def test_a_table_prints_whole(name, count):
    """Each row is trained with its figures beside it, or quoted."""
    table, theirs = table_of(name, PAPERS[name]), [row for row in PUBLISHED if row.table == name]
    shown = [(row.label, dict(row.published)) for row in rows_of(table)] + [*table.quoted.items()]
    labels = {f"SANet, {backbone}": "SANet" for backbone in ("resnet101", "tf_efficientnet_b7")}
    shown = [(labels.get(label, label.removesuffix(", resnet101")), figures) for label, figures in shown]
    assert len(theirs) == count
    assert sorted(map(str, shown)) == sorted(str((row.label, dict(row.figures))) for row in theirs)
    assert table_of(name, CAMVID).quoted == {}
    assert published_table(name).count("\n") == count + 1


def test_the_tables_say_the_same_of_sanet():
    """Its row with background is the one without times 59 of 60 classes; VOC's test stands in two tables."""
    figures = {(row.table, row.ours): row.figures for row in PUBLISHED if row.network == "sanet"}
    for backbone, name in ((RESNET101, "resnet101"), (EFFICIENTNET_B7, "efficientnet_b7")):
        without = recipe(f"table1-sanet-{name}").published["miou"]
        assert figures["table2", backbone]["miou_with_background"] == pytest.approx(without * 59 / 60, abs=0.05)
    assert figures["table4", RESNET101]["miou"] == figures["table6", RESNET101]["miou"]
    # Each row of table 4 with the classes has all 12 that the paper prints.
    assert {len(row.figures) for row in PUBLISHED if row.table == "table4"} == {1, 13}


def test_what_does_not_exist_is_named():
    with pytest.raises(SanetError, match="table7"):
        table_of("table7", CAMVID)
    with pytest.raises(SanetError, match="3 backbones"):
        table_of("table3", CAMVID, ("a", "b", "c"))
    with pytest.raises(SanetError, match="table3-fcn-resnet50"):
        recipe("table3-fcn")


@pytest.mark.slow
def test_a_table_from_one_command(tmp_path, monkeypatch, capsys):
    write_pictures(tmp_path / "data", train=4, val=2)
    words = "table3 --data folder --seeds 1 --epochs 1 --crop 40 40 --backbones test_resnet --untrained --cpu"
    places = ["--num-workers", "0", "--root", f"{tmp_path / 'data'}", "--output", f"{tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", ["reproduce", *words.split(), *places, "--classes", *CLASSES])
    assert main() == 0
    said = capsys.readouterr().out
    assert (tmp_path / "out" / "table3.md").read_text() in said
    assert "FCN-SE" in said
