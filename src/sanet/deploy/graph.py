"""Changes to the graph of an exported file: older operators, labels for logits, OpenVINO's IR for ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch.nn.functional as F

from sanet.deploy.parity import CASES, SMALLEST_EQUAL_SHARE, differences, example_images
from sanet.inference.exported import CONFIDENCE, LABELS, ONNX, OUTPUT, SIZE, ExportedModel, open_exported
from sanet.inference.ir import IR, core, runtime
from sanet.structures import SanetError, first_line

if TYPE_CHECKING:
    from onnx import ModelProto

# Logits in the size of the image, as `views.resized_bands` has them; the most likely class, and its probability.
LABELLED = f"""labelled (float[batch, classes, height, width] {OUTPUT}, int64[2] {SIZE}) =>
    (uint8[batch, rows, columns] {LABELS}, uint8[batch, rows, columns] {CONFIDENCE}) {{
    of_batch = Shape <start = 0, end = 2> ({OUTPUT})
    sizes = Concat <axis = 0> (of_batch, {SIZE})
    grown = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> ({OUTPUT}, , , sizes)
    best = ArgMax <axis = 1> (grown)
    classes = Constant <value_ints = [1]> ()
    flat = Squeeze (best, classes)
    {LABELS} = Cast <to = 2> (flat)
    temperature = Constant <value_float = %r> ()
    scaled = Div (grown, temperature)
    shares = Softmax <axis = 1> (scaled)
    share_of_best = GatherElements <axis = 1> (shares, best)
    share = Squeeze (share_of_best, classes)
    whole = Constant <value_float = 255.0> ()
    steps = Mul (share, whole)
    rounded = Round (steps)
    {CONFIDENCE} = Cast <to = 2> (rounded)
}}"""
FOR_LABELS = 7  # of these nodes


def graph_of(path: Path) -> Path:
    """Where the ONNX graph of an export is written: its own place, or beside it where ``finish`` makes IR of it."""
    return path.with_suffix(ONNX) if path.suffix.lower() == IR else path


def finish(path: Path) -> None:
    """Write IR of the graph beside it, with the metadata of that; of ONNX nothing is left to do.

    Raises:
        SanetError: OpenVINO cannot do it.
    """
    if path == graph_of(path):
        return
    try:
        made = path.with_suffix(IR)  # in small letters, as OpenVINO demands
        runtime().save_model(core().read_model(graph_of(path)), made, compress_to_fp16=False)
        made.rename(path)
    except Exception as error:  # OpenVINO's errors have no class in common
        raise SanetError(f"OpenVINO cannot read the network ({first_line(error)}); export to onnx") from error


def require_openvino() -> None:
    """Raise a SanetError where it is missing; before a network is traced, which can take a minute."""
    try:
        runtime()
    except ImportError as error:
        raise SanetError(f"{error}; pip install 'sanet-segmentation[openvino]'") from error


def lower_to_17(model: ModelProto) -> None:
    """Write the operators of a graph of opset 18 as opset 17 has them: attributes for inputs, and no newer options.

    Raises:
        SanetError: one does what opset 17 does not have.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    model.opset_import[0].version = 17
    try:
        for node in model.graph.node:
            before, now = (onnx.defs.get_schema(node.op_type, opset, "") for opset in (17, 18))
            for attribute in [found for found in node.attribute if found.name not in before.attributes]:
                if attribute == now.attributes[attribute.name].default_value:
                    node.attribute.remove(attribute)
            if node.op_type.startswith("Reduce") and len(node.input) > before.max_input:
                axes = onnx.numpy_helper.to_array(constants[node.input.pop()])
                node.attribute.append(onnx.helper.make_attribute("axes", axes.tolist()))
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.defs.SchemaError, KeyError) as error:
        raise SanetError(f"opset 17 lacks what the network needs ({first_line(error)}); --opset 18 has it") from error


def give_labels(path: Path, confidence: bool, logits_of: ExportedModel) -> None:
    """Let a file return labels, and confidences if asked for, in place of logits; then compare it with ``logits_of``.

    The file gets a second input, the height and width of the labels.

    Raises:
        SanetError: the labels are not those of the logits.
    """
    import onnx

    graph = graph_of(path)
    file, added = onnx.load(graph), onnx.parser.parse_graph(LABELLED % float(logits_of.temperature))
    file.graph.node.extend(added.node if confidence else added.node[:FOR_LABELS])
    file.graph.input.append(added.input[1])
    del file.graph.output[:]
    file.graph.output.extend(added.output if confidence else added.output[:1])
    onnx.save(file, graph)
    finish(path)
    labelled = open_exported(path, "cpu")
    for number, (batch, height, width) in enumerate(CASES):
        images = example_images(batch, height, width, number, logits_of.in_chans, logits_of.images)
        size = (height * 3 // 2 + 1, width)
        expected = F.interpolate(logits_of(images), size, mode="bilinear", align_corners=False)
        found = F.one_hot(labelled.labels_of(images, size).long(), len(logits_of.labels)).movedim(-1, 1)
        share = differences(expected, found)[1]
        if share < SMALLEST_EQUAL_SHARE:
            raise SanetError(f"{path.name} is not written: only {share:.2%} of its labels are those of its logits")
