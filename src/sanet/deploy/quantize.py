"""Exports in int8: calibrated on real images, and kept only where it costs little accuracy on others.

Static quantisation by onnxruntime: weights and activations in 8 bits, one scale for each output channel of a
convolution, ranges from the smallest and largest values that the calibration images give rise to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import StringIO
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sanet.config import DataConfig, ExportFormat, ExportOutputs, InferenceConfig, require
from sanet.data.catalog import data_source
from sanet.data.source import SegmentationDataset
from sanet.deploy.export import NEWEST, describe, prepare, quiet, replacing, say, size_of, write
from sanet.deploy.graph import finish, give_labels, graph_of
from sanet.deploy.parity import ParityReport, compare, require_parity
from sanet.evaluation.confusion import ConfusionMatrix, scores_of
from sanet.evaluation.evaluate import require_same_classes
from sanet.inference.exported import INPUT, METADATA, open_exported
from sanet.inference.ir import IR
from sanet.inference.predictor import Predictor
from sanet.inference.views import resized
from sanet.models.networks import SegmentationModel
from sanet.structures import SanetError, first_line

CALIBRATION_SPLIT = "train"


@dataclass(frozen=True)
class Int8Cost:
    """A network and its file in int8 on the same images, which it was not calibrated on.

    Attributes:
        data: the dataset.
        split: split of it, on which both were scored.
        images: number of images of that split.
        calibration_images: number of images of its train split.
        float_bytes: size of the ONNX file before quantisation.
        float_miou: the network's.
        int8_miou: the file's.
        class_iou: by class, the network's and the file's; None where a class is absent.
        equal_labels: share of the pixels on which both agree.
        float_seconds: of the network, for an image.
        int8_seconds: of the file.
    """

    data: str
    split: str
    images: int
    calibration_images: int
    float_bytes: int
    float_miou: float
    int8_miou: float
    class_iou: dict[str, tuple[float | None, float | None]]
    equal_labels: float
    float_seconds: float
    int8_seconds: float


@dataclass(frozen=True)
class Int8Report(ParityReport):
    """The outcome of an export to int8.

    Attributes:
        cost: measured on real images; ``cases`` are as for ONNX, but need not be the same.
    """

    cost: Int8Cost

    def __str__(self) -> str:
        cost = self.cost
        return (
            f"{super().__str__()}\n"
            f"{cost.data} {cost.split}, {cost.images} images; calibrated on {cost.calibration_images} of "
            f"{CALIBRATION_SPLIT}\n"
            f"mIoU      {cost.float_miou:.4f} float, {cost.int8_miou:.4f} int8\n"
            f"labels    {cost.equal_labels:.2%} equal\n"
            f"size      {cost.float_bytes / 1e6:.1f} MB float, {self.bytes / 1e6:.1f} MB int8\n"
            f"per image {1000 * cost.float_seconds:.0f} ms float (PyTorch), {1000 * cost.int8_seconds:.0f} ms int8"
        )


def export_int8(
    model: SegmentationModel,
    path: str | Path,
    data: DataConfig,
    split: str = "val",
    calibration: int = 32,
    max_miou_drop: float = 0.02,
    outputs: ExportOutputs = "logits",
    opset: int = NEWEST,
    progress: bool = True,
) -> Int8Report:
    """Write a network as ONNX or IR in int8; see ``sanet.deploy.export`` for what every export holds and does.

    Args:
        model: the network.
        path: the file; ends in ``.int8.onnx`` or ``.int8.xml``.
        data: the dataset that it is calibrated on (its train split) and scored on.
        split: split on which the network and the file are scored.
        calibration: number of evenly spaced images of the train split; all where it has fewer.
        max_miou_drop: largest loss of mIoU, as a share of one; a file that loses more is not kept.
        outputs: what the file returns; see ``sanet.deploy.export.export``, as for ``opset``.
        opset: version of ONNX's operators.
        progress: say on stderr what is being done.

    Raises:
        UsageError: a path with another suffix, or no such split.
        DataError: the dataset cannot be read.
        SanetError: other classes than the dataset's, the network cannot be exported, or int8 costs too much. Then
            no file is left, and one that was there before stays.
    """
    require("calibration", [calibration], 1, 100_000)
    source = data_source(data).reading(model.images)
    calibration_set, dataset = source.open(CALIBRATION_SPLIT), source.open(split)
    require_same_classes(model.labels, dataset.labels)
    format: ExportFormat = "openvino-int8" if Path(path).suffix.lower() == IR else "onnx-int8"
    network, metadata = prepare(model, outputs), describe(model, format, outputs)
    inference = InferenceConfig().resolved(model.shorter_side)
    with replacing(path, format) as partial, TemporaryDirectory() as folder:
        start, in_float = perf_counter(), Path(folder) / "float.onnx"
        write(network, in_float, metadata, progress, opset)
        require_parity(compare(network, open_exported(in_float, "cpu")), Path(path))
        indices = evenly_spaced(len(calibration_set), calibration)
        say(f"calibrate on {len(indices)} images", progress)
        images = (calibration_set[index].image for index in indices)
        seen = (resized(image[None], *inference.factors(*image.shape[-2:]))[0] for image in images)
        quantize(in_float, partial, map(model.images.stored, seen) if model.images.of_values else seen)
        seconds = perf_counter() - start
        say(f"score both on {len(dataset)} images of {split}", progress)
        scores = score_both(dataset, network.network, partial, progress)
        counts = len(dataset), len(indices), in_float.stat().st_size
        cost = Int8Cost((source.settings or data).name, split, *counts, **scores)
        require_small_drop(cost, max_miou_drop, Path(path))
        store_metadata(partial, metadata := metadata | {"quantization": asdict(cost)})
        exported = open_exported(partial, "cpu")
        cases = compare(network, exported)
        if outputs.startswith("labels"):
            give_labels(partial, "confidence" in outputs, exported)
        report = Int8Report(Path(path), metadata, size_of(partial), seconds, torch.get_num_threads(), cases, cost)
    report.write()
    return report


def evenly_spaced(length: int, count: int) -> list[int]:
    """At most ``count`` indices below ``length``, from the first to the last."""
    found: list[int] = np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
    return found


def quantize(source: Path, target: Path, images: Iterator[Tensor]) -> None:
    """Write the int8 export of an ONNX file, its ranges from images (C, H, W) uint8 of any sizes.

    Raises:
        SanetError: onnxruntime cannot do it, or an image cannot be read.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[Any]] | None:
            image = next(images, None)
            return None if image is None else {INPUT: image[None].numpy()}

    prepared = source.with_name("prepared.onnx")
    try:
        with quiet(StringIO()):
            # onnxruntime's symbolic shapes take a map and its cut for one size; the file then fails at odd sizes.
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                graph_of(target),
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
    finish(target)


def score_both(dataset: SegmentationDataset, network: SegmentationModel, path: Path, progress: bool) -> dict[str, Any]:
    """The scores of a network and of its file in int8, image by image, as ``Int8Cost`` has them."""
    predictors = [Predictor(network, "cpu"), Predictor(path, "cpu")]
    confusions = [ConfusionMatrix(dataset.labels) for _ in predictors]
    seconds, pixels, equal = [0.0, 0.0], 0, 0
    for index in tqdm(range(len(dataset)), "score", unit=" images", disable=not progress):
        sample, found = dataset[index], []
        for number, predictor in enumerate(predictors):
            start = perf_counter()
            found.append(predictor.label(sample.image))
            seconds[number] += perf_counter() - start
            confusions[number].update(sample.mask, found[number])
        pixels += sample.mask.numel()
        equal += int((found[0] == found[1]).sum())
    before, after = (scores_of(confusion.counts, dataset.labels) for confusion in confusions)
    pairs = {name: (before.class_iou[name], after.class_iou[name]) for name in dataset.labels.names}
    return {
        "float_miou": before.miou,
        "int8_miou": after.miou,
        "class_iou": {name: tuple(iou if isfinite(iou) else None for iou in pair) for name, pair in pairs.items()},
        "equal_labels": equal / pixels,
        "float_seconds": seconds[0] / len(dataset),
        "int8_seconds": seconds[1] / len(dataset),
    }


def require_small_drop(cost: Int8Cost, max_miou_drop: float, path: Path) -> None:
    """Raise a SanetError where int8 loses more mIoU than that."""
    if not cost.float_miou - cost.int8_miou <= max_miou_drop:
        raise SanetError(
            f"{path} is not written: int8 lowers the mIoU on {cost.data} {cost.split} from {cost.float_miou:.4f} to "
            f"{cost.int8_miou:.4f}, by more than {max_miou_drop:g}. Calibrate on more images (now "
            f'{cost.calibration_images}), raise --max-miou-drop, or export to "onnx"'
        )


def store_metadata(path: Path, metadata: dict[str, Any]) -> None:
    """Write it into an export in place of what is there."""
    import onnx

    file = onnx.load(graph_of(path))
    onnx.helper.set_model_props(file, {METADATA: json.dumps(metadata, ensure_ascii=False)})
    onnx.save(file, graph_of(path))
    finish(path)
