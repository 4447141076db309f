"""Small experiments on a data set that is learnt in seconds, for the tests of all that becomes of them."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from brightness import CLASSES
from sanet.config import DataConfig
from sanet.experiments.config import ExperimentConfig


class Place(NamedTuple):
    """Where the pictures lie, and where the runs go."""

    data: Path
    output: Path

    def runs(self):
        return self.output / "runs"

    def tables(self, name="table3"):
        """The folders of an experiment, the oldest first."""
        return sorted(self.output.glob(f"{name}-folder-????????"), key=lambda folder: folder.stat().st_mtime_ns)

    def table(self, name="table3"):
        """Its only one."""
        (folder,) = self.tables(name)
        return folder


def config_of(place, **changes):
    config = ExperimentConfig(
        data=DataConfig("folder", str(place.data), CLASSES),
        output=str(place.output),
        seeds=2,
        epochs=3,
        crop=(40, 40),
        backbones=("test_resnet",),
        pretrained_backbone=False,
        num_workers=0,
        accelerator="cpu",
    )
    return replace(config, **changes)


def options_of(place):
    """The same for the command line."""
    return [
        "experiment", "table3", "--data.name", "folder", "--data.classes", "[dark, light]", "--seeds", "2", "--epochs",
        "3", "--crop", "[40, 40]", "--backbones", "[test_resnet]", "--pretrained_backbone", "false",
        "--num_workers", "0",
        "--accelerator", "cpu", "--data.root", str(place.data), "--output", str(place.output),
    ]  # fmt: skip


def last(results):
    """What there is after all seeds."""
    *_, result = results
    return result
