"""What computes a network: PyTorch; or ONNX Runtime, faster on CPUs, or OpenVINO, by a graph made once and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from sanet.config import EngineName
from sanet.data.decoding import DataError
from sanet.data.kept import cache_folder
from sanet.deploy.export import export
from sanet.deploy.parity import SMALLEST_EQUAL_SHARE
from sanet.files import replaced, sum_of
from sanet.inference.device import choose_device
from sanet.inference.exported import ONNX, is_exported, parts_of
from sanet.inference.ir import IR
from sanet.inference.predictor import Predictor
from sanet.models.networks import load_model
from sanet.models.store import saved_files
from sanet.record import read_config
from sanet.structures import SanetError, UsageError, first_line, say

MANY = 500  # images that pay for making a graph: 100 at 960x720, 1,400 at 480x360 (benchmarks/engines.py)
KEPT = 16  # graphs of an engine, those that were used last
GRAPHS = {"onnxruntime": ONNX, "openvino": IR}
EXTRAS = {"onnxruntime": "export", "openvino": "export,openvino"}


def computed_by(
    engine: EngineName, model: str, device: str | None = None, count: int = 0, images: Sequence[Path] = ()
) -> str:
    """What ``Predictor`` is to open in the place of a saved model: its graph, or the model itself. It is said which.

    By default that is the graph on a CPU, where one is kept or there are many images; not of a head of one's own,
    whose code the hash of a model does not know.

    Args:
        engine: "auto", "torch", "onnxruntime" or "openvino".
        model: a model directory, one of the hub, or an exported file, which is its own graph.
        device: as of ``Predictor``.
        count: of the images, and of the frames of films.
        images: some of them; a new graph has to label these as the network does, or the network is used.

    Raises:
        UsageError: an engine that cannot run the model, or not on that device.
        SanetError: there is no such model; or the engine was asked for, and the network cannot be exported.
    """
    if is_exported(model):
        if engine not in ("auto", runs_in(model)):
            raise UsageError(f"--engine {engine}: {model} runs in {runs_in(model)} alone; give the model directory")
        return model
    files, asked = saved_files(model), engine in GRAPHS
    runner = engine if asked else "onnxruntime"
    refused = next(_reasons(files.config, device, runner), None)
    if asked and refused:
        raise UsageError(f"--engine {engine}: {refused}")
    name = f"{sum_of(files.config)[:32]}-{version('sanet-segmentation')}"  # the hash of its weights is in there
    graph = cache_folder("graphs") / f"{name}{GRAPHS[runner]}"
    wanted = asked or (engine == "auto" and not refused)
    if wanted and not graph.is_file() and (asked or count >= MANY):
        try:
            _make(model, graph, images)
        except (SanetError, OSError) as error:  # the latter where the cache cannot be written
            if asked:
                raise
            say(f"engine: no graph of {model}: {first_line(error)}", error=True)
    used = wanted and graph.is_file()
    if used:
        with suppress(OSError):
            graph.touch()
    say(f"engine: {runner if used else 'torch'}")
    return str(graph) if used else model


def runs_in(graph: str) -> str:
    """The engine of an exported file."""
    return "openvino" if graph.lower().endswith(IR) else "onnxruntime"


def _reasons(config: Path, device: str | None, engine: str) -> Iterator[str]:
    """Why a model has no graph."""
    if choose_device(device).type != "cpu":
        yield "on CPUs alone: --device cpu"
    if not all(map(find_spec, ("onnx", "onnxscript", engine))):
        yield f"needs an extra: pip install 'sanet-segmentation[{EXTRAS[engine]}]'"
    if ":" in read_config(config)[0]["network"]:
        yield "a network of your own may change, and its graph would not; give a file of sanet export"


def _make(model: str, graph: Path, images: Sequence[Path]) -> None:
    """Write the graph of a model, if it labels as the model does.

    Raises:
        SanetError: it does not, or the network cannot be exported.
    """
    graph.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(graph.with_suffix(".lock")), TemporaryDirectory() as folder:
        if graph.is_file():  # another process made it
            return
        made = Path(folder) / graph.name
        export(load_model(model), made, outputs="logits+features")
        before, after = (Predictor(which, "cpu") for which in (model, made))
        for image in images:
            with suppress(DataError):
                side = before.inference.window  # more of an image would tell no more
                corner = before.pixels(image)[:, :side, :side]
                share = (before(corner).mask == after(corner).mask).mean()
                if share < SMALLEST_EQUAL_SHARE:
                    raise SanetError(f"it labels only {share:.2%} of the pixels of {image} as the network does")
        for part in reversed(parts_of(graph)):
            with replaced(part) as aside:
                aside.write_bytes(made.with_name(part.name).read_bytes())
    for stale in sorted(graph.parent.glob(f"*{graph.suffix}"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        for part in parts_of(stale):
            part.unlink(missing_ok=True)
