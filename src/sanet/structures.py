"""The types that every part of the package speaks.

Legend of shape letters, used in every docstring:

====  ==============================================================
B     images in a batch
C     channels of a feature map
H, W  height and width of the input image, in pixels
h, w  height and width of a feature map
K     classes of the label set
====  ==============================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Color = tuple[int, int, int]


class SanetError(Exception):
    """Something the user can mend; the message names what is wrong and the remedy."""


class UsageError(SanetError, ValueError):
    """An argument or a setting that cannot be."""


class Interrupted(SanetError):
    """Work that was stopped from outside and can go on.

    Attributes:
        status: what the command line ends with: 75 (EX_TEMPFAIL, "try again") after SIGTERM, 130 after Ctrl-C.
    """

    ON_REQUEST, BY_KEYBOARD = 75, 130

    def __init__(self, message: str, status: int = ON_REQUEST) -> None:
        super().__init__(message)
        self.status = status


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class Sample(NamedTuple):
    """One labelled picture, or a batch of them (then every tensor has a leading B).

    Attributes:
        image: (3, H, W) uint8, RGB.
        mask: (H, W) int64, class indices or the label set's ``ignore_index``.
        name: what the picture is called in messages and reports; B of them in a batch.
    """

    image: Tensor
    mask: Tensor
    name: str | tuple[str, ...]


class SegmentationOutput(NamedTuple):
    """What every network returns, in training as in evaluation.

    Attributes:
        logits: (B, K, H, W), what prediction uses, at the size of the input.
        mask: (B, K, h, w), the main prediction before the last resize (equation 7).
        dense: (B, K, h, w), the deeply supervised stage-4 prediction (equation 9), or None.
        category: (B, K), logits for "the class is in the picture" (equation 8), or None.
    """

    logits: Tensor
    mask: Tensor
    dense: Tensor | None
    category: Tensor | None


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set; travels with it and with every saved model.

    Args:
        names: K class names, in the order of their indices in the masks.
        colors: K RGB colours, 0 to 255; ``default_colors`` where left empty.
        ignore_index: mask value that counts nowhere: not in the loss, not in a score.
        background: index of the class that means "none of the others", or None.
        background_ignored: what is none of the classes has the ignore value, so that a network cannot be wrong there;
            a score with the background is given beside the other.

    Raises:
        UsageError: no names, a name twice, colours that do not fit, an ``ignore_index`` that is a class, or a
            background that is both a class and ignored.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...] = ()
    ignore_index: int = 255
    background: int | None = None
    background_ignored: bool = False

    def __post_init__(self) -> None:
        # YAML and JSON have lists only: make them hashable here, once.
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        colors = tuple((int(r), int(g), int(b)) for r, g, b in self.colors)
        object.__setattr__(self, "colors", colors or default_colors(len(self.names)))
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if not self.names:
            raise UsageError("a label set needs at least one class name")
        if repeated:
            raise UsageError(f"class names must differ; repeated: {', '.join(repeated)}")
        if len(self.colors) != len(self.names):
            raise UsageError(f"{len(self.names)} class names but {len(self.colors)} colours")
        if not all(0 <= value <= 255 for color in self.colors for value in color):
            raise UsageError("colours are RGB triples of 0 to 255")
        if 0 <= self.ignore_index < len(self.names):
            raise UsageError(
                f"ignore_index {self.ignore_index} is also class {self.names[self.ignore_index]!r}; "
                f"choose one outside 0..{len(self.names) - 1}; where 0 means unlabelled and classes start at 1, write "
                "masks with 255 for 0, and 1 less for every other value"
            )
        if self.background is not None and not 0 <= self.background < len(self.names):
            raise UsageError(f"background {self.background} is not one of the {len(self.names)} classes")
        if self.background is not None and self.background_ignored:
            raise UsageError(f"background {self.background} is a class, so it cannot be ignored as well")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def palette(self) -> list[int]:
        """768 values for a palette PNG; entries beyond the classes are white, so that void shows."""
        flat = [value for color in self.colors for value in color]
        return (flat + [255] * 768)[:768]


def default_colors(count: int) -> tuple[Color, ...]:
    """The PASCAL VOC colour map: bit ``3i + c`` of the index is bit ``7 - i`` of channel c."""
    colors = []
    for index in range(count):
        channels = [sum(((index >> (3 * i + c)) & 1) << (7 - i) for i in range(8)) for c in range(3)]
        colors.append((channels[0], channels[1], channels[2]))
    return tuple(colors)


def choose(kind: str, name: str, choices: Sequence[str]) -> str:
    """``name`` if it is one of ``choices``, else a UsageError that lists them and offers the nearest."""
    if name in choices:
        return name
    near = get_close_matches(str(name), choices, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UsageError(f"unknown {kind} {name!r}; {hint}Choices: {', '.join(sorted(choices))}")
