"""VGG Image Annotator 2: a JSON file with the regions of the images beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanet.data.formats.files import without_query
from sanet.data.formats.format import Entry, ToolFormat, outline, write_text
from sanet.data.formats.regions import Annotation, Region, box_ring, ellipse_ring, without_holes
from sanet.structures import LabelSet

NAME, ATTRIBUTE, WIDTH = "via_region_data.json", "class", 1


class Via(ToolFormat):
    """Polygons, rectangles, circles, ellipses and polylines; the attribute that most regions have is the class."""

    signs = ('"shape_attributes"',)

    def _entries(self, path: Path, content: Any) -> Iterator[Entry | str]:
        every = [*(content.get("_via_img_metadata") or content).values()]
        if not all(isinstance(entry, dict) and isinstance(entry.get("regions"), (dict, list)) for entry in every):
            yield "no file of VIA 2: not used"
            return
        inner = [[*(part.values() if isinstance(part := entry["regions"], dict) else part)] for entry in every]
        attributes = [region["region_attributes"].items() for regions in inner for region in regions]
        counts = Counter(key for items in attributes for key, value in items if value)
        key = counts.most_common(1)[0][0] if counts else ""
        if len(counts) > 1:
            yield f"regions have several attributes ({', '.join(counts)}): {key} is taken as the class"
        for entry, regions in zip(every, inner, strict=True):
            given = without_query(str(entry["filename"]))
            shapes = [(region["region_attributes"].get(key), region["shape_attributes"]) for region in regions]
            yield Entry(given, self.files.image(given, path), shapes)

    def _regions(self, shape: Any, size: tuple[int, int]) -> Iterator[Region | str]:
        value, given = shape
        chosen = [name for name, on in value.items() if on] if isinstance(value, dict) else [value]  # of checkboxes
        label, kind = " ".join(str(name).strip() for name in chosen if name) or None, given["name"]
        if kind == "rect":
            x, y, width, height = (given[name] for name in ("x", "y", "width", "height"))
            yield from outline(label, kind, box_ring([x, y, x + width, y + height]))
        elif kind in {"circle", "ellipse"}:
            radii = [given["r"]] * 2 if kind == "circle" else [given["rx"], given["ry"]]
            turned = np.degrees(given.get("theta") or 0)
            yield from outline(label, kind, ellipse_ring([given["cx"], given["cy"]], radii, turned))
        else:
            points = list(zip(given.get("all_points_x", ()), given.get("all_points_y", ()), strict=True))
            yield from outline(label, kind, points, WIDTH if kind == "polyline" else 0, size)

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes are cut through them, so that they stay holes; see ``Format``."""
        contents: dict[str, dict[str, Any]] = {}
        for each in annotations:
            regions = [
                {"shape_attributes": {"name": "polygon", "all_points_x": ring[:, 0].round(2).tolist(),
                                      "all_points_y": ring[:, 1].round(2).tolist()},
                 "region_attributes": {ATTRIBUTE: region.label or ""}}
                for region in each.regions
                for ring in without_holes(region, each.size)
            ]  # fmt: skip
            size = each.image.stat().st_size if each.image else -1
            entry = {"filename": each.name, "size": size, "regions": regions, "file_attributes": {}}
            contents.setdefault(each.split or "", {})[f"{each.name}{size}"] = entry
        for split, content in contents.items():
            write_text(folder / split / NAME, content)
