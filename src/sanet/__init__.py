"""sanet: semantic segmentation with Squeeze-and-Attention Networks (CVPR 2020).

The names below are imported when first used, so that ``import sanet`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sanet.config import (
        AugmentationConfig as AugmentationConfig,
        DataConfig as DataConfig,
        InferenceConfig as InferenceConfig,
        LossConfig as LossConfig,
        ModelConfig as ModelConfig,
        OptimizerConfig as OptimizerConfig,
        ScheduleConfig as ScheduleConfig,
        TrainConfig as TrainConfig,
    )
    from sanet.data.catalog import data_source as data_source
    from sanet.data.check import check_data as check_data
    from sanet.data.formats.convert import convert as convert
    from sanet.data.formats.format import Format as Format
    from sanet.data.formats.regions import Annotation as Annotation, Region as Region
    from sanet.data.source import Record as Record, Source as Source
    from sanet.data.values import MaskCoding as MaskCoding
    from sanet.deploy.config import ProfileConfig as ProfileConfig
    from sanet.deploy.export import export as export
    from sanet.deploy.profile import profile as profile
    from sanet.evaluation.evaluate import evaluate as evaluate
    from sanet.evaluation.score import score as score
    from sanet.inference.choosing import next_to_label as next_to_label
    from sanet.inference.films import frames_of as frames_of
    from sanet.inference.prediction import Prediction as Prediction
    from sanet.inference.predictor import Predictor as Predictor
    from sanet.insight.errors import errors as errors
    from sanet.insight.explain import explain as explain
    from sanet.insight.visualize import visualize as visualize
    from sanet.models.backbones import Level as Level
    from sanet.models.networks import (
        SegmentationModel as SegmentationModel,
        create_model as create_model,
        load_model as load_model,
    )
    from sanet.models.sanet import HeadOutput as HeadOutput
    from sanet.references import use as use
    from sanet.repeated.config import RepeatConfig as RepeatConfig
    from sanet.repeated.runner import repeat as repeat
    from sanet.structures import (
        Batch as Batch,
        LabelSet as LabelSet,
        Sample as Sample,
        SanetError as SanetError,
        SegmentationOutput as SegmentationOutput,
    )
    from sanet.training.fit import train as train
    from sanet.training.losses import (
        LossContext as LossContext,
        mean_over_processes as mean_over_processes,
        sum_over_processes as sum_over_processes,
    )
    from sanet.training.plan import plan as plan

__version__ = "0.1.0"

_HOMES = {
    "sanet.config": (
        *("AugmentationConfig", "DataConfig", "InferenceConfig", "LossConfig", "ModelConfig", "OptimizerConfig"),
        *("ScheduleConfig", "TrainConfig"),
    ),
    "sanet.data.catalog": ("data_source",),
    "sanet.data.check": ("check_data",),
    "sanet.data.formats.convert": ("convert",),
    "sanet.data.formats.format": ("Format",),
    "sanet.data.formats.regions": ("Annotation", "Region"),
    "sanet.data.source": ("Record", "Source"),
    "sanet.data.values": ("MaskCoding",),
    "sanet.deploy.config": ("ProfileConfig",),
    "sanet.deploy.export": ("export",),
    "sanet.deploy.profile": ("profile",),
    "sanet.evaluation.evaluate": ("evaluate",),
    "sanet.evaluation.score": ("score",),
    "sanet.inference.choosing": ("next_to_label",),
    "sanet.inference.films": ("frames_of",),
    "sanet.inference.prediction": ("Prediction",),
    "sanet.inference.predictor": ("Predictor",),
    "sanet.insight.errors": ("errors",),
    "sanet.insight.explain": ("explain",),
    "sanet.insight.visualize": ("visualize",),
    "sanet.models.backbones": ("Level",),
    "sanet.models.networks": ("SegmentationModel", "create_model", "load_model"),
    "sanet.models.sanet": ("HeadOutput",),
    "sanet.references": ("use",),
    "sanet.repeated.config": ("RepeatConfig",),
    "sanet.repeated.runner": ("repeat",),
    "sanet.structures": ("Batch", "LabelSet", "Sample", "SanetError", "SegmentationOutput"),
    "sanet.training.fit": ("train",),
    "sanet.training.losses": ("LossContext", "mean_over_processes", "sum_over_processes"),
    "sanet.training.plan": ("plan",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sanet' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
