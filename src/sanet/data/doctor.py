"""Goes through a whole dataset before the first step and lists everything that is wrong with it.

Nothing is changed, and nothing is left out of the list. The pixels of each class are counted on the way, and so are the
files that lie with it and are not used.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sanet.data import problems
from sanet.data.catalog import Source
from sanet.data.coding import MaskCoding, StoredValue, meanings, value_counts, values_text
from sanet.data.decoding import IMAGE_SUFFIXES, DataError, load_image, load_mask, misplaced
from sanet.data.diagnosis import Diagnosis, Finding, Size
from sanet.data.files import FileSource, Record, is_text
from sanet.data.loading import SegmentationDataset
from sanet.data.problems import Problem
from sanet.structures import Color, LabelSet, choose

# Decoding leaves the interpreter to others; more threads would mostly hold more large images in memory.
THREADS = min(16, os.cpu_count() or 1)
# Stray values come from smoothing where they are so many and each is on so few of the pixels, or where they are more
# than any list of classes has. CamVid index masks, resized smoothly or saved as JPEG, stay below half that share.
STRAY_VALUES, STRAY_SHARE, MOST_CLASSES = 5, 0.01, 256
# Endings of images that are not read.
OTHER_SUFFIXES = (
    *(".gif", ".jp2", ".j2k", ".jxl", ".avif", ".heic", ".heif", ".tga", ".dng", ".cr2", ".nef", ".arw"),
    *(".psd", ".exr", ".hdr", ".ico", ".pbm", ".pnm", ".pfm", ".jfif", ".svg", ".eps", ".webm", ".nii", ".dcm"),
)
INDEX = MaskCoding()


@dataclass
class _Look:
    """What one image and its mask hold."""

    split: str
    record: Record
    findings: list[Finding] = field(default_factory=list)
    digest: bytes = b""
    size: Size | None = None
    values: dict[StoredValue, int] = field(default_factory=dict)
    palette: dict[int, Color] = field(default_factory=dict)
    lossy: bool = False

    def add(self, problem: Problem, path: Path | None, detail: str = "") -> None:
        self.findings.append(Finding(problem, self.split, path, detail))


def examine(source: Source, splits: Sequence[str] | None = None, progress: bool = True) -> Diagnosis:
    """Open every image and mask, and list everything that is wrong.

    Args:
        source: the dataset; of one that is not in files, its samples are what is looked at.
        splits: those to go through; all that it has where left out.
        progress: show a progress bar.

    Raises:
        UsageError: an unknown split.
    """
    chosen = source.splits if splits is None else [choose("split", split, source.splits) for split in splits]
    findings: list[Finding] = []
    unused: dict[str, int] = {}
    if isinstance(source, FileSource):
        listed = {split: source.list_records(split) for split in chosen}
        # A line that is there twice is looked at once.
        looks = _in_files(source, listed, progress)
        findings += [finding for split, records in listed.items() for finding in _check_list(split, records, source)]
        if splits is None:
            unread, unused = _unused(source, listed)
            findings += unread
    else:
        looks = [look for split in chosen for look in _in_samples(split, source.open(split), progress)]
    published = isinstance(source, FileSource) and source.published
    coding = source.coding if isinstance(source, FileSource) else INDEX
    pattern = None if published else _pattern(looks, source.labels, coding)
    for look in looks:
        _check_values(look, source.labels, coding, pattern, published)
        findings += look.findings
    findings += [*_find_shared(looks, published), *_check_palettes(looks, source.labels, coding)]
    by_split = {split: [look for look in looks if look.split == split] for split in chosen}
    sizes = {split: sorted({look.size for look in found if look.size}, key=prod) for split, found in by_split.items()}
    tallies = {split: _tally(found, source.labels, coding) for split, found in by_split.items()}
    pixels = {split: counts[:-1] for split, counts in tallies.items()}
    if not pattern:
        findings += _check_classes(pixels, {split: int(counts[-1]) for split, counts in tallies.items()}, source.labels)
    return Diagnosis(
        labels=source.labels,
        findings=findings,
        pictures={split: sum(look.size is not None for look in found) for split, found in by_split.items()},
        sizes={split: (found[0], found[-1]) for split, found in sizes.items() if found},
        pixels=pixels,
        ignored={split: int(counts[-1]) for split, counts in tallies.items()},
        unused=unused,
        notes=source.notes if isinstance(source, FileSource) else (),
    )


def _in_files(source: FileSource, listed: dict[str, list[Record]], progress: bool) -> list[_Look]:
    jobs = [(split, record) for split, records in listed.items() for record in dict.fromkeys(records)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda job: _look(job[0], job[1], source), jobs)
        return list(tqdm(found, "check data", total=len(jobs), unit=" images", disable=not progress))


def _in_samples(split: str, dataset: SegmentationDataset, progress: bool) -> Iterator[_Look]:
    """Of a dataset that is not in files."""
    for index in tqdm(range(len(dataset)), f"check {split}", unit=" images", disable=not progress):
        image, mask, name = dataset[index]
        digest = sha256(image.numpy().tobytes()).digest()
        values = value_counts(mask.numpy().astype(np.int64), INDEX)
        yield _Look(
            split, Record(str(name), None, None), digest=digest, size=(mask.shape[1], mask.shape[0]), values=values
        )


def _unused(source: FileSource, listed: dict[str, list[Record]]) -> tuple[list[Finding], dict[str, int]]:
    """Files below the root that no split uses: those that are meant to be, and how many there are of each kind."""
    used = {path for records in listed.values() for record in records for path in (record.image, record.mask) if path}
    counts: Counter[str] = Counter()
    findings = []
    for path in _files_below(source.root) if source.root else ():
        if path in used:
            continue
        suffix = path.suffix.lower()
        kind = (
            "images or masks"
            if suffix in IMAGE_SUFFIXES
            else f"{suffix} files"
            if suffix
            else "files without an ending"
        )
        counts[f"{kind} in {path.parent.relative_to(source.root or '')}"] += 1
        if suffix in (*IMAGE_SUFFIXES, *OTHER_SUFFIXES) and any(folder in path.parents for folder in source.whole):
            problem = problems.NESTED if suffix in IMAGE_SUFFIXES else problems.OTHER_FORMAT
            findings.append(Finding(problem, "all", path))
    return findings, dict(counts)


def _files_below(root: Path) -> Iterator[Path]:
    """In order, without what begins with a dot."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _check_list(split: str, records: list[Record], source: FileSource) -> Iterable[Finding]:
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
                yield Finding(problems.AMBIGUOUS, split, files[0], f"also {', '.join(path.name for path in files[1:])}")
        if group.count(group[0]) > 1:
            yield Finding(problems.LISTED_TWICE, split, None, f"{name}, {group.count(group[0])} times")
        if not images and not masks:
            yield Finding(problems.NO_FILES, split, None, name)
        elif not masks and split not in source.unlabelled:
            yield Finding(problems.NO_MASK, split, images[0])
        elif masks and not images:
            yield Finding(problems.NO_PICTURE, split, masks[0])


def _look(split: str, record: Record, source: FileSource) -> _Look:
    look = _Look(split, record)
    stored: Size | None = None
    if record.image:
        try:
            image = load_image(record.image)
            with record.image.open("rb") as file:
                look.digest = file_digest(file, "sha256").digest()
            height, width, _ = image.pixels.shape
            look.size, stored = (width, height), image.size
            if image.transparent:
                look.add(problems.TRANSPARENT, record.image)
        except DataError as error:
            look.add(problems.UNREADABLE, record.image, str(error).removeprefix(f"{record.image} "))
    if record.mask:
        _look_at_mask(look, record.mask, source, stored)
    return look


def _look_at_mask(look: _Look, path: Path, source: FileSource, stored_size: Size | None) -> None:
    try:
        mask = load_mask(path, source.coding)
    except DataError as error:
        try:
            colors = value_counts(load_mask(path, MaskCoding("color")).values, MaskCoding("color"))
        except DataError:
            look.add(problems.UNREADABLE, path, str(error).removeprefix(f"{path} "))
            return
        known = " and all of them are in data.colors" if colors.keys() <= set(source.labels.colors) else ""
        look.add(problems.COLORS, path, f"{len(colors)} colours{known}")
        return
    look.values, look.lossy, look.palette = value_counts(mask.values, source.coding), mask.lossy, mask.palette
    size = (mask.values.shape[1], mask.values.shape[0])
    if look.size and size != look.size:
        problem = problems.ROTATED if stored_size == size else problems.SIZES
        look.add(problem, path, f"{size[0]}x{size[1]}, the picture {look.size[0]}x{look.size[1]}")


def _pattern(looks: list[_Look], labels: LabelSet, coding: MaskCoding) -> Problem | None:
    """The mistake that explains the values of all masks together, where they show one."""
    used = {value for look in looks for value in look.values}
    if coding.format == "index" and used == {0, 255} and len(labels) <= 255:
        return problems.BINARY
    shifted = len(labels) in used and used <= {*range(1, len(labels) + 1), labels.ignore_index}
    return problems.SHIFTED if coding.format == "index" and shifted else None


def _check_values(look: _Look, labels: LabelSet, coding: MaskCoding, pattern: Problem | None, published: bool) -> None:
    known = meanings(labels, coding)
    # 255 is meant as a class in a binary mask, even where it is the ignore value.
    binary = pattern is problems.BINARY
    wrong = {value: n for value, n in look.values.items() if value not in known or (binary and value == 255)}
    if look.lossy:
        look.add(problems.LOSSY, look.record.mask, values_text(wrong))
    elif wrong and pattern:
        look.add(pattern, look.record.mask, values_text(wrong))
    elif wrong:
        faint = len(wrong) >= STRAY_VALUES and max(wrong.values()) <= STRAY_SHARE * sum(look.values.values())
        smoothed = faint or len(wrong) > MOST_CLASSES
        look.add(problems.SMOOTHED if smoothed else problems.UNKNOWN, look.record.mask, values_text(wrong))
    elif look.values and all(known[value] == labels.ignore_index for value in look.values):
        look.add(problems.UNLABELLED, look.record.mask)
    elif look.values.keys() == {0, 255} and labels.ignore_index == 255 and not published:
        look.add(problems.ONE_BINARY, look.record.mask, values_text(look.values))


def _check_palettes(looks: list[_Look], labels: LabelSet, coding: MaskCoding) -> Iterable[Finding]:
    """Palette masks in which a colour has not the number that its class has, or that it has in another mask."""
    first: dict[Color, tuple[int, str]] = {}
    for look in looks:
        detail = misplaced(look.palette, labels, coding)
        for value, color in look.palette.items():
            other, name = first.setdefault(color, (value, look.record.name))
            if other != value and not detail and len(set(look.palette.values())) == len(look.palette):
                detail = f"{color} is {value} here and {other} in {name}"
        if detail:
            yield Finding(problems.PALETTES, look.split, look.record.mask, detail)


def _check_classes(
    pixels: dict[str, NDArray[np.int64]], ignored: dict[str, int], labels: LabelSet
) -> Iterable[Finding]:
    """Splits without labels or of one class, and classes without pixels."""
    for split, counts in pixels.items():
        if split == "train" and not counts.any() and ignored[split]:
            yield Finding(problems.NO_LABELS, split, None)
        elif np.count_nonzero(counts) == 1:
            yield Finding(problems.ONE_CLASS, split, None, labels.names[int(counts.argmax())])
    total = sum(pixels.values(), np.zeros(len(labels), np.int64))
    if total.any():
        for index, name in enumerate(labels.names):
            if not total[index]:
                yield Finding(problems.NOWHERE, "all", None, name)
            elif "train" in pixels and pixels["train"].any() and not pixels["train"][index]:
                yield Finding(problems.ABSENT, "train", None, name)


def _find_shared(looks: list[_Look], published: bool) -> Iterable[Finding]:
    """Pictures with the same bytes as an earlier one, in another split or in their own.

    Scores are compared on a published data set as it is, so that what was published twice is no error there; but a
    name is one picture, which has to stay in one split.
    """
    same: dict[bytes, list[_Look]] = {}
    named: dict[str, _Look] = {}
    for look in looks:
        namesake = named.setdefault(look.record.name, look) if published else look
        if namesake.split != look.split:
            yield Finding(
                problems.SHARED, look.split, look.record.image, f"{look.record.name} is also in {namesake.split}"
            )
            continue
        earlier = same.setdefault(look.digest, []) if look.digest else []
        if earlier:
            first = next((other for other in earlier if other.split != look.split), earlier[0])
            problem = problems.REPEATED if first.split == look.split or published else problems.SHARED
            yield Finding(problem, look.split, look.record.image, f"also in {first.split}, {first.record.image}")
        earlier.append(look)


def _tally(looks: list[_Look], labels: LabelSet, coding: MaskCoding) -> NDArray[np.int64]:
    """(K + 1,): pixels of each class, and of the ignore value last."""
    known = meanings(labels, coding)
    counts = np.zeros(len(labels) + 1, np.int64)
    for look in looks:
        for value, count in look.values.items():
            if value in known:
                counts[-1 if known[value] == labels.ignore_index else known[value]] += count
    return counts
