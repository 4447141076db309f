"""Which image goes with which mask: by the names of files, by lists of them, or by tables."""

from __future__ import annotations

import csv
import os
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from sanet.data.decoding import IMAGE_SUFFIXES, DataError, require_file
from sanet.data.source import Record

SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "te", "ts", "eval", "evaluation"), "test"),
}
JOINT = dict.fromkeys(("trainval", "train_val", "train-val"), "train")  # folders; lists of these repeat those of both
COLUMNS = {"image", "mask"}
LONGEST_LIST = 2**26  # bytes of a list or a table
DEEPEST = 32  # folders of a path in a list


def existing_root(root: str | Path) -> Path:
    """The folder of a dataset that lies in files; a DataError where it does not exist."""
    if not Path(root).is_dir():
        packed = Path(root).is_file() and (zipfile.is_zipfile(root) or tarfile.is_tarfile(root))
        remedy = "an archive: unpack it, and name the folder" if packed else "not a folder"
        raise DataError(f"data.root {root} is {remedy}")
    return Path(root)


def lines_of(path: Path) -> list[str]:
    """The lines of a list that have something in them.

    Raises:
        DataError: there is no such file, or it is no text.
    """
    _require_text(path)
    try:
        # Windows editors put a byte order mark first, which would become part of the first name.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8, one image a line") from error
    return [line.strip() for line in lines if line.strip()]


def read_list(path: Path) -> list[str]:
    """The images of a list, one a line, without folders and suffixes; see ``lines_of``."""
    names = [PurePosixPath(line) for line in lines_of(path)]
    # A dot may also be a part of the stem, so only the suffix of an image is removed.
    return [composed(name.stem if name.suffix.lower() in IMAGE_SUFFIXES else name.name) for name in names]


def composed(name: str) -> str:
    """The name with letters and their accents in one character each; macOS stores file names the other way."""
    return normalize("NFC", name)


def pair_by_name(
    images: Path, masks: Path, names: Iterable[str] | None = None, mask_suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> list[Record]:
    """Pair the images and masks of two folders by file stem.

    Each folder is listed once, since a network disk takes its time to ask about every file.

    Args:
        images: folder of the images.
        masks: folder of the masks; a folder that does not exist counts as empty.
        names: stems to use, in this order; by default all of them, sorted.
        mask_suffixes: suffixes that masks have, in small letters.

    Returns:
        A record for every name. What has no partner is None, and of several files with the same stem every one has
        a record, so that nothing is lost unseen.
    """
    found_images, found_masks = _by_stem(images, IMAGE_SUFFIXES), _by_stem(masks, mask_suffixes)
    if names is None:
        names = sorted(found_images.keys() | found_masks.keys())
    return [
        Record(name, image, mask)
        for name in names
        for image, mask in zip_longest(found_images.get(name, [None]), found_masks.get(name, [None]))
    ]


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in suffixes:
            found.setdefault(composed(path.stem), []).append(path)
    return found


def _again(folder: Path, root: Path) -> bool:
    """Whether a folder is a link to one that is found without it."""
    return folder.is_symlink() and folder.resolve().is_relative_to(root.resolve())


def files_below(root: Path, besides: Path | None = None) -> Iterator[Path]:
    """In order, linked folders too, but each once; without what begins with a dot, and what lies below ``besides``."""
    seen: set[Path] = set()
    for place, folders, names in os.walk(root, followlinks=True):
        whole = Path(place).resolve()
        if whole in seen or (besides and whole.is_relative_to(besides)):
            folders.clear()
            continue
        seen.add(whole)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not _again(Path(place, name), root)
        )
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _require_text(path: Path) -> None:
    require_file(path)
    if path.stat().st_size > LONGEST_LIST:
        raise DataError(f"{path} has {path.stat().st_size} bytes, more than a list of images; remove it")


class Finder:
    """Which record a text names: by as much of the end of its image's path as tells it from the others."""

    def __init__(self, records: Iterable[Record], root: Path) -> None:
        self.images: dict[str, dict[Path, list[Record]]] = {}
        self.masks: dict[str, dict[Path, list[Record]]] = {}
        self.folders: dict[Path, set[str]] = {}  # in which a file is
        for record in records:
            for table, file in ((self.images, record.image or record.mask), (self.masks, record.mask)):
                tails = _tails(file.relative_to(root).as_posix()) if file else []
                for tail in tails:
                    table.setdefault(tail, {}).setdefault(file or root, []).append(record)
                if file:
                    self.folders[file] = {*tails[0].split("/")[:-1]}
        self.known = {folder for folders in self.folders.values() for folder in folders}

    def __call__(self, path: Path, line: str) -> list[Record]:
        """The records that a line of a list names; one without files where it names none.

        Raises:
            DataError: it could name several.
        """
        columns = [column for column in re.split(r"\t|[,;] *|\s+", line) if column]
        images = [column for column in columns if column.lower().endswith(IMAGE_SUFFIXES)]
        if len(images) > 1:
            masks = self._find(self.masks, path, columns[1])
            found = self._find(self.images, path, columns[0])[:1] or [Record(PurePosixPath(columns[0]).name)]
            return [replace(found[0], mask=masks[0].mask if masks else None)]
        # A name may have blanks; where it has none, other columns may follow.
        whole = line.lower().endswith(IMAGE_SUFFIXES)
        found = self._find(self.images, path, line) or ([] if whole else self._find(self.images, path, *columns[:1]))
        return found or [Record(PurePosixPath(line.replace("\\", "/")).name)]

    def _find(self, table: dict[str, dict[Path, list[Record]]], path: Path, text: str = "") -> list[Record]:
        tails = _tails(text)
        for place, tail in enumerate(tails):
            found = table.get(tail, {})
            folder = tails[place - 1].split("/")[0] if place else ""
            if folder in self.known:  # it is there, and what the text names is not in it
                found = {file: records for file, records in found.items() if folder in self.folders[file]}
            every = [record for records in found.values() for record in records]
            images = {record.image.with_suffix("") for record in every if record.image}
            if len(images) > 1 or len({record.name for record in every}) > 1:
                raise DataError(f"{path}: {text!r} could be {' and '.join(map(str, found))}; name the folder as well")
            if every:
                return every
        return []


def _tails(text: str) -> list[str]:
    """A path without its ending, and what is left of it as folders are taken away from its front; longest first."""
    name = PurePosixPath(composed(text.strip()).replace("\\", "/").casefold())
    stem = name.with_suffix("") if name.suffix in IMAGE_SUFFIXES else name
    parts = [part for part in stem.parts if part not in ("/", ".")][-DEEPEST:]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def tables_of(root: Path) -> dict[str, list[Record]]:
    """The records by split of tables with the columns image and mask, and split and group where they have them.

    A row without a split is in that which the name of its table says. Without such a table there are none.

    Raises:
        DataError: a table is damaged, or names an unknown split or a file outside.
    """
    records: dict[str, list[Record]] = {}
    for path in sorted(path for path in root.glob("*.[cC][sS][vV]") if path.is_file()):
        _require_text(path)
        try:
            with path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
                head = file.readline().lower()
                reader = csv.DictReader(
                    file,
                    [name.strip(' "\r\n') for name in re.split("[,;\t]", head)],
                    delimiter=next((mark for mark in ";\t" if mark in head), ","),
                    skipinitialspace=True,
                )
                for row in reader if {*(reader.fieldnames or ())} >= COLUMNS else ():
                    if (row["image"] or "").strip() or (row["mask"] or "").strip():
                        records.setdefault(_split_of(path, row), []).append(_record(root, path, row))
        except (csv.Error, ValueError, OSError, RuntimeError) as error:
            raise DataError(f"{path} cannot be read as a table ({error}); correct it, or remove it") from error
    return records


def _split_of(path: Path, row: Mapping[str, str | None]) -> str:
    word = (row.get("split") or "").strip().casefold()
    if not word:
        return SPLITS.get(path.stem.casefold(), "")
    if word not in SPLITS:
        raise DataError(f"{path}: split {word!r}; name one of {', '.join(SPLITS)}")
    return SPLITS[word]


def _record(root: Path, path: Path, row: Mapping[str, str | None]) -> Record:
    given = [(row[name] or "").strip().replace("\\", "/") for name in ("image", "mask")]
    for text in given:
        if PurePosixPath(text).is_absolute() or os.path.normpath(text).startswith(".."):
            raise DataError(f"{path}: {text} is outside of {root}; name files inside")
    image, mask = (root / text if text and (root / text).is_file() else None for text in given)
    name = PurePosixPath(given[0] or given[1]).with_suffix("").as_posix()
    return Record(composed(name), image, mask, group=(row.get("group") or "").strip() or None)
