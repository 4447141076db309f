"""Label Studio's JSON export: a list of tasks, with what was drawn on each image, or predicted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np

from sanet.data.decoding import DataError
from sanet.data.formats.format import TRIED, Files, Format, checked_ring, checked_size, head, posix, understood
from sanet.data.formats.regions import Annotation, Bitmap, Bits, Region, box_ring, ellipse_ring, without_holes
from sanet.structures import LabelSet

NAME, INTERFACE = "tasks.json", "labels.xml"  # the interface is pasted into the project's settings
MOST_RUNS = 1_000_000  # of a brush stroke, each of which takes some microseconds
KINDS = {"polygonlabels": "polygon", "brushlabels": "brush", "rectanglelabels": "rectangle", "ellipselabels": "ellipse"}


class LabelStudio(Format):
    """Polygons, rectangles, ellipses and brush strokes of the newest annotation, else prediction; see ``Format``."""

    def recognises(self, root: Path) -> str:
        """A JSON file has a list of tasks with data, and results on them."""
        for path in list(Files(root).named(".json"))[:TRIED]:
            text = head(path)
            if text.lstrip().startswith("[") and '"data"' in text and '"result"' in text:
                return f"{path.relative_to(root)} has tasks with results"
        return ""

    def read(self, root: Path) -> list[Annotation]:
        """One annotation a task; see ``Format``."""
        files, found = Files(root), []
        for path, content in self.contents(files, list):
            with understood(path, "Label Studio (JSON, not JSON-MIN)"):
                found += [each for task in content if (each := self._read(path, task, files))]
        return found

    def _read(self, path: Path, task: dict[str, Any], files: Files) -> Annotation | None:
        given = next((str(value) for key, value in task["data"].items() if key in {"image", "img"}), "")
        given = given or str(next(iter(task["data"].values()), ""))
        place = unquote(given.rpartition("?d=")[2])
        # An upload has a few signs and a hyphen before the name of its file.
        image = files.image(place, path.parent) or files.image(place.rpartition("/")[2].partition("-")[2], path.parent)
        if image is None:
            self.note(path, f"the image {given} is missing")
        drawn = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
        drawn = drawn or (task.get("predictions") or [])
        if len(drawn) > 1:
            self.note(path, f"{given} has {len(drawn)} annotations: the last is used")
        results = [one for one in (drawn[-1]["result"] if drawn else ()) if "value" in one]
        sizes = [(one.get("original_width"), one.get("original_height")) for one in results]
        if image is None and not sizes:
            self.note(path, f"{given} has no size: not used")
            return None
        width, height = sizes[0] if sizes else (None, None)
        size = checked_size(path, width, height, image)
        regions = [region for one in results if (region := self._region(path, given, one, size))]
        name = files.name(image) if image else place.rpartition("/")[2]
        return Annotation(name, image, size, tuple(regions), files.split(image.parent) if image else None, path)

    def _region(self, path: Path, given: str, result: dict[str, Any], size: tuple[int, int]) -> Region | None:
        kind, value = str(result.get("type")), result["value"]
        names = value.get(kind) or ()
        label = str(names[0]) if names else None
        if len(names) > 1:
            self.note(path, f"{given}: a region with the labels {', '.join(map(str, names))}: the first is taken")
        scale, turn = np.array(size) / 100, float(value.get("rotation") or 0)
        shape = KINDS.get(kind, kind)
        if shape == "polygon":
            ring = (checked_ring(path, value["points"]) * scale).round(4)  # 4.9999999 is 5
        elif shape == "rectangle":
            left, top = np.array([value["x"], value["y"]], float) * scale
            right, bottom = np.array([value["x"] + value["width"], value["y"] + value["height"]], float) * scale
            ring = box_ring([left, top, right, bottom], turn, (left, top))
        elif shape == "ellipse":
            (x, y), radii = np.array([[value["x"], value["y"]], [value["radiusX"], value["radiusY"]]], float) * scale
            checked_ring(path, [radii])
            ring = ellipse_ring((x, y), radii, turn)
        elif shape == "brush" and value.get("format") == "rle":
            return Region(label, bitmap=Bitmap.of(brush(path, value["rle"], size)))
        else:
            self.note(path, f"{given}: {kind}, labelled {label}, which is no region: not drawn")
            return None
        if len(ring) < 3:
            self.note(path, f"{given}: a polygon of {len(ring)} points, labelled {label}: not drawn")
            return None
        return Region(label, (checked_ring(path, ring),))

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """As predictions to correct; regions with holes are cut through, so that they stay holes; see ``Format``."""
        tasks = []
        for each in annotations:
            known = {"type": "polygonlabels", "from_name": "label", "to_name": "image", "original_width": each.size[0],
                     "original_height": each.size[1], "image_rotation": 0}  # fmt: skip
            rings = [(region.label, ring) for region in each.regions for ring in without_holes(region, each.size)]
            result = [
                {**known, "id": f"r{index}", "value": {"polygonlabels": [label or ""], "closed": True,
                 "points": (ring / each.size * 100).round(5).tolist()}}
                for index, (label, ring) in enumerate(rings)
            ]  # fmt: skip
            image = f"/data/local-files/?d={posix(self.image_place(each))}"
            tasks.append({"data": {"image": image}, "predictions": [{"model_version": "sanet", "result": result}]})
        (folder / NAME).write_text(json.dumps(tasks), encoding="utf-8")
        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Image", {"name": "image", "value": "$image"})
        choices = ElementTree.SubElement(view, "PolygonLabels", {"name": "label", "toName": "image"})
        for name, color in zip(labels.names, labels.colors, strict=True):
            ElementTree.SubElement(
                choices, "Label", {"value": name, "background": "#{:02x}{:02x}{:02x}".format(*color)}
            )
        ElementTree.ElementTree(view).write(folder / INTERFACE, "utf-8")

    def image_place(self, annotation: Annotation) -> PurePath:
        """In images/, and there in a folder of its split."""
        return PurePath("images", annotation.split or "", annotation.name)


def brush(path: Path, packed: Any, size: tuple[int, int]) -> Bits:
    """(H, W) bool of Label Studio's run lengths, which hold the four channels of every pixel; opacity counts.

    After the number of values (32 bits), bits a value less 1 (5) and four lengths less 1 (4 each), there come runs: 1
    for a value repeated, or 0 for values one by one; 2 bits for which of the lengths; their number less 1; the values.

    Raises:
        DataError: they are damaged, or of another number of pixels than the image has; nothing is allocated then.
    """
    try:
        bits, place = np.unpackbits(np.array(bytearray(packed), np.uint8)), 0

        def number(count: int) -> int:
            nonlocal place
            place += count
            if place > len(bits):
                raise ValueError("they end too early")
            return int("".join(map(str, bits[place - count : place].tolist())), 2)

        total, width = number(32), number(5) + 1
        lengths = [number(4) + 1 for _ in range(4)]
        if total != 4 * size[0] * size[1] or width != 8:
            raise ValueError(f"{total} values of {width} bits for {size[0]}x{size[1]} pixels")
        values, done, runs = np.zeros(total, np.uint8), 0, 0
        while done < total:
            repeated, count, runs = number(1), number(lengths[number(2)]) + 1, runs + 1
            if runs > MOST_RUNS:
                raise ValueError(f"more than {MOST_RUNS} runs")
            if repeated:
                values[done : done + count] = number(8)
            else:
                plain = np.packbits(bits[place : place + 8 * count])[: total - done]
                if len(plain) < min(count, total - done):
                    raise ValueError("they end too early")
                values[done : done + len(plain)] = plain
                place += 8 * count
            done += count
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: a brush stroke cannot be read ({error}); export it again") from error
    return values.reshape(size[1], size[0], 4)[..., 3] > 0
