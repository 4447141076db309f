"""The formats of annotations by name, and which of them a folder is in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanet.data.formats.coco import Coco
from sanet.data.formats.cvat import Cvat
from sanet.data.formats.format import Format
from sanet.data.formats.geojson import GeoJson
from sanet.data.formats.labelme import Labelme
from sanet.data.formats.labelstudio import LabelStudio
from sanet.data.formats.via import Via
from sanet.data.formats.yolo import Yolo
from sanet.references import Kind, name_of
from sanet.structures import UsageError

BUILTIN = (Coco, Cvat, GeoJson, Labelme, LabelStudio, Via, Yolo)
FORMATS = Kind("annotation format", {each.__name__.lower(): each for each in BUILTIN})


def names_format(name: Any) -> bool:
    """Whether a name stands for a format of annotations, built in or of one's own."""
    if isinstance(name, str) and ":" not in name:
        return name in FORMATS.builtin
    found = FORMATS.find(name)
    return isinstance(found, Format) or (isinstance(found, type) and issubclass(found, Format))


def annotation_format(name: Any) -> Format:
    """A format by its name, or one of the user's own.

    Raises:
        UsageError: there is none of that name, or what is named is no format.
    """
    found = FORMATS.build(name)
    if not isinstance(found, Format):
        raise UsageError(f"annotation format {name_of(name)!r}: derive it from sanet.data.formats.format.Format")
    return found


def formats_of(root: Path) -> dict[str, str]:
    """The built-in formats that a folder is in, and why."""
    return {name: reason for name, each in FORMATS.builtin.items() if (reason := each().recognises(root))}
