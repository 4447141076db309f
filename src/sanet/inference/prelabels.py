"""Predicted masks as annotations that a tool opens, so that they are corrected rather than drawn."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanet.data.decoding import opened
from sanet.data.formats.catalog import annotation_format
from sanet.data.formats.regions import Annotation, trace
from sanet.files import require_own_folder, written_folder
from sanet.inference.inputs import find_images
from sanet.inference.journal import Journal
from sanet.structures import LabelSet


def prelabels_in(output: str | Path, format: Any) -> Path:
    """The folder of pre-labels below that of predictions; before the work, its files must be ours.

    Raises:
        UsageError: the format is not known, or somebody else's files are there.
    """
    folder = Path(output) / type(annotation_format(format)).__name__.lower()
    require_own_folder(folder)
    return folder


def write_prelabels(inputs: Sequence[str], output: str | Path, labels: LabelSet, format: Any, tolerance: float) -> Path:
    """Write the masks that ``predict_collection`` made of the same inputs as annotations, beside copies of the images.

    All classes but the background become regions, with their holes: labelme, CVAT, COCO and GeoJSON keep these (the
    first three in masks rather than polygons); for the others a region is cut through them.

    Args:
        inputs: files, folders and globs.
        output: the folder of the predictions; annotations come into a folder in it.
        labels: the classes of the masks.
        format: one of ``FORMATS``, or "my_module:Name".
        tolerance: pixels that outlines may move where they get simpler.

    Raises:
        UsageError: see ``prelabels_in`` and ``find_images``.
    """
    folder, found = prelabels_in(output, format), list[Annotation]()
    names = {index: name for index, name in enumerate(labels.names) if index != labels.background}
    journal = Journal(Path(output))
    # What could not be read may have a mask of before, and another image of its name one with another ending.
    done = [line for line in journal.lines.values() if "mask" in line and "error" not in line]
    masks = {line["image"]: Path(output, line["mask"]) for line in done}
    for image, place in find_images(inputs, Path(output)).items():
        if path := masks.get(journal.name(str(image))):
            with opened(path) as (mask, _):
                regions = trace(np.array(mask), names, tolerance)
                name = f"{place.as_posix()}{image.suffix}"
                found.append(Annotation(name, image, mask.size, regions, None, path))
    write_annotations(found, folder, labels, format)
    return folder


def write_annotations(annotations: Sequence[Annotation], folder: Path, labels: LabelSet, format: Any) -> None:
    """Write annotations beside copies of their images, in place of what was written there before."""
    with written_folder(folder) as aside:
        writer = annotation_format(format)
        for each in annotations:
            if each.image is not None:
                place = aside / writer.image_place(each)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(each.image, place)
        writer.write(annotations, labels, aside)
