"""YOLO's polygons: ``labels/`` beside ``images/``, a text file an image, and ``data.yaml`` with the names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from sanet import yaml_files
from sanet.data.decoding import DataError, require_file
from sanet.data.formats.format import Files, Format, checked_ring, image_size, posix
from sanet.data.formats.regions import Annotation, Region, without_holes
from sanet.structures import LabelSet

IMAGES, LABELS, NAMES = "images", "labels", ("data.yaml", "dataset.yaml", "classes.txt")
LARGEST_TEXT = 2**24  # bytes of the outlines of an image


class Yolo(Format):
    """A line a polygon: the number of its class, then x and y as shares of the image's size; see ``Format``."""

    def recognises(self, root: Path) -> str:
        """A folder labels/ has text files, and a file has the names."""
        files = Files(root)
        texts = any(LABELS in path.relative_to(root).parts for path in files.named(".txt"))
        names = [path for path in files.named(*NAMES) if path.name in NAMES]
        return f"{names[0].relative_to(root)}, and text files in {LABELS}/" if texts and names else ""

    def read(self, root: Path) -> list[Annotation]:
        """One annotation a text file; see ``Format``."""
        files, found, boxes = Files(root), [], 0
        names = self._names(files)
        known = {path.with_suffix("").as_posix().lower(): path for same in files.images.values() for path in same}
        for path in files.named(".txt"):
            parts = [*path.relative_to(root).with_suffix("").parts]
            if LABELS not in parts[:-1]:
                continue
            place = len(parts) - 1 - parts[::-1].index(LABELS)
            wanted = root.joinpath(*parts[:place], IMAGES, *parts[place + 1 :])
            image = known.pop(wanted.as_posix().lower(), None)
            if image is None:
                self.note(path, "its image is missing: not used, since outlines are shares of its size")
                continue
            size, regions = image_size(image), []
            for number, text in enumerate(_lines(path), 1):
                words = text.split()
                label = names.get(words[0])
                if len(words) == 5:
                    boxes += 1
                    self.note(path, f"line {number} is a box of {label}: not drawn")
                    continue
                if len(words) < 7 or len(words) % 2 == 0 or label is None:
                    raise DataError(f"{path}, line {number}: {text[:40]!r} is not the number of one of the names "
                                    "and at least three points; export it again")  # fmt: skip
                ring = checked_ring(path, np.array(words[1:], object).reshape(-1, 2)) * size
                regions.append(Region(label, (checked_ring(path, ring.round(4)),)))
            found.append(Annotation(files.name(image), image, size, tuple(regions), files.split(path), path))
        if boxes and not any(each.regions for each in found):
            raise DataError(f"{root} has boxes only, and no outlines; export it for segmentation")
        return found

    def _names(self, files: Files) -> dict[str, str]:
        path = next((path for name in NAMES for path in files.all if path.name == name), None)
        if path is None:
            raise DataError(f"{files.root} has no {' and no '.join(NAMES)}, which name the classes; add one")
        if path.suffix == ".txt":
            return {str(index): name for index, name in enumerate(yaml_files.read_text(path).split("\n")) if name}
        names = yaml_files.read_mapping(path).get("names")
        pairs = names.items() if isinstance(names, dict) else enumerate(names if isinstance(names, list) else ())
        found = {str(index): str(name) for index, name in pairs}
        if not found:
            raise DataError(f"{path} has no names of classes; add them, such as `names: [leaf]`")
        return found

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes are cut through them, so that they stay holes; see ``Format``."""
        numbers, splits = {name: index for index, name in enumerate(labels.names)}, dict[str, str]()
        for each in annotations:
            place = self.image_place(each)
            splits[each.split or "train"] = posix(place.parent)
            path = folder / LABELS / place.relative_to(IMAGES).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                " ".join([str(numbers[region.label or ""]), *(f"{value:.7f}" for value in (ring / each.size).ravel())])
                for region in each.regions
                for ring in without_holes(region, each.size)
            ]
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        texts = [f"{split}: {json.dumps(place)}" for split, place in splits.items()]
        texts += ["names:", *(f"  {index}: {json.dumps(name)}" for index, name in enumerate(labels.names))]
        (folder / NAMES[0]).write_text("\n".join(texts) + "\n", encoding="utf-8")

    def image_place(self, annotation: Annotation) -> PurePath:
        """In images/, and there in the folder of its split."""
        return PurePath(IMAGES, annotation.split or "train", annotation.name)


def _lines(path: Path) -> list[str]:
    require_file(path)
    if path.stat().st_size > LARGEST_TEXT:
        raise DataError(
            f"{path} has {path.stat().st_size} bytes, of which {LARGEST_TEXT} are read at most; export it again"
        )
    return [text for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if text.strip()]
