"""The package's own model: a SANet for streets seen from a car, whose card is ``OWN_MODEL / "README.md"``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sanet.config import ViewsConfig
from sanet.models.networks import SegmentationModel

OWN_MODEL = Path(__file__).parent / "camvid"
# The shorter side of pictures that it has to see: things must be as large as in training.
OWN_SIDE = 720


def views_of(model: str | Path | SegmentationModel, views: ViewsConfig = ViewsConfig()) -> ViewsConfig:
    """How a model looks at pictures: the package's own at ``OWN_SIDE``, unless another size is asked for."""
    own = isinstance(model, (str, Path)) and Path(model) == OWN_MODEL and views.shorter_side is None
    return replace(views, shorter_side=OWN_SIDE) if own else views
