"""A dataset as files of another kind: images and masks, or the annotations of a tool."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from sanet.data.decoding import DataError
from sanet.data.formats.catalog import annotation_format
from sanet.data.formats.format import write_text
from sanet.data.formats.regions import Annotation, Region, trace
from sanet.data.formats.source import Annotated
from sanet.data.source import Record, Source, read_sample, records_of
from sanet.files import require_own_folder, written_folder
from sanet.structures import LabelSet, UsageError

MASKS = "masks"


def convert(source: Source, output: str | Path, format: Any = MASKS, progress: bool = True) -> list[str]:
    """Write the images of a dataset with their masks, or with annotations of a format, into a new folder.

    Masks are palette PNGs of class numbers, with lists of the splits and of the classes. A folder that this wrote
    earlier is replaced, once the new one is complete.

    Args:
        source: the dataset.
        output: the folder.
        format: "masks", one of ``FORMATS``, or "my_module:Name".
        progress: show a progress bar, if it takes more than a moment.

    Returns:
        What was left out, a line each.

    Raises:
        UsageError: the folder has files that this did not write, the dataset is in it, or the format is not known.
        DataError: two images would be written to one place, or a file cannot be used.
    """
    folder = Path(output)
    if source.root and folder.resolve() in (source.root.resolve(), *source.root.resolve().parents):
        raise UsageError(f"{output} holds the dataset that is read; choose another folder")
    require_own_folder(folder, "OUT")
    writer = None if format == MASKS else annotation_format(format)
    if writer:
        writer.truth = True
    every = [(split, record) for split in source.splits for record in records_of(source, split)]
    annotations, left_out = list[Annotation](), list[str]()
    places: dict[str, Path] = {}
    with written_folder(folder) as aside:
        for split, record in tqdm(every, "convert", unit=" images", delay=2, disable=not progress):
            if record.image is None or record.mask is None:
                left_out.append(f"{record.name} has no {'mask' if record.image else 'image'}: left out")
                continue
            mask = read_sample(source, record).mask.numpy()
            regions = _regions(source, record, mask) if writer else ()
            name = f"{record.name}{record.image.suffix}"
            annotations.append(Annotation(name, record.image, mask.shape[::-1], regions, split, record.mask))
            place = writer.image_place(annotations[-1]) if writer else Path("images", name)
            if (other := places.setdefault(place.with_suffix("").as_posix().lower(), record.image)) != record.image:
                raise DataError(f"{other} and {record.image} would both be written to {place}; rename one of them")
            (aside / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(record.image, aside / place)
            if not writer:
                _write_mask(mask, source.labels, aside / MASKS / f"{record.name}.png")
        if writer:
            writer.write(annotations, source.labels, aside)
            return left_out
        lists: dict[str | None, list[str]] = {split: [] for split in source.splits}
        for each in annotations:
            lists[each.split].append(each.name.rpartition(".")[0])
        for title, lines in {**lists, "classes": source.labels.names}.items():
            write_text(aside / f"{title}.txt", "".join(f"{line}\n" for line in lines))
    return left_out


def _regions(source: Source, record: Record, mask: NDArray[np.int64]) -> tuple[Region, ...]:
    """The regions of the classes: as they were drawn, or the outlines of a mask."""
    background = source.labels.background
    if not isinstance(source, Annotated):
        return trace(mask, {number: name for number, name in enumerate(source.labels.names) if number != background}, 0)
    classes = dict(source.labels.values)
    drawn = (replace(region, label=classes.get(region.label or "")) for region in source.annotation_of(record).regions)
    return tuple(region for region in drawn if region.label in source.labels.names)


def _write_mask(mask: NDArray[np.int64], labels: LabelSet, path: Path) -> None:
    small = len(labels) < 256 and 0 <= labels.ignore_index < 256
    image = Image.fromarray(mask.astype(np.uint8 if small else np.uint16))
    if small:
        image.putpalette(labels.palette)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
