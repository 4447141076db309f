"""A data set that is learnt in seconds, and what the tests of training ask of a run."""

import numpy as np
import torch
from PIL import Image

import sanet
from sanet.config import CHECKPOINTS
from sanet.structures import Batch, LabelSet
from sanet.training.checkpoints import CheckpointFolder
from sanet.training.losses import SegmentationLoss

CLASSES = ("dark", "light")


def write_pictures(root, train=10, val=3):
    """Pictures of two sizes whose class is their brightness; with unlabelled rows."""
    rng = np.random.default_rng(0)
    for split, count in {"train": train, "val": val}.items():
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            size = (48, 64) if index % 2 else (57, 51)
            mask = np.zeros(size, np.uint8)
            mask[:, int(rng.integers(10, 40)) :] = 1
            mask[:3] = 255
            image = np.clip(60 + 120 * (mask == 1)[..., None] + rng.normal(0, 25, (*size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / split / "images" / f"{split}{index}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{split}{index}.png")


def small_run(root, output):
    """A run over them of a second."""
    return sanet.TrainConfig(
        output=str(output),
        data=sanet.DataConfig("folder", str(root), CLASSES),
        augmentation=sanet.AugmentationConfig(crop=(40, 40)),
        model=sanet.ModelConfig(backbone="test_resnet", output_stride=8, pretrained_backbone=False),
        epochs=3,
        batch_size=4,
        num_workers=0,
        accelerator="cpu",
    )


def weights(directory):
    """The tensors of the model that a run has kept."""
    return sanet.load_model(directory / "model").state_dict()


def checkpoint(directory, which="newest", mode="max"):
    """The content of the newest or the best checkpoint."""
    return torch.load(getattr(CheckpointFolder(directory / CHECKPOINTS, mode), which)(), weights_only=True)


def assert_same_weights(one, other):
    """Equal to the last bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def loss_of(output, masks, **settings):
    """The paper's loss, and its terms by name, of an output and its masks (B, H, W), with 255 to be ignored.

    And that of borders, where a network predicts them.
    """
    if output.border is not None:
        settings = {"terms": sanet.LossConfig().terms | {"border": 0.1}} | settings
    labels = LabelSet(tuple(f"class {index}" for index in range(output.mask.shape[1])))
    return SegmentationLoss(sanet.LossConfig(**settings), labels)(output, Batch(output.logits, masks, ()))
