"""GeoJSON in pixels, as QuPath and QGIS open it: a file of features beside each image; polygons keep their holes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanet.data.formats.format import Files, Format, checked_ring, checked_size, first_with, understood
from sanet.data.formats.regions import Annotation, Region, trace
from sanet.structures import LabelSet


class GeoJson(Format):
    """Polygons and multipolygons, whose class is ``classification.name`` or ``name``; see ``Format``."""

    def recognises(self, root: Path) -> str:
        """A .geojson file has features."""
        found = first_with(root, ".geojson", '"Feature')
        return f"{found} has features" if found else ""

    def read(self, root: Path) -> list[Annotation]:
        """One annotation a .geojson file; see ``Format``."""
        files, found = Files(root), []
        for path, content in self.contents(files, (dict, list), ".geojson"):
            image = next((one for one in files.below(path.parent) if one.stem == path.stem), None)
            if image is None:
                self.note(path, "its image is missing: not used, since its size is not known")
                continue
            with understood(path, "GeoJSON"):
                features = content["features"] if isinstance(content, dict) else content
                regions = [region for feature in features for region in self._regions(path, feature)]
            size = checked_size(path, None, None, image)
            found.append(Annotation(files.name(image), image, size, tuple(regions), files.split(path), path))
        return found

    def _regions(self, path: Path, feature: dict[str, Any]) -> list[Region]:
        properties, geometry = feature.get("properties") or {}, feature["geometry"]
        label = (properties.get("classification") or {}).get("name") or properties.get("name")
        parts = {"Polygon": [geometry["coordinates"]], "MultiPolygon": geometry["coordinates"]}.get(geometry["type"])
        if parts is None:
            self.note(path, f"a {geometry['type']}, labelled {label}, which is no region: not drawn")
        rings = [tuple(checked_ring(path, ring)[:-1] for ring in part) for part in parts or ()]
        return [Region(label and str(label), part) for part in rings if part and min(map(len, part)) > 2]

    def write(self, annotations: Sequence[Annotation], labels: LabelSet, folder: Path) -> None:
        """Holes are kept; see ``Format``."""
        colors = dict(zip(labels.names, labels.colors, strict=True))
        for each in annotations:
            features = [
                {"type": "Feature",
                 "properties": {"objectType": "annotation",
                                "classification": {"name": region.label, "color": colors.get(region.label or "")}},
                 "geometry": {"type": "Polygon", "coordinates": [_closed(ring) for ring in rings]}}
                for region in each.regions
                for rings in _outlines(region, each.size)
            ]  # fmt: skip
            place = (folder / self.image_place(each)).with_suffix(".geojson")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def _outlines(region: Region, size: tuple[int, int]) -> list[tuple[Any, ...]]:
    if region.rings:
        return [region.rings]
    left, top, bits = region.drawn(size)
    parts = trace(bits.astype(np.uint8), {1: ""}, 0)
    return [tuple(np.add(ring, (left, top)) for ring in part.rings) for part in parts]


def _closed(ring: Any) -> Any:
    return [*ring.round(2).tolist(), ring[0].round(2).tolist()]
