"""COCO: one JSON file a split, with the polygons or run lengths of all its images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanet.data.decoding import DataError
from sanet.data.formats.format import TRIED, Files, Format, checked_ring, checked_size, head, posix, understood
from sanet.data.formats.regions import Annotation, Bitmap, Region, bitmap, runs_of
from sanet.structures import LabelSet, UsageError

NAME = "_annotations.coco.json"
KEYS = ("images", "annotations", "categories")


class Coco(Format):
    """Polygons and run lengths, crowds too, in the order of the file; see ``Format``."""

    def recognises(self, root: Path) -> str:
        """A JSON file has images and categories, or annotations."""
        for path in list(Files(root).named(".json"))[:TRIED]:
            keys = [key for key in KEYS if f'"{key}"' in head(path)]
            if len(keys) > 1 and '"shapes"' not in head(path):
                return f"{path.relative_to(root)} has {' and '.join(keys)}"
        return ""

    def read(self, root: Path) -> list[Annotation]:
        """One annotation an image of each file; see ``Format``."""
        files, contents = Files(root), dict[Path, Any]()
        for path, content in self.contents(files, dict):
            if any(not isinstance(content.get(key), list) for key in KEYS):
                self.note(path, f"without the lists {', '.join(KEYS)}: not used")
            elif not any(isinstance(each, dict) and each.get("segmentation") for each in content["annotations"]):
                self.note(path, "no outlines, such as boxes or captions only: not used")
            else:
                contents[path] = content
        if not contents:
            what = "; ".join(f"{path}: {what}" for path, what in self.findings[:6]) or "no JSON file"
            raise DataError(f"{root} has no outlines ({what}); export it with polygons or masks")
        found, first = [], dict[tuple[str | None, str], Path]()
        for path, content in contents.items():
            with understood(path, "COCO"):
                found += self._read(path, content, files)
        for each in found:
            if (other := first.setdefault((each.split, each.name), each.source)) != each.source:
                raise DataError(f"{other} and {each.source} both list {each.name}; move all but one of them away")
        return found

    def _read(self, path: Path, content: dict[str, Any], files: Files) -> list[Annotation]:
        names = {category["id"]: str(category["name"]) for category in content["categories"]}
        for name, count in Counter(names.values()).items():
            if count > 1:
                ids = ", ".join(str(number) for number, other in names.items() if other == name)
                self.note(path, f"the category {name!r} occurs {count} times (ids {ids}): merged")
        drawn: dict[Any, list[dict[str, Any]]] = {entry["id"]: [] for entry in content["images"]}
        for entry in content["annotations"]:
            if entry["image_id"] not in drawn:
                self.note(path, f"annotation {entry.get('id')} is of image {entry['image_id']}, which is not listed")
            drawn.setdefault(entry["image_id"], []).append(entry)
        found = []
        for entry in content["images"]:
            given = str(entry["file_name"])
            image = files.image(given, path.parent)
            if image is None:
                self.note(path, f"the image {given} is missing")
            size = checked_size(path, entry.get("width"), entry.get("height"), image)
            regions = [part for one in drawn[entry["id"]] for part in self._regions(path, given, one, names, size)]
            if not drawn[entry["id"]]:
                self.note(path, f"{given} has no annotation: all of it is unlabelled")
            name = files.name(image) if image else given.replace("\\", "/").rpartition("/")[2]
            found.append(Annotation(name, image, size, tuple(regions), files.split(path), path))
        return found

    def _regions(
        self, path: Path, image: str, entry: dict[str, Any], names: dict[Any, str], size: tuple[int, int]
    ) -> list[Region]:
        label, shape = names.get(entry.get("category_id")), entry.get("segmentation")
        if entry.get("iscrowd"):
            self.note(path, f"{image}: a crowd of {label}: drawn as {label}")
        if isinstance(shape, dict):
            return [Region(label, bitmap=_bitmap(path, shape, size))]
        found = []
        for flat in shape or ():
            ring = checked_ring(path, np.asarray(flat, object).reshape(-1, 2) if len(flat) % 2 == 0 else [flat])
            if len(ring) < 3:
                self.note(path, f"{image}: a polygon of {len(ring)} points, labelled {label}: not drawn")
            else:
                found.append(Region(label, (ring,)))
        if not shape:
            self.note(path, f"{image}: a box of {label} without an outline: not drawn")
        return found

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes become run lengths, which keep them; see ``Format``."""
        numbers = {name: index + 1 for index, name in enumerate(labels.names)}
        categories = [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]
        for split in dict.fromkeys(each.split for each in annotations):
            images, entries = [], list[dict[str, Any]]()
            for index, each in enumerate((each for each in annotations if each.split == split), 1):
                place = posix(self.image_place(each).relative_to(split or ""))
                images.append({"id": index, "file_name": place, "width": each.size[0], "height": each.size[1]})
                for region in each.regions:
                    known = {
                        "id": len(entries) + 1,
                        "image_id": index,
                        "category_id": numbers.get(region.label or "", 0),
                    }
                    entries.append(known | _written(region, each.size))
            (folder / (split or "")).mkdir(parents=True, exist_ok=True)
            content = {"info": {}, "licenses": [], "images": images, "annotations": entries, "categories": categories}
            (folder / (split or "") / NAME).write_text(json.dumps(content), encoding="utf-8")


def _written(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    left, top, bits = region.drawn(size)
    mark = Bitmap.of(bits, left, top)
    found = {"bbox": [mark.left, mark.top, *mark.size], "area": int(bits.sum()), "iscrowd": 0}
    if len(region.rings) == 1:
        return found | {"segmentation": [region.rings[0].round(2).ravel().tolist()]}
    whole = np.zeros(size, np.bool_)  # column by column
    whole[left : left + bits.shape[1], top : top + bits.shape[0]] = bits.T
    return found | {"segmentation": {"size": [*size[::-1]], "counts": runs_of(whole.ravel()).tolist()}}


def _bitmap(path: Path, shape: dict[str, Any], size: tuple[int, int]) -> Bitmap:
    counts = shape.get("counts")
    if list(shape.get("size") or ()) != [size[1], size[0]]:
        raise DataError(
            f"{path}: run lengths of an image of {shape.get('size')} in one of {[*size[::-1]]}; export it again"
        )
    if isinstance(counts, str):
        try:
            from pycocotools import mask  # type: ignore[import-untyped]
        except ImportError as error:
            raise UsageError(f"{path} has compressed run lengths; install sanet-segmentation[datasets]") from error
        try:
            return Bitmap.of(mask.decode({"size": [*size[::-1]], "counts": counts.encode()}) > 0)
        except Exception as error:  # whatever it raises
            raise DataError(f"{path}: run lengths cannot be read ({error}); export it again") from error
    columns = bitmap(path, (0, 0, *size[::-1]), counts, size[::-1]).bits()
    return Bitmap.of(columns.T)
