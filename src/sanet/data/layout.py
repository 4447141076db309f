"""Where images and masks are in a folder, however it is arranged; see docs/data.md.

What every file is, is read off its path: a folder or an ending may say that it is a mask, a folder may say in which
split it is, and what is left of the path is what an image and its mask have in common.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from sanet.data.decoding import IMAGE_SUFFIXES, DataError
from sanet.data.listing import composed, files_below, lines_of
from sanet.data.source import Record, names_text

Role = Literal["image", "mask", "valid"]

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
SPLIT = re.compile(rf"({'|'.join(sorted(SPLITS, key=len, reverse=True))})[_-]?(.*)")
MASK = r"masks?|labels?|annot|annots|annotations?|gt|gtfine|gtcoarse|ground[_-]?truths?|targets?|segmentations?"
MASKS = re.compile(rf"(?:[a-z]+[_-])??(?:{MASK}|segmentationclass(?:png|npy)?)(?:\d*|[_-].+)")
IMAGES = re.compile(r"images?|imgs?|jpegimages|leftimg8bit|pictures?|photos?")
VALID = re.compile(r"fovs?|fov[_-]?masks?|rois?|roi[_-]?masks?|validity")
OTHER = re.compile(r"segmentationobject|segmentationclassvisuali[sz]ation|overlays?|visuali[sz]ations?|instances?")
# Of a stem; what stands before is the stem of the image.
MASK_ENDING = re.compile(
    r"(.+?)[._-]((?:gtfine[._-]|gtcoarse[._-])?(?:masks?|gt|labels?|seg|segmentation|annotation|ground_?truth|color|"
    r"label(?:train)?ids|instanceids))"
)
IMAGE_ENDING = re.compile(r"(.+?)[._-](?:ome|image|img|sat|leftimg8bit)")
LISTS = (".", "splits", "lists", "ImageSets/Segmentation", "ImageSets")
COLUMNS = {"image", "mask"}


class File(NamedTuple):
    """What the path of a file says."""

    path: Path
    role: Role | None  # None: neither a folder nor an ending says it
    split: str | None
    key: str  # the rest of the path, in small letters, as image and mask share it
    kind: str  # of a mask: the folder or the ending that says so


@dataclass
class Layout:
    """The records of a folder.

    Attributes:
        records: of every split; under "" those of none.
        notes: what was decided.
        folders: those that hold nothing but images and masks.
        listed: the splits are those of lists.
    """

    records: dict[str, list[Record]]
    notes: list[str] = field(default_factory=list)
    folders: tuple[Path, ...] = ()
    listed: bool = False


def find_layout(root: Path, masks: str | None = None) -> Layout:
    """The images of a folder with their masks.

    Args:
        root: the folder.
        masks: the folder, or the ending of names, that says what the masks are, where several could.

    Raises:
        DataError: no image has a mask, two kinds of masks could be meant, or a list names what is not there.
    """
    if table := _table(root):
        return table
    files = [_file(path, root) for path in files_below(root) if path.suffix.lower() in (*IMAGE_SUFFIXES, ".npy")]
    images = [file for file in files if file.role == "image"] or [file for file in files if file.role is None]
    kinds = _kinds(root, images, [file for file in files if file.role == "mask"], masks)
    found = _paired(images, kinds, [file for file in files if file.role == "valid"])
    bare_images = {r.image for records in found.values() for r in records if not r.mask}
    folders = {file.path.parent for file in (*images, *kinds) if file.role} - {
        path.parent for path in bare_images if path
    }
    where = (
        f"in {kinds[0].path.parent.relative_to(root)}" if kinds[0].kind in str(kinds[0].path.parent).casefold() else ""
    )
    notes = [f"the masks are the files {where or f'with {kinds[0].kind!r} behind the names of the images'}"]
    lists = {name: path for name, path in _lists(root) if name}
    if lists:
        every = [record for records in found.values() for record in records]
        return Layout({name: _listed(path, every, root) for name, path in lists.items()}, notes, listed=True)
    bare = [record.name for records in found.values() for record in records if not record.mask]
    if bare:
        notes.append(f"{len(bare)} images have no mask, and are not used: {names_text(bare)}")
        found = {split: [record for record in records if record.mask] for split, records in found.items()}
    if extra := next((path for name, path in _lists(root) if not name), None):
        named = _listed(extra, [record for records in found.values() for record in records], root)
        notes.append(f"{extra.relative_to(root)} names the images to use, and no splits")
        found = {"": named}
    return Layout({split: records for split, records in found.items() if records}, notes, tuple(folders))


def has_masks(root: Path) -> bool:
    """Whether some image in a folder has a mask, of whatever kind."""
    try:
        find_layout(root)
    except DataError as error:
        return "--data.masks" in str(error)
    return True


def _file(path: Path, root: Path) -> File:
    relative = PurePosixPath(path.relative_to(root).as_posix())
    role: Role | None = None
    split, kind, rest = None, "", []
    for part in relative.parent.parts:
        word = part.casefold()
        begun = SPLIT.fullmatch(word)
        if begun and not split and (not begun[2] or MASKS.fullmatch(begun[2]) or IMAGES.fullmatch(begun[2])):
            split, word = SPLITS[begun[1]], begun[2]
        if OTHER.fullmatch(word):
            role, kind = "mask", f"{word}:other"
        elif not word or role:
            rest += [word] if word else []
        elif VALID.fullmatch(word):
            role = "valid"
        elif IMAGES.fullmatch(word):
            role = "image"
        elif MASKS.fullmatch(word):
            role, kind = "mask", word
        else:
            rest.append(word)
    stem = composed(relative.stem).casefold()
    if role != "image" and (ending := MASK_ENDING.fullmatch(stem)):
        stem, role, kind = ending[1], role or "mask", kind if kind.endswith("other") else ending[2]
    elif role in (None, "image") and (ending := IMAGE_ENDING.fullmatch(stem)):
        stem = ending[1]
    return File(path, role, split, composed("/".join([*rest, stem])), kind)


def _kinds(root: Path, images: list[File], masks: list[File], chosen: str | None) -> list[File]:
    """The masks of the kind that is meant, if it is clear which."""
    keys, stems = {file.key for file in images}, {_stem(file) for file in images}
    kinds: dict[str, list[File]] = {}
    for file in masks:
        kinds.setdefault(file.kind, []).append(file)
    if chosen is not None:
        if chosen.casefold() not in kinds:
            raise DataError(f"{root}: no masks of the kind {chosen!r}; found: {', '.join(sorted(kinds)) or 'none'}")
        return kinds[chosen.casefold()]
    fit = {
        kind: files
        for kind, files in kinds.items()
        if not kind.endswith(":other") and any(file.key in keys or _stem(file) in stems for file in files)
    }
    if "segmentationclasspng" in fit or {"segmentationclass", "segmentationclassnpy"} <= fit.keys():
        fit = {kind: files for kind, files in fit.items() if kind != "segmentationclassnpy"}
        fit.pop("segmentationclass" if "segmentationclasspng" in fit else "", None)
    if not fit:
        seen = "; ".join(
            f"{len(found)} {what}, such as {found[0].path.relative_to(root)}"
            for what, found in (("images", images), ("masks", masks))
            if found
        )
        raise DataError(
            f"{root}: no image has a mask. Looked for masks in folders such as masks/ and labels/, and for names such "
            f"as x_mask.png beside x.jpg. Found: {seen or 'no image'}"
        )
    if len(fit) > 1:
        options = " or ".join(f"--data.masks {kind}" for kind in sorted(fit))
        raise DataError(f"{root}: {len(fit)} kinds of masks could be meant; name one: {options}")
    return next(iter(fit.values()))


def _stem(file: File) -> str:
    return file.key.rpartition("/")[2]


def _paired(images: list[File], masks: list[File], valid: list[File]) -> dict[str, list[Record]]:
    """Records by split; every file has one, and what has no partner lacks it."""
    splits = {file.split for file in images}
    found: dict[str, list[Record]] = {}
    partners, outlines = (_finder(files, images) for files in (masks, valid))
    used: set[Path] = set()
    for image in images:
        beside = partners(image)
        used.update(beside)
        fov = next(iter(outlines(image)), None)
        records = found.setdefault(image.split or "", [])
        records.append(Record(_name(image), image.path, beside[0] if beside else None, fov))
        records += [Record(_name(image), None, mask) for mask in beside[1:]]
    for mask_file in masks:
        if mask_file.path not in used:
            split = mask_file.split if mask_file.split in splits else next(iter(splits), None)
            found.setdefault(split or "", []).append(Record(_name(mask_file), None, mask_file.path))
    return found


def _name(file: File) -> str:
    """The name of an image: its stem, behind what distinguishes it from those of its name elsewhere."""
    folder = file.key.rpartition("/")[0]
    return f"{folder}/{composed(file.path.stem)}" if folder else composed(file.path.stem)


class _finder:
    """The files that belong to an image: those of its key and split, else of its key, else of its stem alone.

    A stem alone says it only where no two images have it.
    """

    def __init__(self, files: list[File], images: list[File]) -> None:
        self.exact: dict[tuple[str | None, str], list[Path]] = {}
        self.by_key: dict[str, list[Path]] = {}
        self.by_stem: dict[str, list[Path]] = {}
        for file in files:
            self.exact.setdefault((file.split, file.key), []).append(file.path)
            if file.split is None:
                self.by_key.setdefault(file.key, []).append(file.path)
            self.by_stem.setdefault(_stem(file), []).append(file.path)
        stems: dict[str, set[str]] = {}
        for image in images:
            stems.setdefault(_stem(image), set()).add(f"{image.split} {image.key}")
        self.single = {stem for stem, keys in stems.items() if len(keys) == 1}

    def __call__(self, image: File) -> list[Path]:
        alone = self.by_stem.get(_stem(image), []) if _stem(image) in self.single else []
        return self.exact.get((image.split, image.key)) or self.by_key.get(image.key) or alone[:1] * (len(alone) == 1)


def _lists(root: Path) -> Iterator[tuple[str, Path]]:
    """Lists of splits by their names; one that names no split, CVAT's default.txt, by ""."""
    seen: dict[str, Path] = {}
    for folder in LISTS:
        for path in sorted((root / folder).glob("*.[tT][xX][tT]")):
            word = path.stem.casefold()
            name = "" if word == "default" else SPLITS.get(word)
            if name is not None and (first := seen.setdefault(name, path)) != path:
                raise DataError(f"{first} and {path} could both be meant; remove one of them")
    yield from seen.items()


def _listed(path: Path, records: list[Record], root: Path) -> list[Record]:
    """The records that the lines of a list name; what a line names that is not there has no files."""
    find = Finder(records, root)
    return [record for line in lines_of(path) for record in find(path, line)]


class Finder:
    """Which record a text names: by as much of the end of its image's path as tells it from the others."""

    def __init__(self, records: Iterable[Record], root: Path) -> None:
        self.images: dict[str, list[Record]] = {}
        self.masks: dict[str, Path] = {}
        for record in records:
            if file := record.image or record.mask:
                for tail in _tails(file.relative_to(root).as_posix()):
                    self.images.setdefault(tail, []).append(record)
            if record.mask:
                self.masks |= dict.fromkeys(_tails(record.mask.relative_to(root).as_posix()), record.mask)

    def __call__(self, path: Path, line: str) -> list[Record]:
        """The records that a line of a list names; one without files where it names none."""
        columns = [column for column in re.split(r"\t|[,;] *|\s+", line) if column]
        several = sum(column.lower().endswith(IMAGE_SUFFIXES) for column in columns) > 1
        for text in columns[:1] if several else (line, columns[0]):  # a name may have blanks
            if found := self._find(path, text):
                mask = next(self._mask(columns[1]), None) if several else None
                return [replace(record, mask=mask) for record in found[:1]] if mask else found
        return [Record(PurePosixPath(line.replace("\\", "/")).name)]

    def _find(self, path: Path, text: str) -> list[Record]:
        for tail in _tails(text):
            found = self.images.get(tail, [])
            if len({record.name for record in found}) > 1:
                where = " and ".join(str(record.image) for record in found[:2])
                raise DataError(f"{path}: {text!r} could be {where}; name the folder as well")
            if found:
                return found
        return []

    def _mask(self, text: str) -> Iterator[Path]:
        return (self.masks[tail] for tail in _tails(text) if tail in self.masks)


def _tails(text: str) -> list[str]:
    """A path without its ending, and what is left of it as folders are taken away from its front; longest first."""
    name = PurePosixPath(composed(text.strip()).replace("\\", "/").casefold())
    stem = name.with_suffix("") if name.suffix in (*IMAGE_SUFFIXES, ".npy") else name
    parts = [part for part in stem.parts if part not in ("/", ".")]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _table(root: Path) -> Layout | None:
    """The layout of a table with the columns image and mask, and split and group where it has them."""
    for path in sorted(root.glob("*.[cC][sS][vV]")):
        with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            if not {*(reader.fieldnames or ())} >= COLUMNS:
                continue
            records: dict[str, list[Record]] = {}
            for row in reader:
                records.setdefault(_split_of(path, row), []).append(_record(root, path, row))
        return Layout(records, [f"{path.name} names images, masks and splits"], listed="" not in records)
    return None


def _split_of(path: Path, row: Mapping[str, str | None]) -> str:
    word = (row.get("split") or "").strip().casefold()
    if word and word not in SPLITS:
        raise DataError(f"{path}: split {word!r}; name one of {', '.join(SPLITS)}")
    return SPLITS.get(word, "")


def _record(root: Path, path: Path, row: Mapping[str, str | None]) -> Record:
    image, mask = ((row[name] or "").strip().replace("\\", "/") for name in ("image", "mask"))
    places = [root / name for name in (image, mask)]
    for place in places:
        if not place.resolve().is_relative_to(root.resolve()):
            raise DataError(f"{path}: {place} is outside of {root}; name files inside")
    name = PurePosixPath(image).with_suffix("").as_posix()
    found = [place if place.is_file() else None for place in places]
    return Record(composed(name), found[0], found[1], group=(row.get("group") or "").strip() or None)
