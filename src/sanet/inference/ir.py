"""OpenVINO's IR, a graph in XML with its weights beside it, behind the few calls that are made of onnxruntime."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple
from xml.etree import ElementTree

from numpy.typing import NDArray

from sanet.inference.beside import MOST
from sanet.structures import SanetError

IR, WEIGHTS = ".xml", ".bin"
TYPES = {"u8": "tensor(uint8)", "f32": "tensor(float)", "i64": "tensor(int64)"}  # as onnxruntime calls them


def runtime() -> ModuleType:
    """OpenVINO without its telemetry, which tells its maker of every import, and leaves a number in the home folder."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


@cache
def core() -> Any:
    """The only one of this process: two that do not end in turn leave signals a stack that is gone, and kill it."""
    return runtime().Core()


class Place(NamedTuple):
    """An input or an output; sizes that are free are None."""

    name: str
    type: str
    shape: list[int | None]


class IRSession:
    """A graph on a CPU with so many threads, in float32 also where the processor has shorter floats."""

    def __init__(self, graph: bytes, weights: bytes, threads: int) -> None:
        streams = MOST if threads == 1 else 1  # those of one thread are called side by side
        how = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads * streams}
        self._compiled = core().compile_model(core().read_model(graph, weights), "CPU", how)

    def get_inputs(self) -> list[Place]:
        """The inputs, in order."""
        return [*map(_place, self._compiled.inputs)]

    def get_outputs(self) -> list[Place]:
        """The outputs, in order."""
        return [*map(_place, self._compiled.outputs)]

    def run(self, names: Sequence[str], values: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs by name, of inputs by name; several threads may call it."""
        found = self._compiled.create_infer_request().infer(values)
        return [found[name] for name in names]


def _place(node: Any) -> Place:
    shape = [size.get_length() if size.is_static else None for size in node.get_partial_shape()]
    kind = node.get_element_type().get_type_name()
    return Place(node.get_any_name(), TYPES.get(kind, kind), shape)


def checked_text(content: bytes, metadata: str, most: int) -> str:
    """The metadata of that name, of a graph that is one network of OpenVINO's own operators, in so many parts."""
    if b"<!" in content:
        raise SanetError("it declares more than a graph")
    root, graphs = ElementTree.fromstring(content), 0
    for number, part in enumerate(root.iter()):
        graphs += part.tag == "layers"
        if part.tag == "layer" and not part.get("version", "").startswith("opset"):
            raise SanetError(f"its operator {part.get('type')!r:.80} is none of OpenVINO's own")
        if graphs > 1 or number > most:
            raise SanetError("it is more than a network: it has control flow or very many parts")
    found = root.find(f"rt_info/framework/{metadata}")
    return "null" if found is None else found.get("value", "null")
