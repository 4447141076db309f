"""The contract that every network here keeps, for a head of one's own."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import extract_tb
from typing import Any

import torch
from torch import Tensor, nn

from sanet.models.networks import SegmentationModel, create_model, load_model
from sanet.references import use
from sanet.structures import LabelSet, first_line

SIZES = ((1, 32, 32), (2, 64, 80), (1, 97, 51))
# What usually fixes an error, by words of its message.
HINTS = {
    "more than 1 value per channel": "one value, as behind a global pooling, has no variance: take nn.GroupNorm there",
    "must match": "maps are rounded up, so their sizes need no common factor: resize to the very size of another map",
    "JSON serializable": "options have to be texts, numbers, lists and mappings",
    "data-dependent": "what is computed may depend on the shapes of tensors, not on their values",
}
ADAPTIVE = "adaptive pooling to several cells cannot be exported: take nn.AvgPool2d with ceil_mode=True"


def check_network(
    head: str | Callable[..., nn.Module],
    backbone: str = "test_resnet",
    output_stride: int = 16,
    num_classes: int = 3,
    **options: Any,
) -> None:
    """Build a network with a head and try what training, prediction and export ask of it; in seconds, on the CPU.

    Args:
        head: its class, built as ``head(levels, num_classes, **options)``, or its name, as "my_lab.heads:PSP", whose
            module is opened.
        backbone: a timm model name; the default is tiny and untrained.
        output_stride: stride of the last stage.
        num_classes: K.
        **options: of the head.

    Raises:
        UsageError: the network cannot be built, or its output has another form; see ``create_model``.
        AssertionError: what else does not hold, and what usually fixes it.
    """
    module = head.rpartition(":")[0] if isinstance(head, str) else head.__module__
    if module not in ("", "__main__"):
        use(module)
    torch.manual_seed(0)
    labels = LabelSet(tuple(f"class {index}" for index in range(num_classes)))
    model = create_model(head, backbone, labels=labels, output_stride=output_stride, **options)
    _check_training(model)
    _check_prediction(model.eval())
    with TemporaryDirectory() as folder:
        if module != "__main__":
            _check_saving(model, Path(folder, "model"))
        if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
            from sanet.deploy.export import export

            pools = [part for part in model.head.modules() if isinstance(part, nn.AdaptiveAvgPool2d)]
            adaptive = any(pool.output_size not in (1, (1, 1)) for pool in pools)
            with _trying(model, "exporting to ONNX", ADAPTIVE if adaptive else ""):
                export(copy.deepcopy(model), Path(folder, "model.onnx"), progress=False)


def _check_training(model: SegmentationModel) -> None:
    for count, side in ((1, 32), (2, 64)):
        with _trying(model, f"training on a batch of {count}, {side}x{side} pixels"):
            output = model.train()(torch.rand(count, 3, side, side))
        parts = [part for part in (output.mask, output.dense, output.category, output.border) if part is not None]
        for part in parts:
            part.float().square().mean().backward(retain_graph=True)
        learning = {name: weight.grad for name, weight in model.head.named_parameters() if weight.requires_grad}
        silent = ", ".join(name for name, gradient in learning.items() if gradient is None)
        assert not silent, f"no gradient reaches {silent}: the loss does not see them"
        model.zero_grad(set_to_none=True)


def _check_prediction(model: SegmentationModel) -> None:
    for count, height, width in SIZES:
        images = torch.rand(count, 3, height, width)
        with _trying(model, f"prediction of {count} images of {height}x{width}"):
            output = _predict(model, images)
            alone = torch.cat([_predict(model, image[None]) for image in images])
        assert output.isfinite().all(), f"logits at {height}x{width} are not finite"
        again = _predict(model, images)
        assert torch.equal(output, again), "two predictions of one image differ: nothing may be drawn in evaluation"
        assert torch.allclose(output, alone, rtol=1e-3, atol=1e-4), "images of a batch change each other's logits"


def _check_saving(model: SegmentationModel, folder: Path) -> None:
    images = torch.rand(2, 3, 64, 80)
    with _trying(model, "saving and loading"):
        model.save_pretrained(folder)
        loaded = load_model(folder)
    assert torch.equal(_predict(loaded, images), _predict(model, images)), "a saved model comes back with other logits"


def _predict(model: SegmentationModel, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(images).logits
    return logits


@contextmanager
def _trying(model: SegmentationModel, what: str, hint: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a head of somebody else raises
        file = type(model.head).forward.__code__.co_filename
        lines = [frame for frame in extract_tb(_cause(error).__traceback__) if frame.filename == file]
        where = f" in line {lines[-1].lineno} of {file}: {lines[-1].line}" if lines else ""
        hints = [text for words, text in HINTS.items() if words in str(error)] or [hint]
        message = f"{what} fails{where}. {type(error).__name__}: {first_line(error)}. {' '.join(hints)}"
        # A traceback of the exporter has hundreds of lines.
        raise AssertionError(message.strip()) from None


def _cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _cause(error.__cause__)
