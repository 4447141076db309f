"""A plan: read back it is the configuration, it keeps what is given, and `sanet train` begins with one."""

import dataclasses
import re
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import sanet
from sanet.cli.main import main
from sanet.config import AugmentationConfig, DataConfig, LossConfig, ModelConfig, TrainConfig
from sanet.data.decoding import DataError
from sanet.models.sanet import FCNHead
from sanet.settings import changed, nested, plain, settings_of
from sanet.structures import UsageError
from sanet.training import plan as plans
from sanet.training.plan import plan

TINY = {"model": ModelConfig(backbone="test_resnet", output_stride=8, pretrained_backbone=False), "accelerator": "cpu"}
GIVEN = ("model.backbone", "model.output_stride", "model.pretrained_backbone", "accelerator")


def images(root, size, count=10, rare=False):
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            random = np.random.default_rng([index, split == "val"])
            mask = np.zeros(size, np.uint8)
            side = 6 if rare else min(size) // 2
            top, left = random.integers(0, size[0] - side), random.integers(0, size[1] - side)
            mask[top : top + side, left : left + side] = 1
            pixels = random.integers(0, 120, (*size, 3), np.uint8) + 100 * mask[..., None]
            Image.fromarray(pixels).save(root / split / "images" / f"{split}{index}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{split}{index}.png")
    return DataConfig("folder", str(root), classes=("ground", "thing"))


@pytest.mark.parametrize(
    "size", [(64, 64), (40, 90), (200, 150), (500, 700), pytest.param((1500, 1400), marks=pytest.mark.slow)]
)
def test_a_plan_is_a_configuration_that_can_be_read_back(tmp_path, size):
    data = images(tmp_path, size, count=6 if max(size) > 600 else 10)
    found = plan(TrainConfig(data=data, **TINY), GIVEN, timed=False)
    read = yaml.safe_load(str(found))
    assert settings_of(TrainConfig, read) == found.config
    assert {choice.name for choice in found.choices}.isdisjoint(GIVEN)
    lines = str(found).splitlines()
    for choice in found.choices:
        place = next(n for n, line in enumerate(lines) if line.strip() == f"# {choice.reason}")
        assert any(line.strip().startswith(f"{choice.name.split('.')[-1]}:") for line in lines[place + 1 :])
    height, width = found.config.augmentation.crop
    assert height % 32 == width % 32 == 0
    assert height * width <= 384**2
    assert height >= min(size[0], 256)
    assert width >= min(size[1], 256)
    an_epoch = ceil(len(list(Path(data.root, "train", "images").iterdir())) / found.config.batch_size)
    assert found.config.epochs * an_epoch >= plans.STEPS[0]


def test_what_is_given_is_kept_and_the_rest_fits_it(tmp_path):
    data = images(tmp_path, (100, 140))
    config = TrainConfig(
        data=data, epochs=3, augmentation=AugmentationConfig(crop=(64, 96)), batch_size=2, threads=1, **TINY
    )
    given = (*GIVEN, "epochs", "augmentation.crop", "batch_size", "threads")
    found = plan(config, given, timed=False).config
    assert (found.epochs, found.augmentation.crop, found.batch_size, found.threads) == (3, (64, 96), 2, 1)
    assert not found.augmentation.turns  # which needs a square
    assert 3 % found.validate_every == 0
    assert found.model == dataclasses.replace(config.model, name="sanet_variant", options={"downsample": 2})
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, name="fcn"))
    assert plan(other, (*given, "model.name"), timed=False).config.model == other.model


def test_rare_classes_are_weighted(tmp_path):
    common, rare = (images(tmp_path / name, (128, 128), rare=name == "rare") for name in ("common", "rare"))
    for data, weighting in ((common, "none"), (rare, "sqrt")):
        found = plan(TrainConfig(data=data, **TINY), GIVEN, timed=False)
        assert found.config.loss.class_weighting == weighting
        masks = [np.asarray(Image.open(path)) for path in Path(data.root, "train", "masks").iterdir()]
        (reason,) = [choice.reason for choice in found.choices if choice.name == "loss.class_weighting"]
        assert f"{np.mean(masks):.2%}" in reason


def test_thin_things_get_a_path_down_to_stride_2(tmp_path):
    data = images(tmp_path, (128, 128))
    for number, path in enumerate(sorted(Path(data.root, "train", "masks").iterdir())):
        mask = np.zeros((128, 128), np.uint8)
        mask[:, 5 + 10 * number : 8 + 10 * number] = 1
        Image.fromarray(mask).save(path)
    config = TrainConfig(data=data, accelerator="cpu")
    found = plan(config, ("model.pretrained_backbone",), timed=False)
    assert found.config.model.options == {"mechanism": "none", "stem": True, "path": True}
    assert "things are 3.0 pixels wide" in str(found)
    given = plan(config, ("model.options",), timed=False).config
    assert given.model.options == {}


def test_steps_are_timed_and_fitted_into_the_memory(tmp_path):
    config = TrainConfig(data=images(tmp_path, (64, 64)), budget=600.0, batch_size=4, **TINY)
    found = sanet.plan(config, (*GIVEN, "batch_size"), memory=1e-6)
    assert found.config.gradient_accumulation == 4
    assert found.config.budget == 600
    seconds = float(re.search(r"A step takes ([\d.e-]+) s", found.title)[1])
    assert int(re.search(r"about (\d+) steps in 10 min", found.title)[1]) == pytest.approx(600 / seconds, rel=0.1)


def test_data_that_cannot_be_trained_on_have_no_plan(tmp_path):
    data = images(tmp_path, (64, 64))
    next(Path(data.root, "train", "masks").iterdir()).write_bytes(b"no image")
    with pytest.raises(DataError):
        plan(TrainConfig(data=data))


def test_train_begins_with_a_plan_and_a_file_of_settings_is_taken_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = images(tmp_path / "data", (64, 64))
    words = ["--data.root", data.root, "--data.name", "folder", "--data.classes", "[ground, thing]"]
    words += ["--model.backbone", "test_resnet", "--model.pretrained_backbone", "false", "--model.output_stride", "8"]
    words += ["--accelerator", "cpu", "--epochs", "2", "--num_workers", "0"]
    assert main(["plan", *words]) == 0
    planned = settings_of(TrainConfig, yaml.safe_load(Path("plan.yaml").read_text()))
    assert planned.augmentation.turns
    assert main(["train", *words, "--output", "one"]) == 0
    kept = Path("one", "plan.yaml").read_text()
    assert settings_of(TrainConfig, yaml.safe_load(kept)) == replace(planned, output="one")
    assert kept.count(" # ") > 5  # reasons
    assert main(["train", "--config", "plan.yaml", "--output", "two"]) == 0
    assert not Path("two", "plan.yaml").exists()
    one, two = (yaml.safe_load(Path(name, "config.yaml").read_text()) for name in ("one", "two"))
    assert one["augmentation"]["turns"]
    assert one | {"output": ""} == two | {"output": ""}
    scores = [Path(name, "metrics.csv").read_text() for name in ("one", "two")]
    assert scores[0] == scores[1]
    capsys.readouterr()
    Path("own.yaml").write_text("batch_size: 2\n")
    assert main(["train", *words, "--config", "own.yaml", "--output", "three"]) == 0
    three = settings_of(TrainConfig, yaml.safe_load(Path("three", "config.yaml").read_text()))
    assert three.augmentation == AugmentationConfig()
    assert three.optimizer == TrainConfig().optimizer


def test_dotted_names_and_sections_are_the_same_settings():
    config = TrainConfig(epochs=7, data=DataConfig(root="x"), optimizer=sanet.OptimizerConfig(name="adamw"))
    assert changed(config) == {"epochs": 7, "data.root": "x", "optimizer.name": "adamw"}
    assert settings_of(TrainConfig, nested(changed(config))) == config
    assert plain(config) == plain(settings_of(TrainConfig, nested(changed(config))))


def test_a_plan_keeps_a_head_of_ones_own(tmp_path):
    class Head(FCNHead):
        pass

    model = dataclasses.replace(TINY["model"], name=Head)
    config = TrainConfig(data=images(tmp_path, (64, 64)), **TINY | {"model": model})
    assert plan(config, (*GIVEN, "model.name"), timed=False).config.model == model


def test_a_mistyped_name_is_refused_before_an_image_is_read(tmp_path):
    data = images(tmp_path, (64, 64))
    for image in tmp_path.glob("train/images/*.png"):
        image.write_bytes(b"damaged")
    with pytest.raises(UsageError, match="dise"):
        plan(TrainConfig(data=data, loss=LossConfig({"dise": 1.0}), **TINY), GIVEN, timed=False)
    with pytest.raises(DataError):
        plan(TrainConfig(data=data, **TINY), GIVEN, timed=False)
