"""Settings of ``sanet serve``; nothing here imports torch or FastAPI."""

from __future__ import annotations

from dataclasses import dataclass

from sanet.config import EngineName
from sanet.settings import check, within

# Pillow refuses images of more pixels as decompression bombs: twice its MAX_IMAGE_PIXELS, in 10^6.
DECODED = 178
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class ServeConfig:
    """Where a model is served, and what it accepts.

    Args:
        host: address to listen on; by default only this computer reaches it. Any other needs a token.
        port: port to listen on; 0 chooses a free one.
        token: what requests have to send as "Authorization: Bearer TOKEN"; by default that of the environment variable
            SANET_TOKEN, which other users of the computer cannot read in its list of processes.
        allowed_hosts: without a token, further names that requests may call the server by, such as that of a proxy.
        device: name of the device: "cpu", "cuda", "mps" or "xpu"; by default the best there is.
        engine: torch, onnxruntime or openvino; by default onnxruntime on a CPU if a graph of the model is kept, as of
            predict.
        largest_megabytes: size limit of an image file, in 10^6 bytes.
        largest_megapixels: size limit of an image, in 10^6 pixels; a larger one is refused before it is decoded.
        waiting: most requests at a time; further ones are told at once to come again.
        seconds: time limit of a request, from its head to its answer.
        batch: most images of one size that go through the network together.
    """

    host: str = "127.0.0.1"
    port: int = within(8000, 0, 65_535)
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    device: str | None = None
    engine: EngineName = "auto"
    largest_megabytes: float = within(20.0, 1e-6, 10_000)
    largest_megapixels: float = within(25.0, 1e-6, DECODED)
    waiting: int = within(32, 1, 10_000)
    seconds: float = within(30.0, 1e-3, 86_400)
    batch: int = within(8, 1, 100_000)

    def __post_init__(self) -> None:
        check(self)
