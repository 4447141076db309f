"""Exported networks: files that `sanet export` wrote, read back as a function from images to logits, or labels.

ONNX and OpenVINO's IR are data: the operators of the runtimes open no file and run no code of the file's. What the
formats have besides them is refused before the runtime sees it: tensors that lie in other files, operators of one's
own, and control flow, which could run without an end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sanet.config import InferenceConfig, checked_side, require
from sanet.inference.device import choose_device
from sanet.inference.ir import IR, WEIGHTS, IRSession, checked_text, runtime
from sanet.inference.views import SMALLEST_SIDE, grown, resized
from sanet.models.unlike import FeatureStatistics
from sanet.reading import read_plain
from sanet.structures import LabelSet, SanetError, UsageError, first_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

METADATA = "sanet.json"
INPUT, OUTPUT = "images", "logits"
FEATURES = "features"
SIZE, LABELS, CONFIDENCE = "size", "labels", "confidence"
ONNX = ".onnx"
PROGRAMS = (".pt2", ".ts", ".pt", ".pth", ".torchscript")
MOST_PARTS = 2**18  # nodes, attributes, tensors and so on; the networks have some 5 000
REMEDY = "export with --outputs logits, or give the model itself"
LONGEST_METADATA = 2**22  # characters, as many as of the config.json of a model directory


class ExportedModel:
    """A network from a file, which ``open_exported`` reads.

    Attributes:
        opened: the file as a session of its runtime with so many threads.
        metadata: what the file says about the network.
        device: where its logits go.
        labels: the classes.
        value_range: 255, the largest value of an image.
        shorter_side: shorter side, in pixels, at which the network is to see images; None: their own size.
        in_chans: C, channels of the images.
        temperature: what logits are divided by before they become probabilities.
        gives_labels: whether it returns labels, and no logits.
        gives_features: whether it returns the features of whole images beside the logits.
        statistics: of the features of its training images, where these are known.
        images: how image files are read, and which of their values are black and white to the network.
    """

    def __init__(
        self,
        path: Path,
        opened: Callable[[int], InferenceSession | IRSession],
        metadata: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.path, self.opened, self.metadata, self.device = path, opened, metadata, device
        session = opened(torch.get_num_threads())
        self.value_range = 255
        try:
            self.labels = LabelSet(**metadata["labels"])
        except (KeyError, TypeError) as error:
            raise SanetError("it does not say which classes it has; it was not written by `sanet export`") from error
        self.shorter_side = checked_side("shorter_side", metadata.get("shorter_side"))
        self.temperature = metadata.get("temperature", 1.0)
        require("temperature", [self.temperature], 1e-6, 1e6)
        self.in_chans, self.images = metadata.get("in_chans", 3), read_plain(metadata.get("images"))
        if self.images.channels not in (None, self.in_chans):
            raise SanetError(f"it says that images have {self.in_chans} and {self.images.channels} channels")
        self.dtype, kind = (torch.float32, "float") if self.images.of_values else (torch.uint8, "uint8")
        places = (*session.get_inputs(), *session.get_outputs())
        ranks = [(value, len(value.shape)) for value in places]
        found = [(value.name, value.type, rank, value.shape[1:2] if rank == 4 else []) for value, rank in ranks]
        images = (INPUT, f"tensor({kind})", 4, [self.in_chans])
        logits = (OUTPUT, "tensor(float)", 4, [len(self.labels)])
        labelled = [images, (SIZE, "tensor(int64)", 1, []), (LABELS, "tensor(uint8)", 3, [])]
        self.gives_labels = found in (labelled, [*labelled, (CONFIDENCE, "tensor(uint8)", 3, [])])
        self.gives_features = found[:2] == [images, logits] and found[2:] == [(FEATURES, "tensor(float)", 2, [])]
        if not self.gives_labels and not self.gives_features and found != [images, logits]:
            raise SanetError(f"its inputs and outputs are not {[images, logits]}, as its classes ask for, but {found}")
        known = metadata.get("features") if self.gives_features else None
        self.statistics = FeatureStatistics.read(known, places[-1].shape[1]) if known else None

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8, or float32 stored values -> (B, K, H, W) float32 logits on the model's device.

        Raises:
            UsageError: images of another shape or dtype, or with a side below 32 pixels; the file gives labels.
            SanetError: the network cannot run, or returns something of another shape.
        """
        return self.outputs(images)[0]

    def outputs(self, images: Tensor) -> list[Tensor]:
        """The same, and the features (B, C) of the images if the file gives them."""
        if self.gives_labels:
            raise UsageError(f"{self.path} gives labels of whole images, but logits are needed here; {REMEDY}")
        names = [OUTPUT, FEATURES] if self.gives_features else [OUTPUT]
        found = self._run(images, names, {})
        self._require(OUTPUT, found[0], (len(images), len(self.labels), *images.shape[2:]))
        return found

    def labels_of(self, images: Tensor, size: Sequence[int]) -> Tensor:
        """The same images -> (B, rows, columns) uint8 labels in the size that is given, of a file that gives labels."""
        (labels,) = self._run(images, [LABELS], {SIZE: np.array(size)})
        self._require(LABELS, labels, (len(images), *size))
        if labels.numel() and (largest := int(labels.max())) >= len(self.labels):
            raise SanetError(f"{self.path} returns label {largest}, but has {len(self.labels)} classes")
        return labels

    def label(self, images: Tensor, settings: InferenceConfig) -> Tensor:
        """(B, C, H, W), as ``Predictor.seen`` gives them -> (B, H, W) int64 labels, of one view.

        Raises:
            UsageError: the settings or the size of the images need logits.
        """
        height, width = images.shape[-2:]
        whole = grown(images)
        seen = resized(whole, settings.factors(*whole.shape[-2:])[0])
        if settings.several or seen.shape[-2] * seen.shape[-1] > settings.window**2:
            need = "several views" if settings.several else f"windows, as {width}x{height} pixels do,"
            raise UsageError(f"{self.path} gives labels, but {need} need logits; {REMEDY}")
        seen = self.images.stored(seen) if self.images.of_values else seen
        return self.labels_of(seen, whole.shape[-2:])[:, :height, :width].long()

    def _run(self, images: Tensor, names: list[str], others: dict[str, NDArray[Any]]) -> list[Tensor]:
        """Some of its outputs, on the model's device."""
        shape = tuple(images.shape)
        fits = images.dtype == self.dtype and images.ndim == 4 and shape[1] == self.in_chans
        if not fits or min(shape[2:]) < SMALLEST_SIDE:
            raise UsageError(
                f"images are {images.dtype} of shape {shape}; give {str(self.dtype).removeprefix('torch.')} of (B, "
                f"{self.in_chans}, H, W), with sides of {SMALLEST_SIDE} or more pixels"
            )
        try:
            found = self.opened(torch.get_num_threads()).run(names, {INPUT: images.cpu().numpy(), **others})
        except Exception as error:  # the runtimes' errors have no class in common
            raise SanetError(f"{self.path} cannot run on {shape}: {first_line(error):.300}") from error
        return [torch.from_numpy(each).to(self.device) for each in found]

    def _require(self, name: str, found: Tensor, expected: tuple[int, ...]) -> None:
        if found.shape != expected:
            raise SanetError(f"{self.path} returns {name} of shape {tuple(found.shape)}, not {expected}")


def is_exported(model: str | Path) -> bool:
    """Whether this names an exported file, also one of a format that is refused; the suffix tells."""
    return Path(model).suffix.lower() in (ONNX, IR, *PROGRAMS) and not Path(model).is_dir()


def parts_of(path: Path) -> list[Path]:
    """The files of an export: of IR the graph, and its weights."""
    return [path, path.with_suffix(WEIGHTS)] if path.suffix.lower() == IR else [path]


def open_exported(path: str | Path, device: str | None = None) -> ExportedModel:
    """Read an exported file; device "cpu" or "cuda", by default the GPU where the runtime can use one.

    Raises:
        SanetError: there is no such file, `sanet export` has not written it, or the runtime is not installed.
        UsageError: there is no such device.
    """
    file = Path(path)
    suffix, parts = file.suffix.lower(), parts_of(file)
    if suffix not in (ONNX, IR):
        raise SanetError(
            f"{file} is not opened: a file of PyTorch is a program, which can read and write any file of yours; "
            "ask whoever made it for ONNX: sanet export MODEL --format onnx"
        )
    for part in parts:
        if not part.is_file():
            raise SanetError(f"there is no exported file {part}; `sanet export` writes one")
    name, extra = ("onnxruntime", "export") if suffix == ONNX else ("openvino", "openvino")
    try:
        package = import_module(name) if suffix == ONNX else runtime()
    except ImportError as error:
        raise SanetError(f"{file} needs {name}: pip install 'sanet-segmentation[{extra}]'") from error
    on_gpu = suffix == ONNX and "CUDAExecutionProvider" in package.get_available_providers()
    on_gpu = on_gpu and torch.cuda.is_available()
    used = choose_device(device or ("cuda" if on_gpu else "cpu"))
    if used.type != "cpu" and not (on_gpu and used.type == "cuda"):
        raise UsageError(f"device {device!r}: this {name} does not run there; choose cpu, or install another one")
    try:
        contents = [part.read_bytes() for part in parts]
        if suffix == ONNX:
            opened: Callable[[int], InferenceSession | IRSession] = partial(_session, contents[0], used)
            text = _checked_text(contents[0])
        else:
            opened, text = partial(IRSession, contents[0], contents[1]), checked_text(contents[0], METADATA, MOST_PARTS)
        if len(text) > LONGEST_METADATA:
            raise SanetError(f"its {METADATA} has {len(text)} characters; {LONGEST_METADATA} at most are read")
        return ExportedModel(file, cache(opened), json.loads(text), used)
    except Exception as error:  # neither the runtimes' errors nor protobuf's have a class in common
        raise SanetError(f"{file} cannot be read: {first_line(error):.300}") from error


def _session(content: bytes, device: torch.device, threads: int) -> InferenceSession:
    """An ONNX file in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised
    options.add_session_config_entry("session.load_model_format", "ONNX")  # whatever its first bytes say
    cuda = [("CUDAExecutionProvider", {"device_id": device.index or 0})] if device.type == "cuda" else []
    providers = [*cuda, "CPUExecutionProvider"]
    return onnxruntime.InferenceSession(content, options, providers=providers, enable_fallback=0)


def _checked_text(content: bytes) -> str:
    """The metadata of an ONNX file, if that is one graph of ONNX's own operators, with all its tensors."""
    import onnx

    model = onnx.load_model_from_string(content)
    graphs = 0
    for number, part in enumerate(_parts(model)):
        kind = part.DESCRIPTOR.name
        graphs += kind == "GraphProto"
        if kind == "TensorProto" and (part.external_data or part.data_location):
            raise SanetError(f"its tensor {part.name!r:.80} lies in another file, which is not opened")
        if kind == "NodeProto" and part.domain not in ("", "ai.onnx"):
            raise SanetError(f"its operator {part.op_type!r:.80} of {part.domain!r:.80} is none of ONNX's own")
        if kind in ("FunctionProto", "TrainingInfoProto") or graphs > 1 or number > MOST_PARTS:
            raise SanetError("it is more than a network: it has functions, control flow or very many parts")
    found: str = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA, "null")
    return found


def _parts(message: Any) -> Iterator[Any]:
    """A message of protobuf and all those in it; its parser bounds the depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _parts(part)
