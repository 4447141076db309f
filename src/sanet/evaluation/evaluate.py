"""Scores of a model on a dataset: one confusion matrix, every image at its original size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sanet import distributed
from sanet.config import OWN, DataConfig, InferenceConfig
from sanet.data.catalog import data_source, labelled_as
from sanet.data.loading import evaluation_loader
from sanet.data.source import SegmentationDataset
from sanet.evaluation.calibration import RISK_AREA, TEMPERATURE, reliability, risk_area, risk_counts
from sanet.evaluation.confusion import ConfusionMatrix, iou_of, scores_of
from sanet.evaluation.measures import BOUNDARIES, PIXELS, ROWS, image_counts, rule_of
from sanet.evaluation.metrics import compute_metrics, create_metrics, update_metrics
from sanet.evaluation.protocol import Protocol
from sanet.evaluation.report import write_report
from sanet.evaluation.results import COUNTS, SCORES, Evaluation, Example, write_scores
from sanet.files import require_own, require_writable
from sanet.inference.predictor import Predictor
from sanet.models.networks import SegmentationModel
from sanet.models.store import BUNDLED
from sanet.reading import FAR_OUTSIDE, OUTSIDE_TEXT, ImageReading
from sanet.structures import LabelSet, Sample, SanetError, UsageError, say

if TYPE_CHECKING:
    from torchmetrics import Metric

# Labels (H, W) int64 and, where it is known, confidence (H, W) float32, both on the CPU.
Labelled = tuple[Tensor, Tensor | None]

WORST = 12
NONE = torch.empty(0)  # pixels
REPORT = "report.html"


def evaluate(
    model: str | Path | SegmentationModel,
    data: DataConfig,
    split: str = "test",
    output: str | Path | None = None,
    inference: InferenceConfig = InferenceConfig(),
    device: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    history: list[dict[str, float]] | None = None,
    progress: bool = True,
    num_workers: int = 0,
    facts: Mapping[str, Any] = {},
) -> Evaluation:
    """Score a model on one split of a dataset.

    Processes that share a job (``torchrun``) share the images; the first one writes the files.

    Args:
        model: a model directory, an exported file, or a model.
        data: the dataset.
        split: the split; it means exactly what it says.
        output: folder for ``scores.json``, ``image_counts.npz`` and ``report.html``; nothing is written without it.
        inference: sliding window, multi-scale and flip.
        device: name of the device; by default the best there is.
        metrics: metrics of torchmetrics by the names under which they are reported: "my_module:Name", with options
            {name: …, options: {…}}, or an object; each is called as update(prediction, mask), both (H, W) int64.
        history: rows of a run's metrics, for the learning curves of the report.
        progress: show a progress bar.
        num_workers: processes that read images; 0 reads them in the main process.
        facts: what else the scores and the report are to say.

    Raises:
        SanetError: the model's classes are not those of the dataset, in the same order; or a metric failed.
        DataError: the dataset cannot be read.
        UsageError: no such split, device or metric, nothing can be written in ``output``, or a file there is not ours.

    Example:
        >>> import sanet
        >>> model, data = sanet.create_model("fcn", num_classes=2), sanet.DataConfig(root="photos")
        >>> sanet.evaluate(model, data, "val", progress=False).confusion.shape
        (2, 2)
    """
    wanted = create_metrics(metrics or {})
    if output is not None:
        distributed.broadcast_from_main(lambda: require_own(*files_in(Path(output))))
    predictor = Predictor(model, device, inference)
    dataset, data = dataset_for(predictor, data, split)
    if output is not None:
        distributed.broadcast_from_main(lambda: require_writable(Path(output)))
    for metric in wanted.values():
        metric.to(predictor.device)
    protocol = Protocol.of(data, split, dataset.names, dataset.labels, predictor.inference)

    label = Labeller(predictor, dataset)
    evaluation = evaluate_dataset(label, dataset, protocol, progress, num_workers, wanted)
    label.warn()
    known = {"model": called(model), TEMPERATURE: predictor.temperature, **facts}
    return written_with(known, evaluation, output, history or [])


def called(model: str | Path | SegmentationModel) -> str:
    """What scores and reports call a model."""
    name = "in memory" if isinstance(model, SegmentationModel) else str(model)
    return OWN if name == str(BUNDLED[OWN]) else name


def written_with(
    facts: Mapping[str, Any], evaluation: Evaluation, output: str | Path | None, history: list[dict[str, float]]
) -> Evaluation:
    """An evaluation with these facts as well, whose files the main process writes."""
    evaluation = replace(evaluation, facts={**facts, **evaluation.facts})
    if output is not None and distributed.is_main_process():
        write_scores(Path(output) / SCORES, evaluation)
        title = f"{evaluation.protocol.data} · {evaluation.protocol.split}"
        write_report(Path(output) / REPORT, evaluation, history, title)
    return evaluation


def dataset_for(predictor: Predictor, data: DataConfig, split: str) -> tuple[SegmentationDataset, DataConfig]:
    """The images of a split as they are stored, with the classes of a model where nothing else names them.

    Scores are of the stored images: what the model makes of them is no part of the ground truth.
    """
    source = data_source(data)
    if not source.named:
        source = data_source(labelled_as(data, predictor.labels))
    data = source.settings or data
    dataset = source.open(split)
    require_same_classes(predictor.labels, dataset.labels)
    require_same_reading(predictor.images, data)
    dataset.source = source.reading(predictor.images.without_range())
    return dataset, data


class Labeller:
    """A predictor as a function from images to labels and confidence (H, W) on the CPU.

    Attributes:
        outside: largest share of the pixels of a channel that were outside the model's range.
    """

    def __init__(self, predictor: Predictor, dataset: SegmentationDataset) -> None:
        self.predictor, self.outside = predictor, 0.0
        self.stored = dataset.source.reads_files and predictor.images.of_values

    def __call__(self, sample: Sample) -> Labelled:
        """Label an image."""
        labels, confidence = self.predictor.judged(self.seen(sample))
        return labels.cpu(), None if confidence is None else confidence.cpu()

    def seen(self, sample: Sample) -> Tensor:
        """(C, H, W) as the network takes it, on its device."""
        image = sample.image.to(self.predictor.device)
        if self.stored:
            self.outside = max(self.outside, self.predictor.images.outside(image))
            image = self.predictor.seen(image)
        return image

    def warn(self) -> None:
        """Say so where images were unlike those of training."""
        if self.outside > FAR_OUTSIDE:
            say(f"warning: of an image {self.outside:.1%} of a channel's pixels {OUTSIDE_TEXT}", error=True)


def evaluate_dataset(
    label: Callable[[Sample], Labelled],
    dataset: SegmentationDataset,
    protocol: Protocol,
    progress: bool = True,
    num_workers: int = 0,
    metrics: Mapping[str, Metric] = {},
) -> Evaluation:
    """Label every image of a dataset by a function, and count; see ``evaluate``.

    Processes that share the job share the images: each is counted once, and all return the same scores. All of them
    have to call, and what one of them raises, all raise.
    """
    labels, own, contents, failure = dataset.labels, [], {}, None
    confusion, (trust, risks) = ConfusionMatrix(labels), (reliability(NONE, NONE > 0), risk_counts(NONE, NONE > 0))
    hidden = not (progress and distributed.is_main_process())
    try:
        for batch in tqdm(evaluation_loader(dataset, num_workers), "evaluate", unit=" images", disable=hidden):
            (name,), image, mask = batch.name, batch.image[0], batch.mask[0].long()
            prediction, confidence = label(Sample(image, mask, name))
            if confidence is not None:
                labelled = mask != labels.ignore_index
                judged = confidence[labelled], (prediction == mask)[labelled]
                trust, risks = trust + reliability(*judged), risks + risk_counts(*judged)
            own.append(image_counts(prediction, mask, confusion.update(mask, prediction), labels))
            contents[name] = _digest(image), _digest(mask), tuple(mask.shape)
            update_metrics(metrics, prediction, mask)
    except Exception as error:  # a process that ended by itself would leave the others waiting
        failure = distributed.portable(error)
    # As objects, which reach the others whatever device their counts would have to be on.
    counts = torch.zeros_like(confusion.counts)
    images = torch.zeros(len(dataset), ROWS, len(labels), dtype=torch.int64)
    shares = distributed.all_gather((confusion.counts, own, contents, (trust, risks), failure))
    trust, risks = (torch.stack(parts).sum(dim=0) for parts in zip(*(share[3] for share in shares), strict=True))
    for rank, (counted, part, digests, _, error_of_one) in enumerate(shares):
        if error_of_one is not None:
            raise error_of_one
        counts += counted
        images[rank :: len(shares)] = torch.stack(part) if part else images[:0]
        contents |= digests
    sums, shapes = images[:, PIXELS], images[:, PIXELS.stop :]
    miou = iou_of(sums).nanmean(dim=1).tolist()
    groups = [record.group or record.name for record in dataset.records]
    worst, typical = _examples(dataset, label, miou) if distributed.is_main_process() else ([], None)
    return Evaluation(
        labels,
        counts.numpy(),
        scores_of(counts, labels),
        dict(zip(dataset.names, miou, strict=True)),
        worst,
        protocol.with_contents({name: (image, mask) for name, (image, mask, _) in contents.items()}),
        {BOUNDARIES: rule_of(shape for _, _, shape in contents.values())}
        | ({RISK_AREA: risk_area(risks)} if risks.any() else {}),
        sums.numpy(),
        compute_metrics(metrics),
        shapes.numpy(),
        np.unique(groups, return_inverse=True)[1] if len({*groups}) < len(groups) else None,
        trust.numpy() if trust[0].any() else None,
        typical,
    )


def files_in(output: Path) -> list[Path]:
    """What an evaluation writes in a folder."""
    return [output / name for name in (SCORES, COUNTS, REPORT)]


def require_same_classes(model: LabelSet, data: LabelSet) -> None:
    """Raise a SanetError unless the classes of a model are those of a dataset, in the same order."""
    if model.names != data.names:
        raise SanetError(
            f"the model's classes are {', '.join(model.names)}, but those of the data are {', '.join(data.names)}; "
            "a score would compare different things"
        )


def require_same_reading(images: ImageReading, data: DataConfig) -> None:
    """Raise a UsageError where a dataset says that it has other images than a model takes."""
    wanted, given = (data.images.channels, data.images.pages), (images.channels, images.pages)
    if data.images.of_values and wanted != given:
        raise UsageError(
            f"the images of the data have data.images.channels {wanted[0]} and pages {wanted[1]}, but the model takes "
            f"{given[0] or 'RGB of 8 bits'} and {given[1]}; score it on images such as those of its training"
        )


def _digest(values: Tensor) -> bytes:
    """SHA-256 of the shape and the values of a tensor on the CPU."""
    return sha256(repr(tuple(values.shape)).encode() + values.numpy().tobytes()).digest()


def _examples(
    dataset: SegmentationDataset, label: Callable[[Sample], Labelled], miou: list[float]
) -> tuple[list[Example], Example | None]:
    """The images with the lowest mIoU, and the one in the middle.

    Labelling them again costs less than keeping all that might be among them.
    """
    order = [index for _, index in sorted((value, index) for index, value in enumerate(miou) if not isnan(value))]
    examples = {}
    for index in {*order[:WORST], *order[len(order) // 2 :][:1]}:
        sample = dataset[index]
        image, truth = _shown(sample.image), sample.mask.long().numpy()
        examples[index] = Example(sample.name, image, truth, label(sample)[0].numpy(), miou[index])
    return [examples[index] for index in order[:WORST]], examples[order[len(order) // 2]] if order else None


def _shown(image: Tensor) -> NDArray[np.uint8]:
    """(C, H, W) -> (H, W, 3) uint8: the first three channels, or the first; other types from black to white.

    An image of no channel, as beside masks alone, stays one.
    """
    if not len(image):
        return np.empty((*image.shape[1:], 0), np.uint8)
    channels = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    if channels.dtype != torch.uint8:
        low, high = channels.double().aminmax()
        channels = ((channels - low) / (high - low).clamp(min=1e-12) * 255).to(torch.uint8)
    return channels.permute(1, 2, 0).numpy()
