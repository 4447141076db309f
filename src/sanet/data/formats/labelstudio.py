"""Label Studio's JSON export: a list of tasks, with what was drawn on each image, or predicted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import quoteattr

import numpy as np

from sanet.data.formats.files import without_query
from sanet.data.formats.format import Entry, ToolFormat, outline, write_text
from sanet.data.formats.regions import Annotation, Bitmap, Region, box_ring, checked_ring, ellipse_ring, without_holes
from sanet.structures import LabelSet

UPLOAD = re.compile(r"^[0-9a-f]{4,8}-")  # before the name of a file that was uploaded

NAME, INTERFACE = "tasks.json", "labels.xml"  # the interface is pasted into the project's settings
MOST_RUNS = 1_000_000  # of a brush stroke, each of which takes some microseconds


class LabelStudio(ToolFormat):
    """Polygons, rectangles, ellipses and brush strokes of the newest annotation; see ``Format``.

    What was predicted is no ground truth, and neither is what was cancelled.
    """

    kind = list
    signs = (r"\A\s*\[", '"data"', '"result"')

    def _entries(self, path: Path, content: Any) -> Iterator[Entry | str]:
        for task in content:
            data = task["data"]
            given = without_query(str(data.get("image") or data.get("img") or next(iter(data.values()), "")))
            place = unquote(given.rpartition("?d=")[2])
            image = self.files.image(place, path)
            if image is None:
                image = self.files.image(UPLOAD.sub("", place.rpartition("/")[2]), path)
            drawn = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
            if not drawn:
                yield f"task {task.get('id')}, {given}, has no annotation but what was predicted or cancelled: not used"
                continue
            if len(drawn) > 1:
                yield f"{given} has {len(drawn)} annotations: the last is used"
            results = [one for one in drawn[-1]["result"] if "value" in one]
            named = {one["id"]: one["value"]["labels"] for one in results if one.get("type") == "labels"}
            shapes = [(one, named.get(one.get("id"))) for one in results if one.get("type") != "labels"]
            first = results[0] if results else {}
            size = (first.get("original_width"), first.get("original_height"))
            yield Entry(given, image, shapes, size, self.files.split(image.parent) if image else None)

    def _regions(self, shape: Any, size: tuple[int, int]) -> Iterator[Region | str]:
        result, named = shape
        kind, value = str(result.get("type")), result["value"]
        names = value.get(kind) or named or ()
        label = str(names[0]) if names else None
        if len(names) > 1:
            yield f"a region with the labels {', '.join(map(str, names))}: the first is taken"
        scale, turn = np.array(size) / 100, float(value.get("rotation") or 0)

        def scaled(*keys: str) -> Any:
            return np.array([value[key] for key in keys], np.float64) * scale

        if kind in {"polygonlabels", "polygon"}:
            points = (checked_ring(value["points"]) * scale).round(4)  # 4.9999999 is 5
            yield from outline(label, "polygon", points)
        elif kind in {"rectanglelabels", "rectangle"}:
            corner = scaled("x", "y")
            yield from outline(label, kind, box_ring([*corner, *(corner + scaled("width", "height"))], turn, corner))
        elif kind in {"ellipselabels", "ellipse"}:
            yield from outline(label, kind, ellipse_ring(scaled("x", "y"), scaled("radiusX", "radiusY"), turn))
        elif kind in {"brushlabels", "brush"} and value.get("format") == "rle":
            yield Region(label, bitmap=Bitmap.of(brush(value["rle"], size)))
        else:
            yield f"{kind}, labelled {label}, which is no region: not drawn"

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes are cut through, so that they stay holes; see ``Format``."""
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
            image = f"/data/local-files/?d={self.image_place(each).as_posix()}"
            kind, by = ("annotations", {}) if self.truth else ("predictions", {"model_version": "sanet"})
            tasks.append({"data": {"image": image}, kind: [{**by, "result": result}]})
        write_text(folder / NAME, tasks)
        choices = "".join(
            '<Label value={} background="#{:02x}{:02x}{:02x}" />'.format(quoteattr(name), *color)
            for name, color in zip(labels.names, labels.colors, strict=True)
        )
        image = '<Image name="image" value="$image" />'
        choices = f'<PolygonLabels name="label" toName="image">{choices}</PolygonLabels>'
        write_text(folder / INTERFACE, f"<View>{image}{choices}</View>")

    def image_place(self, annotation: Annotation) -> PurePath:
        """In images/, and there in a folder of its split."""
        return PurePath("images", annotation.split or "", annotation.name)


def brush(packed: Any, size: tuple[int, int]) -> Any:
    """(H, W) bool of Label Studio's run lengths, which hold the four channels of every pixel; opacity counts.

    After the number of values (32 bits), bits a value less 1 (5) and four lengths less 1 (4 each), there come runs: 1
    for a value repeated, or 0 for values one by one; 2 bits for which of the lengths; their number less 1; the values.

    Raises:
        ValueError: they are damaged, or of another number of pixels than the image has; nothing is allocated then.
    """
    bits, place = np.unpackbits(np.array(packed, np.uint8)), 0

    def taken(count: int) -> Any:
        nonlocal place
        place += count
        if place > len(bits):
            raise ValueError("a brush stroke that ends too early")
        return bits[place - count : place]

    def number(count: int) -> int:
        return int("".join(map(str, taken(count).tolist())), 2)

    total, width = number(32), number(5) + 1
    lengths = [number(4) + 1 for _ in range(4)]
    if total != 4 * size[0] * size[1] or width != 8:
        raise ValueError(f"a brush stroke of {total} values of {width} bits for {size[0]}x{size[1]} pixels")
    values, done = np.zeros(total, np.uint8), 0
    for _ in range(MOST_RUNS):
        if done >= total:
            return values.reshape(size[1], size[0], 4)[..., 3] > 0
        repeated, count = number(1), number(lengths[number(2)]) + 1
        part = values[done : done + count]
        part[:] = number(8) if repeated else np.packbits(taken(8 * len(part)))
        done += count
    raise ValueError(f"a brush stroke of more than {MOST_RUNS} runs")
