"""What was found in a dataset, and a report of it for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from textwrap import TextWrapper

import numpy as np
from numpy.typing import NDArray

from sanet.data.facts import Size
from sanet.data.problems import Problem
from sanet.reading import EIGHT_BITS, ImageReading
from sanet.structures import LabelSet, printable

LINES = TextWrapper(
    118, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
)
NOTES = TextWrapper(118, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


@dataclass(frozen=True)
class Finding:
    """One fault."""

    problem: Problem  # its kind, with the remedy and the severity
    split: str
    path: Path | None  # None where the whole split or a line of its list is meant
    detail: str = ""  # values and their numbers of pixels, sizes, names of other files


@dataclass(frozen=True)
class DataReport:
    """What was found; ``str`` makes a report of it.

    Attributes:
        labels: the classes.
        findings: everything that is wrong.
        images: of every split, the number of images.
        sizes: of every split that has a readable image, width and height of the smallest and the largest.
        pixels: of every split, (K,) int64, the number of pixels of each class.
        ignored: of every split, the number of pixels with the ignore value.
        unused: by folder of the dataset, how many images and masks no split uses.
        notes: what was found out and decided about the dataset.
        values: what stands for each class in the masks, where that is not its number.
        reading: how images are read, with the range of their values where they have one.
    """

    labels: LabelSet
    findings: list[Finding]
    images: dict[str, int]
    sizes: dict[str, tuple[Size, Size]]
    pixels: dict[str, NDArray[np.int64]]
    ignored: dict[str, int]
    unused: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    values: dict[str, str] = field(default_factory=dict)
    reading: ImageReading = EIGHT_BITS

    @property
    def errors(self) -> list[Finding]:
        """What has to be fixed before training; the other findings are warnings."""
        return [finding for finding in self.findings if finding.problem.severity == "error"]

    def table(self) -> str:
        """Images, sizes, each class's share of the labelled pixels and the share ignored of all, by split."""
        rows = [["", *self.images], ["images", *map(str, self.images.values())]]
        for index, title in enumerate(("smallest", "largest")):
            texts = {split: "x".join(map(str, found[index])) for split, found in self.sizes.items()}
            rows.append([title, *(texts.get(split, "none") for split in self.images)])
        for index, name in enumerate(self.labels.names):
            title = f"{name} ({self.values[name]})" if name in self.values else name
            rows.append([title, *(_share(int(counts[index]), int(counts.sum())) for counts in self.pixels.values())])
        wholes = [int(counts.sum()) + self.ignored[split] for split, counts in self.pixels.items()]
        rows.append(["ignored", *map(_share, self.ignored.values(), wholes)])
        width = max(len(row[0]) for row in rows)
        return "\n".join(row[0].ljust(width) + "".join(cell.rjust(12) for cell in row[1:]) for row in rows)

    def __str__(self) -> str:
        found = dict.fromkeys(finding.problem for finding in self.findings)
        groups = [self._group(problem) for problem in sorted(found, key=lambda problem: problem.severity)]
        errors = len(self.errors)
        summary = f"errors: {errors}, warnings: {len(self.findings) - errors}" if self.findings else "nothing wrong"
        unused = printable(", ".join(f"{count} in {folder}" for folder, count in self.unused.items()))
        said = (f"the network sees these values, by channel, as 0 to 1: {self.reading.text()}",)
        notes = "\n".join(NOTES.fill(printable(note)) for note in (*self.notes, *(said if self.reading.low else ())))
        parts = [
            notes,
            self.table(),
            *groups,
            f"images and masks that are not used: {unused}" if unused else "",
            summary,
        ]
        return "\n\n".join(filter(None, parts))

    def _group(self, problem: Problem) -> str:
        """All findings of one kind, files with the same detail on one line."""
        found = [finding for finding in self.findings if finding.problem == problem]
        lines = [f"{problem.severity.upper()}: {problem.title} ({len(found)})", f"Remedy: {problem.remedy}"]
        places: dict[str, dict[str, list[str]]] = {}
        for finding in found:
            place = finding.split + (f", {finding.path.parent}" if finding.path else "")
            names = places.setdefault(place, {}).setdefault(finding.detail, [])
            names += [finding.path.name] if finding.path else []
        for place, details in places.items():
            lines.append(f"  {printable(place)}")
            for detail, names in details.items():
                text = printable(": ".join(filter(None, (", ".join(names), detail))))
                lines += LINES.wrap(text)
        return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if part else "none"
