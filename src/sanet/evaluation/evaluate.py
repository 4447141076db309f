"""Scores of a model on a data set: one confusion matrix, every picture at its original size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from math import isnan
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sanet import distributed
from sanet.config import OWN, DataConfig, InferenceConfig
from sanet.data.catalog import data_source
from sanet.data.loading import evaluation_loader
from sanet.data.source import SegmentationDataset
from sanet.evaluation.confusion import ConfusionMatrix, iou_of, scores_of, sums_of
from sanet.evaluation.protocol import Protocol
from sanet.evaluation.report import write_report
from sanet.evaluation.results import PICTURES, SCORES, Evaluation, Example, write_scores
from sanet.files import require_own, require_writable
from sanet.inference.predictor import Predictor
from sanet.models.networks import SegmentationModel
from sanet.models.store import BUNDLED
from sanet.structures import LabelSet, Sample, SanetError

PICTURES_KEPT = 12
REPORT = "report.html"


def evaluate_dataset(
    label: Callable[[Tensor], Tensor],
    dataset: SegmentationDataset,
    protocol: Protocol,
    progress: bool = True,
    num_workers: int = 0,
) -> Evaluation:
    """Label every picture of a data set, whole and at its original size, and count.

    Processes that share the job share the pictures: each is counted once, and all return the same scores. All of them
    have to call.

    Args:
        label: (3, H, W) uint8 -> (H, W) int64 class indices on the CPU.
        dataset: pictures and their truth.
        protocol: what is evaluated and how; kept with the result.
        progress: show a progress bar.
        num_workers: processes that read pictures, of each process that labels them; 0 reads in the process itself.

    Raises:
        DataError: a picture or its truth cannot be read, in whichever process.
    """
    confusion, own, contents, failure = ConfusionMatrix(dataset.labels), [], {}, None
    hidden = not (progress and distributed.is_main_process())
    try:
        for batch in tqdm(evaluation_loader(dataset, num_workers), "evaluate", unit=" pictures", disable=hidden):
            own.append(sums_of(confusion.update(batch.mask[0], label(batch.image[0]))))
            contents[batch.name[0]] = _digest(batch.image[0]), _digest(batch.mask[0])
    except Exception as error:  # a process that ended by itself would leave the others waiting
        failure = distributed.portable(error)
    # As objects, which reach the others whatever device their counts would have to be on.
    shares = distributed.all_gather((confusion.counts, own, contents, failure))
    for *_, error_of_one in shares:
        if error_of_one is not None:
            raise error_of_one
    counts = torch.stack([share[0] for share in shares]).sum(dim=0)
    sums = torch.zeros(len(dataset), 3, len(dataset.labels), dtype=torch.int64)
    for rank, (_, part, *_) in enumerate(shares):
        sums[rank :: len(shares)] = torch.stack(part) if part else sums[:0]
    miou = iou_of(sums).nanmean(dim=1).tolist()
    worst = _worst(dataset, label, miou) if distributed.is_main_process() else []
    return Evaluation(
        dataset.labels,
        counts.numpy(),
        scores_of(counts, dataset.labels),
        dict(zip(dataset.names, miou, strict=True)),
        worst,
        protocol.with_contents({name: digests for share in shares for name, digests in share[2].items()}),
        picture_sums=sums.numpy(),
    )


def _digest(values: Tensor) -> bytes:
    """SHA-256 of the shape and the values of a tensor on the CPU."""
    return sha256(repr(tuple(values.shape)).encode() + values.numpy().tobytes()).digest()


def files_in(output: Path) -> list[Path]:
    """What an evaluation writes in a folder."""
    return [output / name for name in (SCORES, PICTURES, REPORT)]


def _named(model: str | Path | SegmentationModel) -> str:
    """What the result says that it is of."""
    if isinstance(model, SegmentationModel):
        return "in memory"
    return OWN if Path(model) == BUNDLED["streets"] else str(model)


def require_same_classes(model: LabelSet, data: LabelSet) -> None:
    """Raise a SanetError unless the classes of a model are those of a data set, in the same order."""
    if model.names != data.names:
        raise SanetError(
            f"the model's classes are {', '.join(model.names)}, but those of the data are {', '.join(data.names)}; "
            "a score would compare different things"
        )


def _worst(dataset: SegmentationDataset, label: Callable[[Tensor], Tensor], miou: list[float]) -> list[Example]:
    """The pictures with the lowest mIoU; labelling them again costs less than keeping all that might be among them."""
    scored = [index for index, value in enumerate(miou) if not isnan(value)]
    worst = sorted(scored, key=lambda index: miou[index])[:PICTURES_KEPT]
    return [_example(dataset[index], label, miou[index]) for index in worst]


def _example(sample: Sample, label: Callable[[Tensor], Tensor], miou: float) -> Example:
    assert isinstance(sample.name, str)
    image = sample.image.permute(1, 2, 0).numpy()
    return Example(sample.name, image, sample.mask.numpy(), label(sample.image).numpy(), miou)


def evaluate(
    model: str | Path | SegmentationModel,
    data: DataConfig,
    split: str = "test",
    output: str | Path | None = None,
    views: InferenceConfig = InferenceConfig(),
    device: str | None = None,
    history: list[dict[str, float]] | None = None,
    progress: bool = True,
    num_workers: int = 0,
) -> Evaluation:
    """Score a model on one split of a data set.

    Processes that share a job (``torchrun``) share the pictures; the first one writes the files.

    Args:
        model: a model directory, an exported file, or a model.
        data: the data set.
        split: the split; it means exactly what it says.
        output: folder for ``scores.json``, ``pictures.npz`` and ``report.html``; nothing is written without it.
        views: how to look at a picture: in which sizes, mirrored or not, and from where on in windows.
        device: such as "cpu" or "cuda"; by default a GPU where there is one.
        history: rows of a run's metrics, for the learning curves of the report.
        progress: show a progress bar.
        num_workers: processes that read pictures; 0 reads them in the main process.

    Raises:
        SanetError: the model's classes are not those of the data set, in the same order.
        DataError: the data set cannot be read.
        UsageError: no such split or device, or nothing can be written in ``output``, or somebody's file is in the way.
    """
    if output is not None:
        distributed.broadcast_from_main(lambda: require_own(*files_in(Path(output))))
    dataset = data_source(data).open(split)
    predictor = Predictor(model, device, views)
    require_same_classes(predictor.labels, dataset.labels)
    if output is not None:
        distributed.broadcast_from_main(lambda: require_writable(Path(output)))
    evaluation = replace(
        evaluate_dataset(
            lambda image: predictor.label(image.to(predictor.device)).cpu(),
            dataset,
            Protocol.of(data, split, dataset.names, dataset.labels, predictor.views),
            progress,
            num_workers,
        ),
        facts={"model": _named(model)},
    )
    if output is not None and distributed.is_main_process():
        folder = Path(output)
        write_scores(folder / SCORES, evaluation)
        write_report(folder / REPORT, evaluation, history or [], f"{data.name} · {split}")
    return evaluation
