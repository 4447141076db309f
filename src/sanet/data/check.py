"""Goes through a whole dataset before the first step and lists everything that is wrong with it.

Nothing is changed, and nothing is left out of the list. The pixels of each class are counted on the way, and so are the
files that lie with it and are not used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sanet.data import problems
from sanet.data.decoding import IMAGE_SUFFIXES, misplaced
from sanet.data.duplicates import BITS, Pair, near_duplicates
from sanet.data.facts import STRAY_SHARE, STRAY_VALUES, Facts, read_facts
from sanet.data.listing import files_below
from sanet.data.problems import Problem
from sanet.data.ranges import with_range
from sanet.data.report import DataReport, Finding
from sanet.data.source import Record, Source, is_text, leaks, read_sample, records_of
from sanet.data.values import MaskCoding, color_coding, meanings, value_counts, values_text
from sanet.reading import ImageReading
from sanet.structures import Color, LabelSet, SanetError, first_line

MOST_CLASSES = 256  # more values than any list of classes has come from smoothing
# Endings of images that are not read.
OTHER_SUFFIXES = (
    *(".jxl", ".avif", ".heic", ".heif", ".tga", ".dng", ".cr2", ".nef", ".arw"),
    *(".psd", ".exr", ".hdr", ".ico", ".pbm", ".pnm", ".pfm", ".jfif", ".svg", ".eps", ".webm", ".nii", ".dcm"),
)


@dataclass
class Contents:
    """What one image and its mask hold, and what is wrong with them."""

    split: str
    record: Record
    facts: Facts = field(default_factory=Facts)
    findings: list[Finding] = field(default_factory=list)

    def add(self, problem: Problem, path: Path | None, detail: str = "") -> None:
        """Note a fault of a file, or, without one, of the record."""
        if path is None:
            detail = ": ".join(filter(None, (self.record.name, detail)))
        self.findings.append(Finding(problem, self.split, path, detail))


def check_data(source: Source, progress: bool = True) -> DataReport:
    """Open every image and mask, and list everything that is wrong.

    Args:
        source: the dataset.
        progress: show a progress bar, if it takes more than a moment.

    Example:
        >>> import sanet
        >>> report = sanet.check_data(sanet.data_source(sanet.DataConfig(root="photos")))
        >>> report.images, report.errors
        ({'train': 10, 'val': 3}, [])
    """
    records = {split: records_of(source, split) for split in source.splits}
    # A line that is there twice is opened once.
    contents = [Contents(split, record) for split in records for record in dict.fromkeys(records[split])]
    _opened(source, contents, progress)
    coding = source.coding if source.reads_files else MaskCoding()
    known, values = meanings(source.labels, coding), {value for found in contents for value in found.facts.values}
    pattern = None if source.published or coding.table else _pattern(values, source.labels)
    # Where 255 is to be ignored, some mask has it beside a class.
    sets = [{*found.facts.values} for found in contents]
    said = source.published or (coding.table and source.named)
    mixed = not said and any(one - {0, 255} for one in sets) and not any({255} < one - {0} for one in sets)
    for found in contents:
        _check_values(found, source, coding, known, pattern, mixed)
    _find_shared(contents, source)
    _check_palettes(contents, source.labels, coding)
    by_split = {split: [found for found in contents if found.split == split] for split in records}
    tallies = {split: _tally(found, source.labels, known) for split, found in by_split.items()}
    sizes = {split: [one.facts.size for one in found if one.facts.size] for split, found in by_split.items()}
    outlying: list[str] = []
    broken = any(finding.problem.severity == "error" for found in contents for finding in found.findings)
    reading = source.images if broken else with_range(source, progress, outlying)
    for found in contents:
        _check_range(found, reading)
    unread, unused = _unused(source, records)
    findings = [finding for split in records for finding in _check_list(split, records[split], source)]
    if source.settings and not source.published:  # somebody's own images, which are to be trained on
        findings += [Finding(problems.NO_SPLIT, split, None) for split in ("train", "val") if split not in records]
    findings += [Finding(problems.SPARE, "all", None, f"{source.spare} images")] * bool(source.spare)
    findings += [Finding(problems.OUTLYING, "train", None, what) for what in outlying]
    findings += [Finding(problems.ODD, "all", path, what) for path, what in source.odd]
    findings += [*unread, *_alike(contents), *(finding for found in contents for finding in found.findings)]
    return DataReport(
        labels=source.labels,
        findings=findings if pattern else [*findings, *_check_classes(tallies, source.labels)],
        images={split: len(found) for split, found in sizes.items()},
        sizes={split: (min(found, key=prod), max(found, key=prod)) for split, found in sizes.items() if found},
        pixels={split: counts[:-1] for split, counts in tallies.items()},
        ignored={split: int(counts[-1]) for split, counts in tallies.items()},
        unused=unused,
        notes=source.notes,
        values=_values_of(source.labels),
        reading=reading,
    )


def _values_of(labels: LabelSet) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for value, name in labels.values:
        found.setdefault(name, []).append(value)
    shown = {name: ", ".join(values[:4]) + " …" * (len(values) > 4) for name, values in found.items()}
    return {name: text for name, text in shown.items() if text not in (name, str([*labels.names, name].index(name)))}


def _opened(source: Source, contents: Sequence[Contents], progress: bool) -> None:
    if not source.reads_files:
        for found in tqdm(contents, "check data", unit=" images", delay=1, disable=not progress):
            _of_sample(found, source)
        return
    for found, facts in zip(contents, read_facts(source, [found.record for found in contents], progress), strict=True):
        found.facts = facts
        _of_files(found, source.labels)


def _of_sample(found: Contents, source: Source) -> None:
    """Of a source that reads in its own way, what it reads."""
    try:
        image, mask, _ = read_sample(source, found.record)
    except (SanetError, EOFError, ValueError) as error:
        found.add(problems.UNREADABLE, found.record.image, first_line(error).removeprefix(f"{found.record.name}: "))
        return
    digest = sha256(f"{image.dtype} {image.shape}".encode() + image.numpy().tobytes()).hexdigest()
    found.facts = Facts(digest, (mask.shape[1], mask.shape[0]), values=value_counts(mask.numpy()))


def _of_files(found: Contents, labels: LabelSet) -> None:
    record, facts = found.record, found.facts
    if facts.image_error:
        found.add(problems.UNREADABLE, record.image, facts.image_error)
    if facts.colors:
        known = " and all of them are in data.colors"
        known = known if facts.colors.keys() <= meanings(labels, color_coding(labels)).keys() else ""
        found.add(problems.COLORS, record.mask, f"{len(facts.colors)} colours{known}")
    elif facts.mask_error:
        found.add(problems.UNREADABLE, record.mask, facts.mask_error)
    if facts.transparent:
        found.add(problems.TRANSPARENT, record.image)
    if facts.size and facts.mask_size and facts.size != facts.mask_size:
        problem = problems.ROTATED if facts.stored_size == facts.mask_size else problems.SIZES
        sizes = f"{facts.mask_size[0]}x{facts.mask_size[1]}, the image {facts.size[0]}x{facts.size[1]}"
        found.add(problem, record.mask, sizes)


def _check_range(found: Contents, reading: ImageReading) -> None:
    """An image of which a channel has more than 5 % of its pixels on one side of the range of training."""
    if not reading.low:
        return
    ends = zip(found.facts.spread, reading.low, reading.high, strict=True) if found.facts.spread else ()
    for channel, ((below, above), low, high) in enumerate(ends):
        if below < low or above > high:
            value, side = (below, "up to") if below < low else (above, "from")
            detail = f"channel {channel}: more than 5 % of its pixels are {side} {value:g}, outside {low:g} to {high:g}"
            found.add(problems.OUTSIDE, found.record.image, detail)
            return


def _unused(source: Source, records: dict[str, Sequence[Record]]) -> tuple[list[Finding], dict[str, int]]:
    """Images and masks that no split uses: those in formats that are not read; and how many others, by folder."""
    used = {path for found in records.values() for record in found for path in record.paths}
    counts: Counter[str] = Counter()
    findings = []
    for path in files_below(source.root) if source.root else ():
        if path in used:
            continue
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            counts[str(path.parent.relative_to(source.root or ""))] += 1
        if suffix in OTHER_SUFFIXES and any(folder in path.parents for folder in source.complete):
            findings.append(Finding(problems.OTHER_FORMAT, "all", path))
    return findings, dict(counts)


def _check_list(split: str, records: Sequence[Record], source: Source) -> Iterable[Finding]:
    """Empty lists, repeated lines, ambiguous names and missing partners: what shows before a file is opened."""
    if not records:
        yield Finding(problems.EMPTY, split, None)
    by_name: dict[str, list[Record]] = {}
    for record in records:
        by_name.setdefault(record.name, []).append(record)
    for name, group in by_name.items():
        images = sorted({record.image for record in group if record.image})
        masks = sorted({record.mask for record in group if record.mask})
        if not is_text(name):
            yield Finding(problems.NO_TEXT, split, None, ascii(name))
        for files in (images, masks):
            if len(files) > 1:
                beside = len({path.parent for path in files}) == 1
                also = ", ".join(path.name if beside else str(path) for path in files[1:])
                yield Finding(problems.AMBIGUOUS, split, files[0], f"also {also}")
        if group.count(group[0]) > 1:
            yield Finding(problems.LISTED_TWICE, split, None, f"{name}, {group.count(group[0])} times")
        if not source.reads_files:
            continue
        if not images and not masks:
            yield Finding(problems.NO_FILES, split, None, name)
        elif not masks and split not in source.unlabelled:
            yield Finding(problems.NO_MASK, split, images[0])
        elif masks and not images:
            yield Finding(problems.NO_IMAGE, split, masks[0])


def _pattern(used: set[int], labels: LabelSet) -> Problem | None:
    """The mistake that explains the values of all index masks together, where they show one."""
    if used == {0, 255} and len(labels) <= 255:
        return problems.BINARY
    shifted = len(labels) in used and used <= {*range(1, len(labels) + 1), labels.ignore_index}
    return problems.SHIFTED if shifted else None


def _check_values(
    found: Contents, source: Source, coding: MaskCoding, known: dict[int, int], pattern: Problem | None, mixed: bool
) -> None:
    mask, ignored = found.record.mask, source.labels.ignore_index
    # 255 is meant as a class in a binary mask, even where it is the ignore value.
    binary = pattern is problems.BINARY
    wrong = {value: n for value, n in found.facts.values.items() if value not in known or (binary and value == 255)}
    if found.facts.lossy and (wrong or not coding.table):
        found.add(problems.LOSSY, mask, values_text(wrong, coding))
    elif wrong and pattern:
        found.add(pattern, mask, values_text(wrong, coding))
    elif wrong:
        faint = len(wrong) >= STRAY_VALUES and max(wrong.values()) <= STRAY_SHARE * sum(found.facts.values.values())
        smoothed = faint or len(wrong) > MOST_CLASSES
        found.add(problems.SMOOTHED if smoothed else problems.UNKNOWN, mask, values_text(wrong, coding))
    elif found.facts.values and all(known[value] == ignored for value in found.facts.values):
        found.add(problems.UNLABELLED, mask)
    elif found.facts.values.keys() == {0, 255} and known[255] == ignored and not source.published:
        found.add(problems.MIXED if mixed else problems.ONE_BINARY, mask, values_text(found.facts.values, coding))


def _check_palettes(contents: list[Contents], labels: LabelSet, coding: MaskCoding) -> None:
    """Palette masks in which a colour has not the number that its class has, or that it has in another mask."""
    first: dict[Color, tuple[int, str]] = {}
    for found in contents:
        detail = misplaced(found.facts.palette, labels, coding)
        for value, color in found.facts.palette.items():
            other, name = first.setdefault(color, (value, found.record.name))
            if other != value and not detail and len(set(found.facts.palette.values())) == len(found.facts.palette):
                detail = f"{color} is {value} here and {other} in {name}"
        if detail:
            found.add(problems.PALETTES, found.record.mask, detail)


def _check_classes(tallies: dict[str, NDArray[np.int64]], labels: LabelSet) -> Iterable[Finding]:
    """Splits without labels or of one class, and classes without pixels."""
    pixels = {split: counts[:-1] for split, counts in tallies.items()}
    for split, counts in tallies.items():
        if split == "train" and counts[-1] and not counts[:-1].any():
            yield Finding(problems.NO_LABELS, split, None)
        elif np.count_nonzero(counts[:-1]) == 1:
            yield Finding(problems.ONE_CLASS, split, None, labels.names[int(counts[:-1].argmax())])
    total = sum(pixels.values(), np.zeros(len(labels), np.int64))
    if total.any():
        for index, name in enumerate(labels.names):
            if not total[index]:
                yield Finding(problems.NOWHERE, "all", None, name)
            elif "train" in pixels and pixels["train"].any() and not pixels["train"][index]:
                yield Finding(problems.ABSENT, "train", None, name)


def _find_shared(contents: list[Contents], source: Source) -> None:
    """Images that leak, and those with the same bytes as an earlier one, in another split or in their own.

    Scores are compared on a published dataset as it is, so that what was published twice is no error there.
    """
    same: dict[str, list[Contents]] = {}
    leaked = leaks(source)
    for found in contents:
        if shared := leaked.get((found.split, found.record)):
            found.add(problems.SHARED, found.record.image, f"{shared} is also in train")
            continue
        earlier = same.setdefault(found.facts.digest, []) if found.facts.digest else []
        if earlier:
            first = next((one for one in earlier if one.split != found.split), earlier[0])
            problem = problems.REPEATED if first.split == found.split or source.published else problems.SHARED
            found.add(problem, found.record.image, f"also in {first.split}, {first.record.image or first.record.name}")
        earlier.append(found)


def _alike(contents: list[Contents]) -> Iterable[Finding]:
    """Images that look like one of another split and have other bytes, after how many there are."""
    looks: dict[str, dict[str, int]] = {}
    digests = {str(found.record.image): found.facts.digest for found in contents}
    for found in contents:
        if found.facts.look is not None:
            looks.setdefault(found.split, {})[str(found.record.image)] = found.facts.look
    pairs: dict[tuple[str, str], list[Pair]] = {}
    for pair in near_duplicates(looks):
        if digests[pair.name] != digests[pair.other_name]:
            pairs.setdefault((pair.split, pair.other_split), []).append(pair)
    for (split, other), alike in pairs.items():
        share = f"{len(alike)} of {len(looks[split])} images ({len(alike) / len(looks[split]):.1%})"
        yield Finding(problems.ALIKE, split, None, f"{share} look like one of {other}")
        for pair in alike:
            detail = f"looks like {pair.other_name} of {other}; {pair.distance} of {BITS} bits differ"
            yield Finding(problems.ALIKE, split, Path(pair.name), detail)


def _tally(contents: list[Contents], labels: LabelSet, known: dict[int, int]) -> NDArray[np.int64]:
    """(K + 1,): pixels of each class, and of the ignore value last."""
    counts = np.zeros(len(labels) + 1, np.int64)
    for found in contents:
        counts[-1] += found.facts.invalid
        for value, count in found.facts.values.items():
            if value in known:
                counts[-1 if known[value] == labels.ignore_index else known[value]] += count
    return counts
