"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from sanet import references

# Nothing may be fetched while tests run, and nothing should wait for a network that is not there.
os.environ["HF_HUB_OFFLINE"] = "1"
# What the check keeps of files stays out of the home folder.
os.environ["SANET_CACHE"] = tempfile.mkdtemp(prefix="sanet-tests-")
# Two test processes share two cores, and results must not depend on the number of threads.
torch.set_num_threads(1)
# A shell makes what it puts into the background deaf to Ctrl-C, and with it all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same examples at every run, and no limit on their time: a machine may be busy.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def opened_modules() -> Iterator[None]:
    """What a test opens is closed behind it."""
    before = dict(references._opened)
    yield
    references._opened.clear()
    references._opened.update(before)


@pytest.fixture
def camvid_root() -> Path:
    """The real CamVid; a test that asks for it is skipped where it is not at hand."""
    root = os.environ.get("SANET_CAMVID")
    if not root:
        pytest.skip("set SANET_CAMVID to the folder with CamVid (train/, trainannot/, …) to run this")
    return Path(root)
