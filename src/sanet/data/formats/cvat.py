"""CVAT for images 1.1: one XML file with the shapes of all images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from sanet.data.formats.format import Entry, ToolFormat, outline
from sanet.data.formats.regions import Annotation, Bitmap, Region, box_ring, ellipse_ring, run_lengths
from sanet.data.listing import SPLITS
from sanet.structures import LabelSet

WIDTH = 1  # pixels, of polylines


class Cvat(ToolFormat):
    """Polygons, boxes, ellipses, polylines and masks, the higher z_order on top; see ``Format``."""

    ending = ".xml"
    kind = Element
    signs = ("<annotations",)

    def _entries(self, path: Path, content: Any) -> Iterator[Entry | str]:
        if content.tag != "annotations":
            yield f"<{content.tag}> in place of <annotations>: not used"
            return
        if content.find("track") is not None:
            raise ValueError('the tracks of a video, which are exported as "CVAT for images 1.1"')
        for each in content.iter("image"):
            given = each.get("name", "")
            subset = each.get("subset") or ""
            image = self.files.image(given, path, subset)
            shapes = sorted((one for one in each if one.tag != "tag"), key=lambda one: _number(one, "z_order", 0))
            split = SPLITS.get(subset.lower()) or (self.files.split(image.parent) if image else None)
            yield Entry(given, image, shapes, (each.get("width"), each.get("height")), split)

    def _regions(self, shape: Any, size: tuple[int, int]) -> Iterator[Region | str]:
        label, kind = shape.get("label") or None, shape.tag

        def numbers(*names: str) -> list[float]:
            return [_number(shape, name) for name in names]

        if kind == "box":
            box = numbers("xtl", "ytl", "xbr", "ybr")
            yield from outline(label, kind, box_ring(box, _number(shape, "rotation", 0)))
        elif kind == "ellipse":
            ring = ellipse_ring(numbers("cx", "cy"), numbers("rx", "ry"), _number(shape, "rotation", 0))
            yield from outline(label, kind, ring)
        elif kind == "mask":
            runs = [int(run) for run in shape.get("rle", "").split(",") if run.strip()]
            yield Region(label, bitmap=run_lengths(numbers("left", "top", "width", "height"), runs, size))
        elif kind in {"polygon", "polyline"}:
            points = [pair.split(",") for pair in shape.get("points", "").split(";") if pair]
            yield from outline(label, kind, points, WIDTH if kind == "polyline" else 0, size)
        else:
            yield f"{kind}, labelled {label}, which is no region: not drawn"

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes become masks, which keep them; see ``Format``."""
        root = ElementTree.Element("annotations")
        ElementTree.SubElement(root, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
        names = ElementTree.SubElement(task, "labels")
        for name, color in zip(labels.names, labels.colors, strict=True):
            label = ElementTree.SubElement(names, "label")
            ElementTree.SubElement(label, "name").text = name
            ElementTree.SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*color)
            ElementTree.SubElement(label, "attributes")
        for index, each in enumerate(annotations):
            given = {"name": PurePath(each.split or "", each.name).as_posix(), "width": str(each.size[0]),
                     "height": str(each.size[1]), **({"subset": each.split} if each.split else {})}  # fmt: skip
            element = ElementTree.SubElement(root, "image", {"id": str(index), **given})
            for order, region in enumerate(each.regions):
                kind, attributes = _written(region, each.size)
                known = {"label": region.label or "", "source": "file", "occluded": "0", "z_order": str(order)}
                ElementTree.SubElement(element, kind, known | attributes)
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(folder / "annotations.xml", "utf-8", True)

    def image_place(self, annotation: Annotation) -> PurePath:
        """In images/, and there in a folder of its split."""
        return PurePath("images", annotation.split or "", annotation.name)


def _written(region: Region, size: tuple[int, int]) -> tuple[str, dict[str, str]]:
    if len(region.rings) == 1:
        return "polygon", {"points": ";".join(f"{x:.2f},{y:.2f}" for x, y in region.rings[0].tolist())}
    left, top, bits = region.drawn(size)
    mark = Bitmap.of(bits, left, top)
    place = {"left": mark.left, "top": mark.top, "width": mark.size[0], "height": mark.size[1]}
    runs = ", ".join(map(str, mark.runs.tolist()))
    return "mask", {"rle": runs, **{name: str(value) for name, value in place.items()}}


def _number(shape: Element, name: str, default: float | None = None) -> float:
    text = shape.get(name)
    try:
        return float(default if text is None else text)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"<{shape.tag}> has {name} {text!r}, which is no number") from error
