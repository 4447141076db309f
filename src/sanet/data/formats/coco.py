"""COCO: one JSON file a split, with the polygons or run lengths of all its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanet.data.decoding import DataError
from sanet.data.formats.files import without_query
from sanet.data.formats.format import Entry, ToolFormat, outline, write_text
from sanet.data.formats.regions import Annotation, Bitmap, Region, run_lengths, runs_of
from sanet.data.source import names_text
from sanet.structures import LabelSet

NAME = "_annotations.coco.json"
KEYS = ("images", "annotations", "categories")


class Coco(ToolFormat):
    """Polygons and run lengths, crowds too, in the order of the file; see ``Format``."""

    signs = ('"images"|"file_name"', '"annotations"|"categories"')

    def read(self, root: Path) -> list[Annotation]:
        """Each image of a split is in one file only; see ``Format``."""
        found, first = super().read(root), dict[tuple[str | None, str], Path]()
        for each in found:
            if (other := first.setdefault((each.split, each.name), each.source)) != each.source:
                raise DataError(f"{other} and {each.source} both list {each.name}; move all but one of them away")
        return found

    def _entries(self, path: Path, content: Any) -> Iterator[Entry | str]:
        if any(not isinstance(content.get(key), list) for key in KEYS):
            yield f"without the lists {', '.join(KEYS)}: not used"
            return
        if not any(entry.get("segmentation") for entry in content["annotations"]):
            yield "no outlines, such as boxes or captions only: not used"
            return
        for what, key in (("images", "file_name"), ("categories", "name")):
            pairs = {(str(each["id"]), str(each[key])) for each in content[what]}
            if several := sorted(each for each, count in Counter(each for each, _ in pairs).items() if count > 1):
                raise DataError(
                    f"{path}: several {what} have one id ({names_text(several)}), as after merging files "
                    f"by hand; number the {what} and what refers to them anew, or leave the files apart"
                )
        # An id is the same whether it is written as a number or as a text.
        names = {str(category["id"]): str(category["name"]) for category in content["categories"]}
        for name, count in Counter(names.values()).items():
            if count > 1:
                ids = ", ".join(number for number, other in names.items() if other == name)
                yield f"the category {name!r} occurs {count} times (ids {ids}): merged"
        images = {str(image["id"]): image for image in content["images"]}
        drawn: dict[str, list[Any]] = {number: [] for number in images}
        used = Counter(str(entry.get("category_id")) for entry in content["annotations"])
        for entry in content["annotations"]:
            category, image = str(entry.get("category_id")), str(entry["image_id"])
            if image in drawn:
                drawn[image].append((names.get(category), entry))
            else:
                yield f"annotation {entry.get('id')} is of image {entry['image_id']}, which is not listed"
        for category in sorted(used.keys() - names):
            yield f"the category {category} of {used[category]} annotations is not listed: they have no class"
        for number, listed in images.items():
            given = without_query(str(listed["file_name"]))
            size = (listed.get("width"), listed.get("height"))
            yield Entry(given, self.files.image(given, path), drawn[number], size)

    def _regions(self, shape: Any, size: tuple[int, int]) -> Iterator[Region | str]:
        label, entry = shape
        outlines = entry.get("segmentation")
        if entry.get("iscrowd"):
            yield f"a crowd of {label}: drawn as {label}"
        if isinstance(outlines, dict):
            yield Region(label, bitmap=_bitmap(outlines, size))
        elif not outlines:
            yield f"a box of {label} without an outline: not drawn"
        else:
            for flat in outlines:
                yield from outline(label, "polygon", np.reshape(flat, (-1, 2)))

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes become run lengths, which keep them; see ``Format``."""
        numbers = {name: index + 1 for index, name in enumerate(labels.names)}
        categories = [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]
        contents: dict[str, dict[str, Any]] = {}
        for each in annotations:
            empty = {"info": {}, "licenses": [], "images": [], "annotations": [], "categories": categories}
            content = contents.setdefault(each.split or "", empty)
            image = len(content["images"]) + 1
            content["images"].append(
                {"id": image, "file_name": each.name, "width": each.size[0], "height": each.size[1]}
            )
            for region in each.regions:
                known = {"id": len(content["annotations"]) + 1, "image_id": image}
                category = {"category_id": numbers.get(region.label or "", 0)}
                content["annotations"].append(known | category | _written(region, each.size))
        for split, content in contents.items():
            write_text(folder / split / NAME, content)


def _written(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    left, top, bits = region.drawn(size)
    mark = Bitmap.of(bits, left, top)
    found = {"bbox": [mark.left, mark.top, *mark.size], "area": int(bits.sum()), "iscrowd": 0}
    if len(region.rings) == 1:
        return found | {"segmentation": [region.rings[0].round(2).ravel().tolist()]}
    whole = np.zeros(size, np.bool_)  # column by column
    whole[left : left + bits.shape[1], top : top + bits.shape[0]] = bits.T
    return found | {"segmentation": {"size": [*size[::-1]], "counts": runs_of(whole.ravel()).tolist()}}


def _bitmap(shape: dict[str, Any], size: tuple[int, int]) -> Bitmap:
    """Of run lengths column by column."""
    sides, counts = [*size[::-1]], shape["counts"]
    if shape["size"] != sides:
        raise ValueError(f"run lengths of an image of {shape['size']} in one of {sides}")
    if not isinstance(counts, str):
        return Bitmap.of(run_lengths((0, 0, *sides), counts, size[::-1]).bits().T)
    try:
        from pycocotools import mask  # type: ignore[import-untyped]
    except ImportError as error:
        raise ValueError("compressed run lengths, for which sanet-segmentation[datasets] must be installed") from error
    return Bitmap.of(mask.decode({"size": sides, "counts": counts.encode()}) > 0)
