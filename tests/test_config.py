import pytest

from sanet.config import AugmentationConfig, DataConfig, LossConfig, OptimizerConfig, TrainConfig
from sanet.structures import UsageError

RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: DataConfig("folder", "."), "data.classes"),
        (lambda: DataConfig("camvid", ".", classes=("a",)), "data.classes: only for your own folder"),
        (lambda: DataConfig("scenes", ignore_index=3), "data.ignore_index: only for your own folder"),
        (lambda: DataConfig("voc", ".", classes=("a",)), "data.classes: only for your own folder"),
        (lambda: DataConfig("folder", ".", ("a",), partial=True), "data.partial: only for voc, voc_aug, context59"),
        (lambda: DataConfig(root="photos"), "data.root photos: name the data set as well, such as --data.name folder"),
        (lambda: DataConfig("camvid", ".", partial=True), "'camvid' has no published counts"),
        (lambda: DataConfig("folder", ".", ("a",), background="b"), "'b' is not one of data.classes"),
        (lambda: DataConfig("folder", ".", ("a",), mask_format="colour"), "did you mean 'color'"),
        (lambda: DataConfig("folder", ".", ("a",), mask_format="color"), "needs data.colors"),
        (lambda: DataConfig("folder", ".", ("a", "b"), (RED, RED), mask_format="color"), "must all differ"),
        (
            lambda: DataConfig("folder", ".", ("a", "b"), (RED, GREEN), mask_format="color", ignore_color=RED),
            "must all differ",
        ),
        (lambda: DataConfig("folder", ".", ("a",), ignore_color=RED), "data.ignore_color belongs"),
        (lambda: AugmentationConfig(crop=(31, 64)), "32 pixels"),
        (lambda: AugmentationConfig(scale=(2.0, 0.5)), "smaller one first"),
        (lambda: AugmentationConfig(mirror=1.1), "probability"),
        (lambda: AugmentationConfig(jitter=1), "below 1"),
        (lambda: LossConfig(alpha=-1), "0 or more"),
        (lambda: LossConfig(category_target="presense"), "did you mean 'presence'"),
        (lambda: LossConfig(class_balance="sqr"), "did you mean 'sqrt'"),
        (lambda: OptimizerConfig(learning_rate=0), "above 0"),
        (lambda: OptimizerConfig(momentum=1), "below 1"),
        (lambda: OptimizerConfig(warmup_steps=-1), "0 or more"),
        (lambda: TrainConfig(epochs=0), "epochs 0: 1 or more"),
        (lambda: TrainConfig(epochs=5, validate_every=2), "must divide"),
        (lambda: TrainConfig(workers=-1), "workers -1: 0 or more"),
        (lambda: TrainConfig(seed=2**32), "seed 4294967296: from 0 to 4294967295"),
        (lambda: TrainConfig(monitor_mode="most"), "Choices: max, min"),
        (lambda: TrainConfig(accelerator="cuda"), "Choices: auto, cpu, gpu"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_the_remedy(build, named):
    with pytest.raises(UsageError, match=named):
        build()


@pytest.mark.parametrize("name", ["voc", "voc_aug", "context59", "context60", "coco"])
def test_a_part_of_a_published_data_set_may_be_meant(name):
    assert DataConfig(name, ".", partial=True).partial
