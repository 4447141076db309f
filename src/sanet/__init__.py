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
        InferenceConfig,
        LossConfig,
        ModelConfig,
        OptimizerConfig,
        ScheduleConfig,
        TrainConfig,
    )
    from sanet.data.catalog import data_source
    from sanet.data.source import Record, Source
    from sanet.data.values import MaskCoding
    from sanet.deploy.config import ProfileConfig
    from sanet.deploy.export import export
    from sanet.deploy.profile import profile
    from sanet.evaluation.evaluate import evaluate
    from sanet.inference.predictor import Predictor
    from sanet.models.backbones import Level
    from sanet.models.networks import SegmentationModel, create_model, load_model
    from sanet.models.sanet import HeadOutput
    from sanet.references import use
    from sanet.repeated.config import RepeatConfig
    from sanet.repeated.runner import repeat
    from sanet.structures import Batch, LabelSet, Sample, SanetError, SegmentationOutput
    from sanet.training.fit import train
    from sanet.training.losses import LossContext, mean_over_processes, sum_over_processes

__version__ = "0.1.0"

__all__ = [
    "AugmentationConfig",
    "Batch",
    "DataConfig",
    "HeadOutput",
    "InferenceConfig",
    "LabelSet",
    "Level",
    "LossConfig",
    "LossContext",
    "MaskCoding",
    "ModelConfig",
    "OptimizerConfig",
    "Predictor",
    "ProfileConfig",
    "Record",
    "RepeatConfig",
    "Sample",
    "SanetError",
    "ScheduleConfig",
    "SegmentationModel",
    "SegmentationOutput",
    "Source",
    "TrainConfig",
    "create_model",
    "data_source",
    "evaluate",
    "export",
    "load_model",
    "mean_over_processes",
    "profile",
    "repeat",
    "sum_over_processes",
    "train",
    "use",
]

_HOMES = {
    "ProfileConfig": "sanet.deploy.config",
    "Predictor": "sanet.inference.predictor",
    "MaskCoding": "sanet.data.values",
    "Record": "sanet.data.source",
    "Source": "sanet.data.source",
    "HeadOutput": "sanet.models.sanet",
    "Level": "sanet.models.backbones",
    "SegmentationModel": "sanet.models.networks",
    "create_model": "sanet.models.networks",
    "data_source": "sanet.data.catalog",
    "RepeatConfig": "sanet.repeated.config",
    "evaluate": "sanet.evaluation.evaluate",
    "repeat": "sanet.repeated.runner",
    "export": "sanet.deploy.export",
    "load_model": "sanet.models.networks",
    "profile": "sanet.deploy.profile",
    "train": "sanet.training.fit",
    "use": "sanet.references",
    **dict.fromkeys(("LossContext", "mean_over_processes", "sum_over_processes"), "sanet.training.losses"),
    **dict.fromkeys(("Batch", "LabelSet", "Sample", "SanetError", "SegmentationOutput"), "sanet.structures"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sanet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "sanet.config")), name)


def __dir__() -> list[str]:
    return __all__
