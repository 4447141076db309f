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

import operator
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

Color = tuple[int, int, int]

# More classes than that do not fit into a mask of 16 bits.
MOST_CLASSES, LONGEST_NAME = 2**16, 256
# What moves a cursor, starts a line, turns the direction of writing, or cannot be written as UTF-8.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


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


def printable(text: str) -> str:
    """A text, such as a file's name, with everything escaped that a terminal would obey rather than show."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def say(text: object, error: bool = False) -> None:
    """Print lines on the terminal, at once, with nothing in them that it would obey; on stderr if it is an error."""
    lines = "\n".join(printable(line) for line in str(text).split("\n"))
    print(lines, file=sys.stderr if error else sys.stdout, flush=True)


def is_live() -> bool:
    """Whether a progress bar can be redrawn where this process prints: in a terminal or a notebook, not in a file."""
    return (sys.stdout.isatty() and sys.stderr.isatty()) or "ipykernel" in sys.modules


def first_line(error: Exception) -> str:
    """What an error says, in one line, and without what would control the terminal that shows it."""
    return CONTROLS.sub("?", (str(error).strip().splitlines() or [type(error).__name__])[0])


# Where code is that is nobody's own.
LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))


def failure(error: Exception) -> str:
    """What somebody's code failed with, and its last line that did, in one line."""
    frames = [frame for frame in extract_tb(error.__traceback__) if not frame.filename.startswith(LIBRARIES)]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line})" if frames else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"


class Sample(NamedTuple):
    """One labelled image.

    Attributes:
        image: (C, H, W) of an integer type, or float in [0, 1].
        mask: (H, W) int64, class indices or the label set's ``ignore_index``.
        name: what the image is called in messages and reports.
    """

    image: Tensor
    mask: Tensor
    name: str


class Batch(NamedTuple):
    """Labelled images of one size.

    Attributes:
        image: (B, C, H, W) of an integer type, or float in [0, 1].
        mask: (B, H, W) int64, class indices or the label set's ``ignore_index``.
        name: B names.
    """

    image: Tensor
    mask: Tensor
    name: tuple[str, ...]


class SegmentationOutput(NamedTuple):
    """What every network returns, in training as in evaluation.

    Attributes:
        logits: (B, K, H, W), what prediction uses, at the size of the input.
        mask: (B, K, h, w), the main prediction before the last resize (equation 7).
        dense: (B, K, h, w), the deeply supervised stage-4 prediction (equation 9), or None; (B, S * K, h, w) where
            S stages are.
        category: (B, K), logits for "the class is in the image" (equation 8), or None.
        features: (B, C), the mean over the backbone's last level, or None.
        border: (B, S, h, w), logits of S stages for "another class is near", or None.
    """

    logits: Tensor
    mask: Tensor
    dense: Tensor | None
    category: Tensor | None
    features: Tensor | None = None
    border: Tensor | None = None


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set; travels with it and with every saved model.

    Args:
        names: K class names, in the order of their indices in the masks; each of 1 to 256 characters, none of which
            controls a terminal.
        colors: K RGB colours, 0 to 255; ``default_colors`` where left empty.
        ignore_index: mask value that counts nowhere: not in the loss, not in a score.
        background: index of the class that means "none of the others", or None.
        background_ignored: what is none of the classes has the ignore value, so that a network cannot be wrong there;
            a score with the background is given beside the other.
        values: what stood for the classes in the masks, pairs of a value or "#rrggbb" and a class or "ignore"; empty
            where a number is its class. Label sets that differ in it alone are equal.

    Raises:
        UsageError: no names, a name twice, one that is no name, colours that do not fit, an ``ignore_index`` that is a
            class or has more than 32 bits, or a background that is both a class and ignored.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...] = ()
    ignore_index: int = 255
    background: int | None = None
    background_ignored: bool = False
    values: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        # YAML and JSON have lists only: make them hashable here, once.
        object.__setattr__(self, "names", _checked_names(self.names))
        colors = _checked_colors(self.colors)
        object.__setattr__(self, "colors", colors or default_colors(len(self.names)))
        object.__setattr__(self, "ignore_index", _int32("ignore_index", self.ignore_index))
        if len(self.colors) != len(self.names):
            raise UsageError(f"{len(self.names)} class names but {len(self.colors)} colours")
        if 0 <= self.ignore_index < len(self.names):
            raise UsageError(
                f"ignore_index {self.ignore_index} is also class {self.names[self.ignore_index]!r}; "
                f"choose one outside 0..{len(self.names) - 1}; where 0 means unlabelled and classes start at 1, write "
                "masks with 255 for 0, and 1 less for every other value"
            )
        object.__setattr__(self, "values", _checked_values(self.values))
        if not isinstance(self.background_ignored, bool):
            raise UsageError("background_ignored: true or false")
        if self.background is None:
            return
        object.__setattr__(self, "background", _int32("background", self.background))
        if not 0 <= self.background < len(self.names):
            raise UsageError(f"background {self.background} is not one of the {len(self.names)} classes")
        if self.background_ignored:
            raise UsageError(f"background {self.background} is a class, so it cannot be ignored as well")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def palette(self) -> list[int]:
        """768 values for a palette PNG; entries beyond the classes are white, so that void shows."""
        flat = [value for color in self.colors for value in color]
        return (flat + [255] * 768)[:768]


def _checked_names(names: Any) -> tuple[str, ...]:
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise UsageError("class names: a list of texts")
    if not 0 < len(names) <= MOST_CLASSES:
        raise UsageError(f"a label set needs at least one class name, and has {MOST_CLASSES} at most")
    for number, name in enumerate(names):
        if not name.strip() or len(name) > LONGEST_NAME or CONTROLS.search(name):
            raise UsageError(
                f"the name of class {number}, {name[:LONGEST_NAME]!a}, is empty, has more than {LONGEST_NAME} "
                "characters, or has control characters; give it another"
            )
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise UsageError(f"class names must differ; repeated: {', '.join(repeated[:10])}")
    return tuple(names)


def _checked_colors(colors: Any) -> tuple[Color, ...]:
    try:
        triples = tuple((operator.index(r), operator.index(g), operator.index(b)) for r, g, b in colors)
    except (TypeError, ValueError):  # no list, no triples, no whole numbers
        triples = ((-1, -1, -1),)
    if not all(0 <= value <= 255 for color in triples for value in color):
        raise UsageError("colours are RGB triples of whole numbers, 0 to 255")
    return triples


def _checked_values(values: Any) -> tuple[tuple[str, str], ...]:
    try:
        pairs = tuple((value, name) for value, name in values)
    except (TypeError, ValueError):
        pairs = ((None, None),)
    if len(pairs) > MOST_CLASSES or not all(isinstance(text, str) for pair in pairs for text in pair):
        raise UsageError("values of a label set: pairs of texts")
    return pairs


def _int32(name: str, value: Any) -> int:
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise UsageError(f"{name}: a whole number of 32 bits")
    return value


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
    raise UsageError(f"unknown {kind} {name!r}; {nearest(name, choices)}Choices: {', '.join(sorted(choices))}")


def nearest(name: str, choices: Iterable[str]) -> str:
    """The question whether the nearest of some names is meant, with a space behind it; empty where none is near."""
    near = get_close_matches(str(name), choices, n=1)
    return f"did you mean {near[0]!r}? " if near else ""
