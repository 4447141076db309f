"""YOLO's polygons: ``labels/`` beside ``images/``, a text file an image, and ``data.yaml`` with the names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import numpy as np

from sanet import yaml_files
from sanet.data.decoding import DataError
from sanet.data.formats.files import Files
from sanet.data.formats.format import Entry, ToolFormat, outline, write_text
from sanet.data.formats.regions import Annotation, Region, checked_ring, without_holes
from sanet.data.layout import lists_in
from sanet.data.listing import SPLITS, Finder, lines_of
from sanet.data.source import Record, names_text
from sanet.structures import LabelSet

IMAGES, LABELS, NAMES = "images", "labels", ("data.yaml", "dataset.yaml", "classes.txt")
MOST = 2.0  # times an image's width or height that a coordinate may be; more is in pixels


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
        given: dict[str, Any] = {}
        if path.suffix == ".txt":
            names: Any = yaml_files.read_text(path).split("\n")
        else:
            given = yaml_files.read_mapping(path)
            names = given.get("names")
        if "kpt_shape" in given:
            raise DataError(f"{path} has kpt_shape, so the labels are boxes with keypoints; export polygons (segments)")
        pairs = names.items() if isinstance(names, dict) else enumerate(names if isinstance(names, list) else ())
        self.names = {str(index): str(name) for index, name in pairs if name}
        if not self.names:
            raise DataError(f"{path} has no names of classes; add them, such as `names: [leaf]`")
        return self._divided(super().read(root), path, given)

    def _divided(self, found: list[Annotation], path: Path, given: dict[str, Any]) -> list[Annotation]:
        """With the splits that data.yaml says, else lists in the folder; what is in two of them is in the later."""
        root, splits = self.files.root, dict[Path | None, str]()
        told = {split: given[key] for key, split in SPLITS.items() if given.get(key)} or dict(lists_in(root))
        images = [each.image for each in found if each.image]
        find = Finder([Record(str(image), image) for image in images], root)
        for split in (split for split in ("train", "val", "test") if split in told):
            for text in told[split] if isinstance(told[split], list) else [told[split]]:
                place = _place(PureWindowsPath(str(given.get("path") or ""), str(text)), path.parent, root)
                named: list[Path] = []
                if place is None:
                    self.note(path, f"{split}: {text} is not there")
                elif place.is_dir():
                    named = [image for image in images if image.is_relative_to(place)]
                else:
                    pairs = [(line, find(place, line)[0].image) for line in lines_of(place)]
                    named = [image for _, image in pairs if image]
                    if gone := [line for line, image in pairs if not image]:
                        self.note(place, f"names images that are not there, or have no labels: {names_text(gone)}")
                if twice := [str(image) for image in named if splits.get(image, split) != split]:
                    self.note(path, f"{names_text(twice)} are in {split}, though they are in another split as well")
                splits |= dict.fromkeys(named, split)
        if "train" in told and "train" not in splits.values():
            self.note(path, "its splits leave no image to train on: not used")
            return found
        said = {*splits.values()}  # a folder may be of another one
        return [replace(one, split=splits.get(one.image, None if one.split in said else one.split)) for one in found]

    def _entries(self, path: Path, content: Any) -> Iterator[Entry | str]:
        parts = [*path.relative_to(self.files.root).parts]
        if LABELS in parts[:-1]:
            parts[len(parts) - 1 - parts[::-1].index(LABELS)] = IMAGES
            lines = [(number, text) for number, text in enumerate(content.splitlines(), 1) if text.strip()]
            yield Entry(path.stem, self.files.twin(self.files.root.joinpath(*parts)), lines)

    def _regions(self, shape: Any, size: tuple[int, int]) -> Iterator[Region | str]:
        number, text = shape
        words = text.split()
        label = self.names.get(words[0])
        if len(words) == 5:
            yield f"a box of {label} ({text[:40]}): not drawn"
        elif len(words) < 7 or len(words) % 2 == 0 or label is None:
            raise ValueError(
                f"line {number}: {text[:40]!r} is not the number of one of the names and at least three points"
            )
        else:
            shares = checked_ring(np.array(words[1:], np.float64).reshape(-1, 2))
            if (largest := shares.max()) > MOST:
                raise ValueError(
                    f"line {number}: {largest:g} is no share of the image's width or height; divide pixels by these"
                )
            yield from outline(label, "polygon", (shares * size).round(4))

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes are cut through them, so that they stay holes; see ``Format``."""
        numbers, splits = {name: index for index, name in enumerate(labels.names)}, dict[str, str]()
        for each in annotations:
            place = self.image_place(each)
            splits[each.split or "train"] = f"{IMAGES}/{each.split or 'train'}"
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


def _place(given: PurePath, *bases: Path) -> Path | None:
    """A file or folder in one of some folders, by as much of the end of its path, of whatever machine, as is there."""
    parts = [part for part in given.parts if part != ".."]
    ends = [parts[start:] for start in range(len(parts)) if start == 0 or parts[start:] != [IMAGES]]  # which may be any
    tails = (Path(base, *end) for end in ends for base in bases)
    return next((tail for tail in tails if tail.exists()), None)
