"""How image files become what a network sees: which channels they have, and between which values.

Images are RGB of 8 bits by default, and reach the network as they are. All others are stored values, whatever their
depth, of which each channel is mapped linearly: ``low`` becomes 0, ``high`` becomes 1, and what is outside is clipped.
The two are measured once, over the training split; they are settings of the run and part of the saved model, so that
whatever uses the model maps alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

from sanet.settings import check, within
from sanet.structures import UsageError

if TYPE_CHECKING:
    from torch import Tensor

# An image of which a channel has more than this share below its range, or above it, is unlike those of training.
FAR_OUTSIDE = 0.05
OUTSIDE_TEXT = "are below or above the range of values that the model was trained on, and were clipped"
Pages = Literal["refuse", "channels", "images"]
LARGEST = 1e38  # so that float32 holds every difference


@dataclass(frozen=True)
class ImageReading:
    """How image files are read, and which of their values are black and white.

    Args:
        channels: number of channels, of any depth, such as 1 for grey or 4 for RGB and near infrared, which is then no
            transparency; by default images are RGB of 8 bits.
        pages: of a TIFF with several pages: "refuse" it, take them together as "channels", or each as one of several
            "images", with the page of the same number of its mask.
        low: value of each channel, or the one of all, that is 0 to the network; by default it is measured over the
            training images, of whose pixels 0.1 % are below it.
        high: value that is 1 to the network; by default 0.1 % of the pixels are above it.
    """

    channels: int | None = within(None, 1, 64)
    pages: Pages = "refuse"
    low: tuple[float, ...] = within((), -LARGEST, LARGEST)
    high: tuple[float, ...] = within((), -LARGEST, LARGEST)

    def __post_init__(self) -> None:
        check(self, "data.images.")
        if self.channels is None:
            if self.pages == "channels" or self.low or self.high:
                raise UsageError("data.images: name the number of channels as well, such as --data.images.channels 1")
            return
        for name in ("low", "high"):
            ends = getattr(self, name)
            object.__setattr__(self, name, ends * self.channels if len(ends) == 1 else ends)
        sizes = {len(self.low), len(self.high)}
        if sizes != {0} and sizes != {self.channels}:
            raise UsageError(f"data.images.low and high: one value, or {self.channels}, in both")
        if not all(low < high and isfinite(high - low) for low, high in zip(self.low, self.high, strict=True)):
            raise UsageError("data.images: every value of low has to be below that of high")

    @property
    def of_values(self) -> bool:
        """Whether images are stored values of any depth, not RGB of 8 bits."""
        return self.channels is not None

    def without_range(self) -> ImageReading:
        """The same, for the values as they are stored."""
        return replace(self, low=(), high=())

    def plain(self) -> dict[str, Any] | None:
        """As config.json has it; None for RGB of 8 bits in files of one page."""
        return None if self == EIGHT_BITS else {**asdict(self), "low": list(self.low), "high": list(self.high)}

    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """``low`` and ``high``, (C, 1, 1) each, of the type and on the device of a tensor."""
        return like.new_tensor(self.low)[:, None, None], like.new_tensor(self.high)[:, None, None]

    def scaled(self, values: Tensor) -> Tensor:
        """(..., C, H, W) stored values -> float32 in [0, 1]; without a range, float32 as stored."""
        values = values.float()
        if not self.low:
            return values
        low, high = self.ends(values)
        return ((values - low) / (high - low)).clamp(0, 1)

    def stored(self, scaled: Tensor) -> Tensor:
        """(..., C, H, W) in [0, 1] -> float32 values that ``scaled`` makes these of."""
        low, high = self.ends(scaled.float())
        return low + scaled.float() * (high - low)

    def outside(self, values: Tensor) -> float:
        """The largest share of the pixels of a channel of (C, H, W) stored values that are below or above its range."""
        if not self.low:
            return 0.0
        values = values.float()
        low, high = self.ends(values)
        shares = [part.flatten(1).float().mean(dim=1).max().item() for part in (values < low, values > high)]
        return max(shares)

    def text(self) -> str:
        """The range of every channel, in words."""
        return ", ".join(f"{low:g} to {high:g}" for low, high in zip(self.low, self.high, strict=True))


def read_plain(content: Any) -> ImageReading:
    """Back from ``ImageReading.plain``.

    Raises:
        UsageError: it is nothing that this gives, or has no range.
    """
    if content is None:
        return EIGHT_BITS
    names = ("channels", "pages", "low", "high")
    if not isinstance(content, dict) or content.keys() != {*names}:
        raise UsageError(f"images: {', '.join(names)}")
    found = ImageReading(**content)
    if found.of_values and not found.low:
        raise UsageError("images: low and high of every channel")
    return found


EIGHT_BITS = ImageReading()
