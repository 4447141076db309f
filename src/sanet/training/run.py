"""The directory of a training run: one run at a time uses it, and goes on in it as it began."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from sanet import distributed, files
from sanet.config import CHECKPOINTS, CONFIG, MODEL, TrainConfig, plain
from sanet.evaluation.evaluate import files_in
from sanet.structures import SanetError, UsageError
from sanet.training.checkpoints import CheckpointFolder, read_checkpoint
from sanet.training.task import STATE
from sanet.yaml_files import read_mapping

# Where TensorBoard finds its events.
TENSORBOARD = "tensorboard"
# What may differ when a run goes on: where and how long it trains, not what is trained.
MAY_CHANGE = {"output", "epochs", "num_workers", "accelerator", "checkpoint_minutes"}


@dataclass(frozen=True)
class Position:
    """Where a run goes on.

    Attributes:
        checkpoint: the file, found to be whole.
        epochs: finished epochs.
        batches: of the epoch after them, batches that each process has behind it.
    """

    checkpoint: Path
    epochs: int
    batches: int


@contextmanager
def locked_run(directory: Path) -> Iterator[None]:
    """Keep everything but the processes of this job out of a directory; see ``files.locked``."""
    with ExitStack() as stack:
        distributed.broadcast_from_main(lambda: stack.enter_context(files.locked(directory)))
        yield


def refuse_used(config: TrainConfig) -> None:
    """Raise a UsageError where there is anything that a new run would mix with.

    What the same run has left that was killed before its first checkpoint does not count: there is nothing to lose.
    """
    directory = Path(config.output)
    found = {path.name for path in directory.iterdir() if not files.hidden(path)}
    begun = bool(CheckpointFolder(directory / CHECKPOINTS).listed())
    if not begun and found <= {CONFIG, TENSORBOARD, CHECKPOINTS}:
        files.require_own(directory / CONFIG)
        if not found or not changed(config, read_mapping(directory / CONFIG) if CONFIG in found else {}):
            return
    if found:
        remedy = f"go on with it: sanet train --resume {quote(str(directory))}" if begun else "delete it"
        raise UsageError(f"--output: {directory} is not empty; choose another --output, or {remedy}")


def keep(config: TrainConfig) -> None:
    """Write config.yaml; one that says the same already stays as it is."""
    path = Path(config.output) / CONFIG
    if not path.exists() or read_mapping(path) != plain(config):
        with files.written(path) as aside:
            config.save(aside)


def position_in(config: TrainConfig) -> Position:
    """The newest whole checkpoint, once it is certain that the run can go on from it as it began.

    Raises:
        SanetError: there is none, or it cannot be read.
        UsageError: something has changed that decides the outcome, or fewer epochs are wanted than are done; or a file
            that would be replaced is not as the run has left it.
    """
    directory = Path(config.output)
    folder = CheckpointFolder(directory / CHECKPOINTS)
    if not folder.listed():
        raise SanetError(
            f"{folder.folder} has no checkpoint to resume from; delete {directory} and start without resume"
        )
    stored = read_mapping(directory / CONFIG)
    differing = changed(config, stored)
    if differing:
        raise UsageError(
            f"{', '.join(differing)}: cannot change when a run goes on; start a new one with another output"
        )
    if stored != plain(config):
        files.require_own(directory / CONFIG)
    # What the end of the run writes, and what it has written before.
    files.require_own(*files_in(directory), *(directory / MODEL).rglob("*"), root=directory)
    path = folder.newest()
    state = read_checkpoint(path)
    try:
        position = Position(path, *_progress(state))
        before = state[STATE]["processes"]
    except (LookupError, TypeError) as error:
        raise SanetError(f"{path} is no checkpoint that this version of sanet can go on from ({error!r})") from error
    if config.epochs < position.epochs:
        raise UsageError(f"epochs {config.epochs}: {position.epochs} are done already")
    if position.batches and before != distributed.world_size():
        raise UsageError(
            f"{path} was written in the middle of an epoch by {before} processes, and this run has "
            f"{distributed.world_size()}; go on with as many, at least to the end of the epoch"
        )
    return position


def changed(config: TrainConfig, stored: dict[str, Any]) -> list[str]:
    """The settings that are not as they were, but for what may change when a run goes on."""
    wanted = plain(config)
    if isinstance(data := stored.get("data"), dict):
        wanted["data"]["root"] = data.get("root")  # the data may have moved
    return [name for name in wanted if name not in MAY_CHANGE and wanted[name] != stored.get(name)]


def _progress(state: dict[str, Any]) -> tuple[int, int]:
    """Finished epochs, and finished batches of an epoch that has begun, as Lightning counts them."""
    loops = state["loops"]["fit_loop"]
    epochs = loops["epoch_progress"]["current"]
    begun = epochs["ready"] > epochs["processed"]
    return epochs["processed"], loops["epoch_loop.batch_progress"]["current"]["processed"] if begun else 0
