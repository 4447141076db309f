import pytest

from sanet.config import (
    AugmentationConfig,
    DataConfig,
    InferenceConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from sanet.demo.config import DemoConfig
from sanet.deploy.config import ProfileConfig
from sanet.repeated.config import RepeatConfig
from sanet.structures import UsageError

RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: DataConfig("camvid", ".", classes=("a",)), "data.classes: only for your own folder"),
        (lambda: DataConfig("scenes", ignore_index=3), "data.ignore_index: only for your own folder"),
        (lambda: DataConfig("voc", ".", classes=("a",)), "data.classes: only for your own folder"),
        (lambda: DataConfig("folder", ".", ("a",), allow_subset=True), "data.allow_subset: only for voc, voc_aug"),
        (lambda: DataConfig("scenes", "photos"), "data.root photos: "),
        (lambda: DataConfig("camvid", ".", allow_subset=True), "'camvid' has no published counts"),
        (lambda: DataConfig("folder", ".", ("a",), background="b"), "'b' is not one of data.classes"),
        (lambda: DataConfig("folder", ".", ("a",), mask_format="colour"), "did you mean 'color'"),
        (lambda: DataConfig("folder", ".", ("a",), mask_format="color"), "needs data.colors"),
        (lambda: DataConfig("folder", ".", ("a", "b"), (RED, RED), mask_format="color"), "must all differ"),
        (
            lambda: DataConfig("folder", ".", ("a", "b"), (RED, GREEN), mask_format="color", ignore_color=RED),
            "must all differ",
        ),
        (lambda: DataConfig("folder", ".", ("a",), mask_format="index", ignore_color=RED), "data.ignore_color belongs"),
        (lambda: AugmentationConfig(crop=(31, 64)), "crop 31: from 32 to"),
        (lambda: AugmentationConfig(scale=(2.0, 0.5)), "smaller factor first"),
        (lambda: AugmentationConfig(hflip=1.1), "hflip 1.1: from 0 to 1"),
        (lambda: AugmentationConfig(jitter=1), "jitter 1: from 0 to 0.99"),
        (lambda: LossConfig({"mask": -1}), "terms.mask -1: from 0"),
        (lambda: LossConfig({"mask": {"wieght": 1}}), "terms.mask"),
        (lambda: LossConfig({}), "loss.terms"),
        (lambda: LossConfig(class_weighting="sqr"), "did you mean 'sqrt'"),
        (lambda: OptimizerConfig(learning_rate=0), "learning_rate 0: from"),
        (lambda: OptimizerConfig(layer_decay=1.1), "layer_decay 1.1: from"),
        (lambda: ScheduleConfig(warmup_steps=-1), "warmup_steps -1: from 0"),
        (lambda: TrainConfig(transforms=({"Name": "x"},)), "transforms"),
        (lambda: TrainConfig(epochs=0), "epochs 0: from 1 to"),
        (lambda: TrainConfig(epochs=5, validate_every=2), "must divide"),
        (lambda: TrainConfig(num_workers=-1), "num_workers -1: from 0 to 256"),
        (lambda: TrainConfig(seed=2**32), "seed 4294967296: from 0 to 4294967295"),
        (lambda: TrainConfig(num_workers=100_000), "num_workers 100000: from 0 to 256"),
        (lambda: TrainConfig(epochs=None), "epochs None: give a value of the kind int"),
        (lambda: TrainConfig(epochs=True), "epochs True: give a value of the kind int"),
        (lambda: TrainConfig(model=None), "model None: give a value of the kind ModelConfig"),
        (lambda: TrainConfig(output="a\0b"), "cannot hold the character"),
        (lambda: AugmentationConfig(crop=(64, 99_999_999)), "crop 99999999: from 32 to"),
        (lambda: AugmentationConfig(scale=(0.5, float("nan"))), "scale nan: from"),
        (lambda: OptimizerConfig(learning_rate=float("inf")), "learning_rate inf: from"),
        (lambda: OptimizerConfig(weight_decay=float("nan")), "weight_decay nan: from"),
        (lambda: InferenceConfig(scales=(float("inf"),)), "scales inf: from"),
        (lambda: InferenceConfig(shorter_side=10**9), "shorter_side 1000000000: from 0 to"),
        (lambda: RepeatConfig(seeds=10**9), "seeds 1000000000: from 1 to"),
        (lambda: ProfileConfig(threads=10**9), "threads 1000000000: from 1 to"),
        (lambda: DemoConfig(port=65_536), "port 65536: from 0 to 65535"),
        (lambda: DemoConfig(keep_minutes=float("nan")), "keep_minutes nan: from"),
        (lambda: TrainConfig(monitor_mode="most"), "Choices: auto, max, min"),
        (lambda: TrainConfig(accelerator="tpu"), "Choices: auto, cpu, cuda, gpu, mps, xpu"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_the_remedy(build, named):
    with pytest.raises(UsageError, match=named):
        build()


@pytest.mark.parametrize("name", ["voc", "voc_aug"])
def test_a_part_of_a_published_data_set_may_be_meant(name):
    assert DataConfig(name, ".", allow_subset=True).allow_subset
