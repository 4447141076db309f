"""A dataset as files of another kind: images and masks, or the annotations of a tool."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
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
        DataError: two images would be written to one place, a file cannot be used, or there is nothing to write.
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
            if record.image and record.mask is None:
                left_out.append(f"{record.name} has no mask: left out")
                continue
            sample = read_sample(source, record)
            if not (record.image or _is_picture(sample.image)):
                left_out.append(f"{record.name} has no file, and is not of one or three channels of 8 bits: left out")
                continue
            mask, name = sample.mask.numpy(), f"{record.name}{record.image.suffix if record.image else '.png'}"
            regions = _regions(source, record, mask) if writer else ()
            one = Annotation(name, record.image, mask.shape[::-1], regions, split, record.mask or Path(name))
            place = writer.image_place(one) if writer else Path("images", name)
            origin, target = record.image or Path(name), aside / place
            if (other := places.setdefault(place.with_suffix("").as_posix().lower(), origin)) != origin:
                raise DataError(f"{other} and {origin} would both be written to {place}; rename one of them")
            target.parent.mkdir(parents=True, exist_ok=True)
            if record.image:
                shutil.copyfile(record.image, target)
            else:  # drawn, or out of something else than image files
                to_pil_image(sample.image).save(target)
            annotations.append(replace(one, image=record.image or target))
            if not writer:
                _write_mask(mask, source.labels, aside / MASKS / f"{record.name}.png")
        if not annotations:
            raise DataError("nothing can be converted: " + "; ".join(left_out[:3] or ["there is no image"]))
        if writer:
            writer.write(annotations, source.labels, aside)
        else:
            _write_lists(source, annotations, aside)
    return left_out


def _is_picture(image: Tensor) -> bool:
    return image.dtype == torch.uint8 and len(image) in (1, 3)


def _regions(source: Source, record: Record, mask: NDArray[np.int64]) -> tuple[Region, ...]:
    """The regions of the classes: as they were drawn, or the outlines of a mask."""
    background = source.labels.background
    if not isinstance(source, Annotated):
        return trace(mask, {number: name for number, name in enumerate(source.labels.names) if number != background}, 0)
    classes = dict(source.labels.values)
    drawn = (replace(region, label=classes.get(region.label or "")) for region in source.annotation_of(record).regions)
    return tuple(region for region in drawn if region.label in source.labels.names)


def _write_lists(source: Source, annotations: list[Annotation], folder: Path) -> None:
    lists: dict[str | None, list[str]] = {split: [] for split in source.splits}
    for each in annotations:
        lists[each.split].append(each.name.rpartition(".")[0])
    for title, lines in {**lists, "classes": source.labels.names}.items():
        write_text(folder / f"{title}.txt", "".join(f"{line}\n" for line in lines))


def _write_mask(mask: NDArray[np.int64], labels: LabelSet, path: Path) -> None:
    small = len(labels) < 256 and 0 <= labels.ignore_index < 256
    image = Image.fromarray(mask.astype(np.uint8 if small else np.uint16))
    if small:
        image.putpalette(labels.palette)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
