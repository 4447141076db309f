"""Changes to the graph of an exported file: operators as opset 17 has them, and labels in place of logits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from sanet.config import ExportOutputs
from sanet.deploy.parity import CASES, SMALLEST_EQUAL_SHARE, differences, example_images
from sanet.inference.exported import CONFIDENCE, INPUT, LABELS, OUTPUT, SIZE, ExportedModel, open_exported
from sanet.structures import SanetError, UsageError, first_line

if TYPE_CHECKING:
    from onnx import ModelProto

# The exporter itself writes 18 or later.
OLDEST_WRITTEN = 18
# Logits in the size of the image, as `views.resized_bands` has them; then the most likely class, in a byte.
LABELLED = """<ir_version: {version}, opset_import: ["" : {opset}]>
labelled (float[batch, {classes}, height, width] {logits}, int64[2] {size}) => ({outputs}) {{
    labels_first = Shape <start = 0, end = 2> ({logits})
    labels_sizes = Concat <axis = 0> (labels_first, {size})
    labels_logits = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> ({logits}, , , labels_sizes)
    labels_best = ArgMax <axis = 1> (labels_logits)
    labels_axis = Constant <value_ints = [1]> ()
    labels_flat = Squeeze (labels_best, labels_axis)
    {labels} = Cast <to = 2> (labels_flat)
    {steps}
}}"""
# Its probability, from 0 to 255.
CONFIDENT = """labels_temperature = Constant <value_float = {temperature!r}> ()
    labels_scaled = Div (labels_logits, labels_temperature)
    labels_shares = Softmax <axis = 1> (labels_scaled)
    labels_share = GatherElements <axis = 1> (labels_shares, labels_best)
    labels_squeezed = Squeeze (labels_share, labels_axis)
    labels_whole = Constant <value_float = 255.0> ()
    labels_steps = Mul (labels_squeezed, labels_whole)
    labels_rounded = Round (labels_steps)
    {confidence} = Cast <to = 2> (labels_rounded)"""


def lower_to_17(model: ModelProto) -> None:
    """Write the operators of a graph of opset 18 as opset 17 has them: attributes for inputs, and no newer options.

    Raises:
        SanetError: one does what opset 17 does not have.
    """
    import onnx

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        before, now = (onnx.defs.get_schema(node.op_type, opset, "") for opset in (17, OLDEST_WRITTEN))
        for attribute in [found for found in node.attribute if found.name not in before.attributes]:
            if attribute == now.attributes[attribute.name].default_value:
                node.attribute.remove(attribute)
        if node.op_type == "Split":  # into equal parts, which is what it does without the number of them as well
            del node.attribute[[found.name for found in node.attribute].index("num_outputs")]
        if node.op_type.startswith("Reduce") and before.max_input < len(node.input):
            axes = onnx.numpy_helper.to_array(constants[node.input.pop()])
            node.attribute.append(onnx.helper.make_attribute("axes", axes.tolist()))
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", 17))
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise SanetError(f"opset 17 lacks what the network needs: {first_line(error)}; --opset 18 has it") from error


def give_labels(path: Path, outputs: ExportOutputs, logits_of: ExportedModel) -> None:
    """Let a file return labels, and confidences if asked for, in place of logits; then compare it with ``logits_of``.

    The file gets a second input, the height and width of the labels.

    Raises:
        SanetError: the labels are not those of the logits.
    """
    import onnx

    model, confident = onnx.load(path), outputs == "labels+confidence"
    names = {"logits": OUTPUT, "labels": LABELS, "confidence": CONFIDENCE, "size": SIZE}
    text = LABELLED.format(
        **names,
        version=model.ir_version,
        opset=next(found.version for found in model.opset_import if not found.domain),
        classes=len(logits_of.labels),
        outputs=", ".join(f"uint8[batch, rows, columns] {name}" for name in (LABELS, CONFIDENCE)[: 1 + confident]),
        steps=CONFIDENT.format(**names, temperature=float(logits_of.temperature)) if confident else "",
    )
    merged = onnx.compose.merge_models(model, onnx.parser.parse_model(text), io_map=[(OUTPUT, OUTPUT)])
    onnx.save(merged, path)
    labelled = open_exported(path, "cpu")
    for number, (batch, height, width) in enumerate(CASES):
        images = example_images(batch, height, width, number, logits_of.in_chans, logits_of.reading)
        size = (height * 3 // 2 + 1, width)
        labels = labelled.labels_of(images, size)
        expected = F.interpolate(logits_of(images), size, mode="bilinear", align_corners=False)
        share = differences(expected, _one_hot(labels, len(logits_of.labels)))[1]
        if share < SMALLEST_EQUAL_SHARE:
            raise SanetError(f"{path.name} is not written: only {share:.2%} of its labels are those of its logits")


def require_bytes(outputs: ExportOutputs, classes: int) -> None:
    """Raise a UsageError where labels of so many classes do not fit into bytes."""
    if outputs != "logits" and classes > 256:
        raise UsageError(f"outputs {outputs}: a byte holds 256 classes, the model has {classes}; export its logits")


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    return F.one_hot(labels.long(), classes).movedim(-1, 1).float()
