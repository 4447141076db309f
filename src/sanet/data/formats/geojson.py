"""GeoJSON in pixels, as QuPath and QGIS open it: a file of features beside each image; polygons keep their holes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanet.data.formats.format import Entry, ToolFormat, write_text
from sanet.data.formats.regions import Annotation, Region, checked_ring, outlines
from sanet.structures import LabelSet


class GeoJson(ToolFormat):
    """Polygons and multipolygons, whose class is ``classification.name`` or ``name``; see ``Format``."""

    ending = ".geojson"
    kind = (dict, list)
    signs = ('"Feature',)

    def _entries(self, path: Path, content: Any) -> Iterator[Entry | str]:
        features = content["features"] if isinstance(content, dict) else content
        yield Entry(path.stem, self.files.twin(path), features)

    def _regions(self, shape: Any, size: tuple[int, int]) -> Iterator[Region | str]:
        properties, geometry = shape.get("properties") or {}, shape["geometry"]
        label = (properties.get("classification") or {}).get("name") or properties.get("name")
        parts = {"Polygon": [geometry["coordinates"]], "MultiPolygon": geometry["coordinates"]}.get(geometry["type"])
        if parts is None:
            yield f"a {geometry['type']}, labelled {label}, which is no region: not drawn"
        for part in parts or ():
            rings = tuple(checked_ring(ring)[:-1] for ring in part)
            if rings and min(map(len, rings)) > 2:
                yield Region(label and str(label), rings)
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
