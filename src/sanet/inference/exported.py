"""Exported networks: files that `sanet export` wrote, read back as a function from pictures to logits.

No format is unpickled, and none runs Python of the file's: ONNX is data, and what the other two hold is checked
before PyTorch sees it (``archive.py``).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from sanet.config import checked_side
from sanet.inference.archive import METADATA, checked_torch_export, checked_torchscript
from sanet.inference.views import SMALLEST_SIDE, LogitsFunction
from sanet.structures import LabelSet, SanetError, UsageError

INPUT, OUTPUT = "images", "logits"


class ExportedModel:
    """A network from a file, whatever runs it.

    Args:
        logits_of: (B, 3, H, W) uint8 -> (B, K, H, W) float32, both on ``device``.
        metadata: what the file says about the network.
        device: where it runs.

    Attributes:
        labels: the classes.
        shorter_side: of pictures, at which the network is to see them; None: their own.
    """

    def __init__(self, logits_of: LogitsFunction, metadata: dict[str, Any], device: torch.device) -> None:
        self.logits_of, self.metadata, self.device = logits_of, metadata, device
        self.labels = LabelSet(**metadata["labels"])
        self.shorter_side = checked_side("shorter_side", metadata.get("shorter_side"))

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 on the model's device -> (B, K, H, W) float32 logits there.

        Raises:
            UsageError: images of another shape or dtype, or too small.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            shape = tuple(images.shape)
            raise UsageError(f"images are {images.dtype} of shape {shape}; an export takes uint8 of (B, 3, H, W)")
        if min(images.shape[-2:]) < SMALLEST_SIDE:
            raise UsageError(f"images are {tuple(images.shape[-2:])} pixels; the networks need 32 or more a side")
        return self.logits_of(images)


def is_exported(model: str | Path) -> bool:
    """Whether this names an exported file; the suffix tells its format."""
    return Path(model).suffix in OPENERS and not Path(model).is_dir()


def choose_device(device: str | None) -> torch.device:
    """The device of that name; by default a GPU where there is one.

    Raises:
        UsageError: there is none.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device!r} cannot be used: {error}") from error
    return chosen


def open_exported(path: str | Path, device: str | None = None) -> ExportedModel:
    """Read an exported file.

    Args:
        path: the file.
        device: such as "cpu" or "cuda"; by default a GPU where there is one and the runtime can use it.

    Raises:
        SanetError: there is no such file, it cannot be read, or it was not written by `sanet export`; or the runtime
            is not installed.
        UsageError: there is no such device.
    """
    file = Path(path)
    if not file.is_file():
        raise SanetError(f"there is no exported file {file}; `sanet export` writes one")
    try:
        logits_of, text, used = OPENERS[file.suffix](file, device)
    except SanetError:
        raise
    except Exception as error:  # every runtime has its own, without a class in common
        raise SanetError(f"{file} cannot be read: {first_line(error)}") from error
    try:
        return ExportedModel(logits_of, json.loads(text), used)
    except (KeyError, TypeError, ValueError) as error:
        raise SanetError(f"{file} does not say which classes it has; it was not written by `sanet export`") from error


def first_line(error: Exception) -> str:
    """What an error says, in short, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _open_onnx(path: Path, device: str | None) -> tuple[LogitsFunction, str, torch.device]:
    try:
        import onnxruntime
    except ImportError as error:
        raise SanetError(f"{path} needs onnxruntime: pip install 'sanet-segmentation[export]'") from error
    on_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    used = choose_device(device or (None if on_gpu else "cpu"))
    if used.type != "cpu" and not on_gpu:
        raise UsageError(f"device {device!r}: this onnxruntime runs on the CPU only; install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised
    cuda = [("CUDAExecutionProvider", {"device_id": used.index or 0})] if used.type == "cuda" else []
    session = onnxruntime.InferenceSession(path, options, providers=[*cuda, "CPUExecutionProvider"])

    def logits_of(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.cpu().numpy()})[0]).to(used)

    return logits_of, session.get_modelmeta().custom_metadata_map.get(METADATA, ""), used


def _open_torch_export(path: Path, device: str | None) -> tuple[LogitsFunction, str, torch.device]:
    used = choose_device(device)
    extra = {METADATA: ""}
    program = torch.export.load(checked_torch_export(path), extra_files=extra)
    if used.type != "cpu":
        program = move_to_device_pass(program, used)
    # Guards would be executed as Python; ``ExportedModel`` checks dtype and sizes itself.
    module = program.module(check_guards=False).to(memory_format=torch.channels_last)
    return module, extra[METADATA], used


def _open_torchscript(path: Path, device: str | None) -> tuple[LogitsFunction, str, torch.device]:
    used = choose_device(device)
    extra: dict[str, Any] = {METADATA: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated
        program = torch.jit.load(  # type: ignore[no-untyped-call]
            checked_torchscript(path), map_location=used, _extra_files=extra
        )
    return program, extra[METADATA], used


OPENERS: dict[str, Callable[[Path, str | None], tuple[LogitsFunction, str, torch.device]]] = {
    ".onnx": _open_onnx,
    ".pt2": _open_torch_export,
    ".ts": _open_torchscript,
}
