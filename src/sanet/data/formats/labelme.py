"""labelme, 3.x to 5.x: a JSON file beside each image, or in a folder of its own."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sanet.data.decoding import UNREADABLE, DataError
from sanet.data.formats.format import Files, Format, checked_ring, checked_size, first_with, image_size, understood
from sanet.data.formats.regions import MOST_PIXELS, Annotation, Bitmap, Region, box_ring, ellipse_ring, line
from sanet.files import replaced
from sanet.structures import LabelSet

LINE, POINT = 10, 5  # width of lines and radius of points, as labelme draws them


class Labelme(Format):
    """Polygons, rectangles, circles, lines, points and masks; see ``Format``."""

    def recognises(self, root: Path) -> str:
        """A JSON file has shapes, and says which image they are of."""
        found = first_with(root, ".json", '"shapes"', '"imagePath"')
        return f"{found} has shapes and an imagePath" if found else ""

    def read(self, root: Path) -> list[Annotation]:
        """One annotation a JSON file; see ``Format``."""
        files = Files(root)
        found = []
        for path, content in self.contents(files, dict):
            with understood(path, "labelme"):
                found += self._read(path, content, files)
        return found

    def _read(self, path: Path, content: dict[str, Any], files: Files) -> list[Annotation]:
        if not isinstance(content.get("shapes"), list):
            self.note(path, "without shapes, so no file of labelme: not used")
            return []
        given = str(content.get("imagePath") or path.stem)
        # The file of the same name is what labelme opens; imagePath may be of before it was renamed.
        stem = [image for image in files.below(path.parent) if image.stem == path.stem]
        image = files.image(given, path.parent) or (stem[0] if len(stem) == 1 else None)
        if image is None and content.get("imageData"):
            image = _unpacked(path, content["imageData"])
            self.note(path, f"its image {given} is not there: the copy within the file is used")
        elif image is None:
            self.note(path, f"its image {given} is missing")
        elif image.name != given:
            self.note(path, f"its image is called {given}: {image.name} is used")
        size = checked_size(path, content.get("imageWidth"), content.get("imageHeight"), image)
        regions = [region for shape in content["shapes"] if (region := self._region(path, shape, size))]
        inside = image is not None and files.root in image.parents
        name = f"{path.stem}{image.suffix if image else '.jpg'}" if not inside or image is None else files.name(image)
        return [Annotation(name, image, size, tuple(regions), files.split(path), path)]

    def _region(self, path: Path, shape: Any, size: tuple[int, int]) -> Region | None:
        if not isinstance(shape, dict):
            raise DataError(f"{path}: a shape that is none; export it again")
        label, kind = str(shape.get("label") or "") or None, shape.get("shape_type") or "polygon"
        ring, wanted = checked_ring(path, shape.get("points") or ()), {"polygon": 3, "point": 1}.get(kind, 2)
        if len(ring) < wanted or (kind in {"rectangle", "circle", "line"} and len(ring) != 2):
            self.note(path, f"a {kind} of {len(ring)} points, labelled {label}: not drawn")
        elif kind == "polygon":
            return Region(label, (ring,))
        elif kind == "rectangle":
            return Region(label, (box_ring([*ring.min(0), *ring.max(0)]),))
        elif kind == "circle":
            radius = float(np.hypot(*(ring[1] - ring[0])))
            return Region(label, (ellipse_ring(ring[0] + 0.5, (radius, radius)),))
        elif kind in {"line", "linestrip"}:
            self.note(path, f"a {kind}, labelled {label}: drawn {LINE} pixels wide, as labelme does")
            return line(label, ring, LINE, size)
        elif kind == "point":
            self.note(path, f"a point, labelled {label}: drawn with a radius of {POINT} pixels, as labelme does")
            return Region(label, (ellipse_ring(ring[0] + 0.5, (POINT, POINT)),))
        elif kind == "mask":
            return Region(label, bitmap=_mask(path, shape.get("mask"), ring))
        else:
            self.note(path, f"a {kind}, labelled {label}, which is no region: not drawn")
        return None

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes become masks, which labelme has from 5.3 on; see ``Format``."""
        for each in annotations:
            place = folder / self.image_place(each)
            shapes = [_shape(region, each.size) for region in each.regions]
            size = {"imageHeight": each.size[1], "imageWidth": each.size[0]}
            known: dict[str, Any] = {"version": "5.3.0", "flags": {}, "imagePath": place.name, "imageData": None}
            place.parent.mkdir(parents=True, exist_ok=True)
            place.with_suffix(".json").write_text(json.dumps(known | size | {"shapes": shapes}), encoding="utf-8")


def _shape(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "label": region.label or "",
        "group_id": None,
        "description": "",
        "flags": {},
        "mask": None,
    }
    if len(region.rings) == 1:
        return shape | {"shape_type": "polygon", "points": region.rings[0].round(3).tolist()}
    left, top, bits = region.drawn(size)
    stream = BytesIO()
    Image.fromarray(bits).save(stream, "PNG")
    points = [[left, top], [left + bits.shape[1] - 1, top + bits.shape[0] - 1]]
    mask = base64.b64encode(stream.getvalue()).decode()
    return shape | {"shape_type": "mask", "points": points, "mask": mask}


def _mask(path: Path, text: Any, ring: Any) -> Bitmap:
    """A mask is a PNG of the box between two points."""
    try:
        with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError("too large")
            left, top = map(int, ring[0])
            return Bitmap.of(np.array(image.convert("L")) > 0, left, top)
    except (binascii.Error, *UNREADABLE) as error:
        raise DataError(f"{path}: a mask cannot be read ({error}); draw it again") from error


def _unpacked(path: Path, text: Any) -> Path:
    """The image that a file of labelme holds, put into the folder of what is kept, under a name of its content."""
    try:
        content = base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: its image is not there, and the copy within is damaged ({error})") from error
    folder = Path(os.environ.get("SANET_CACHE") or os.path.expanduser("~/.cache/sanet"))
    suffix = ".png" if content.startswith(b"\x89PNG") else ".jpg"
    place = folder / "images" / f"{sha256(content).hexdigest()[:32]}{suffix}"
    if not place.is_file():
        with replaced(place) as aside:
            aside.write_bytes(content)
        image_size(place)
    return place
