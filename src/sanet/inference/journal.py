"""``predictions.jsonl``: which images have been labelled into a folder, with what, and what was found."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from sanet.files import append, aside_of, refuse, replaced
from sanet.inference.prediction import Kind
from sanet.structures import UsageError

RESULTS = "predictions.jsonl"

Line = dict[str, Any]


class Job(NamedTuple):
    """An image, and the files that are written for it, by what they are; all as this process opens them.

    ``files`` has a mask, and whatever else is wanted.
    """

    image: str
    files: dict[Kind, str]

    @property
    def mask(self) -> str:
        """The mask."""
        return self.files["mask"]

    @property
    def outputs(self) -> list[Path]:
        """All files, the mask first."""
        return [Path(file) for file in self.files.values()]


class Journal:
    """The newest line about each mask. Paths in lines start at the folder, so that every working directory may call.

    Raises:
        UsageError: the output folder has a ``predictions.jsonl`` with other lines.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = Path(os.path.realpath(folder)), folder / RESULTS
        self.lines: dict[str, Line] = {}
        if self.path.is_file():
            self._read()
        elif os.path.lexists(self.path):
            raise refuse(self.path)

    def name(self, path: str) -> str:
        """How a line calls a file: from the folder on, links in between followed."""
        place = Path(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        try:
            return PurePath(os.path.relpath(place, self.folder)).as_posix()
        except ValueError:  # on another drive
            return place.as_posix()

    def is_done(self, job: Job, fingerprint: str) -> bool:
        """Whether the files are those that this model and these settings make of the image as it is now.

        While something lies beside the place of one of them, a call was killed between the two, and the line may be of
        another file.
        """
        line = self.lines.get(self.name(job.mask), {})
        try:
            wanted = {"image": self.name(job.image), "fingerprint": fingerprint, **version(job.image)}
        except OSError:
            return False
        fits = all(line.get(key) == value for key, value in wanted.items())
        return fits and all(path.is_file() and not aside_of(path).exists() for path in job.outputs)

    def add(self, line: Line, job: Job) -> None:
        """Keep what became of an image."""
        line |= {"image": self.name(job.image)} | {kind: self.name(path) for kind, path in job.files.items()}
        self._put(line)
        append(self.path, json.dumps(line))

    def finish(self, jobs: Sequence[Job]) -> None:
        """Write all lines again: those of other images whose masks are still there, and behind them these jobs'."""
        own = [self.lines.pop(self.name(job.mask)) for job in jobs]
        others = [line for line in self.lines.values() if (self.folder / line["mask"]).is_file()]
        self.lines = {line["mask"]: line for line in others + own}
        self.write()

    def write(self) -> None:
        """Write all lines again, without those that are torn or that newer ones contradict."""
        with replaced(self.path) as aside, aside.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in self.lines.values())

    def _put(self, line: Line) -> None:
        self.lines.pop(line["mask"], None)  # to the end
        self.lines[line["mask"]] = line

    def _read(self) -> None:
        with self.path.open(encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(file, 1):
                try:
                    self._put(json.loads(text))
                except (LookupError, TypeError, ValueError) as error:
                    if number == 1 or text.endswith("\n"):  # else torn: the process was killed while it wrote
                        raise UsageError(
                            f"--output: line {number} of {self.path} is not of `sanet predict`; the file is not "
                            "replaced: move it away, delete that line, or choose another --output"
                        ) from error


def version(image: str) -> Line:
    """What a change of the image changes."""
    status = os.stat(image)
    return {"bytes": status.st_size, "modified": status.st_mtime_ns}
