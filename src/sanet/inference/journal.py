"""``predictions.jsonl``: which images have been labelled into a folder, with what, and what was found."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

from sanet.files import append, aside_of, refuse, replaced
from sanet.inference.prediction import Kind
from sanet.structures import UsageError

RESULTS = "predictions.jsonl"

Line = dict[str, Any]
FileKind = Kind | Literal["frames"]  # a film's table, which stands for it as a mask does for an image


class Job(NamedTuple):
    """An image or a film, and the files that are written for it, by what they are; all as this process opens them.

    ``files`` has a mask, or of a film "frames", first, and whatever else is wanted. ``large``: see ``large.py``.
    """

    image: str
    files: dict[FileKind, str]
    large: bool = False

    @property
    def main(self) -> str:
        """The first file."""
        return next(iter(self.files.values()))

    @property
    def outputs(self) -> list[Path]:
        """All files."""
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
        line = self.lines.get(self.name(job.main), {})
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
        own = [self.lines.pop(self.name(job.main)) for job in jobs]
        others = [line for line in self.lines.values() if (self.folder / _main(line)).is_file()]
        self.lines = {_main(line): line for line in others + own}
        self.write()

    def write(self) -> None:
        """Write all lines again, without those that are torn or that newer ones contradict."""
        with replaced(self.path) as aside, aside.open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(line)}\n" for line in self.lines.values())

    def _put(self, line: Line) -> None:
        self.lines.pop(_main(line), None)  # to the end
        self.lines[_main(line)] = line

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


def _main(line: Line) -> str:
    """As ``Job.main``."""
    return str(line["frames"] if "frames" in line else line["mask"])


def version(image: str) -> Line:
    """What a change of the image changes."""
    status = os.stat(image)
    return {"bytes": status.st_size, "modified": status.st_mtime_ns}
