"""When a run writes checkpoints, and how it stops when it is asked to."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from sanet import distributed
from sanet.config import CHECKPOINTS, TrainConfig
from sanet.references import name_of
from sanet.structures import Interrupted, SanetError, say
from sanet.training.checkpoints import CheckpointFolder, read_checkpoint
from sanet.training.metrics import Row, write_metrics
from sanet.training.task import SegmentationTask, validates


def kept(directory: Path) -> str:
    """What is left of a run that stops before or after training, in words."""
    folder = directory / CHECKPOINTS
    return f"with what {folder} holds" if CheckpointFolder(folder).listed() else "before there was anything to keep"


@contextmanager
def stoppable(left: Callable[[], str]) -> Iterator[None]:
    """Where no step has to be finished, end at once on SIGTERM, with its status.

    Args:
        left: says what is left then.

    Raises:
        Interrupted: SIGTERM came.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}, {left()}", Interrupted.ON_REQUEST)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class DeferredSignal:
    """The first SIGTERM or Ctrl-C, kept until the step is finished; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Take the two signals over; only a main thread can."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)

    def forget(self) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


def out_of_patience(history: Sequence[Row], config: TrainConfig) -> bool:
    """Whether the last ``patience`` validations of a run have not been better than the best before them."""
    sign = 1 if config.monitor_mode == "max" else -1
    values = [sign * row[config.monitor] for row in history if "val/miou" in row]
    values = [float("-inf") if isnan(value) else value for value in values]
    return (
        config.patience is not None and len(values) - values.index(max(values)) > config.patience if values else False
    )


class Saving(Checkpoint):
    """Writes metrics and a checkpoint at the end of every epoch, and checkpoints in between.

    In between: before the first step, so that whatever has begun can be resumed, after so many minutes, before the last
    step of an epoch that is validated or after one with which the run ends, so that a stop during a long validation
    loses one step, and where a stop is asked for. Only the first process writes files.

    Args:
        config: of the run.
        folder: its checkpoints.
    """

    def __init__(self, config: TrainConfig, folder: CheckpointFolder) -> None:
        self.config, self.folder = config, folder
        self.stop = DeferredSignal()
        self.saved = monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen; this comes after Lightning has set its own handlers, which would stop without a checkpoint."""
        self.stop.listen()
        if distributed.broadcast_from_main(lambda: not self.folder.listed()):
            self._save(trainer, None)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Listen no longer."""
        self.stop.forget()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time to, and stop when that is asked for; only between complete steps."""
        parts = self.config.gradient_accumulation
        left = int(trainer.num_training_batches) - batch_idx - 1
        if left % parts:
            return
        asked, due = self._agreed(pl_module)
        if left and (asked or due or trainer.should_stop or (left == parts and validates(trainer))):
            self._save(trainer, None)
        # After the last step of an epoch that is not validated, its end is near and saves by itself.
        if asked and (left or validates(trainer)):
            self._interrupt(trainer)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Stop; the checkpoint before the last step is there. All processes do, at an image that each of them has."""
        images = trainer.val_dataloaders.dataset.dataset  # type: ignore[union-attr]  # of a share of them
        if batch_idx < len(images) // distributed.world_size() and self._agreed(pl_module)[0]:
            self._interrupt(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, with the monitored value if the epoch has one, and stop when that is asked for or patience is over."""
        history = cast(SegmentationTask, pl_module).history
        score = history[-1][self.config.monitor] if validates(trainer) else None
        if score is not None and isnan(score) and distributed.is_main_process():
            say(f"sanet: {self.config.monitor} is not a number after epoch {trainer.current_epoch + 1}", error=True)
        distributed.broadcast_from_main(lambda: write_metrics(Path(self.config.output), history))
        # Losses are known for every epoch, but what was validated is what may be the best.
        self._save(trainer, score)
        trainer.should_stop |= out_of_patience(history, self.config)
        if self._agreed(pl_module)[0]:
            self._interrupt(trainer)

    def _save(self, trainer: L.Trainer, score: float | None) -> None:
        step, failure = trainer.global_step, None
        try:
            trainer.save_checkpoint(self.folder.path(step))
        except (SanetError, OSError) as error:  # in the first process; the others wait for it
            failure = error
            trainer.strategy.barrier("Trainer.save_checkpoint")

        def enlist() -> None:
            if failure:
                raise failure
            if not self.folder.listed():
                require_readable(self.folder.path(step), trainer)
            self.folder.add(step, score)

        distributed.broadcast_from_main(enlist)
        self.saved = monotonic()

    def _agreed(self, module: L.LightningModule) -> tuple[bool, bool]:
        """Whether any process is asked to stop, and whether the minutes are over in any."""
        due = monotonic() - self.saved > 60 * self.config.checkpoint_minutes
        mine = [self.stop.signal is not None, due]
        if not distributed.is_distributed():
            return mine[0], mine[1]
        found = distributed.all_reduce_sum(torch.tensor(mine, dtype=torch.int64, device=module.device)).tolist()
        return found[0] > 0, found[1] > 0

    def _interrupt(self, trainer: L.Trainer) -> None:
        trainer.strategy.barrier()
        number = self.stop.signal or signal.SIGTERM
        raise Interrupted(
            f"stopped by {number.name}, with everything up to the last checkpoint kept in "
            f"{Path(self.config.output) / CHECKPOINTS}",
            status=Interrupted.BY_KEYBOARD if number == signal.SIGINT else Interrupted.ON_REQUEST,
        )


def require_readable(path: Path, trainer: L.Trainer) -> None:
    """Raise a SanetError where the first checkpoint of a run could not be read back, which unpickles nothing."""
    try:
        read_checkpoint(path)
    except SanetError as error:
        unreadable = [name_of(part) for part in trainer.callbacks if not _is_plain(part.state_dict())]  # type: ignore[attr-defined]
        raise SanetError(
            f"{', '.join(unreadable) or 'optimizer, schedule or a callback'}: what its state_dict() returns could not "
            f"be read back without unpickling; let it hold tensors, numbers, texts, lists and dicts only ({error})"
        ) from error


def _is_plain(state: Any) -> bool:
    stream = io.BytesIO()
    try:
        torch.save(state, stream)
        stream.seek(0)
        torch.load(stream, weights_only=True)
    except Exception:  # of pickling, or of what is not unpickled
        return False
    return True
