"""YOLO's polygons: ``labels/`` beside ``images/``, a text file an image, and ``data.yaml`` with the names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from sanet import yaml_files
from sanet.data.decoding import DataError
from sanet.data.formats.files import Files
from sanet.data.formats.format import Entry, ToolFormat, outline, write_text
from sanet.data.formats.regions import Annotation, Region, checked_ring, without_holes
from sanet.structures import LabelSet

IMAGES, LABELS, NAMES = "images", "labels", ("data.yaml", "dataset.yaml", "classes.txt")


class Yolo(ToolFormat):
    """A line a polygon: the number of its class, then x and y as shares of the image's size; see ``Format``."""

    ending = ".txt"
    kind = str

    def recognises(self, root: Path) -> str:
        """A folder labels/ has text files, and a file has the names."""
        files = Files(root)
        texts = any(LABELS in path.relative_to(root).parts for path in files.named(self.ending))
        names = _names_in(files)
        return f"{names.relative_to(root)}, and text files in {LABELS}/" if texts and names else ""

    def read(self, root: Path) -> list[Annotation]:
        """With the names that numbers have; see ``Format``."""
        path = _names_in(Files(root))
        if path is None:
            raise DataError(f"{root} has no {' and no '.join(NAMES)}, which name the classes; add one")
        if path.suffix == ".txt":
            names: Any = yaml_files.read_text(path).split("\n")
        else:
            names = yaml_files.read_mapping(path).get("names")
        pairs = names.items() if isinstance(names, dict) else enumerate(names if isinstance(names, list) else ())
        self.names = {str(index): str(name) for index, name in pairs if name}
        if not self.names:
            raise DataError(f"{path} has no names of classes; add them, such as `names: [leaf]`")
        return super().read(root)

    def _entries(self, path: Path, content: Any) -> Iterator[Entry | str]:
        parts = [*path.relative_to(self.files.root).parts]
        if LABELS in parts[:-1]:
            parts[len(parts) - 1 - parts[::-1].index(LABELS)] = IMAGES
            lines = [text for text in content.splitlines() if text.strip()]
            yield Entry(path.stem, self.files.twin(self.files.root.joinpath(*parts)), lines)

    def _regions(self, shape: Any, size: tuple[int, int]) -> Iterator[Region | str]:
        words = shape.split()
        label = self.names.get(words[0])
        if len(words) == 5:
            yield f"a box of {label} ({shape[:40]}): not drawn"
        elif len(words) < 7 or len(words) % 2 == 0 or label is None:
            raise ValueError(f"{shape[:40]!r} is not the number of one of the names and at least three points")
        else:
            shares = checked_ring(np.array(words[1:], np.float64).reshape(-1, 2))
            yield from outline(label, "polygon", (shares * size).round(4))

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes are cut through them, so that they stay holes; see ``Format``."""
        numbers, splits = {name: index for index, name in enumerate(labels.names)}, dict[str, str]()
        for each in annotations:
            place = self.image_place(each)
            splits[each.split or "train"] = place.parent.as_posix()
            lines = [
                " ".join([str(numbers[region.label or ""]), *(f"{value:.7f}" for value in (ring / each.size).ravel())])
                for region in each.regions
                for ring in without_holes(region, each.size)
            ]
            path = folder / LABELS / place.relative_to(IMAGES).with_suffix(self.ending)
            write_text(path, "".join(f"{line}\n" for line in lines))
        texts = [f"{split}: {json.dumps(place)}" for split, place in splits.items()]
        texts += ["names:", *(f"  {index}: {json.dumps(name)}" for index, name in enumerate(labels.names))]
        write_text(folder / NAMES[0], "\n".join(texts) + "\n")

    def image_place(self, annotation: Annotation) -> PurePath:
        """In images/, and there in the folder of its split."""
        return PurePath(IMAGES, annotation.split or "train", annotation.name)


def _names_in(files: Files) -> Path | None:
    found = {path.name: path for path in [*files.named(*NAMES)][::-1]}  # the first of each name
    return next((found[name] for name in NAMES if name in found), None)
