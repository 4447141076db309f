"""The formats of annotations by name, and which of them a folder is in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanet.data.decoding import DataError
from sanet.data.formats.coco import Coco
from sanet.data.formats.cvat import Cvat
from sanet.data.formats.files import Files
from sanet.data.formats.format import Format, signed
from sanet.data.formats.geojson import GeoJson
from sanet.data.formats.labelme import Labelme
from sanet.data.formats.labelstudio import LabelStudio
from sanet.data.formats.via import Via
from sanet.data.formats.yolo import Yolo
from sanet.data.layout import has_masks
from sanet.references import Kind, name_of
from sanet.structures import UsageError

BUILTIN = (Coco, Cvat, GeoJson, Labelme, LabelStudio, Via, Yolo)
FORMATS = Kind("annotation format", {each.__name__.lower(): each for each in BUILTIN})

# Formats that are not read: ending, signs, and what they are and what helps.
UNREAD = (
    (".csv", ("region_shape_attributes",), "VIA's CSV; export annotations as JSON"),
    (".json", ('"vid"', '"xy"'), "of VIA 3; draw with VIA 2 and export as JSON, or convert it to COCO"),
    (".json", ('"annotation_id"', '"annotator"'), "Label Studio's JSON-MIN; export as JSON"),
    (".json", ('"classTitle"', '"geometryType"'), "of Supervisely; export as COCO or as segmentation masks"),
    (
        "_polygons.json",
        ('"imgHeight"', '"polygon"'),
        "of Cityscapes; make masks of labelTrainIds with its scripts",
    ),
    (".xml", (r"<annotation>", "<bndbox"), "of PASCAL VOC and has boxes; export polygons or masks in place of these"),
)


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
    """The built-in formats that a folder is in, and why.

    Raises:
        DataError: there is none, and no mask, but a file of a format that is not read.
    """
    found = {name: reason for name, each in FORMATS.builtin.items() if (reason := each().recognises(root))}
    files = Files(root)
    for ending, signs, what in UNREAD if not found else ():
        path, _ = signed(files, ending, signs)
        if path and not has_masks(root):
            raise DataError(f"{path} is {what}")
    return found
