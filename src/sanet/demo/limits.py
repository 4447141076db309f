"""What a visitor's upload has to pass: its bytes before they are read, its pixels before they are decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sanet.data.files import UNREADABLE, rgb
from sanet.structures import UsageError, first_line

# Decoders that nobody asked for are doors that nobody watches.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# Of the form around an uploaded file, and of the settings of a page.
ENVELOPE = 2**16


def read_upload(path: Path, name: str, largest_megapixels: float) -> NDArray[np.uint8]:
    """A visitor's picture, upright, as (H, W, 3) uint8 RGB.

    Args:
        path: where the upload lies.
        name: what the visitor calls it; errors say nothing of the path.
        largest_megapixels: in 10^6 pixels.

    Raises:
        UsageError: no picture, one of another format, or one that is too large.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > largest_megapixels * 1e6:
                raise UsageError(
                    f"{name} is {width} x {height}; the page takes up to {largest_megapixels:g} million pixels"
                )
            return rgb(picture)
    except UsageError:
        raise
    except UnidentifiedImageError as error:
        raise UsageError(f"{name} is no picture that the page reads; it takes {', '.join(FORMATS)}") from error
    except UNREADABLE as error:
        raise UsageError(f"{name} cannot be read as a picture ({first_line(error)})") from error


class BodyLimit:
    """ASGI middleware that refuses requests whose body is too large, by their announcement or else by counting.

    Args:
        app: what is behind it.
        largest: bytes.
    """

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self.app = app
        self.largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 413."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        refusal = PlainTextResponse(f"a request may have {self.largest} bytes at most", 413)
        if not announced.isdigit() or int(announced) > self.largest:
            await refusal(scope, receive, send)
            return
        taken, started = 0, False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.largest:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except _TooLarge:
            if not started:
                await refusal(scope, receive, send)


class _TooLarge(Exception):
    """More came than was announced."""
