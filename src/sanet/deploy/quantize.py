"""ONNX in int8: calibrated on real pictures, and kept only where it costs little accuracy on others.

Static quantisation by onnxruntime: weights and activations in 8 bits, one scale for each output channel of a
convolution, ranges from the smallest and largest values that the calibration pictures give rise to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from sanet.config import DataConfig, ExportFormat, InferenceConfig
from sanet.data.catalog import data_source
from sanet.data.source import SegmentationDataset
from sanet.deploy.export import Logits, describe, prepare, quiet, replacing, say, write
from sanet.deploy.parity import ParityReport, compare, require_parity
from sanet.evaluation.evaluate import evaluate_dataset, require_same_classes
from sanet.evaluation.protocol import Protocol
from sanet.inference.exported import INPUT, METADATA, open_exported
from sanet.inference.predictor import Predictor
from sanet.inference.views import resized
from sanet.models.networks import SegmentationModel
from sanet.structures import SanetError, UsageError, first_line

FORMAT: ExportFormat = "onnx-int8"
CALIBRATION_SPLIT = "train"


class Scored(NamedTuple):
    """A network and its file in int8 on the same pictures.

    Attributes:
        float_miou: the network's.
        int8_miou: the file's.
        class_iou: by class, the network's and the file's; None where a class is absent.
        equal_labels: share of the pixels on which both say the same.
        float_seconds: of the network, for a picture.
        int8_seconds: of the file.
    """

    float_miou: float
    int8_miou: float
    class_iou: dict[str, tuple[float | None, float | None]]
    equal_labels: float
    float_seconds: float
    int8_seconds: float


@dataclass(frozen=True)
class Int8Cost:
    """What int8 costs and brings, on pictures that it was not calibrated on.

    Attributes:
        data: the data set.
        split: of it, on which both were scored.
        pictures: of that split.
        calibration_pictures: of its train split.
        float_bytes: size of the ONNX file before quantisation.
        scored: the scores.
    """

    data: str
    split: str
    pictures: int
    calibration_pictures: int
    float_bytes: int
    scored: Scored

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "scored": self.scored._asdict()}


@dataclass(frozen=True)
class Int8Report(ParityReport):
    """What an export to int8 ended with.

    Attributes:
        cost: measured on real pictures; ``cases`` are as for the other formats, but nothing is asked of them.
    """

    cost: Int8Cost

    def __str__(self) -> str:
        cost, scored = self.cost, self.cost.scored
        return (
            f"{super().__str__()}\n"
            f"{cost.data} {cost.split}, {cost.pictures} pictures; calibrated on {cost.calibration_pictures} of "
            f"{CALIBRATION_SPLIT}\n"
            f"mIoU      {scored.float_miou:.4f} float, {scored.int8_miou:.4f} int8\n"
            f"labels    {scored.equal_labels:.2%} equal\n"
            f"size      {cost.float_bytes / 1e6:.1f} MB float, {self.bytes / 1e6:.1f} MB int8\n"
            f"a picture {1000 * scored.float_seconds:.0f} ms float (PyTorch), {1000 * scored.int8_seconds:.0f} ms int8"
        )


def export_int8(
    model: SegmentationModel,
    path: str | Path,
    data: DataConfig,
    split: str = "val",
    calibration: int = 32,
    largest_loss: float = 0.02,
    progress: bool = True,
) -> Int8Report:
    """Write a network as ONNX in int8; see ``sanet.deploy.export`` for what every export holds and does.

    Args:
        model: the network; it stays as it is.
        path: the file; ends in ``.int8.onnx``.
        data: the data set that it is calibrated on (its train split) and scored on.
        split: where the network and the file are scored.
        calibration: evenly spaced pictures of the train split; all where it has fewer.
        largest_loss: of mIoU, as a share of one; a file that loses more is not kept.
        progress: say on stderr what is being done.

    Raises:
        UsageError: a path with another suffix, or no such split.
        DataError: the data set cannot be read.
        SanetError: other classes than the data set's, the network cannot be exported, or int8 costs too much. Then
            no file is left, and one that was there before stays.
    """
    if calibration < 1:
        raise UsageError(f"calibration {calibration}: 1 picture or more")
    source = data_source(data)
    calibration_set, dataset = source.open(CALIBRATION_SPLIT), source.open(split)
    require_same_classes(model.labels, dataset.labels)
    network, metadata = prepare(model), describe(model, FORMAT)
    views = InferenceConfig().resolved(model.shorter_side)
    with replacing(path, FORMAT) as partial, TemporaryDirectory() as folder:
        start = perf_counter()
        plain = Path(folder) / "float.onnx"
        write(network, plain, metadata, progress)
        require_parity(compare(network, open_exported(plain, "cpu")), Path(path))
        indices = evenly_spaced(len(calibration_set), calibration)
        say(f"calibrate on {len(indices)} pictures", progress)
        images = (calibration_set[index].image for index in indices)
        quantize(plain, partial, (resized(image, *views.factors(*image.shape[-2:])) for image in images))
        seconds = perf_counter() - start
        say(f"score both on {len(dataset)} pictures of {split}", progress)
        protocol = Protocol.of(data, split, dataset.names, dataset.labels, views)
        comparison = compare_on(dataset, protocol, network, partial, progress)
        cost = Int8Cost(data.name, split, len(dataset), len(indices), plain.stat().st_size, comparison)
        require_small_loss(cost, largest_loss, Path(path))
        metadata |= {"quantization": cost.as_dict()}
        store_metadata(partial, metadata)
        cases = compare(network, open_exported(partial, "cpu"))
        size = partial.stat().st_size
    report = Int8Report(Path(path), metadata, size, seconds, torch.get_num_threads(), cases, cost)
    report.write()
    return report


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most ``count`` indices below ``length``, from the first to the last."""
    if count >= length:
        return list(range(length))
    return [round(step * (length - 1) / max(1, count - 1)) for step in range(count)]


def quantize(source: Path, target: Path, images: Iterator[Tensor]) -> None:
    """Write the int8 variant of an ONNX file.

    Args:
        source: in float32.
        target: is written.
        images: pictures (3, H, W) uint8 of any sizes, for the ranges of the activations.

    Raises:
        SanetError: onnxruntime cannot do it, or a picture cannot be read.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The pictures, one at a time."""

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            """The next one as the network's input."""
            image = next(images, None)
            return None if image is None else {INPUT: image[None].numpy()}

    prepared = source.with_name("prepared.onnx")
    try:
        with quiet():
            # onnxruntime's symbolic shapes take a map and its cut for one size; the file then fails at odd sizes.
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # Weights of 8 bits saturate sums on processors without VNNI, where int8 would then cost more than was
                # measured here.
                reduce_range=True,
            )
    except SanetError:
        raise
    except Exception as error:  # onnxruntime's errors have no class in common
        raise SanetError(f"onnxruntime cannot quantise the network ({first_line(error)}); export to onnx") from error


def compare_on(dataset: SegmentationDataset, protocol: Protocol, network: Logits, path: Path, progress: bool) -> Scored:
    """Score a network and its file in int8."""
    eager, quantized = Timed(Predictor(network.network, "cpu")), Timed(Predictor(path, "cpu"))
    pixels = equal = 0

    def label_twice(image: Tensor) -> Tensor:
        nonlocal pixels, equal
        labels = quantized(image)
        pixels += labels.numel()
        equal += int((labels == eager(image)).sum())
        return labels

    before, after = (evaluate_dataset(label, dataset, protocol, progress).scores for label in (eager, label_twice))
    class_iou = {
        name: (_or_none(before.class_iou[name]), _or_none(after.class_iou[name])) for name in dataset.labels.names
    }
    return Scored(before.miou, after.miou, class_iou, equal / pixels, eager.mean(), quantized.mean())


def _or_none(value: float) -> float | None:
    return value if isfinite(value) else None


class Timed:
    """The labels of a predictor, and what they took.

    Args:
        predictor: on the CPU.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.seconds, self.pictures = predictor, 0.0, 0

    def __call__(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 -> (H, W) int64 class indices."""
        start = perf_counter()
        labels = self.predictor.label(image)
        self.seconds += perf_counter() - start
        self.pictures += 1
        return labels

    def mean(self) -> float:
        """Seconds for a picture."""
        return self.seconds / self.pictures


def require_small_loss(cost: Int8Cost, largest_loss: float, path: Path) -> None:
    """Raise a SanetError where int8 loses more mIoU than that."""
    before, after = cost.scored.float_miou, cost.scored.int8_miou
    if not before - after <= largest_loss:
        raise SanetError(
            f"{path} is not written: int8 takes the mIoU on {cost.data} {cost.split} from {before:.4f} to {after:.4f}, "
            f"by more than {largest_loss:g}. Calibrate on more pictures (now {cost.calibration_pictures}), allow a "
            'larger loss, or export to "onnx"'
        )


def store_metadata(path: Path, metadata: dict[str, Any]) -> None:
    """Write it into an ONNX file in place of what is there."""
    import onnx

    file = onnx.load(path)
    onnx.helper.set_model_props(file, {METADATA: json.dumps(metadata, ensure_ascii=False)})
    onnx.save(file, path)
