"""Goes through a whole data set before the first step and lists everything that is wrong with it.

Nothing is changed, and nothing is left out of the list. The pixels of each class are counted on the way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from math import prod
from pathlib import Path
from textwrap import TextWrapper

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from sanet.data.coding import MaskCoding, StoredValue, meanings, value_counts, values_text
from sanet.data.decoding import IMAGE_SUFFIXES, DataError, read_image, read_mask
from sanet.data.files import FileSource, Record, is_text
from sanet.data.problems import (
    ABSENT,
    AMBIGUOUS,
    BINARY,
    COLORS,
    EMPTY,
    LISTED_TWICE,
    LOSSY,
    NO_FILES,
    NO_MASK,
    NO_PICTURE,
    NO_TEXT,
    REPEATED,
    ROTATED,
    SHARED,
    SHIFTED,
    SIZES,
    SMOOTHED,
    UNKNOWN,
    UNLABELLED,
    UNREADABLE,
    Problem,
)
from sanet.structures import LabelSet, choose, printable

# Decoding leaves the interpreter to others; more threads would mostly hold more large pictures in memory.
THREADS = min(16, os.cpu_count() or 1)
# Stray values come from smoothing where they are so many and each is on so few of the pixels, or where they are more
# than any list of classes has. CamVid index masks, resized smoothly or saved as JPEG, stay below half that share.
STRAY_VALUES, STRAY_SHARE, MOST_CLASSES = 5, 0.01, 256

LINES = TextWrapper(
    118, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
)

Size = tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        problem: its kind, with the remedy and the severity.
        split: where it was found.
        path: the file, or None where the whole split or a line of its list is meant.
        detail: values and their numbers of pixels, sizes, names of other files; may be empty.
    """

    problem: Problem
    split: str
    path: Path | None
    detail: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What was found; ``str`` makes a report of it.

    Attributes:
        labels: the classes.
        findings: everything that is wrong.
        pictures: of every split, the number of pictures.
        sizes: of every split that has a readable picture, width and height of the smallest and the largest.
        pixels: of every split, (K,) int64, the number of pixels of each class.
        ignored: of every split, the number of pixels with the ignore value.
    """

    labels: LabelSet
    findings: list[Finding]
    pictures: dict[str, int]
    sizes: dict[str, tuple[Size, Size]]
    pixels: dict[str, NDArray[np.int64]]
    ignored: dict[str, int]

    @property
    def errors(self) -> list[Finding]:
        """What has to be mended before training; the other findings are warnings."""
        return [finding for finding in self.findings if finding.problem.severity == "error"]

    def table(self) -> str:
        """Pictures, sizes, each class's share of the labelled pixels and the share ignored of all, by split."""
        rows = [["", *self.pictures], ["pictures", *map(str, self.pictures.values())]]
        for index, title in enumerate(("smallest", "largest")):
            found = [self.sizes[split][index] if split in self.sizes else None for split in self.pictures]
            rows.append([title, *(f"{size[0]}x{size[1]}" if size else "none" for size in found)])
        for index, name in enumerate(self.labels.names):
            rows.append([name, *(_share(int(counts[index]), int(counts.sum())) for counts in self.pixels.values())])
        wholes = [int(counts.sum()) + self.ignored[split] for split, counts in self.pixels.items()]
        rows.append(["ignored", *map(_share, self.ignored.values(), wholes)])
        width = max(len(row[0]) for row in rows)
        return "\n".join(row[0].ljust(width) + "".join(cell.rjust(12) for cell in row[1:]) for row in rows)

    def __str__(self) -> str:
        problems = dict.fromkeys(finding.problem for finding in self.findings)
        groups = [self._group(problem) for problem in sorted(problems, key=lambda problem: problem.severity)]
        errors = len(self.errors)
        summary = f"errors: {errors}, warnings: {len(self.findings) - errors}" if self.findings else "nothing wrong"
        return "\n\n".join([self.table(), *groups, summary])

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


@dataclass
class _Look:
    """What one picture and its mask hold."""

    split: str
    record: Record
    findings: list[Finding] = field(default_factory=list)
    digest: bytes = b""
    size: Size | None = None
    values: dict[StoredValue, int] = field(default_factory=dict)
    lossy: bool = False

    def add(self, problem: Problem, path: Path | None, detail: str = "") -> None:
        self.findings.append(Finding(problem, self.split, path, detail))


def examine(source: FileSource, splits: Sequence[str] | None = None, progress: bool = True) -> Diagnosis:
    """Open every picture and mask, and list everything that is wrong.

    Args:
        source: the data set.
        splits: those to go through; all that it has where left out.
        progress: show a progress bar.

    Raises:
        UsageError: an unknown split.
    """
    chosen = source.splits if splits is None else [choose("split", split, source.splits) for split in splits]
    listed = {split: source.list_records(split) for split in chosen}
    # A line that is there twice is looked at once.
    jobs = [(split, record) for split, records in listed.items() for record in dict.fromkeys(records)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda job: _look(job[0], job[1], source), jobs)
        looks = list(tqdm(found, "check data", total=len(jobs), unit=" pictures", disable=not progress))

    findings = [finding for split, records in listed.items() for finding in _check_list(split, records, source)]
    pattern = _pattern(looks, source)
    for look in looks:
        _check_values(look, source, pattern)
        findings += look.findings
    findings += _find_shared(looks, source)
    by_split = {split: [look for look in looks if look.split == split] for split in chosen}
    sizes = {split: sorted({look.size for look in found if look.size}, key=prod) for split, found in by_split.items()}
    tallies = {split: _tally(found, source) for split, found in by_split.items()}
    pixels = {split: counts[:-1] for split, counts in tallies.items()}
    if "train" in pixels and pixels["train"].any() and not pattern:
        absent = [name for name, count in zip(source.labels.names, pixels["train"], strict=True) if not count]
        findings += [Finding(ABSENT, "train", None, name) for name in absent]
    return Diagnosis(
        labels=source.labels,
        findings=findings,
        pictures={split: len({look.record.image for look in found} - {None}) for split, found in by_split.items()},
        sizes={split: (found[0], found[-1]) for split, found in sizes.items() if found},
        pixels=pixels,
        ignored={split: int(counts[-1]) for split, counts in tallies.items()},
    )


def _check_list(split: str, records: list[Record], source: FileSource) -> Iterable[Finding]:
    """Empty lists, repeated lines, ambiguous names and missing partners: what shows before a file is opened."""
    if not records:
        yield Finding(EMPTY, split, None)
    by_name: dict[str, list[Record]] = {}
    for record in records:
        by_name.setdefault(record.name, []).append(record)
    for name, group in by_name.items():
        images = sorted({record.image for record in group if record.image})
        masks = sorted({record.mask for record in group if record.mask})
        if not is_text(name):
            yield Finding(NO_TEXT, split, None, ascii(name))
        for files in (images, masks):
            if len(files) > 1:
                yield Finding(AMBIGUOUS, split, files[0], f"also {', '.join(path.name for path in files[1:])}")
        if group.count(group[0]) > 1:
            yield Finding(LISTED_TWICE, split, None, f"{name}, {group.count(group[0])} times")
        if not images and not masks:
            yield Finding(NO_FILES, split, None, name)
        elif not masks and split not in source.unlabelled:
            yield Finding(NO_MASK, split, images[0])
        elif masks and not images:
            yield Finding(NO_PICTURE, split, masks[0])


def _look(split: str, record: Record, source: FileSource) -> _Look:
    look = _Look(split, record)
    if record.image:
        with suppress(OSError):
            look.digest = sha256(record.image.read_bytes()).digest()
        try:
            height, width, _ = read_image(record.image).shape
            look.size = (width, height)
        except DataError as error:
            look.add(UNREADABLE, record.image, str(error).removeprefix(f"{record.image} "))
    if record.mask:
        _look_at_mask(look, record.mask, source)
    return look


def _look_at_mask(look: _Look, path: Path, source: FileSource) -> None:
    try:
        stored = read_mask(path, source.coding)
    except DataError as error:
        try:
            colors = value_counts(read_mask(path, MaskCoding("color")), MaskCoding("color"))
        except DataError:
            look.add(UNREADABLE, path, str(error).removeprefix(f"{path} "))
            return
        known = " and all of them are in data.colors" if colors.keys() <= set(source.labels.colors) else ""
        look.add(COLORS, path, f"{len(colors)} colours{known}")
        return
    look.values = value_counts(stored, source.coding)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        with Image.open(path) as picture:
            look.lossy = picture.format in {"JPEG", "MPO"}
    size = (stored.shape[1], stored.shape[0])
    if look.record.image and look.size and size != look.size:
        with Image.open(look.record.image) as picture:
            problem = ROTATED if picture.size == size else SIZES
        look.add(problem, path, f"{size[0]}x{size[1]}, the picture {look.size[0]}x{look.size[1]}")


def _pattern(looks: list[_Look], source: FileSource) -> Problem | None:
    """The mistake that explains the values of all masks together, where they show one."""
    if source.published:
        return None
    used = {value for look in looks for value in look.values}
    if source.coding.format == "index" and len(source.labels) == 2 and used == {0, 255}:
        return BINARY
    shifted = len(source.labels) in used and used <= {*range(1, len(source.labels) + 1), source.labels.ignore_index}
    return SHIFTED if source.coding.format == "index" and shifted else None


def _check_values(look: _Look, source: FileSource, pattern: Problem | None) -> None:
    known = meanings(source.labels, source.coding)
    # 255 is meant as a class in a binary mask, even where it is the ignore value.
    wrong = {value: n for value, n in look.values.items() if value not in known or (pattern is BINARY and value == 255)}
    if look.lossy:
        look.add(LOSSY, look.record.mask, values_text(wrong))
    elif wrong and pattern:
        look.add(pattern, look.record.mask, values_text(wrong))
    elif wrong:
        faint = len(wrong) >= STRAY_VALUES and max(wrong.values()) <= STRAY_SHARE * sum(look.values.values())
        smoothed = faint or len(wrong) > MOST_CLASSES
        look.add(SMOOTHED if smoothed else UNKNOWN, look.record.mask, values_text(wrong))
    elif look.values and all(known[value] == source.labels.ignore_index for value in look.values):
        look.add(UNLABELLED, look.record.mask)


def _find_shared(looks: list[_Look], source: FileSource) -> Iterable[Finding]:
    """Pictures with the same bytes as an earlier one, in another split or in their own.

    Scores are compared on a published data set as it is, so that what was published twice is no error there; but a
    name is one picture, which has to stay in one split.
    """
    same: dict[bytes, list[_Look]] = {}
    named: dict[str, _Look] = {}
    for look in looks:
        namesake = named.setdefault(look.record.name, look) if source.published else look
        if namesake.split != look.split:
            yield Finding(SHARED, look.split, look.record.image, f"{look.record.name} is also in {namesake.split}")
            continue
        earlier = same.setdefault(look.digest, []) if look.digest else []
        if earlier:
            first = next((other for other in earlier if other.split != look.split), earlier[0])
            problem = REPEATED if first.split == look.split or source.published else SHARED
            yield Finding(problem, look.split, look.record.image, f"also in {first.split}, {first.record.image}")
        earlier.append(look)


def _tally(looks: list[_Look], source: FileSource) -> NDArray[np.int64]:
    """(K + 1,): pixels of each class, and of the ignore value last."""
    known = meanings(source.labels, source.coding)
    counts = np.zeros(len(source.labels) + 1, np.int64)
    for look in looks:
        for value, count in look.values.items():
            if value in known:
                counts[-1 if known[value] == source.labels.ignore_index else known[value]] += count
    return counts


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if part else "none"
