"""What a run says and shows before its first step, and at its end."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from shlex import quote

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from sanet.config import METRICS, MODEL, TrainConfig
from sanet.data.catalog import data_source
from sanet.data.source import records_of
from sanet.evaluation.evaluate import REPORT
from sanet.evaluation.results import Evaluation
from sanet.files import written
from sanet.inference.drawing import shares
from sanet.inference.sheet import sheet_of
from sanet.references import name_of
from sanet.structures import Batch, Sample
from sanet.tables import duration
from sanet.training.talk import load_average
from sanet.training.task import SegmentationTask

# Classes that are listed before only the rarest are, and crops on a sheet.
LISTED, CROPS = 6, 16


def opening(
    task: SegmentationTask, loader: DataLoader[Batch], device: torch.device, pixels: Tensor, images: Mapping[str, int]
) -> str:
    """Network, device, data, steps and output of a run, a line each.

    Args:
        task: the network and its settings.
        loader: of the training images.
        device: where it trains.
        pixels: (K,) int64, of each class in the training split.
        images: number by split.
    """
    config, steps = task.config, -(-len(loader) // task.config.gradient_accumulation)
    count = sum(parameter.numel() for parameter in task.model.parameters())
    load, (height, width) = load_average(), config.augmentation.crop
    step = min(config.batch_size, images["train"])
    busy = f"; busy: a load of {load:.1f} already" if load > (os.cpu_count() or 1) / 2 else ""
    found = (pixels / pixels.sum().clamp(min=1)).tolist()
    order = sorted(range(len(found)), key=lambda index: -found[index])
    texts = [f"{task.model.labels.names[index]} {found[index]:.1%}" for index in order]
    texts = texts if len(texts) <= LISTED else [*texts[: LISTED - 3], "…", *texts[-3:]]
    length = f"{config.epochs} epochs, {steps * config.epochs} steps in all"
    if config.budget is not None:
        length = f"as many epochs as fit into {duration(config.budget)}, checking and scoring included"
    lines = {
        "network": f"{name_of(config.model.name)} over {config.model.backbone}, {count / 1e6:.2f} million parameters",
        "device": f"{device}, {torch.get_num_threads()} threads of {os.cpu_count()} cores{busy}",
        "images": ", ".join(f"{split} {number}" for split, number in images.items()),
        "classes": f"{len(found)}: {', '.join(texts)} of the pixels of train",
        "steps": f"{steps} an epoch, of {step} images as crops of {height}x{width}; {length}",
        "output": config.output,
    }
    return "\n".join(f"{name:<9}{text}" for name, text in lines.items())


def trained(task: SegmentationTask, images: int, seconds: float) -> str:
    """What a run trained on how many images for how long, in a sentence."""
    config, data = task.config, task.config.data
    place = Path(data.root).name if data.root else name_of(data.name)
    what = f"{name_of(config.model.name)} over {config.model.backbone}, trained on {images} images of {place}"
    return f"{what} for {len(task.history)} epochs, in {duration(seconds)}."


def first_crops(task: SegmentationTask, loader: DataLoader[Batch]) -> Image.Image:
    """The first batch of this process exactly as the network is given it, with its labels laid over, and a legend."""
    keys = islice(iter(loader.sampler), loader.batch_size)
    batch = task.transformed(loader.collate_fn([loader.dataset[key] for key in keys]), 0)
    samples = [Sample(*one) for one in islice(zip(*batch, strict=True), CROPS)]
    labels = task.model.labels
    return sheet_of(samples, labels, shares(np.concatenate([one.mask.numpy() for one in samples]), labels))


def save_crops(sheet: Image.Image, path: Path, option: str = "--output") -> None:
    """Write the sheet as PNG."""
    with written(path, option) as aside:
        sheet.save(aside, "PNG")


def ending(config: TrainConfig, evaluation: Evaluation, chosen: str) -> str:
    """The score of a finished run with its interval, where everything is, and what to type next."""
    run, score = Path(config.output), evaluation.table.means["miou"]
    directory, source = quote(str(run)), data_source(config.data)
    commands = [f"export {directory}"]
    if "test" in source.splits and "test" not in source.unlabelled:
        commands.insert(0, f"evaluate {directory} --split test")
    for example in evaluation.worst[:1]:
        file = next(one.image for one in records_of(source, "val") if one.name == example.name)
        if file is None:  # made on demand
            break
        image, (height, width) = quote(str(file)), example.truth.shape
        if config.model.name == "sanet" and not config.data.images.of_values:
            commands.insert(0, f"explain {directory} {image} --point {width // 2} {height // 2}")
        commands.insert(0, f"predict {image} --model {directory} --output labelled")
    lines = {
        "score": f"mean IoU {score.text()} % on val, the second its 95 % interval",
        "kept": chosen,
        "model": run / MODEL,
        "report": f"{run / REPORT}, with the curves; their numbers: {run / METRICS}",
    }
    text = "\n".join(f"{name:<9}{value}" for name, value in lines.items())
    return "\n".join([text, "next:", *(f"  sanet {command}" for command in commands)])
