"""Whether an exported file does what the network does: differences, labels and speed over sizes and batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import inf, isfinite
from pathlib import Path
from timeit import repeat
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sanet.files import written
from sanet.inference.exported import ExportedModel
from sanet.reading import EIGHT_BITS, ImageReading
from sanet.structures import SanetError, first_line
from sanet.tables import text_table

# Batch, height, width; the smallest size, odd sides, tall and wide images, and the size of a photograph.
CASES = ((1, 32, 32), (3, 33, 47), (2, 64, 161), (5, 97, 65), (1, 255, 129), (1, 360, 480))

# Both sides compute in float32 but add in another order. Over all networks that changed no logit by more than 6e-5 of
# their size; a wrong padding, resize or constant shows from 1e-2 on.
LARGEST_DIFFERENCE = 3e-4
# Below this the two best classes of a pixel are a tie, which rounding decides either way.
TIE = 1e-5
SMALLEST_EQUAL_SHARE = 0.999
REMEDY = (
    "A head can be exported if it branches on no value, takes sizes from its tensors' shapes, and computes what ONNX "
    "has; a model directory labels images without an export"
)
REPEATS = 3


class ParityCase(NamedTuple):
    """The comparison for one size.

    Attributes:
        batch: number of images.
        height: of the images, in pixels.
        width: of the images, in pixels.
        difference: the largest between two logits, over the root mean square of the network's logits.
        equal_labels: share of the pixels with the same label; what ties within ``TIE`` counts as the same.
        eager_seconds: the network's, for the whole batch; the fastest of ``REPEATS``.
        export_seconds: the file's.
    """

    batch: int
    height: int
    width: int
    difference: float
    equal_labels: float
    eager_seconds: float
    export_seconds: float

    @property
    def same(self) -> bool:
        """Whether the two differ by rounding only."""
        return self.difference <= LARGEST_DIFFERENCE and self.equal_labels >= SMALLEST_EQUAL_SHARE


@dataclass(frozen=True)
class ParityReport:
    """The outcome of an export.

    Attributes:
        path: the file.
        metadata: what it says about the network.
        bytes: size of the file.
        seconds: duration of writing it.
        threads: of the CPU, for both speeds.
        cases: the comparisons.
    """

    path: Path
    metadata: dict[str, Any]
    bytes: int
    seconds: float
    threads: int
    cases: tuple[ParityCase, ...]

    def write(self) -> None:
        """Write all of it beside the file, under its name and ``.json``."""
        content = asdict(self) | {"path": self.path.name, "cases": [case._asdict() for case in self.cases]}
        with written(self.path.with_name(f"{self.path.name}.json")) as aside:
            aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def __str__(self) -> str:
        rows = [
            (
                f"{case.batch} x {case.width}x{case.height}",
                f"{case.difference:.1e}",
                f"{case.equal_labels:.3%}",
                f"{1000 * case.eager_seconds:.1f} ms",
                f"{1000 * case.export_seconds:.1f} ms",
                f"{case.eager_seconds / case.export_seconds:.2f} x",
            )
            for case in self.cases
        ]
        table = text_table(("batch x pixels", "difference", "equal labels", "PyTorch", "export", "speed-up"), rows)
        return (
            f"{table}\ndifference: the largest of two logits, over the root mean square of the network's\n"
            f"{self.bytes / 1e6:.1f} MB, written in {self.seconds:.0f} s; speeds on {self.threads} threads"
        )


@torch.inference_mode()
def compare(eager: Callable[[Tensor], Sequence[Tensor]], exported: ExportedModel) -> tuple[ParityCase, ...]:
    """Run both, images to logits and features, over all ``CASES``, on smooth images and on noise in turn.

    Raises:
        SanetError: the export cannot run one of them.
    """
    cases = []
    for number, (batch, height, width) in enumerate(CASES):
        images = example_images(batch, height, width, number, exported.in_chans, exported.images)
        try:
            found, expected = exported.outputs(images), eager(images)
        except SanetError as error:
            raise SanetError(
                f"nothing is written: the export cannot run a batch of {batch} at {width}x{height} pixels "
                f"({first_line(error)}). {REMEDY}"
            ) from error
        seconds = [min(repeat(partial(run, images), number=1, repeat=REPEATS)) for run in (eager, exported.outputs)]
        both = [differences(*pair) for pair in zip(expected, found, strict=True)]
        cases.append(ParityCase(batch, height, width, max(worst for worst, _ in both), both[0][1], *seconds))
    return tuple(cases)


def require_parity(cases: Sequence[ParityCase], path: Path) -> None:
    """Raise a SanetError that names the worst size, unless all cases are the ``same``."""
    wrong = [case for case in cases if not case.same]
    if wrong:
        worst = max(wrong, key=lambda case: case.difference if isfinite(case.difference) else inf)
        raise SanetError(
            f"{path} is not written: for a batch of {worst.batch} at {worst.width}x{worst.height} pixels the export "
            f"differs from the network by {worst.difference:.2g} of the size of its logits (allowed: "
            f"{LARGEST_DIFFERENCE:g}) and agrees on {worst.equal_labels:.2%} of the labels (required: "
            f"{SMALLEST_EQUAL_SHARE:.1%})"
        )


def differences(eager: Tensor, exported: Tensor) -> tuple[float, float]:
    """The largest difference, and the share of equal labels, of two (B, K, H, W); see ``ParityCase``."""
    if eager.shape != exported.shape:
        return inf, 0.0
    size = eager.square().mean().sqrt().clamp(min=torch.finfo(eager.dtype).tiny)
    labels = exported.argmax(dim=1, keepdim=True)
    behind = eager.amax(dim=1, keepdim=True) - eager.gather(1, labels)
    equal = (behind <= TIE * size).double().mean()
    return ((eager - exported).abs().max() / size).item(), equal.item()


def example_images(
    batch: int, height: int, width: int, seed: int, channels: int = 3, reading: ImageReading = EIGHT_BITS
) -> Tensor:
    """(B, C, H, W) uint8: noise, and a few colours that blend into each other, in turn.

    For a network of stored values these, as float32, some of them outside the range.
    """
    random = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (batch, channels, height, width), generator=random, dtype=torch.uint8)
    colors = 255 * torch.rand(batch, channels, 4, 5, generator=random)
    smooth = F.interpolate(colors, (height, width), mode="bilinear").round().to(torch.uint8)
    images = torch.stack([(smooth, noise)[(seed + index) % 2][index] for index in range(batch)])
    return reading.stored(images / 240 - 0.03) if reading.of_values else images
