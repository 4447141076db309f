"""Every recipe and every place that quotes a version agrees with the code."""

import re
from pathlib import Path

import pytest
import torch

import sanet
from sanet.cli import _create_parsers
from sanet.config import TrainConfig

ROOT = Path(__file__).parents[1]
# Those of `sanet profile` are in tests/deploy.
RECIPES = [path for path in sorted((ROOT / "recipes").glob("*.yaml")) if "sanet train" in path.read_text()]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_builds_its_network(path):
    parser = _create_parsers()[1]["train"]
    settings = parser.instantiate(parser.parse_args(["--config", str(path), "--data.root", "."]))
    config = TrainConfig(**{name: value for name, value in settings.items() if name not in {"config", "resume"}})
    with torch.device("meta"):
        sanet.create_model(
            config.model.name,
            config.model.backbone,
            num_classes=11,
            output_stride=config.model.output_stride,
            **config.model.options,
        )


def test_the_change_log_knows_the_version():
    assert re.search(rf"^## {re.escape(sanet.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
