"""How many training pictures a second one core reads, changes and hands over, step by step.

python benchmarks/loading.py OUTPUT.csv [CAMVID]   # pictures of the folder CAMVID, else of the built-in scenes

The pictures are written as JPEGs of PASCAL's usual size, 500x375, with palette PNGs as masks, to a temporary folder.
A step goes over all of them, PASSES times after one to warm up; the fastest pass counts.
"""

import csv
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from PIL import Image
from torch.utils.data import default_collate

from sanet.config import AugmentationConfig, DataConfig
from sanet.data.catalog import data_source
from sanet.data.decoding import read_image, read_labels
from sanet.data.loading import Augmented, Batching, training_loader
from sanet.data.source import Record, SegmentationDataset, Source
from sanet.data.transforms import Span, TrainingTransform, resized_part
from sanet.structures import LabelSet

SIZE, QUALITY, PICTURES, PASSES = (500, 375), 95, 64, 9
CROP, SCALE, JITTER, BATCH = (480, 480), (0.5, 2.0), 0.3, 16
EPOCH = 10  # times PICTURES, through worker processes; what fills their queues counts, their start does not


class Written(Source):
    """The pictures, each of them under ``EPOCH`` names."""

    splits = ("all",)

    def __init__(self, labels: LabelSet, written: list[Record]) -> None:
        self.labels, self.written = labels, written

    def records(self, split: str) -> list[Record]:
        """All of them."""
        return [replace(one, name=f"{one.name}-{time}") for time in range(EPOCH) for one in self.written]


def write_pictures(folder: Path, camvid: str | None) -> SegmentationDataset:
    """The pictures that are measured, as files in ``folder``."""
    dataset = data_source(DataConfig("camvid", camvid) if camvid else DataConfig()).open("train")
    records = []
    for index in range(PICTURES):
        image, mask, name = dataset[index]
        record = Record(name, folder / f"{index}.jpg", folder / f"{index}.png")
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(SIZE, Image.Resampling.BICUBIC)
        picture.save(record.files[0], quality=QUALITY)
        labelled = Image.fromarray(mask.to(torch.uint8).numpy()).resize(SIZE, Image.Resampling.NEAREST)
        labelled.putpalette(dataset.labels.palette)
        labelled.save(record.files[1])
        records.append(record)
    return Written(dataset.labels, records).open("all")


def fastest(step: Callable[[int], object]) -> float:
    """Seconds a picture."""
    passes = []
    for _ in range(PASSES + 1):
        started = perf_counter()
        for index in range(PICTURES):
            step(index)
        passes.append((perf_counter() - started) / PICTURES)
    return min(passes[1:])


def in_this_process(dataset: SegmentationDataset) -> dict[str, float]:
    """Seconds a picture, by step."""
    labels, coding = dataset.labels, dataset.source.coding
    files = [record.files for record in dataset.records]
    moved, jittered = (
        TrainingTransform(AugmentationConfig(CROP, jitter=jitter), labels.ignore_index) for jitter in (0.0, JITTER)
    )
    read, whole = Augmented(dataset, lambda sample: sample, 0), Augmented(dataset, jittered, 0)
    samples, items = ([pictures[index] for index in range(PICTURES)] for pictures in (read, whole))
    torch.manual_seed(0)
    seconds = {
        "JPEG decoded": fastest(lambda index: read_image(files[index][0])),
        "mask decoded and checked": fastest(lambda index: read_labels(files[index][1], labels, coding)),
        "picture of the data set": fastest(lambda index: dataset[index]),
        "scale, crop, mirror": fastest(lambda index: moved(samples[index])),
        "scale, crop, mirror, jitter": fastest(lambda index: jittered(samples[index])),
        "training item": fastest(lambda index: whole[index]),
    }
    batches = [items[first : first + BATCH] for first in range(0, PICTURES, BATCH)]
    collated = fastest(lambda index: default_collate(batches[index // BATCH]) if index % BATCH == 0 else None)
    return {**seconds, f"collated, {BATCH} a batch": collated}


def resizes(dataset: SegmentationDataset) -> dict[str, float]:
    """Seconds a picture, of the resize that is used, of the whole, and of one that leaves out what the crop does."""
    low, high = SCALE
    images, spans, boxes = [], [], []
    torch.manual_seed(0)
    for index in range(PICTURES):
        image = dataset[index].image
        images.append(image.permute(1, 2, 0).contiguous().permute(2, 0, 1))
        scale, *places = torch.rand(3).tolist()
        sides = list(zip(image.shape[1:], CROP, places, strict=True))
        rows, columns = (Span.place(side, low + (high - low) * scale, crop, place) for side, crop, place in sides)
        spans.append((rows, columns))
        left, top = columns.start * SIZE[0] / columns.size, rows.start * SIZE[1] / rows.size
        box = (left, top, left + columns.kept * SIZE[0] / columns.size, top + rows.kept * SIZE[1] / rows.size)
        boxes.append(((columns.kept, rows.kept), Image.Resampling.BILINEAR, box))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    return {
        "resize: the whole, by PyTorch": fastest(lambda index: resized_part(images[index], *spans[index])),
        "resize: the part, by Pillow": fastest(lambda index: pictures[index].resize(*boxes[index])),
    }


def from_workers(dataset: SegmentationDataset, workers: int) -> tuple[float, int, int]:
    """Seconds a picture until it is here, and the bytes of the pictures and masks of a batch."""
    transform = TrainingTransform(AugmentationConfig(CROP, jitter=JITTER), dataset.labels.ignore_index)
    loader = training_loader(dataset, transform, Batching(BATCH), workers, 0)
    passes = []
    for epoch in range(PASSES):
        loader.sampler.set_epoch(epoch)
        started = perf_counter()
        *_, batch = loader
        passes.append((perf_counter() - started) / (len(loader) * BATCH))
    return min(passes[1:]), batch.image.nbytes, batch.mask.nbytes


def main(output: str, camvid: str | None = None) -> None:
    """Print the table and write it."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        dataset = write_pictures(Path(folder), camvid)
        size = sum(record.files[0].stat().st_size for record in dataset.records[:PICTURES]) / PICTURES / 1024
        seconds = in_this_process(dataset) | resizes(dataset)
        for workers in (1, 2):
            seconds[f"here from {workers} worker{'s'[: workers - 1]}"], images, masks = from_workers(dataset, workers)
    rows = [(name, round(1000 * value, 3), round(1 / value)) for name, value in seconds.items()]
    print(f"{PICTURES} JPEGs of {size:.0f} KiB; a batch of {BATCH} is {images} bytes of pictures and {masks} of masks")
    for name, milliseconds, rate in rows:
        print(f"{milliseconds:8.2f} ms {rate:6d}/s  {name}")
    with Path(output).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("step", "ms", "images_per_s"), *rows])
        writer.writerows([("bytes of pictures a batch", images, ""), ("bytes of masks a batch", masks, "")])


if __name__ == "__main__":
    main(*sys.argv[1:])
