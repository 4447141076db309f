"""An experiment that has been run once for all tests."""

import shutil

import pytest
from trials import Place, config_of

from brightness import write_pictures
from sanet.experiments.experiment import experiment


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A place in which table 3 has been run; not to be changed."""
    folder = tmp_path_factory.mktemp("experiment")
    place = Place(folder / "data", folder / "out")
    write_pictures(place.data)
    return place, experiment("table3", config_of(place)).result


@pytest.fixture
def copy(finished, tmp_path):
    """The same runs, to play with."""
    place = Place(finished[0].data, tmp_path / "out")
    shutil.copytree(finished[0].output, place.output)
    return place
