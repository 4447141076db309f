"""CVAT for images 1.1: one XML file with the shapes of all images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from sanet.data.decoding import DataError
from sanet.data.formats.format import Files, Format, checked_ring, checked_size, first_with, posix, read_xml
from sanet.data.formats.regions import Annotation, Bitmap, Region, bitmap, box_ring, ellipse_ring, line
from sanet.data.layout import SPLITS
from sanet.structures import LabelSet

WIDTH = 1  # pixels, of polylines
SHAPES = ("polygon", "box", "ellipse", "polyline", "mask", "points", "cuboid", "skeleton")


class Cvat(Format):
    """Polygons, boxes, ellipses, polylines and masks, the higher z_order on top; see ``Format``."""

    def recognises(self, root: Path) -> str:
        """An XML file has annotations."""
        found = first_with(root, ".xml", "<annotations")
        return f"{found} has <annotations>" if found else ""

    def read(self, root: Path) -> list[Annotation]:
        """One annotation an image element; see ``Format``."""
        files, found = Files(root), []
        for path in files.named(".xml"):
            content = read_xml(path)
            if content.tag != "annotations":
                self.note(path, f"<{content.tag}> in place of <annotations>: not used")
            elif content.find("track") is not None:
                raise DataError(f'{path} has the tracks of a video; export it as "CVAT for images 1.1"')
            else:
                found += [self._read(path, element, files) for element in content.iter("image")]
        return found

    def _read(self, path: Path, element: Element, files: Files) -> Annotation:
        given = element.get("name", "")
        image = files.image(given, path.parent / "images") or files.image(given, path.parent)
        if image is None:
            self.note(path, f"the image {given} is missing")
        size = checked_size(path, element.get("width"), element.get("height"), image)
        shapes = sorted(
            (shape for shape in element if shape.tag in SHAPES), key=lambda shape: _number(path, shape, "z_order", 0)
        )
        regions = [region for shape in shapes if (region := self._region(path, given, shape, size))]
        subset = (element.get("subset") or "").lower()
        split = SPLITS.get(subset)
        parent = files.split(image.parent) if image else None
        return Annotation(
            files.name(image) if image else PurePath(given).name, image, size, tuple(regions), split or parent, path
        )

    def _region(self, path: Path, image: str, shape: Element, size: tuple[int, int]) -> Region | None:
        label, kind = shape.get("label") or None, shape.tag

        def number(name: str, default: float | None = None) -> float:
            return _number(path, shape, name, default)

        if kind == "box":
            box = [number(name) for name in ("xtl", "ytl", "xbr", "ybr")]
            return Region(label, (checked_ring(path, box_ring(box, number("rotation", 0))),))
        if kind == "ellipse":
            across, down = number("rx"), number("ry")
            checked_ring(path, [(across, down)])
            ring = ellipse_ring((number("cx"), number("cy")), (across, down), number("rotation", 0))
            return Region(label, (checked_ring(path, ring),))
        if kind == "mask":
            box = [number(name) for name in ("left", "top", "width", "height")]
            runs = [int(run) for run in shape.get("rle", "").split(",") if run.strip().isdecimal()]
            return Region(label, bitmap=bitmap(path, box, runs, size))
        if kind not in {"polygon", "polyline"}:
            self.note(path, f"{image}: {kind}, labelled {label}, which is no region: not drawn")
            return None
        points = [pair.split(",") for pair in shape.get("points", "").split(";") if pair]
        ring = checked_ring(path, points)
        if len(ring) < (3 if kind == "polygon" else 2):
            self.note(path, f"{image}: a {kind} of {len(ring)} points, labelled {label}: not drawn")
            return None
        if kind == "polyline":
            self.note(path, f"{image}: a polyline, labelled {label}: drawn {WIDTH} pixel wide")
            return line(label, ring, WIDTH, size)
        return Region(label, (ring,))

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes become masks, which keep them; see ``Format``."""
        root = ElementTree.Element("annotations")
        ElementTree.SubElement(root, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
        known = ElementTree.SubElement(task, "labels")
        for name, color in zip(labels.names, labels.colors, strict=True):
            label = ElementTree.SubElement(known, "label")
            ElementTree.SubElement(label, "name").text = name
            ElementTree.SubElement(label, "color").text = "#{:02x}{:02x}{:02x}".format(*color)
            ElementTree.SubElement(label, "attributes")
        for index, each in enumerate(annotations):
            given = {"name": posix(self.image_place(each).relative_to("images")), "width": str(each.size[0]),
                     "height": str(each.size[1]), **({"subset": each.split} if each.split else {})}  # fmt: skip
            element = ElementTree.SubElement(root, "image", {"id": str(index), **given})
            for order, region in enumerate(each.regions):
                _write(element, region, order, each.size)
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(folder / "annotations.xml", "utf-8", True)

    def image_place(self, annotation: Annotation) -> PurePath:
        """In images/, and there in a folder of its split."""
        return PurePath("images", annotation.split or "", annotation.name)


def _write(image: Element, region: Region, order: int, size: tuple[int, int]) -> None:
    known = {"label": region.label or "", "source": "file", "occluded": "0", "z_order": str(order)}
    if len(region.rings) == 1:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in region.rings[0].tolist())
        ElementTree.SubElement(image, "polygon", known | {"points": points})
        return
    left, top, bits = region.drawn(size)
    mark = Bitmap.of(bits, left, top)
    place = {"left": mark.left, "top": mark.top, "width": mark.size[0], "height": mark.size[1]}
    texts = {"rle": ", ".join(map(str, mark.runs.tolist())), **{name: str(value) for name, value in place.items()}}
    ElementTree.SubElement(image, "mask", known | texts)


def _number(path: Path, shape: Element, name: str, default: float | None) -> float:
    text = shape.get(name)
    try:
        return float(default if text is None else text)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: <{shape.tag}> has {name} {text!r}, which is no number; export it again") from error
