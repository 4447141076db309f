"""sanet: semantic segmentation with Squeeze-and-Attention Networks (CVPR 2020).

The names below are imported when first used, so that ``import sanet`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sanet.config import (
        AugmentationConfig,
        DataConfig,
        LossConfig,
        ModelConfig,
        OptimizerConfig,
        TrainConfig,
    )
    from sanet.evaluation.evaluate import evaluate
    from sanet.inference.predictor import Predictor
    from sanet.models.networks import create_model, load_model
    from sanet.structures import LabelSet, Sample, SanetError, SegmentationOutput
    from sanet.training.fit import train

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        ("AugmentationConfig", "DataConfig", "LossConfig", "ModelConfig", "OptimizerConfig", "TrainConfig"),
        "sanet.config",
    ),
    **dict.fromkeys(("LabelSet", "Sample", "SanetError", "SegmentationOutput"), "sanet.structures"),
    "Predictor": "sanet.inference.predictor",
    "create_model": "sanet.models.networks",
    "evaluate": "sanet.evaluation.evaluate",
    "load_model": "sanet.models.networks",
    "train": "sanet.training.fit",
}
__all__ = [*sorted(_HOMES), "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sanet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
