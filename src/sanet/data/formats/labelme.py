"""labelme, 3.x to 5.x: a JSON file beside each image, or in a folder of its own."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from sanet.data.formats.format import Entry, ToolFormat, outline, write_text
from sanet.data.formats.regions import MOST_PIXELS, Annotation, Bitmap, Region, box_ring, checked_ring, ellipse_ring
from sanet.data.kept import cache_folder
from sanet.data.values import IGNORE
from sanet.files import replaced
from sanet.structures import LabelSet

LINE, POINT = 10, 5  # width of lines and radius of points, as labelme draws them


class Labelme(ToolFormat):
    """Polygons, rectangles, circles, lines, points and masks; see ``Format``."""

    signs = ('"shapes"', '"imagePath"')

    def _entries(self, path: Path, content: Any) -> Iterator[Entry | str]:
        if not isinstance(content.get("shapes"), list):
            yield "without shapes, so no file of labelme: not used"
            return
        given = str(content.get("imagePath") or path.stem)
        # The file of the same name is what labelme opens; imagePath may be of before it was renamed.
        image = self.files.image(given, path) or self.files.twin(path)
        if image is None and content.get("imageData"):
            yield f"its image {given} is not there: the copy within the file is used"
            image = _unpacked(content["imageData"])
            given = f"{path.stem}{image.suffix}"
        elif image and image.name != PureWindowsPath(given).name:
            yield f"its image is called {given}: {image.name} is used"
        yield Entry(given, image, content["shapes"], (content.get("imageWidth"), content.get("imageHeight")))

    def _regions(self, shape: Any, size: tuple[int, int]) -> Iterator[Region | str]:
        label, kind = str(shape.get("label") or "") or None, shape.get("shape_type") or "polygon"
        label = IGNORE if label == "__ignore__" else label  # as labelme means it
        ring = checked_ring(shape.get("points") or ())
        wanted = {"rectangle": 2, "circle": 2, "line": 2, "point": 1, "mask": 2}.get(kind, len(ring))
        if len(ring) != wanted:
            yield f"a {kind} of {len(ring)} points, labelled {label}: not drawn"
        elif kind == "polygon":
            yield from outline(label, kind, ring)
        elif kind == "rectangle":
            yield from outline(label, kind, box_ring([*ring.min(0), *ring.max(0)]))
        elif kind == "circle":
            yield from outline(label, kind, ellipse_ring(ring[0] + 0.5, [np.hypot(*(ring[1] - ring[0]))] * 2))
        elif kind in {"line", "linestrip"}:
            yield from outline(label, kind, ring, LINE, size)
        elif kind == "point":
            yield f"a point, labelled {label}: drawn with a radius of {POINT} pixels, as labelme does"
            yield from outline(label, kind, ellipse_ring(ring[0] + 0.5, (POINT, POINT)))
        elif kind == "mask":
            yield Region(label, bitmap=Bitmap.of(_pixels(shape["mask"]), *map(int, ring[0])))
        else:
            yield f"a {kind}, labelled {label}, which is no region: not drawn"

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Regions with holes become masks, which labelme has from 5.3 on; see ``Format``."""
        for each in annotations:
            place = folder / self.image_place(each)
            known: dict[str, Any] = {"version": "5.3.0", "flags": {}, "imagePath": place.name, "imageData": None}
            size = {"imageHeight": each.size[1], "imageWidth": each.size[0]}
            shapes = [_written(region, each.size) for region in each.regions]
            write_text(place.with_suffix(".json"), {**known, **size, "shapes": shapes})


def _written(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    known: dict[str, Any] = {"label": region.label or "", "group_id": None, "description": "", "flags": {}}
    if len(region.rings) == 1:
        return {**known, "mask": None, "shape_type": "polygon", "points": region.rings[0].round(3).tolist()}
    left, top, bits = region.drawn(size)
    stream = BytesIO()
    Image.fromarray(bits).save(stream, "PNG")
    points = [[left, top], [left + bits.shape[1] - 1, top + bits.shape[0] - 1]]
    mask = base64.b64encode(stream.getvalue()).decode()
    return {**known, "mask": mask, "shape_type": "mask", "points": points}


def _pixels(text: Any) -> Any:
    """A mask is a PNG of the box between two points."""
    with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"a mask of {image.width} by {image.height} pixels")
        return np.array(image.convert("L")) > 0


def _unpacked(text: Any) -> Path:
    """The image that a file of labelme holds, put into the folder of what is kept, under a name of its content."""
    try:
        content = base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"its image is not there, and the copy within is damaged: {error}") from error
    suffix = ".png" if content.startswith(b"\x89PNG") else ".jpg"
    place = cache_folder("images") / f"{sha256(content).hexdigest()[:32]}{suffix}"
    if not place.is_file():
        with replaced(place) as aside:
            aside.write_bytes(content)
    return place
