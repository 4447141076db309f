"""VGG Image Annotator 2: a JSON file with the regions of the images beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanet.data.formats.format import Files, Format, checked_ring, checked_size, first_with, posix, understood
from sanet.data.formats.regions import Annotation, Region, box_ring, ellipse_ring, line, without_holes
from sanet.structures import LabelSet

NAME, ATTRIBUTE, WIDTH = "via_region_data.json", "class", 1


class Via(Format):
    """Polygons, rectangles, circles, ellipses and polylines; the attribute that most regions have is the class."""

    def recognises(self, root: Path) -> str:
        """A JSON file has regions with shape_attributes."""
        found = first_with(root, ".json", '"shape_attributes"')
        return f"{found} has regions with shape_attributes" if found else ""

    def read(self, root: Path) -> list[Annotation]:
        """One annotation an image of each file; see ``Format``."""
        files, found = Files(root), []
        for path, content in self.contents(files, dict):
            entries = [*(content.get("_via_img_metadata") or content).values()]
            if not all(isinstance(entry, dict) and isinstance(entry.get("regions"), (dict, list)) for entry in entries):
                self.note(path, "no file of VIA 2: not used")
                continue
            with understood(path, "VIA 2"):
                found += self._read(path, entries, files)
        return found

    def _read(self, path: Path, entries: list[dict[str, Any]], files: Files) -> list[Annotation]:
        inner = [[*(part.values() if isinstance(part := entry["regions"], dict) else part)] for entry in entries]
        counts = Counter(
            key
            for regions in inner
            for region in regions
            for key, value in region["region_attributes"].items()
            if value
        )
        key = counts.most_common(1)[0][0] if counts else ""
        if len(counts) > 1:
            self.note(path, f"regions have several attributes ({', '.join(counts)}): {key} is taken as the class")
        found = []
        for entry, regions in zip(entries, inner, strict=True):
            given = str(entry["filename"])
            image = files.image(given, path.parent)
            if image is None:
                self.note(path, f"the image {given} is missing: not used, since its size is not known")
                continue
            drawn = [drawn for region in regions if (drawn := self._region(path, given, region, key, image))]
            size = checked_size(path, None, None, image)
            found.append(Annotation(files.name(image), image, size, tuple(drawn), files.split(path), path))
        return found

    def _region(self, path: Path, given: str, region: dict[str, Any], key: str, image: Path) -> Region | None:
        value, shape = region["region_attributes"].get(key), region["shape_attributes"]
        chosen = [name for name, on in value.items() if on] if isinstance(value, dict) else [value]  # of checkboxes
        label, kind = " ".join(str(name).strip() for name in chosen if name) or None, shape["name"]
        points = list(zip(shape.get("all_points_x", ()), shape.get("all_points_y", ()), strict=True))
        ring = checked_ring(path, points)
        if kind == "rect":
            x, y, width, height = (shape[name] for name in ("x", "y", "width", "height"))
            ring = box_ring([x, y, x + width, y + height])
        elif kind in {"circle", "ellipse"}:
            radii = [shape["r"]] * 2 if kind == "circle" else [shape["rx"], shape["ry"]]
            checked_ring(path, [radii])
            ring = ellipse_ring([shape["cx"], shape["cy"]], radii, np.degrees(shape.get("theta") or 0))
        elif kind == "polyline" and len(ring) > 1:
            self.note(path, f"{given}: a polyline, labelled {label}: drawn {WIDTH} pixel wide")
            return line(label, ring, WIDTH, checked_size(path, None, None, image))
        if len(ring) < 3:
            self.note(path, f"{given}: a {kind} of {len(ring)} points, labelled {label}: not drawn")
            return None
        return Region(label, (checked_ring(path, ring),))

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes are cut through them, so that they stay holes; see ``Format``."""
        for split in dict.fromkeys(each.split for each in annotations):
            content = {}
            for each in (each for each in annotations if each.split == split):
                place = posix(self.image_place(each).relative_to(split or ""))
                regions = [
                    {"shape_attributes": {"name": "polygon", "all_points_x": ring[:, 0].round(2).tolist(),
                                          "all_points_y": ring[:, 1].round(2).tolist()},
                     "region_attributes": {ATTRIBUTE: region.label or ""}}
                    for region in each.regions
                    for ring in without_holes(region, each.size)
                ]  # fmt: skip
                size = each.image.stat().st_size if each.image else -1
                content[f"{place}{size}"] = {"filename": place, "size": size, "regions": regions, "file_attributes": {}}
            (folder / (split or "")).mkdir(parents=True, exist_ok=True)
            (folder / (split or "") / NAME).write_text(json.dumps(content), encoding="utf-8")
