"""GeoJSON in pixels, as QuPath and QGIS open it: a file of features beside each image; polygons keep their holes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanet.data.decoding import DataError
from sanet.data.formats.format import Entry, ToolFormat, write_text
from sanet.data.formats.regions import Annotation, Region, Ring, checked_ring, outlines
from sanet.structures import LabelSet

SMALLEST = 0.9  # pixels; a region of a single one is larger


class GeoJson(ToolFormat):
    """Polygons, also in collections; their class is the property classification, class or name; see ``Format``."""

    ending = ".geojson"
    kind = (dict, list)
    signs = ('"Feature',)

    def _entries(self, path: Path, content: Any) -> Iterator[Entry | str]:
        features, system = (content["features"], content.get("crs")) if isinstance(content, dict) else (content, None)
        shapes = [(feature.get("properties") or {}, [*_polygons(feature["geometry"])]) for feature in features]
        rings = [ring for _, parts in shapes for part in parts if not isinstance(part, str) for ring in part]
        near = bool(rings) and np.ptp(np.concatenate(rings), 0).max() < SMALLEST
        if near or (system and "pixel" not in str(system).lower()):
            why = "all regions are within one pixel" if near else f"crs {str(system)[:80]}"
            raise DataError(
                f"{path} has coordinates on a map ({why}), such as degrees; export it in pixels of the image, from its "
                "upper left corner and without crs"
            )
        yield Entry(path.stem, self.files.twin(path), shapes)

    def _regions(self, shape: Any, size: tuple[int, int]) -> Iterator[Region | str]:
        properties, parts = shape
        kind = properties.get("classification")
        names = (kind.get("name") if isinstance(kind, dict) else kind, properties.get("class"), properties.get("name"))
        label = next((str(name) for name in names if name), None)
        if not parts:
            yield f"a region without a shape, labelled {label}: not drawn"
        for part in parts:
            if isinstance(part, str):
                yield f"a {part}, labelled {label}, which is no region: not drawn"
            elif part and min(map(len, part)) > 2:
                yield Region(label, part)
            else:
                yield f"a polygon with an outline of less than 3 points, labelled {label}: not drawn"

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Holes are kept; see ``Format``."""
        colors = dict(zip(labels.names, labels.colors, strict=True))
        for each in annotations:
            features = [
                {"type": "Feature",
                 "properties": {"objectType": "annotation",
                                "classification": {"name": region.label, "color": colors.get(region.label or "")}},
                 "geometry": {"type": "Polygon",
                              "coordinates": [np.vstack([ring, ring[:1]]).round(2).tolist() for ring in rings]}}
                for region in each.regions
                for rings in ([region.rings] if region.rings else outlines(*region.drawn(each.size)))
            ]  # fmt: skip
            place = (folder / self.image_place(each)).with_suffix(".geojson")
            write_text(place, {"type": "FeatureCollection", "features": features})


def _polygons(geometry: Any) -> Iterator[tuple[Ring, ...] | str]:
    """The outlines of every polygon; of what is none, its type."""
    kind = geometry["type"] if geometry else None
    if kind == "GeometryCollection":
        for each in geometry["geometries"]:
            yield from _polygons(each)
    elif kind in {"Polygon", "MultiPolygon"}:
        parts = [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]
        yield from (tuple(map(_open, part)) for part in parts)
    elif kind:
        yield str(kind)


def _open(points: Any) -> Ring:
    """An outline without its last point, where that is the first again, and without heights."""
    ring = checked_ring([point[:2] for point in points])
    return ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring
