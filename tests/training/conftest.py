import pytest

from brightness import small_run, write_pictures


@pytest.fixture
def root(tmp_path):
    write_pictures(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def config(root, tmp_path):
    return small_run(root, tmp_path / "run")
