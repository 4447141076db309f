"""What a visitor's upload has to pass: its bytes before they are read, its pixels before they are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sanet.data.files import UNREADABLE, rgb
from sanet.structures import UsageError, first_line

# Decoders that nobody asked for are doors that nobody watches.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# A longer side may have this many times the shorter: beyond, 32 rows, which networks need, are pixels by the million.
LONGEST = 20
FILE = "/gradio_api/file="
FOLDERS = ("/assets/", "/static/", "/gradio_api/heartbeat/")
PATHS = (
    *("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json"),
    *(f"/gradio_api/{name}" for name in ("startup-events", "upload", "upload_progress", "run/predict")),
    *(f"/gradio_api/queue/{name}" for name in ("join", "data")),
)
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
            if max(width, height) > LONGEST * min(width, height):
                raise UsageError(f"{name} is {width} x {height}; one side may be {LONGEST} times the other at most")
            return rgb(picture)
    except UsageError:
        raise
    except UnidentifiedImageError as error:
        raise UsageError(f"{name} is no picture that the page reads; it takes {', '.join(FORMATS)}") from error
    except UNREADABLE as error:
        raise UsageError(f"{name} cannot be read as a picture ({first_line(error)})") from error


class Guard:
    """ASGI middleware that lets through what the page itself asks for, and no body that is too large.

    A body is judged by its announcement, before any of it is read, and else by counting. Gradio has routes that the
    page does not use, which fetch addresses, start decoders and keep files.

    Args:
        app: what is behind it.
        largest: bytes of a body.
        folder: the only one that files are served from.
    """

    def __init__(self, app: ASGIApp, largest: int, folder: str) -> None:
        self.app = app
        self.largest = largest
        self.folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403 or 413."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http" or not self._is_known(scope["path"]):
            await PlainTextResponse("the page does not have this", 403)(scope, receive, send)
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

    def _is_known(self, path: str) -> bool:
        if path.startswith(FILE):
            return path.startswith(f"{FILE}{self.folder}/") and ".." not in path
        return path in PATHS or path.startswith(FOLDERS)


class _TooLarge(Exception):
    """More came than was announced."""


async def no_fetching(url: str, *arguments: Any, **options: Any) -> NoReturn:
    """In place of Gradio's way to fetch an upload from an address that a visitor names."""
    raise UsageError("send the picture as a file, not as an address")
