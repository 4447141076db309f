"""Settings of ``sanet demo``; nothing here imports torch or Gradio."""

from __future__ import annotations

from dataclasses import dataclass

from sanet.serve.config import DECODED
from sanet.settings import check, within


@dataclass(frozen=True)
class DemoConfig:
    """Where the page is served, and what it accepts.

    Args:
        host: address to listen on; by default only this computer can open the page. "0.0.0.0" opens it to the network.
        port: port to listen on; 0 chooses a free one.
        device: name of the device: "cpu", "cuda", "mps" or "xpu"; by default the best there is.
        largest_megabytes: size limit of an uploaded file, in 10^6 bytes.
        largest_megapixels: size limit of an image, in 10^6 pixels; a larger one is refused before it is decoded.
        waiting: length of the queue; further requests are told that the page is busy.
        visitors: number of visitors whose images are kept at a time; the next one replaces the oldest.
        allowed_hosts: further names that browsers may call the page by, such as that of a proxy in front of it.
        keep_minutes: minutes after which an image is deleted, counted from the visitor's last step.
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
