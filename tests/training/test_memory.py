"""What is said when memory runs out, and when a process that loads pictures is killed."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

import sanet
from sanet.data.source import SegmentationDataset
from sanet.structures import SanetError
from sanet.training.fit import train
from sanet.training.task import SegmentationTask


def test_out_of_memory_names_what_takes_less(config, monkeypatch):
    def loss_of(task, batch):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(SegmentationTask, "loss_of", loss_of)
    crop = sanet.AugmentationConfig(crop=(64, 96))
    with pytest.raises(SanetError, match=r"8 images of 64x96 .*--gradient_accumulation 2"):
        train(dataclasses.replace(config, augmentation=crop, batch_size=8))


@pytest.mark.slow
def test_a_killed_loader_ends_the_run_with_the_reason(config, monkeypatch):
    real = SegmentationDataset.__getitem__
    main = os.getpid()

    def read(dataset, index):
        if os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(dataset, index)

    monkeypatch.setattr(SegmentationDataset, "__getitem__", read)
    with pytest.raises(SanetError, match=r"process that loads images has died .*lower num_workers \(now 2\)"):
        train(dataclasses.replace(config, num_workers=2))


@pytest.mark.slow
def test_a_killed_loader_leaves_no_process_behind(config, tmp_path):
    config = dataclasses.replace(config, num_workers=2)
    config.save(tmp_path / "config.yaml")
    script = tmp_path / "killed.py"
    script.write_text(
        textwrap.dedent("""
        import os, signal, sys
        from sanet.cli.main import main
        from sanet.data.source import SegmentationDataset

        real, parent, marker = SegmentationDataset.__getitem__, os.getpid(), sys.argv[2]

        def read(dataset, index):
            if os.getpid() != parent:
                try:
                    os.mkdir(marker)  # one of the two dies, the other lives on
                    os.kill(os.getpid(), signal.SIGKILL)
                except FileExistsError:
                    pass
            return real(dataset, index)

        SegmentationDataset.__getitem__ = read
        sys.exit(main(["train", "--config", sys.argv[1]]))
        """)
    )
    done = subprocess.run(
        [sys.executable, script, tmp_path / "config.yaml", tmp_path / "marker"],
        capture_output=True, text=True, timeout=120, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "process that loads images has died" in done.stderr
    assert subprocess.run(["pgrep", "-f", str(script)], capture_output=True, check=False).stdout == b""
