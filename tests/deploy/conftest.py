"""What several tests of exports share."""

import pytest

from sanet.config import DataConfig
from sanet.data import scenes
from sanet.data.catalog import data_source


@pytest.fixture
def few_scenes(monkeypatch):
    """The built-in scenes, but fewer to score."""
    monkeypatch.setitem(scenes.COUNTS, "val", 10)
    return data_source(DataConfig())
