"""Checkpoints that count only when they are complete.

One is written aside, synced, renamed and only then listed, with its size and hash, in ``index.json``; a run resumes
from the newest that is what the list says. So neither a kill nor a full disk, at whatever moment, costs more than the
steps since the one before.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from sanet.files import PARTIAL, replaced, sum_of
from sanet.structures import SanetError, first_line, say

INDEX = "index.json"
SUFFIX = ".ckpt"
OURS = re.compile(rf"step-\d{{8,}}{re.escape(SUFFIX)}|.*{re.escape(PARTIAL)}", re.ASCII)
# What an error says when a process that loads images was killed; any code that runs at that moment raises it.
LOADER_DIED = "DataLoader worker"
# The newest, and one to fall back to; the best is kept besides.
KEPT = 2


@dataclass(frozen=True)
class Listed:
    """A checkpoint that was complete when it was listed.

    Attributes:
        file: its name.
        step: steps of the optimiser that it has behind it.
        score: the monitored value, where it was written after a validation.
        bytes: its size.
        sha256: SHA-256 of its content.
    """

    file: str
    step: int
    score: float | None
    bytes: int
    sha256: str


class CheckpointFolder:
    """The checkpoints of a run.

    Args:
        folder: created where it does not exist.
        mode: whether the best score is the "max" or the "min".
    """

    def __init__(self, folder: Path, mode: str = "max") -> None:
        self.folder, self.mode = folder, mode

    def listed(self) -> list[Listed]:
        """Every checkpoint that counts, oldest first."""
        try:
            entries = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            return [Listed(**entry) for entry in entries]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise SanetError(
                f"{self.folder / INDEX} cannot be read ({error}); without it no checkpoint is known to be complete"
            ) from error

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step belongs."""
        return self.folder / f"step-{step:08d}{SUFFIX}"

    def add(self, step: int, score: float | None) -> None:
        """List the checkpoint of a step, which has been written, and delete those that are not needed any more."""
        path = self.path(step)
        entry = Listed(path.name, step, score, path.stat().st_size, sum_of(path))
        entries = [*(other for other in self.listed() if other.file != entry.file), entry]
        best = self._ranked(entries)[:1]
        entries = [other for other in entries if other in entries[-KEPT:] + best]
        text = json.dumps([asdict(other) for other in entries], indent=1)
        with replaced(self.folder / INDEX) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
        names = {other.file for other in entries}
        for path in self.folder.iterdir():
            if OURS.fullmatch(path.name) and path.name not in names:
                path.unlink(missing_ok=True)

    def newest(self) -> Path:
        """The newest checkpoint that is complete; the damaged ones that are passed over are named on stderr.

        Raises:
            SanetError: there is none.
        """
        return self._first_complete(self.listed()[::-1])

    def best(self) -> Path:
        """The checkpoint with the best score, or the next best that is complete; the newest if no score is a number."""
        ranked = self._ranked(self.listed())
        if not ranked:
            say("sanet: the monitored value was never a number; the newest checkpoint is taken", error=True)
        return self._first_complete(ranked or self.listed()[::-1])

    def _ranked(self, entries: list[Listed]) -> list[Listed]:
        """Those with a score, best first, and of equals the earlier one."""
        scored = [entry for entry in entries if entry.score is not None and not isnan(entry.score)]
        sign = -1 if self.mode == "max" else 1
        return sorted(scored, key=lambda entry: sign * (entry.score or 0.0))

    def _first_complete(self, entries: list[Listed]) -> Path:
        damaged: list[str] = []
        for entry in entries:
            path = self.folder / entry.file
            if path.exists() and path.stat().st_size == entry.bytes and sum_of(path) == entry.sha256:
                for other in damaged:
                    say(f"sanet: {other} is damaged or gone; {entry.file} is taken instead", error=True)
                return path
            damaged.append(str(path))
        raise SanetError(f"{self.folder} holds no complete checkpoint; damaged or gone: {', '.join(damaged) or 'none'}")


class AtomicCheckpointIO(TorchCheckpointIO):
    """What Lightning writes checkpoints with: a file is there complete, or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write aside, sync and rename.

        Raises:
            SanetError: there is no room; what was there before is untouched.
        """
        path = Path(path)
        try:
            with replaced(path) as partial:
                torch.save(checkpoint, partial)
        except (SanetError, RuntimeError) as error:  # torch's writer reports a short write as a RuntimeError
            if LOADER_DIED in str(error):
                raise
            free = shutil.disk_usage(path.parent).free / 1e6
            raise SanetError(
                f"{path} cannot be written ({str(error.__cause__ or error).splitlines()[0]}), with {free:.1f} MB free. "
                "The checkpoints before it are complete; make room and resume with --resume"
            ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU: tensors and plain values; nothing else is unpickled.

    Raises:
        SanetError: it cannot be read, or holds something that would run code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise SanetError(
            f"{path} holds more than tensors and plain values, and is not unpickled, since that could run code of it "
            f"({first_line(error)[:200]})"
        ) from error
    except Exception as error:  # whatever the bytes of a damaged file lead to
        if LOADER_DIED in str(error):
            raise
        raise SanetError(f"{path} cannot be read as a checkpoint ({first_line(error)[:200]})") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise SanetError(f"{path} is no checkpoint of a run: it has no state_dict")
    return content
