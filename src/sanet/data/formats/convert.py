"""A dataset as files of another kind: images and masks, or the annotations of a tool."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from sanet.data.decoding import DataError
from sanet.data.formats.catalog import annotation_format
from sanet.data.formats.regions import Annotation, trace
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
    every = [(split, record) for split in source.splits for record in records_of(source, split)]
    shown = tqdm(every, "convert", unit=" images", delay=2, disable=not progress)
    annotations: list[Annotation] = []
    lists: dict[str, list[str]] = {split: [] for split in source.splits}
    places: dict[str, Path] = {}
    with written_folder(folder) as aside:
        for split, record in shown:
            if record.image is None or record.mask is None:
                continue
            name = f"{record.name}{record.image.suffix}"
            annotation = Annotation(name, record.image, (0, 0), (), split, record.mask)
            place = Path("images", name) if writer is None else Path(writer.image_place(annotation))
            if (other := places.setdefault(place.with_suffix("").as_posix().lower(), record.image)) != record.image:
                raise DataError(f"{other} and {record.image} would both be written to {place}; rename one of them")
            (aside / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(record.image, aside / place)
            mask = read_sample(source, record).mask
            if writer is None:
                _write_mask(mask, source.labels, aside / MASKS / f"{record.name}.png")
                lists[split].append(record.name)
            else:
                size = (mask.shape[1], mask.shape[0])
                annotations.append(replace(annotation, size=size, regions=tuple(_regions(source, record, mask))))
        if writer is not None:
            writer.write(annotations, source.labels, aside)
        for title, lines in {**lists, "classes": source.labels.names}.items() if writer is None else ():
            (aside / f"{title}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return [f"{record.name} has no {'mask' if record.image else 'image'}: left out" for _, record in every
            if record.image is None or record.mask is None]  # fmt: skip


def _regions(source: Source, record: Record, mask: Tensor) -> Iterable[Any]:
    """The regions of the classes: as they were drawn, or the outlines of a mask."""
    background = source.labels.background
    if not isinstance(source, Annotated):
        named = {index: name for index, name in enumerate(source.labels.names) if index != background}
        return trace(mask.numpy(), named, 0)
    classes = dict(source.labels.values)
    drawn = source.annotation_of(record).regions
    kept = (replace(region, label=classes.get(region.label or "")) for region in drawn)
    return [region for region in kept if region.label in source.labels.names]


def _write_mask(mask: Tensor, labels: LabelSet, path: Path) -> None:
    small = len(labels) < 256 and 0 <= labels.ignore_index < 256
    image = Image.fromarray(mask.numpy().astype(np.uint8 if small else np.uint16))
    if small:
        image.putpalette(labels.palette)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
