"""Settings of ``sanet demo``; nothing here imports torch or Gradio."""

from __future__ import annotations

from dataclasses import dataclass

from sanet.config import check, within

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
        allowed_hosts: further names that browsers may call the page by, such as that of a proxy in front of it.
        keep_minutes: that pictures are kept at most, in memory after their visitor's last step, as files at all.
    """

    host: str = "127.0.0.1"
    port: int = within(7860, 0, 65_535)
    device: str | None = None
    largest_megabytes: float = within(20.0, 1e-6, 10_000)
    largest_megapixels: float = within(25.0, 1e-6, DECODED)
    waiting: int = within(20, 1, 10_000)
    visitors: int = within(20, 1, 10_000)
    keep_minutes: float = within(15.0, 1e-3, 1e6)
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)
