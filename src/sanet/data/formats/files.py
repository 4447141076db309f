"""The files of an export, and which image a name in them means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PureWindowsPath

from sanet.data.decoding import IMAGE_SUFFIXES
from sanet.data.layout import IMAGES, JPEG
from sanet.data.listing import SPLITS, files_below

QUERY = re.compile(rf"({'|'.join(map(re.escape, IMAGE_SUFFIXES))})[?#].*", re.I | re.S)  # of an address, such as a key
MASKS = re.compile(r"mask|label|annot|segment|ground.?truth|^gt", re.I)  # in the names of folders


class Files:
    """The files of an export.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def named(self, *endings: str) -> Iterator[Path]:
        """Those with one of these endings, in order."""
        return (path for path in self._all if path.name.lower().endswith(endings))

    @cached_property
    def _all(self) -> list[Path]:
        return [*files_below(self.root)]

    @cached_property
    def _images(self) -> dict[str, list[Path]]:
        """The images by name, whatever its case."""
        found: dict[str, list[Path]] = {}
        for path in self.named(*IMAGE_SUFFIXES):
            found.setdefault(path.name.lower(), []).append(path)
        return found

    @cached_property
    def _twins(self) -> dict[str, Path]:
        found: dict[str, list[Path]] = {}
        for path in self.named(*IMAGE_SUFFIXES):
            found.setdefault(_stem(path), []).append(path)
        # Of a JPEG and a PNG the latter is its mask.
        chosen = {stem: [path for path in paths if path.suffix.lower() in JPEG] for stem, paths in found.items()}
        return {stem: (chosen[stem] or paths)[0] for stem, paths in found.items() if len(chosen[stem] or paths) == 1}

    def twin(self, path: Path) -> Path | None:
        """The image beside a file that differs from it in its suffix alone."""
        return self._twins.get(_stem(path))

    def image(self, given: str, path: Path, within: str = "") -> Path | None:
        """The image that a file names: below its folder, else the only one of its split that has the name elsewhere.

        Below its folder, one that is in the folder ``within`` comes first, such as that of a subset.
        No name leads out of the export, such as one of another computer or with ``..`` in it; its last part counts.
        Folders of masks hold files of the same names, and are left out.
        """
        beside, place = path.parent, PureWindowsPath(given)  # splits at / and at \
        if not place.parts:
            return None
        same = self._images.get(place.parts[-1].lower(), [])
        inside = not place.anchor and ".." not in place.parts
        parts = [*([place.parts] if inside else []), place.parts[-1:]]
        folders = (beside / within, beside / "images" / within, beside, beside / "images")
        near = [folder.joinpath(*part) for part in parts for folder in folders]
        split = self.split(path)
        of_split = [image for image in same if split is None or self.split(image.parent) in (None, split)]
        far = [image for image in of_split if not any(map(_of_masks, image.parent.relative_to(self.root).parts))]
        near += [image for image in same if image.parent == beside] + (far if len(far) == 1 else [])
        return next((image for image in near if image in same), None)

    def name(self, image: Path) -> str:
        """Its name, or where others of its split have that, its path below the folders of the split and of images."""
        same = [path for path in self._images[image.name.lower()] if not _of_masks(path.parent.name)]
        if sum(self.split(path.parent) == self.split(image.parent) for path in same) < 2:
            return image.name
        folders = image.relative_to(self.root).parts[:-1]
        parts = [part for part in folders if part.lower() not in SPLITS and not IMAGES.fullmatch(part.lower())]
        return "/".join([*parts, image.name])

    def split(self, path: Path) -> str | None:
        """The split that a file's place and name below the root speak of, such as val/ or instances_val2017.json."""
        words = [word for part in path.relative_to(self.root).parts for word in re.split(r"[^a-z]+", part.lower())]
        return next((SPLITS[word] for word in words if word in SPLITS and len(word) > 2), None)


def without_query(given: str) -> str:
    """The name of an image without what an address has behind it, such as a signature."""
    return QUERY.sub(r"\1", given)


def _of_masks(folder: str) -> bool:
    return bool(MASKS.search(folder)) and not IMAGES.fullmatch(folder.lower())


def _stem(path: Path) -> str:
    return path.with_suffix("").as_posix().lower()
