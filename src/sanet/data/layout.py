"""Where images and masks are in a folder, however it is arranged; see docs/data.md.

What every file is, is read off its path: a folder or an ending may say that it is a mask, a folder may say in which
split it is, and what is left of the path is what an image and its mask have in common.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from sanet.data.decoding import IMAGE_SUFFIXES, DataError
from sanet.data.listing import JOINT, SPLITS, Finder, composed, files_below, lines_of, tables_of
from sanet.data.source import Record, names_text

Role = Literal["image", "mask", "valid"]

JPEG = (".jpg", ".jpeg")
LISTS = (".", "splits", "lists", "ImageSets/Segmentation", "ImageSets")
# A folder of a split: train, valid, test2017, 01_train, train_set; trainannot says that it holds masks as well.
WORDS = "|".join(sorted(SPLITS | JOINT, key=len, reverse=True))
MASK = (
    r"masks?|labels?|anns?|annots?|annotations?|gt|gtfine|gtcoarse|ground[_-]?truths?|targets?|segmentations?|"
    r"manual|\d(?:st|nd)_?(?:manual|ho)"
)
IMAGE = r"images?|imgs?|jpegimages|leftimg8bit|pictures?|photos?"
SPLIT = re.compile(
    rf"(?:(?P<before>[a-z0-9-]+)[_-])??(?P<split>{WORDS})(?:[_-]?(?:(?P<number>\d+)|set|data|split))?"
    rf"(?:[_-](?P<rest>.+)|(?P<word>(?:{MASK}|{IMAGE}).*))?"
)
MASKS = re.compile(rf"(?:.+[_-])??(?:{MASK}|segmentationclass(?:png|npy)?)(?:\d*|[_-].+)|semantic(?:_rgb)?")
IMAGES = re.compile(rf"(?:.+[_-])??(?:{IMAGE})(?:\d*|[_-].+)")
OF_NNUNET = re.compile(r"(images|labels)(tr|ts)")
VALID = re.compile(r"fovs?|fov[_-]?masks?|rois?|roi[_-]?masks?|validity")
OTHER = re.compile(
    r"segmentationobject|segmentationclassvisuali[sz]ation|overlays?|visuali[sz]ations?|instances?|colou?rmaps?"
)
# Of a stem; what stands before is the stem of the image.
MASK_ENDING = re.compile(
    r"(.+?)[._-]((?:gtfine[._-]|gtcoarse[._-])?(?:masks?|gt|labels?|seg|segmentation|annotation|ground_?truth|color|"
    r"label(?:train)?ids|instanceids|train_?id|manual\d*|\d(?:st|nd)_?ho))(?:[_-]\d+)?"
)
VALID_ENDING = re.compile(r"(.+?)[._-](?:fov|roi)")
IMAGE_ENDING = re.compile(r"(.+?)[._-](?:ome|image|img|sat|leftimg8bit|training|test|0000)")


class File(NamedTuple):
    """What the path of a file says."""

    path: Path
    role: Role | None  # None: neither a folder nor an ending says it
    split: str | None
    key: str  # the rest of the path, in small letters, as image and mask share it
    name: str  # the same with the stem as it is
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
    if table := tables_of(root):
        return Layout(table, ["a table names images and masks"], listed="" not in table)
    files = [_file(path, root) for path in files_below(root) if path.suffix.lower() in IMAGE_SUFFIXES]
    if any(file.role == "mask" and "manual" in file.kind for file in files):  # DRIVE's "mask" is the field of view
        files = [file._replace(role="valid") if file.kind == "mask" else file for file in files]
    if not any(file.role == "mask" for file in files):
        files = _by_ending(files)
    images = [file for file in files if file.role == "image"] or [file for file in files if file.role is None]
    kinds = _kinds(root, images, [file for file in files if file.role == "mask"], masks)
    fields = [file for file in files if file.role == "valid"]
    found = _paired(images, kinds, fields)
    bare_images = {r.image for records in found.values() for r in records if not r.mask}
    folders = {file.path.parent for file in (*images, *kinds) if file.role} - {
        path.parent for path in bare_images if path
    }
    notes = [f"the masks are files such as {kinds[0].path.relative_to(root)}"]
    unseen = sum(not record.valid for records in found.values() for record in records if record.image)
    if fields and unseen:
        notes.append(f"{unseen} images have no field of view: all of their pixels count")
    lists = {name: path for name, path in lists_in(root) if name}
    if lists:
        every = [record for records in found.values() for record in records]
        return Layout({name: _listed(path, every, root) for name, path in lists.items()}, notes, listed=True)
    bare = [record.name for records in found.values() for record in records if not record.mask]
    if bare:
        notes.append(f"{len(bare)} images have no mask, and are not used: {names_text(bare)}")
        found = {split: [record for record in records if record.mask] for split, records in found.items()}
    if extra := next((path for name, path in lists_in(root) if not name), None):
        named = _listed(extra, [record for records in found.values() for record in records], root)
        notes.append(f"{extra.relative_to(root)} names the images to use, and no splits")
        found = {"": named}
    # A test split often has images alone; one that is to be validated on is missed.
    kept = {split: records for split, records in found.items() if records or split == "val"}
    return Layout(kept, notes, tuple(folders))


def masks_alone(root: Path, masks: str | None = None) -> Layout:
    """The masks of a folder, where no image has one, each as a record; under "test" those of no split.

    Raises:
        DataError: two kinds of masks could be meant.
    """
    found: dict[str, list[Record]] = {}
    files = _masks_below(root)
    for file in _kinds(root, files, files, masks):
        found.setdefault(file.split or "test", []).append(Record(_name(file), None, file.path))
    return Layout(found, ["masks alone, and no images"], listed=True)


def predictions_in(
    folder: Path, records: Mapping[str, Sequence[Record]], root: Path | None
) -> tuple[dict[str, list[Path]], list[Path]]:
    """The masks of a folder by the names of their records, paired as images and masks are; and those of no record.

    Args:
        folder: the masks, beside which others may lie, such as overlays.
        records: by split.
        root: folder of the records' files.
    """
    images = {}
    for split, members in records.items():
        for record in members:
            path = record.image or record.mask or Path(record.name)
            key = _file(path, root).key if root and path.is_relative_to(root) else composed(record.name.casefold())
            images[File(path, None, split, key, record.name, "")] = record.name
    masks = _masks_below(folder)
    partners = {images[image]: paths for image, paths in _partners([*images], masks).items()}
    used = {path for paths in partners.values() for path in paths}
    return partners, [file.path for file in masks if file.path not in used]


def _masks_below(root: Path) -> list[File]:
    """The files that are masks by their folders or endings; where none is, all that may be."""
    files = [_file(path, root) for path in files_below(root) if path.suffix.lower() in IMAGE_SUFFIXES]
    return [file for file in files if file.role == "mask" and not file.kind.endswith(":other")] or [
        file for file in files if file.role is None
    ]


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
        word = OF_NNUNET.sub(r"\2_\1", part.casefold())
        begun = SPLIT.fullmatch(word)
        more = (begun["rest"] or begun["word"] or "") if begun else ""
        if begun and not split and (not more or MASKS.fullmatch(more) or IMAGES.fullmatch(more)):
            split, word = (SPLITS | JOINT)[begun["split"]], more
            rest += [text for text in (begun["before"], begun["number"]) if text]
        if OTHER.fullmatch(word):
            role, kind = "mask", f"{word}:other"
        elif not word or role:
            rest += [word] if word else []
        elif VALID.fullmatch(word):
            role = "valid"
        elif MASKS.fullmatch(word):
            role, kind = "mask", word
        elif IMAGES.fullmatch(word):
            role = "image"
        else:
            rest.append(word)
    stem = bare = composed(relative.stem)
    if PurePosixPath(stem.casefold()).suffix in IMAGE_SUFFIXES:  # a.jpg.png
        stem = PurePosixPath(stem).stem
    stem = stem.casefold()
    if role is None and (ending := VALID_ENDING.fullmatch(stem)):
        stem, role = ending[1], "valid"
    if role != "image" and (ending := MASK_ENDING.fullmatch(stem)):
        stem, role, kind = ending[1], role or "mask", kind if kind.endswith("other") else ending[2]
    if ending := IMAGE_ENDING.fullmatch(stem):
        stem = ending[1]
    return File(path, role, split, composed("/".join([*rest, stem])), "/".join([*rest, bare]), kind)


def _by_ending(files: list[File]) -> list[File]:
    """Where every JPEG has a PNG of its name beside it and nothing else is there, those are the masks."""
    png, jpeg = ({file.name for file in files if file.path.suffix.lower() in kinds} for kinds in ((".png",), JPEG))
    if png != jpeg or len(files) != 2 * len(png):
        return files
    masks = [file._replace(role="mask", kind=".png") for file in files if file.path.suffix.lower() == ".png"]
    return [*masks, *(file._replace(role="image") for file in files if file.path.suffix.lower() in JPEG)]


def _kinds(root: Path, images: list[File], masks: list[File], chosen: str | None) -> list[File]:
    """The masks of the kind that is meant, if it is clear which."""
    kinds: dict[str, list[File]] = {}
    for file in masks:
        kinds.setdefault(file.kind, []).append(file)
    if chosen is not None:
        word = chosen.casefold()
        inside = [file for file in masks if word in str(file.path.parent.relative_to(root)).casefold().split("/")]
        meant = kinds.get(word) or [file for file in inside if not file.kind.endswith(":other")] or inside
        if not meant:
            raise DataError(f"{root}: no masks of the kind {chosen!r}; found: {', '.join(sorted(kinds)) or 'none'}")
        return meant
    fit = {kind: files for kind, files in kinds.items() if not kind.endswith(":other") and _partners(images, files)}
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
            f"{root}: no image has a mask. Looked for masks in folders such as masks/ and labels/, for names such as "
            f"x_mask.png beside x.jpg, and for a table NAME.csv with the columns image and mask. Found: "
            f"{seen or 'no image'}"
        )
    counts = Counter(key for found in fit.values() for key in {file.key for file in found})
    if len(fit) > 1 and max(counts.values()) == 1:  # no image has two: what differs is the place
        return [file for found in fit.values() for file in found]
    if len(fit) > 1:
        options = " or ".join(f"--data.masks {kind}" for kind in sorted(fit))
        raise DataError(f"{root}: {len(fit)} kinds of masks could be meant; name one: {options}")
    return next(iter(fit.values()))


def _stem(key: str) -> str:
    return key.rpartition("/")[2]


def _paired(images: list[File], masks: list[File], valid: list[File]) -> dict[str, list[Record]]:
    """Records by split; every file has one, and what has no partner lacks it."""
    splits = dict.fromkeys(file.split for file in images)
    found: dict[str, list[Record]] = {}
    partners, outlines = _partners(images, masks), _partners(images, valid)
    for image in images:
        beside, valid_file = partners.get(image, []), next(iter(outlines.get(image, ())), None)
        records = found.setdefault(image.split or "", [])
        records.append(Record(_name(image), image.path, next(iter(beside), None), valid_file))
        records += [Record(_name(image), None, mask) for mask in beside[1:]]
    used = {path for paths in partners.values() for path in paths}
    for mask_file in masks:
        if mask_file.path not in used:
            split = mask_file.split if mask_file.split in splits else next(iter(splits), None)
            found.setdefault(split or "", []).append(Record(_name(mask_file), None, mask_file.path))
    return found


def _name(file: File) -> str:
    """The name of an image: its stem, behind what distinguishes it from those of its name elsewhere."""
    folder = file.key.rpartition("/")[0]
    return f"{folder}/{composed(file.path.stem)}" if folder else composed(file.path.stem)


def _partners(images: list[File], files: list[File]) -> dict[File, list[Path]]:
    """The files that belong to each image: those of its path, or if no image has such, those of its stem.

    They are of its split, or of none; those of another split are never taken.
    Files of its very name come before those whose names are alike but for endings. What several images of different
    names lay claim to belongs to none of them.
    """
    for level in range(4):
        found: dict[File, list[Path]] = {}
        alone = level % 2 and any(image.split for image in images)
        left = [file for file in files if not (alone and file.split)]
        for kind in ("name", "key"):
            table: dict[Hashable, list[File]] = {}
            for file in left:
                table.setdefault(_place(file, level, kind), []).append(file)
            claims: dict[Hashable, list[File]] = {}
            for image in images:
                if image not in found:
                    claims.setdefault(_place(image, level, kind), []).append(image)
            for place in claims.keys() & table.keys():
                if len({(image.split, _name(image)) for image in claims[place]}) == 1:
                    paths = [file.path for file in table.pop(place)]
                    found |= dict.fromkeys(claims[place], paths)
            left = [file for group in table.values() for file in group]
        if found:
            return found
    return {}


def _place(file: File, level: int, kind: str) -> Hashable:
    text = str(getattr(file, kind))
    text = _stem(text) if level > 1 else text
    return text if level % 2 else (file.split, text)


def lists_in(root: Path) -> Iterator[tuple[str, Path]]:
    """Lists of splits by their names; one that names no split, CVAT's default.txt, by "".

    Raises:
        DataError: two of them could be meant.
    """
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
