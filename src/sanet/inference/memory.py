"""``predictions.jsonl``: what the calls into one folder have written there, and of which pictures."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from sanet.files import append, refuse, replaced, sum_of
from sanet.structures import UsageError

RESULTS = "predictions.jsonl"
FILES = ("mask", "overlay")

Line = dict[str, Any]


class Job(NamedTuple):
    """A picture, and the files that are written for it; all as this process opens them."""

    image: str
    mask: str
    overlay: str


class Memory:
    """The lines of an output folder. Paths in them start at that folder, so that every working directory may call.

    Lines of 103b714 and before have paths that started at the working directory, and no sums. Their masks and
    overlays count as ours, whatever is in them, and their pictures are labelled again.

    Args:
        folder: the output; need not be there.

    Attributes:
        texts: the lines, oldest first.
        sums: of a file in the folder, by its name there, the contents that calls have given it; None is any.

    Raises:
        UsageError: the file is somebody else's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = Path(os.path.realpath(folder)), folder / RESULTS
        self.texts: list[str] = []
        self.lines: list[Line] = []
        self.sums: dict[str, set[str | None]] = defaultdict(set)
        for line, text in self._read():
            self.texts.append(text)
            self.lines.append(line)
            for name, known in _files(line).items():
                self.sums[name] |= known

    def name(self, path: str) -> str:
        """How a line calls a file: from the folder on, links in between followed."""
        parent, name = os.path.split(os.path.abspath(path))
        try:
            return PurePath(os.path.relpath(os.path.join(os.path.realpath(parent), name), self.folder)).as_posix()
        except ValueError:  # on another drive
            return PurePath(parent, name).as_posix()

    def done(self, jobs: Sequence[Job], fingerprint: str | None) -> dict[str, str]:
        """The lines, by picture, that make labelling it again superfluous."""
        newest = {line.get("image"): (line, text) for line, text in zip(self.lines, self.texts, strict=True)}
        found = ((job, *newest.get(self.name(job.image), ({}, ""))) for job in jobs)
        return {job.image: text for job, line, text in found if fingerprint and self._holds(line, job, fingerprint)}

    def _holds(self, line: Line, job: Job, fingerprint: str) -> bool:
        names = {kind: self.name(getattr(job, kind)) for kind in FILES}
        try:
            wanted = {"fingerprint": fingerprint, **names, **version(job.image)}
        except OSError:
            return False
        same = "mask_sha256" in line and all(line.get(key) == value for key, value in wanted.items())
        return same and not any(self._outdated(line, kind, Path(getattr(job, kind))) for kind in FILES)

    def _outdated(self, line: Line, kind: str, path: Path) -> bool:
        """Whether a file is gone, or the call that wrote the line was killed before it was replaced."""
        known, now = self.sums[line[kind]], line[f"{kind}_sha256"]
        if not path.is_file() or known == {now}:
            return not path.is_file()
        found = sum_of(path)
        return found != now and (found in known or None in known)

    def require_untouched(self, jobs: Iterable[Job]) -> None:
        """Raise a UsageError if a file that has to be made again is not as a call has left it."""
        for path in (Path(getattr(job, kind)) for job in jobs for kind in FILES):
            known = self.sums[self.name(str(path))]
            if os.path.lexists(path) and None not in known and not (path.is_file() and sum_of(path) in known):
                raise refuse(path)

    def add(self, line: Line, job: Job) -> str:
        """Keep what became of a picture, before its files take their places; the text of it."""
        names = {"image": self.name(job.image), **{kind: self.name(getattr(job, kind)) for kind in FILES}}
        earlier = {}
        if "error" in line:  # what an earlier call has made of it stays, and stays known
            paths = {kind: Path(getattr(job, kind)) for kind in FILES}
            earlier = {f"{kind}_sha256": sum_of(path) for kind, path in paths.items() if path.is_file()}
        text = json.dumps({**line, **names, **earlier})
        append(self.path, text)
        return text

    def others(self, jobs: Sequence[Job]) -> list[str]:
        """The newest lines of masks that are none of these jobs', and are still there."""
        written = {self.name(job.mask) for job in jobs}
        kept: dict[str, str] = {}
        for line, text in zip(self.lines, self.texts, strict=True):
            names = {name for name in _files(line) if name.startswith("masks/")}
            there = [name for name in names if (self.folder / name).is_file()]
            if there and not names & written:
                kept[there[0]] = text
        return list(kept.values())

    def write(self, texts: Iterable[str]) -> None:
        """All lines anew."""
        with replaced(self.path) as aside, aside.open("w", encoding="utf-8") as file:
            file.writelines(f"{text}\n" for text in texts)

    def _read(self) -> Iterator[tuple[Line, str]]:
        if not os.path.lexists(self.path):
            return
        if not self.path.is_file():
            raise refuse(self.path)
        with self.path.open(encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(file):
                line = None
                with suppress(json.JSONDecodeError):
                    line = json.loads(text)
                if isinstance(line, dict) and isinstance(line.get("image"), str) and {"mask", "error"} & line.keys():
                    yield line, text.rstrip("\n")
                elif number == 0 or text.endswith("\n"):  # else torn: the process was killed while it wrote
                    raise UsageError(
                        f"--output: line {number + 1} of {self.path} is not of `sanet predict`; the file is not "
                        "replaced: move it away, delete that line, or choose another --output"
                    )


def version(picture: str) -> Line:
    """What a change of the picture changes."""
    status = os.stat(picture)
    return {"bytes": status.st_size, "modified": status.st_mtime_ns}


def _files(line: Line) -> dict[str, set[str | None]]:
    """The mask and the overlay of a line by their names in the folder, each with the content that it was given."""
    if "error" in line or "mask_sha256" in line:
        return {str(line[kind]): {line[f"{kind}_sha256"]} for kind in FILES if f"{kind}_sha256" in line}
    names = []
    for kind in FILES:  # from wherever the call was made; which part of it was the folder is not known
        parts = PurePath(str(line.get(kind, ""))).parts
        names += ["/".join(parts[at:]) for at, part in enumerate(parts) if part == f"{kind}s"]
    return {name: {None} for name in names}
