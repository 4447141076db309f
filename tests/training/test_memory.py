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
from sanet.data.files import FileDataset
from sanet.structures import SanetError
from sanet.training.fit import train
from sanet.training.memory import largest
from sanet.training.task import SegmentationTask


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 16, 33])
def test_the_largest_that_fits_is_found_with_few_tries(limit):
    for most in range(limit + 2):
        tries = []

        def fits(number, most=most, tries=tries):
            tries.append(number)
            return number <= most

        assert largest(fits, limit) == min(most, limit)
        assert len(tries) <= limit.bit_length() + 1
        assert all(1 <= number <= limit for number in tries)


def limited_to(pixels):
    """The loss of a task on a GPU whose memory holds so many pixels."""
    real = SegmentationTask.loss_of

    def loss_of(task, batch):
        if batch.mask.numel() > pixels:
            raise torch.OutOfMemoryError(f"tried to hold {batch.mask.numel()}")
        return real(task, batch)

    return loss_of


@pytest.mark.parametrize(
    ("pixels", "named"),
    [
        # 8 pictures of 64x96 at once.
        (
            3 * 64 * 96,
            r"8 pictures of 64x96 .*largest batch that fits is 3: --accumulate 4 .*largest crop .* \[32, 64\]",
        ),
        (4 * 64 * 96, r"largest batch that fits is 4: --accumulate 2 .*largest crop that fits is \[32, 64\]"),
        (64 * 96 - 1, r"largest batch that fits is 0; with this batch no crop fits"),
    ],
)
def test_out_of_memory_ends_with_what_would_fit(config, monkeypatch, pixels, named):
    monkeypatch.setattr(SegmentationTask, "loss_of", limited_to(pixels))
    crop = sanet.AugmentationConfig(crop=(64, 96))
    with pytest.raises(SanetError, match=named):
        train(dataclasses.replace(config, augmentation=crop, batch_size=8))


def test_the_advice_runs(config, monkeypatch):
    monkeypatch.setattr(SegmentationTask, "loss_of", limited_to(2 * 40 * 40))
    with pytest.raises(SanetError, match="--accumulate 2"):
        train(config)
    for path in sorted(sanet.config.Path(config.output).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    train(dataclasses.replace(config, accumulate=2, epochs=1))


def test_a_killed_loader_ends_the_run_with_the_reason(config, monkeypatch):
    real = FileDataset.__getitem__
    main = os.getpid()

    def read(dataset, index):
        if os.getpid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(dataset, index)

    monkeypatch.setattr(FileDataset, "__getitem__", read)
    with pytest.raises(SanetError, match=r"process that loads pictures has died .*lower workers \(now 2\)"):
        train(dataclasses.replace(config, workers=2))


def test_a_killed_loader_leaves_no_process_behind(config, tmp_path):
    config = dataclasses.replace(config, workers=2)
    config.save(tmp_path / "config.yaml")
    script = tmp_path / "killed.py"
    script.write_text(
        textwrap.dedent("""
        import os, signal, sys
        from sanet.cli.main import main
        from sanet.data.files import FileDataset

        real, parent, marker = FileDataset.__getitem__, os.getpid(), sys.argv[2]

        def read(dataset, index):
            if os.getpid() != parent:
                try:
                    os.mkdir(marker)  # one of the two dies, the other lives on
                    os.kill(os.getpid(), signal.SIGKILL)
                except FileExistsError:
                    pass
            return real(dataset, index)

        FileDataset.__getitem__ = read
        sys.exit(main(["train", "--config", sys.argv[1]]))
        """)
    )
    done = subprocess.run(
        [sys.executable, script, tmp_path / "config.yaml", tmp_path / "marker"],
        capture_output=True, text=True, timeout=120, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "process that loads pictures has died" in done.stderr
    assert subprocess.run(["pgrep", "-f", str(script)], capture_output=True, check=False).stdout == b""
