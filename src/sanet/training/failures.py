"""Why a run could not train, in plain words."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sanet.config import TrainConfig
from sanet.structures import SanetError, first_line
from sanet.training.checkpoints import LOADER_DIED

# What a write that finds no room fails with.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Advice about settings that are chosen on purpose, and what Lightning says of itself.
EXPECTED_WARNINGS = (
    ".*num_workers",
    ".*log_every_n_steps",
    "Experiment logs directory",
    "Checkpoint directory .* exists and is not empty",
    ".*LeafSpec",
    "You're resuming from a checkpoint that ended before the epoch ended",  # EpochSampler continues where it ended
    "Found .* module.* in eval mode at the start of training",  # a frozen backbone
    "It is recommended to use `self.log.*sync_dist",  # what is logged is the same in every process
)


@contextmanager
def explained(config: TrainConfig, batch_size: int | None) -> Iterator[None]:
    """Say in plain words why Lightning could not train."""
    try:
        with warnings.catch_warnings():
            for message in EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    except torch.OutOfMemoryError as error:
        height, width = config.augmentation.crop
        raise SanetError(
            f"the GPU's memory does not hold {batch_size} images of {height}x{width} at once, or one of "
            f"{config.window}x{config.window} in validation. Start again with a new --output, --gradient_accumulation "
            f"{2 * config.gradient_accumulation}, --precision bf16-mixed, or a smaller --augmentation.crop or --window"
        ) from error
    except SystemExit as error:  # Lightning's answer to a Ctrl-C that insists
        raise KeyboardInterrupt from error
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise SanetError(
            f"{config.output} cannot be written to ({error.strerror}). The checkpoints in it are complete; make room "
            "and resume with --resume"
        ) from error
    except RuntimeError as error:
        if LOADER_DIED not in str(error):
            raise
        raise SanetError(
            f"a process that loads images has died ({first_line(error)}): most often the machine is out of memory, or "
            f"of shared memory (/dev/shm); lower num_workers (now {config.num_workers}) and add --resume"
        ) from error
