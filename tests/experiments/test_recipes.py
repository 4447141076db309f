"""Every recipe and every place that quotes a version agrees with the code."""

import re
from pathlib import Path

import pytest
import torch

import sanet
from miniatures import write_coco, write_sbd, write_voc
from sanet.cli.main import create_parsers, main
from sanet.config import InferenceConfig, TrainConfig
from sanet.data.catalog import DATASETS
from sanet.data.coco import render_masks
from sanet.evaluation.results import read_scores
from sanet.experiments.recipes import RECIPES, VOC
from sanet.training.task import score_values

ROOT = Path(__file__).parents[2]
CLASSES = {"context59": 59, "voc_aug": 21, "coco": 21, "camvid": 11}
each_recipe = pytest.mark.parametrize("name", list(RECIPES))


@each_recipe
def test_a_recipe_builds_its_network(name):
    config = RECIPES[name].config
    assert config.data.name in DATASETS
    with torch.device("meta"):
        sanet.create_model(
            config.model.name,
            config.model.backbone,
            num_classes=CLASSES[config.data.name],
            output_stride=config.model.output_stride,
            **config.model.options,
        )


@each_recipe
def test_a_recipe_survives_the_command_line_and_yaml(name, tmp_path):
    """What `sanet train --recipe` writes into config.yaml is the recipe, and reads back as it."""
    config = RECIPES[name].config
    config.save(tmp_path / "config.yaml")
    parser = create_parsers()[1]["train"]
    settings = parser.instantiate(parser.parse_args(["--config", str(tmp_path / "config.yaml")]))
    values = {key: value for key, value in settings.items() if key not in {"config", "resume", "recipe"}}
    assert TrainConfig(**values) == config


@each_recipe
def test_a_recipe_evaluates_as_its_figure_was_taken(name):
    row = RECIPES[name]
    command = row.evaluation("RUN").split(maxsplit=2)
    parser = create_parsers()[1]["evaluate"]
    settings = parser.parse_args([word.strip('"') for word in command[2].split()])
    assert InferenceConfig(settings.window, tuple(settings.scales), settings.flip, settings.shorter_side) == row.views
    assert settings.split == row.split
    for score, value in row.published.items():
        assert 0 < value < 100
        assert score in {"miou", "pixel_accuracy", "miou_with_background"}


def test_what_the_paper_states():
    """Sections 4.1 and 4.4, and the rows of its tables."""
    for name, row in RECIPES.items():
        if name == "camvid":
            continue
        config = row.config
        assert (config.batch_size, config.optimizer.name, config.schedule.name) == (16, "sgd", "poly")
        if not name.startswith("figure4"):
            assert config.loss.terms == {"mask": 1.0, "category": 0.2, "dense": 0.8}
        assert config.model.output_stride == (32 if name == "peers-fpn-resnet50" else 8)
        assert config.epochs % config.validate_every == 0
        rate = {"context59": 1e-3, "voc_aug": 1e-4, "coco": 1e-2}[config.data.name]
        assert config.optimizer.learning_rate == rate
    epochs: dict[str, set[int]] = {}
    for name, row in RECIPES.items():
        epochs.setdefault(name.partition("-")[0], set()).add(row.config.epochs)
    assert epochs.pop("camvid")
    ablations = {name: {20} for name in ("table3", "figure4", "peers")}
    assert epochs == ablations | {"table1": {20, 80}, "table4": {80}, "table5": {30, 50}, "table6": {80}}  # 4.1 and 4.4
    assert RECIPES["table5-sanet-resnet101"].config.epochs == 50
    assert RECIPES["table1-sanet-resnet101"].config.epochs == 80
    paper = {
        "table1-fcn-resnet50": 43.2, "table1-sanet-resnet101": 53.0, "table1-sanet-efficientnet_b7": 55.3,
        "table3-fcn_se-resnet50": 44.6, "table3-sanet-resnet101": 50.1, "table4-sanet-resnet101": 83.2,
        "table5-sanet-resnet101": 86.1, "table6-deeplabv3plus-resnet101": 81.5,
    }  # fmt: skip
    assert {name: RECIPES[name].published["miou"] for name in paper} == paper


def test_with_background_is_the_same_score_with_a_class_of_zero():
    """Table 2 beside table 1: the paper's scores over 60 classes are those over 59, times 59/60."""
    for name in ("table1-sanet-resnet101", "table1-sanet-efficientnet_b7"):
        published = RECIPES[name].published
        assert published["miou_with_background"] == pytest.approx(published["miou"] * 59 / 60, abs=0.05)


def test_pretraining_comes_first_and_once(tmp_path, capsys, monkeypatch):
    """The chain of table 5, on miniatures: COCO, then VOC, in one command, and again."""
    coco = RECIPES["table5-coco-resnet101"]
    gentle = coco.but("", "", {}, epochs=1, validate_every=1, optimizer=VOC.optimizer)  # three pictures bear no more
    monkeypatch.setitem(RECIPES, "table5-coco-resnet101", gentle)
    write_voc(tmp_path / "data")
    write_sbd(tmp_path / "data")
    write_coco(tmp_path / "data")
    render_masks(tmp_path / "data", progress=False)
    run = tmp_path / "run"
    options = [
        "train", "--recipe", "table5-sanet-resnet101", "--data.root", str(tmp_path / "data"),
        "--data.allow_subset", "true",
        "--model.backbone", "test_resnet", "--model.pretrained_backbone", "false", "--augmentation.crop", "[64, 64]",
        "--epochs", "5", "--batch_size", "6", "--num_workers", "0", "--accelerator", "cpu", "--output", str(run),
    ]  # fmt: skip
    assert main(options) == 0
    first = tmp_path / "run-pretraining"
    written = (first / "model" / "model.safetensors").stat().st_mtime_ns
    resolved = sanet.config.yaml.safe_load((run / "config.yaml").read_text())
    assert resolved["model"]["init_from"] == str(first)
    assert sanet.load_model(first / "model").labels == sanet.load_model(run / "model").labels
    out = capsys.readouterr().out
    assert "miou 86.1" in out
    assert main(options) == 2  # the run is there already; its pretraining is not done again
    assert "run is not empty" in capsys.readouterr().err
    assert main([*options, "--seed", "1"]) == 2
    assert "run-pretraining was trained with other settings (seed); delete it" in capsys.readouterr().err
    assert (first / "model" / "model.safetensors").stat().st_mtime_ns == written


def test_every_published_score_is_one_that_is_logged():
    names = {name.removeprefix("val/") for name in score_values(sanet_scores())}
    for row in RECIPES.values():
        assert set(row.published) <= names


def sanet_scores():
    from sanet.data.context import CONTEXT_59
    from sanet.evaluation.confusion import ConfusionMatrix

    return ConfusionMatrix(CONTEXT_59).scores()


RESULTS = sorted((ROOT / "docs" / "results").rglob("scores*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.relative_to(ROOT / "docs" / "results").as_posix())
def test_a_result_in_the_documentation_is_what_was_measured(path):
    """It reads back with its hash, and its scores follow from its confusion matrix."""
    assert read_scores(path).protocol.data in DATASETS


def test_the_change_log_knows_the_version():
    assert re.search(rf"^## {re.escape(sanet.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
