"""The main path without what only Linux, or POSIX, has; see ``elsewhere/sitecustomize.py``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from miniatures import write_halves

COMMANDS = """
import sys
from sanet.cli.main import main

TINY = ["--model.backbone", "test_resnet", "--model.pretrained_backbone", "false", "--augmentation.crop", "[32, 32]"]
for words in (
    ["check-data", "photos"],
    ["plan", "photos", *TINY],
    ["train", "--data.root", "photos", "--output", "run", *TINY, "--epochs", "1", "--batch_size", "2",
     "--num_workers", "1", "--validate_every", "1"],
    ["evaluate", "run", "--split", "val", "--num_workers", "1", "--output", "scores"],
    ["predict", "photos/val/images", "--model", "run", "--output", "labelled", "--overlays", "true"],
    ["predict", "photos/val/images", "--model", "run", "--output", "labelled", "--overlays", "true"],
    ["export", "run"],
):
    if status := main([*words]):
        sys.exit(f"{words[0]}: {status}")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere everything is as it is there")
def test_the_main_path_needs_nothing_that_only_linux_has(tmp_path):
    write_halves(tmp_path / "photos")
    elsewhere = str(Path(__file__).with_name("elsewhere"))
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([elsewhere, *filter(None, sys.path)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
