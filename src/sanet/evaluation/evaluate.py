"""Scores of a model on a data set: one confusion matrix, every picture at its original size."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from sanet.config import DataConfig
from sanet.data.catalog import data_source
from sanet.data.loading import SegmentationDataset, evaluation_loader
from sanet.evaluation.confusion import ConfusionMatrix, scores_of
from sanet.evaluation.report import write_json, write_report
from sanet.evaluation.results import Evaluation, Example
from sanet.inference.predictor import DEFAULT_WINDOW, Predictor
from sanet.models.networks import SegmentationModel
from sanet.structures import LabelSet, Sample, SanetError

PICTURES_KEPT = 12


def evaluate_dataset(
    label: Callable[[Tensor], Tensor], dataset: SegmentationDataset, protocol: dict[str, Any], progress: bool = True
) -> Evaluation:
    """Label every picture of a data set, whole and at its original size, and count.

    Args:
        label: (3, H, W) uint8 -> (H, W) int64 class indices on the CPU.
        dataset: pictures and their truth.
        protocol: what is evaluated and how; kept with the result.
        progress: show a progress bar.
    """
    confusion = ConfusionMatrix(dataset.labels)
    miou = []
    for batch in tqdm(evaluation_loader(dataset, workers=0), "evaluate", unit=" pictures", disable=not progress):
        counts = confusion.update(batch.mask[0], label(batch.image[0]))
        miou.append(scores_of(counts, dataset.labels).miou)
    # Labelling the worst a second time costs less than keeping every picture that might be among them.
    order = sorted((index for index, value in enumerate(miou) if not isnan(value)), key=lambda index: miou[index])
    worst = [_example(dataset[index], label, miou[index]) for index in order[:PICTURES_KEPT]]
    by_name = dict(zip(dataset.names, miou, strict=True))
    return Evaluation(dataset.labels, confusion.counts.numpy(), confusion.scores(), by_name, worst, protocol)


def require_same_classes(model: LabelSet, data: LabelSet) -> None:
    """Raise a SanetError unless the classes of a model are those of a data set, in the same order."""
    if model.names != data.names:
        raise SanetError(
            f"the model's classes are {', '.join(model.names)}, but those of the data are {', '.join(data.names)}; "
            "a score would compare different things"
        )


def _example(sample: Sample, label: Callable[[Tensor], Tensor], miou: float) -> Example:
    assert isinstance(sample.name, str)
    image = sample.image.permute(1, 2, 0).numpy()
    return Example(sample.name, image, sample.mask.numpy(), label(sample.image).numpy(), miou)


def evaluate(
    model: str | Path | SegmentationModel,
    data: DataConfig,
    split: str = "test",
    output: str | Path | None = None,
    window: int = DEFAULT_WINDOW,
    device: str | None = None,
    history: list[dict[str, float]] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score a model on one split of a data set.

    Args:
        model: a model directory, an exported file, or a model.
        data: the data set.
        split: the split; it means exactly what it says.
        output: folder for ``scores.json`` and ``report.html``; nothing is written without it.
        window: side of the windows for pictures of more than ``window ** 2`` pixels.
        device: such as "cpu" or "cuda"; by default a GPU where there is one.
        history: rows of a run's metrics, for the learning curves of the report.
        progress: show a progress bar.

    Raises:
        SanetError: the model's classes are not those of the data set, in the same order.
        DataError: the data set cannot be read.
        UsageError: no such split or device, or too small a window.
    """
    dataset = data_source(data).open(split)
    predictor = Predictor(model, device, window)
    require_same_classes(predictor.labels, dataset.labels)
    protocol = {
        "data": data.name,
        "split": split,
        "pictures": len(dataset),
        "classes": len(dataset.labels),
        "ignore_index": dataset.labels.ignore_index,
        "absent classes": "left out of the means",
        "resolution": "original",
        "scales": "1",
        "window": window,
        "model": str(model) if not isinstance(model, SegmentationModel) else "in memory",
    }
    evaluation = evaluate_dataset(
        lambda image: predictor.label(image.to(predictor.device)).cpu(), dataset, protocol, progress
    )
    if output is not None:
        folder = Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "scores.json", evaluation)
        write_report(folder / "report.html", evaluation, history or [], f"{data.name} · {split}")
    return evaluation
