"""Settings of ``sanet demo``; nothing here imports torch or Gradio."""

from __future__ import annotations

from dataclasses import dataclass

from sanet.structures import UsageError

# Pillow takes pictures of more pixels for bombs: twice its MAX_IMAGE_PIXELS, in 10^6.
DECODED = 178


@dataclass(frozen=True)
class DemoConfig:
    """Where the page is served, and what it takes.

    Args:
        host: address to listen on; by default this computer alone can open the page. "0.0.0.0" lets everyone in the
            network do so.
        port: to listen on; 0 takes a free one.
        device: such as "cpu" or "cuda"; by default a GPU where there is one.
        largest_megabytes: of an uploaded file; a larger one is refused before it is read.
        largest_megapixels: of a picture, in 10^6 pixels; a larger one is refused before it is decoded.
        waiting: requests that wait their turn; who comes after them is told that the page is busy.
        visitors: whose pictures are kept at a time; who comes after them takes the place of the oldest.
        keep_minutes: that pictures are kept at most, in memory after their visitor's last step, as files at all.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    device: str | None = None
    largest_megabytes: float = 20.0
    largest_megapixels: float = 25.0
    waiting: int = 20
    visitors: int = 20
    keep_minutes: float = 15.0

    def __post_init__(self) -> None:
        if self.largest_megapixels > DECODED:
            raise UsageError(
                f"largest_megapixels {self.largest_megapixels:g}: {DECODED} at most, as Pillow decodes no more"
            )
        for name in ("largest_megabytes", "largest_megapixels", "keep_minutes"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} {getattr(self, name)}: above 0")
        for name in ("waiting", "visitors"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: 1 or more")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port {self.port}: from 0 to 65535")
