"""The contract that every network here keeps, for a head of one's own."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from sanet.models.networks import SegmentationModel, create_model, load_model
from sanet.references import use
from sanet.structures import LabelSet, SanetError

SIZES = ((1, 32, 32), (2, 64, 80), (1, 97, 51))


def check_network(
    head: Callable[..., nn.Module],
    backbone: str = "test_resnet",
    output_stride: int = 16,
    num_classes: int = 3,
    **options: Any,
) -> None:
    """Build a network with a head and try what training, prediction and export ask of it; in seconds, on the CPU.

    Args:
        head: its class, built as ``head(levels, num_classes, **options)``.
        backbone: a timm model name; the default is tiny and untrained.
        output_stride: stride of the last stage.
        num_classes: K.
        **options: of the head.

    Raises:
        AssertionError: what does not hold, why that matters, and what usually fixes it.
    """
    torch.manual_seed(0)
    labels = LabelSet(tuple(f"class {index}" for index in range(num_classes)))
    model = create_model(head, backbone, labels=labels, output_stride=output_stride, **options)
    _check_training(model)
    _check_prediction(model.eval())
    _check_files(model, head)


def _check_training(model: SegmentationModel) -> None:
    for count, side in ((1, 32), (2, 64)):
        with _says(f"training on {count} image of {side} pixels: a norm has one value per channel, as behind a global "
                   "pooling; leave it out there, or take nn.GroupNorm"):  # fmt: skip
            output = model.train()(torch.rand(count, 3, side, side))
        silent = {name for name, parameter in model.head.named_parameters() if parameter.requires_grad}
        for part in (output.mask, output.dense, output.category):
            if part is not None:
                part.float().square().mean().backward(retain_graph=True)
        silent -= {name for name, parameter in model.head.named_parameters() if parameter.grad is not None}
        assert not silent, f"no gradient reaches {', '.join(sorted(silent))}: the loss does not see them"
        model.zero_grad(set_to_none=True)


def _check_prediction(model: SegmentationModel) -> None:
    classes = len(model.labels)
    for count, height, width in SIZES:
        images = torch.rand(count, 3, height, width)
        with _says(f"prediction at {height}x{width}: maps are rounded up, so that their sizes need no common factor; "
                   "resize to the very size of another map"):  # fmt: skip
            output = _predict(model, images)
        assert output.shape == (count, classes, height, width), f"logits are {tuple(output.shape)}"
        assert output.isfinite().all(), f"logits at {height}x{width} are not finite"
        again = _predict(model, images)
        assert torch.equal(output, again), "two predictions of one image differ: nothing may be drawn in evaluation"
        alone = torch.cat([_predict(model, image[None]) for image in images])
        assert torch.allclose(output, alone, rtol=1e-3, atol=1e-4), "images of a batch change each other's logits"


def _check_files(model: SegmentationModel, head: Callable[..., nn.Module]) -> None:
    images = torch.rand(*SIZES[1][:1], 3, *SIZES[1][1:])
    expected = _predict(model, images)
    with TemporaryDirectory() as folder:
        if head.__module__ != "__main__":
            use(head.__module__)
            with _says("saving and loading: options have to be texts, numbers, lists and mappings"):
                model.save_pretrained(folder)
                loaded = load_model(folder)
            assert torch.equal(_predict(loaded, images), expected), "a saved model comes back with other logits"
        if importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"):
            from sanet.deploy.export import export

            with _says("exporting to ONNX: adaptive pooling to several cells is refused there, use nn.AvgPool2d with "
                       "ceil_mode=True; and sizes have to come from tensors' shapes"):  # fmt: skip
                export(copy.deepcopy(model), Path(folder) / "model.onnx", progress=False)


def _predict(model: SegmentationModel, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(images).logits
    return logits


@contextmanager
def _says(hint: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, IndexError, RuntimeError, SanetError, TypeError, ValueError) as error:
        raise AssertionError(f"{hint}. It failed with: {error}") from error
