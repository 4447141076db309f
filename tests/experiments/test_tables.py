"""The rows of every experiment, on the paper's data and on other data."""

from dataclasses import replace

import pytest
import torch

import sanet
from sanet.config import DataConfig
from sanet.experiments.config import EXPERIMENTS, ExperimentConfig
from sanet.experiments.recipes import RECIPES
from sanet.experiments.tables import SMALL, claims_of, rows_of
from sanet.structures import UsageError

PAPERS = {
    "table1": "context59",
    "table3": "context59",
    "figure4": "context59",
    "table6": "voc_aug",
    "peers": "context59",
}
each_experiment = pytest.mark.parametrize("name", list(EXPERIMENTS))


def on(data, **changes):
    return ExperimentConfig(DataConfig(data, None if data == "scenes" else "somewhere"), **changes)


@each_experiment
def test_on_the_papers_data_a_row_is_its_recipe(name):
    config = on(PAPERS[name], num_workers=4)
    rows = rows_of(name, config)
    recipes = [recipe for key, recipe in RECIPES.items() if key.startswith(f"{name}-")]
    assert [row.recipe for row in rows] == recipes
    for row in rows:
        assert row.config == replace(row.recipe.config, data=config.data)
        assert row.views == row.recipe.views
        assert not row.moved()


@each_experiment
@pytest.mark.parametrize("data", ["camvid", "scenes"])
def test_on_other_data_a_row_keeps_its_network_and_its_loss(name, data):
    rows = rows_of(name, on(data))
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        ours, theirs = row.config, row.recipe.config
        assert row.moved()
        assert ours.model.name == theirs.model.name
        assert ours.model.options.items() >= theirs.model.options.items()
        assert ours.loss.terms == theirs.loss.terms
        assert ours.epochs == SMALL.config.epochs
        assert ours.model.backbone in SMALL.backbones
        with torch.device("meta"):
            model = ours.model
            sanet.create_model(model.name, model.backbone, 11, output_stride=model.output_stride, **model.options)


@each_experiment
def test_every_row_of_a_claim_is_there(name):
    rows = rows_of(name, on("camvid"))
    networks = {row.network for row in rows}
    assert {network for claim in EXPERIMENTS[name].claims for network in claim} <= networks
    pairs = claims_of(name, rows)
    assert {(better.network, worse.network) for better, worse in pairs} == set(EXPERIMENTS[name].claims)
    assert all(better.config.model.backbone == worse.config.model.backbone for better, worse in pairs)


def test_rows_that_are_trained_alike_share_their_runs():
    def key(table, row):
        return {entry.network: entry.key for entry in rows_of(table, small)}[row]

    small = on("camvid", backbones=("tf_efficientnet_lite0",))
    assert key("table1", "fcn") == key("table3", "fcn") == key("table6", "fcn")
    sanets = {key(table, "sanet") for table in ("table1", "table3", "table6", "peers")}
    assert sanets == {key("figure4", "alpha0.2"), key("figure4", "beta0.8")}
    assert len(sanets) == 1
    for name in EXPERIMENTS:
        rows = rows_of(name, small)
        assert len({row.key for row in rows}) == len(rows) - (name == "figure4")


def test_a_run_is_named_by_what_decides_its_outcome():
    row = rows_of("table3", on("camvid"))[0]
    same = [
        {"output": "elsewhere"}, {"seed": 7}, {"num_workers": 3}, {"accelerator": "cpu"}, {"checkpoint_minutes": 1.0},
        {"data": DataConfig("camvid", "another place")},
    ]  # fmt: skip
    for changes in same:
        assert replace(row, config=replace(row.config, **changes)).key == row.key
    other = [
        {"epochs": 60}, {"batch_size": 16}, {"precision": "bf16-mixed"}, {"loss": sanet.LossConfig()},
        {"data": DataConfig("scenes")}, {"model": replace(row.config.model, options={"reduction": 1})},
        {"model": replace(row.config.model, pretrained_backbone=False)},
    ]  # fmt: skip
    keys = [replace(row, config=replace(row.config, **changes)).key for changes in other]
    assert len({row.key, *keys}) == len(keys) + 1


def test_fewer_backbones_leave_rows_out():
    rows = rows_of("table1", on("camvid", backbones=("resnet18", "resnet34")))
    assert [(row.network, row.config.model.backbone) for row in rows] == [
        ("fcn", "resnet18"), ("sa", "resnet18"), ("sa-cat", "resnet18"), ("sanet", "resnet18"), ("sanet", "resnet34"),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "most"), [("table1", 3), ("table3", 2), ("peers", 1)])
def test_more_backbones_than_a_table_has_are_a_mistake(name, most):
    """They would be left out without a word."""
    names = tuple(f"resnet{number}" for number in range(most + 1))
    rows_of(name, on("camvid", backbones=names[:most]))
    with pytest.raises(UsageError, match=rf"--backbones names {most + 1}, but .* {name} are over {most}, .* {most} or"):
        rows_of(name, on("camvid", backbones=names))


def test_a_folder_is_the_same_however_its_place_is_spelt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    keys = {
        rows_of("table3", ExperimentConfig(DataConfig("folder", str(root), ("leaf",))))[0].key
        for root in ("photos", "./photos", tmp_path / "photos", "link")
    }
    assert len(keys) == 1


# Runs of these names lie in docs/results/runs and on people's disks: others would be trained anew.
KEYS = {
    "table1": ["fcn-058841e1", "sanet-cbf412ba", "sanet-2bf51217", "sanet-121e61a6"],
    "table3": ["fcn-058841e1", "fcn_se-119d4860", "sanet-121e61a6"],
    "peers": [
        "sanet-121e61a6", "smp_deeplabv3plus-4be4cdda", "smp_pspnet-e26b130a", "smp_upernet-4e6a2edc",
        "smp_fpn-e48dc523", "smp_segformer-ff10e7df",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", list(KEYS))
def test_runs_keep_their_names(name):
    rows = rows_of(name, on("camvid", backbones=("tf_efficientnet_lite0",)))
    assert [row.key.replace("-tf_efficientnet_lite0", "") for row in rows] == KEYS[name]


def test_what_is_chosen_replaces_the_recipes_own():
    config = on("context59", epochs=2, crop=(64, 96), pretrained_backbone=False, precision="bf16-mixed")
    for row in rows_of("table3", config):
        assert (row.config.epochs, row.config.validate_every) == (2, 2)
        assert row.config.augmentation == replace(row.recipe.config.augmentation, crop=(64, 96))
        assert not row.config.model.pretrained_backbone
        assert row.config.precision == "bf16-mixed"


def test_mistakes_are_answered():
    with pytest.raises(UsageError, match="table3"):
        rows_of("table33", on("camvid"))
    wrong = {"seeds": (0, "seeds 0: from 1"), "epochs": (0, "epochs 0: from 1"), "accelerator": ("tpu", "auto, cpu")}
    for name, (value, message) in wrong.items():
        with pytest.raises(UsageError, match=message):
            ExperimentConfig(**{name: value})
