"""What a visitor's upload has to pass: its bytes before they are read, its pixels before they are decoded."""

from __future__ import annotations

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sanet.data.decoding import UNREADABLE, rgb
from sanet.demo.config import DemoConfig
from sanet.structures import UsageError, first_line

# Decoders that nobody asked for are doors that nobody watches.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# A longer side may have this many times the shorter: beyond, 32 rows, which networks need, are pixels by the million.
LONGEST = 20
FILE = "/gradio_api/file="
UPLOAD = "/gradio_api/upload"
FOLDERS = ("/assets/", "/static/", "/gradio_api/heartbeat/")
PATHS = (
    UPLOAD,
    *("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json"),
    *(f"/gradio_api/{name}" for name in ("startup-events", "upload_progress", "run/predict")),
    *(f"/gradio_api/queue/{name}" for name in ("join", "data")),
)
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
FORWARDED = b"x-forwarded-host"
# Of the form around an uploaded file, and of the settings of a page.
ENVELOPE = 2**18


def read_upload(path: Path, name: str, folder: Path, largest_megapixels: float) -> NDArray[np.uint8]:
    """A visitor's picture, upright, as (H, W, 3) uint8 RGB.

    Args:
        path: where the upload lies, as the visitor's page has it: another file may be named here by hand.
        name: what the visitor calls it; errors say nothing of the path.
        folder: that uploads and examples lie in; no other file is opened, or known to be there.
        largest_megapixels: in 10^6 pixels.

    Raises:
        UsageError: no upload, no picture, one of another format, or one that is too large.
    """
    if not (path.resolve().is_relative_to(folder.resolve()) and path.is_file()):
        raise UsageError("send the picture as a file")
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
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(f"{name} cannot be read as a picture ({reason})") from error


@dataclass(frozen=True)
class Hosts:
    """The names that browsers may call the page by.

    Another site can let its own name lead to this computer, and its scripts would then pass for the page's; the name
    in their requests gives them away.

    Args:
        names: in small letters; one with a port, such as "page.example:8443", holds for that port alone. Others hold
            for all: a tunnel may end at another port.
        addresses: whether addresses in digits are, as where the page listens on all: none of them is another's name.
    """

    names: frozenset[str]
    addresses: bool = False

    @classmethod
    def of(cls, config: DemoConfig) -> Hosts:
        """Those under which the page is reached where it listens, and those of the settings."""
        host, everywhere = config.host.lower().strip("[]"), config.host in {"0.0.0.0", "::"}
        machine = socket.gethostname().lower()
        names = {host} if host in LOOPBACK else {host, machine, f"{machine}.local"}
        if everywhere or host in LOOPBACK:
            names |= LOOPBACK
        return cls(frozenset(names | {name.lower() for name in config.allowed_hosts}), everywhere)

    def know(self, given: bytes) -> bool:
        """Whether a host header has one of them."""
        text = given.decode("latin-1").strip().lower()
        found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^\s:/@\[\]]+))(?::\d+)?", text)
        if not found:
            return False
        name = found[1] or found[2]
        return bool({name, text} & self.names) or (self.addresses and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware that lets through what the page itself asks for, by its own name, and no body that is too large.

    A body is judged by its announcement, before any of it is read, and else by counting. Gradio has routes that the
    page does not use, which fetch addresses, start decoders and keep files. Other sites that a visitor has open can
    send forms here, too; their requests name them as their origin.

    Args:
        app: what is behind it.
        hosts: the page's own names.
        largest: bytes of an upload.
        folder: the only one that files are served from.
        room: bytes that files in it may have together before an upload is refused.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, largest: int, folder: str, room: int) -> None:
        self.app = app
        self.hosts = hosts
        self.largest = largest
        self.folder = folder
        self.room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403, 413 or 503."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        named = [value for name, value in scope["headers"] if name == b"host"]
        # Of a proxy; what is behind it builds the page's addresses from it.
        named += [part for name, value in scope["headers"] if name == FORWARDED for part in value.split(b",")]
        if not named or not all(self.hosts.know(name) for name in named):
            await PlainTextResponse("the page has another name; see --allowed_hosts", 403)(scope, receive, send)
            return
        if scope["type"] != "http" or not self._is_known(scope["path"]):
            await PlainTextResponse("the page does not have this", 403)(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2] not in {name.strip() for name in named}:
            await PlainTextResponse("open the page itself", 403)(scope, receive, send)
            return
        upload = scope["path"] == UPLOAD
        if upload and await run_in_threadpool(_held, self.folder) > self.room:
            await PlainTextResponse("the page is busy: try again in some minutes", 503)(scope, receive, send)
            return
        largest = ENVELOPE + (self.largest if upload else 0)
        announced = headers.get(b"content-length", b"0")
        refusal = PlainTextResponse(f"a request may have {largest} bytes at most", 413)
        if not announced.isdigit() or int(announced) > largest:
            await refusal(scope, receive, send)
            return
        taken, started = 0, False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > largest:
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


def _held(folder: str) -> int:
    """Bytes of all files in a folder, which may go meanwhile."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(directory, name)).st_size
    return total


class _TooLarge(Exception):
    """More came than was announced."""


async def no_fetching(url: str, *arguments: Any, **options: Any) -> NoReturn:
    """In place of Gradio's way to fetch an upload from an address that a visitor names."""
    raise UsageError("send the picture as a file, not as an address")
