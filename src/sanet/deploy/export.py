"""Networks as files that other programs run: ONNX or OpenVINO's IR, compared with the network before it is kept."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from traceback import extract_tb
from typing import Any

import torch
import torch.fx.experimental._config as symbolic_sizes
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from tqdm import tqdm

from sanet.config import ExportFormat, ExportOutputs, InferenceConfig
from sanet.deploy.graph import finish, give_labels, graph_of, lower_to_17, require_openvino
from sanet.deploy.padding import replace_padding
from sanet.deploy.parity import REMEDY, ParityReport, compare, example_images, require_parity
from sanet.files import require_own, require_writable, written
from sanet.inference.exported import FEATURES, INPUT, METADATA, ONNX, OUTPUT, SIZE, open_exported, parts_of
from sanet.inference.ir import IR
from sanet.inference.views import SMALLEST_SIDE
from sanet.models.networks import SegmentationModel
from sanet.models.store import BUNDLED
from sanet.structures import SanetError, UsageError, first_line, printable

SUFFIXES: dict[ExportFormat, str] = {
    "onnx-int8": f".int8{ONNX}",
    "openvino-int8": f".int8{IR}",
    "openvino": IR,
    "onnx": ONNX,
}
# The free ones of the four axes of a batch.
SIZES = {0: "batch", 2: "height", 3: "width"}
TORCH = str(Path(torch.__file__).parent)
logger = logging.getLogger(__name__)
NEWEST = 20  # opset
LARGEST_FOLDED = 2**24  # numbers in a tensor
# Odd sides that differ and more than one image, so that tracing takes none of them for a constant.
EXAMPLE_BATCH, EXAMPLE_SIDES = 2, (181, 203)


class Logits(nn.Module):
    """A network as exports have it: (B, C, H, W) uint8 in, (B, K, H, W) float32 logits out, and features if wanted.

    Of a network of stored values, these come in as float32, and are mapped to its range first. Images below 32 pixels
    are grown as in ``views``, where no branch on the size may be.
    """

    def __init__(self, network: SegmentationModel, features: bool = False) -> None:
        super().__init__()
        self.network, self.in_chans, self.images, self.features = network, network.in_chans, network.images, features

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images to logits, and features (B, C)."""
        height, width = images.shape[-2:]
        for axis, side in ((-2, height), (-1, width)):
            places = torch.arange(torch.sym_max(side, SMALLEST_SIDE), device=images.device).clamp(max=side - 1)
            images = images.index_select(axis, places)
        output = self.network(self.images.scaled(images) if self.images.of_values else images)
        logits: Tensor = output.logits.narrow(-2, 0, height).narrow(-1, 0, width)
        return (logits, output.features) if self.features else (logits,)


def export(
    model: SegmentationModel,
    path: str | Path,
    *,
    outputs: ExportOutputs = "logits",
    opset: int = NEWEST,
    progress: bool = True,
) -> ParityReport:
    """Write a network as ONNX or IR, which run without this package, for batches and images of any size.

    The file holds the normalisation, and the classes and their colours. It is written aside, read back, and compared
    with the network; only then is it moved to its place, with the comparison in a ``.json`` beside it.

    Args:
        model: the network; it stays as it is.
        path: the file; ends in ``.onnx``, or in ``.xml`` for OpenVINO's IR, whose weights are in ``.bin`` beside it.
        outputs: "logits", (B, K, H, W) float32; "logits+features", by which images unlike the training images are
            told; "labels", (B, H, W) uint8 in a size that is given; or "labels+confidence", with the probability of
            each label besides, as uint8 from 0 to 255.
        opset: version of ONNX's operators, 17 to 20; for runtimes that have no newer ones.
        progress: say on stderr what is being done.

    Raises:
        UsageError: a path with another suffix, or one where a file is that sanet did not write.
        SanetError: the network cannot be exported, or the file does not do what the network does. Then no file is
            left, and one that was there before stays.
    """
    format: ExportFormat = "openvino" if Path(path).suffix.lower() == IR else "onnx"
    network, metadata = prepare(model, outputs), describe(model, format, outputs)
    with replacing(path, format) as partial:
        start = perf_counter()
        write(network, graph_of(partial), metadata, progress, opset)
        finish(partial)
        seconds = perf_counter() - start
        say("compare it with the network", progress)
        exported = open_exported(partial, "cpu")
        cases = compare(network, exported)
        require_parity(cases, Path(path))
        if outputs.startswith("labels"):
            give_labels(partial, "confidence" in outputs, exported)
        size = size_of(partial)
    report = ParityReport(Path(path), metadata, size, seconds, torch.get_num_threads(), cases)
    report.write()
    return report


def prepare(model: SegmentationModel, outputs: ExportOutputs = "logits") -> Logits:
    """A copy of the network on the CPU, in float32 and evaluation mode, channels last as prediction has it.

    Raises:
        SanetError: its images have more than 8 bits, which exports do not take; or labels have more than a byte.
    """
    if outputs.startswith("labels") and len(model.labels) > 256:
        raise SanetError(f"labels are written as bytes; of {len(model.labels)} classes take --outputs logits")
    if model.value_range > 255:
        raise SanetError(f"exports take images of 8 bits; this network takes integers up to {model.value_range}")
    copy = deepcopy(model).to("cpu", torch.float32, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Logits(copy, "features" in outputs).eval()


def describe(model: SegmentationModel, format: ExportFormat, outputs: ExportOutputs = "logits") -> dict[str, Any]:
    """What every exported file says about its network, and how images are fed to it."""
    values = f"as stored, of which {model.images.text()} are mapped to 0 to 1 by channel"
    known = model.statistics if "features" in outputs else None
    return {
        "sanet": version("sanet-segmentation"),
        "format": format,
        **model.description(),
        **({FEATURES: known.plain()} if known else {}),
        "window": InferenceConfig().window,
        "input": {
            "name": INPUT,
            "type": "float32" if model.images.of_values else "uint8",
            "shape": ["batch", model.in_chans, "height", "width"],
            "meaning": f"images, RGB if of 3 channels, from 0 to {model.value_range}, not normalised"
            if not model.images.of_values
            else f"images, values {values}",
        },
        "output": {
            "name": OUTPUT,
            "type": "float32",
            "shape": ["batch", len(model.labels), "height", "width"],
            "meaning": "logits; the class of a pixel is the index of the largest",
        }
        if outputs.startswith("logits")
        else {
            "name": outputs,
            "type": "uint8",
            "shape": ["batch", "rows", "columns"],
            "meaning": f"index of the class, probability times 255; a further input, {SIZE}, int64, is (rows, columns)",
        },
    }


def files_of(path: Path) -> list[Path]:
    """An export and its report."""
    return [*parts_of(path), path.with_name(f"{path.name}.json")]


def size_of(path: Path) -> int:
    """Bytes of an export."""
    return sum(part.stat().st_size for part in parts_of(path))


def format_of(path: Path) -> ExportFormat:
    """What the suffix of a file asks for; ONNX where it is of no format, which is refused later."""
    return next((format for format, suffix in SUFFIXES.items() if path.name.lower().endswith(suffix)), "onnx")


def require_suffix(path: Path, format: ExportFormat) -> None:
    """Raise a UsageError unless a file is named as those of a format are."""
    if not path.name.lower().endswith(SUFFIXES[format]):
        raise UsageError(f"{path}: a file of format {format} must end in {SUFFIXES[format]}")


@contextmanager
def replacing(path: str | Path, format: ExportFormat) -> Iterator[Path]:
    """A file to write elsewhere; at the end it is moved to its place, over nothing but an earlier one of ours."""
    target = Path(path)
    require_suffix(target, format)
    if format.startswith("openvino"):
        require_openvino()
    require_own(*files_of(target))
    require_writable(target.parent)
    with TemporaryDirectory() as folder:
        partial = Path(folder) / target.name
        yield partial
        for place in reversed(parts_of(target)):
            with written(place) as aside:
                shutil.copyfile(partial.with_name(place.name), aside)


def write(network: Logits, path: Path, metadata: dict[str, Any], progress: bool, opset: int = NEWEST) -> None:
    """Export without comparing.

    Raises:
        SanetError: the network cannot be exported, or a package for that is missing. What the exporter says of it is
            logged at level DEBUG, hundreds of lines of its graph with it.
    """
    say("write ONNX; this can take a minute", progress)
    printed = StringIO()
    try:
        with quiet(printed), torch.no_grad():
            write_onnx(network, path, json.dumps(metadata, ensure_ascii=False), opset)
    except SanetError:
        raise
    except ImportError as error:
        raise SanetError(f"{error}; pip install 'sanet-segmentation[export]'") from error
    except Exception as error:  # the exporter's errors have no class in common
        logger.debug("%s", printed.getvalue(), exc_info=True)
        raise SanetError(f"the network cannot be exported as ONNX: {_reason(error)}. {REMEDY}") from None


def _reason(error: Exception) -> str:
    """The first error of a chain, in one line, and the line of the network's own code that led to it."""
    frames = list(extract_tb(error.__traceback__))
    while isinstance(cause := error.__cause__ or error.__context__, Exception):
        error = cause
        frames += extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.name == "forward" and not frame.filename.startswith(TORCH)]
    place = f" ({own[-1].filename}, line {own[-1].lineno}: {own[-1].line})" if own else ""
    return f"{first_line(error).rstrip('.'):.300}{place}"


def trace(network: Logits) -> ExportedProgram:
    """The network as a graph in which batch, height and width are free."""
    # Channels last would tie the sizes to each other: which layout a map has depends on them.
    network = deepcopy(network).to(memory_format=torch.contiguous_format)
    replace_padding(network)
    sizes = {axis: Dim(name, min=1) for axis, name in SIZES.items()}
    example = example_images(EXAMPLE_BATCH, *EXAMPLE_SIDES, seed=0, channels=network.in_chans, reading=network.images)
    # By default a size that is not 1 in the example is taken never to be 1, but small images pool to one cell.
    with symbolic_sizes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(
            network, (example,), dynamic_shapes={INPUT: sizes}, prefer_deferred_runtime_asserts_over_guards=True
        )


def write_onnx(network: Logits, path: Path, metadata: str, opset: int) -> None:
    """ONNX, through the graph of torch.export."""
    import onnx
    from onnxscript import optimizer

    program = torch.onnx.export(
        trace(network),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT, FEATURES][: 1 + network.features],
        dynamic_shapes={INPUT: SIZES},
        opset_version=max(opset, 18),
        verbose=False,
    )
    assert program is not None
    # What is computed from weights alone becomes one: onnxruntime quantises no other weights.
    optimizer.optimize(program.model, input_size_limit=LARGEST_FOLDED, output_size_limit=LARGEST_FOLDED)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # they name the folders of whoever exports
    program.model.metadata_props[METADATA] = metadata
    model = program.model_proto
    if opset == 17:
        lower_to_17(model)
    onnx.save(model, path)


def say(text: str, progress: bool) -> None:
    """One line on stderr."""
    if progress:
        tqdm.write(f"export: {printable(text)}", sys.stderr)


def default_path(model: str, format: ExportFormat) -> Path:
    """Beside the model directory, under its name; in the current folder for the bundled model, or one of the hub."""
    directory = Path(os.path.normpath(model))
    if directory in BUNDLED.values() or not directory.is_dir():
        return Path(directory.name + SUFFIXES[format])
    directory = directory.resolve()
    return directory.with_name(directory.name + SUFFIXES[format])


@contextmanager
def quiet(printed: StringIO) -> Iterator[None]:
    """Without the exporter's own warnings; the graphs that it prints, which are for its developers, go elsewhere."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
