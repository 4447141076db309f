"""What the page accepts: images of common formats and moderate size, and requests under its own names."""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sanet.data.decoding import UNREADABLE, rgb
from sanet.demo.config import DemoConfig
from sanet.structures import UsageError, first_line

# Pillow has decoders for many more; each is a possible weakness.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# Largest ratio of the sides: networks need 32 rows, and a single row of millions of pixels would become 32.
LONGEST = 20
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def read_upload(path: Path, name: str, folder: Path, largest_megapixels: float) -> NDArray[np.uint8]:
    """A visitor's image, upright, as (H, W, 3) uint8 RGB.

    No file outside the folder of uploads and examples is opened, or known to exist, whatever path the browser names.
    Errors have the name that the visitor gave the file, and nothing of the path.

    Raises:
        UsageError: no upload, no image, one of another format, or one that is too large.
    """
    if not (path.resolve().is_relative_to(folder.resolve()) and path.is_file()):
        raise UsageError("upload the image as a file")
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > largest_megapixels * 1e6:
                raise UsageError(f"{name} is {width} x {height}; the limit is {largest_megapixels:g} million pixels")
            if max(width, height) > LONGEST * min(width, height):
                raise UsageError(f"{name} is {width} x {height}; one side may be {LONGEST} times the other at most")
            return rgb(image)
    except UsageError:
        raise
    except UnidentifiedImageError as error:
        raise UsageError(f"{name} is not an image of a format that the page reads: {', '.join(FORMATS)}") from error
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(f"{name} cannot be read as an image ({reason})") from error


class OwnHostsOnly:
    """ASGI middleware that answers requests under the page's own names, and 403 to all others.

    Another site can point its name at this computer (DNS rebinding) or send forms here (cross-site requests). The
    headers Host, X-Forwarded-Host, of a proxy, and Origin give both away. Starlette's TrustedHostMiddleware looks at
    the first alone, and Gradio's own check of Origin holds for pages of this computer alone.
    """

    def __init__(self, app: ASGIApp, config: DemoConfig) -> None:
        self.app = app
        host, machine = config.host.lower().strip("[]"), socket.gethostname().lower()
        # Addresses in digits are nobody else's name.
        self.any_address = host in {"0.0.0.0", "::"}
        names = LOOPBACK if host in LOOPBACK else {host, machine, f"{machine}.local"}
        if self.any_address:
            names = names | LOOPBACK
        self.names = names | {name.lower() for name in config.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or self.allows(Headers(scope=scope)):
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("not a name of this page; see --allowed_hosts", 403)(scope, receive, send)

    def allows(self, headers: Headers) -> bool:
        """Whether all headers name the page."""
        given = headers.getlist("host") + headers.getlist("x-forwarded-host")
        hosts = [host.strip().lower() for value in given for host in value.split(",")]
        origin = headers.get("origin")
        known = bool(headers.get("host")) and all(self.knows(host) for host in hosts)
        return known and (origin is None or origin.lower().partition("://")[2] in hosts)

    def knows(self, host: str) -> bool:
        """Whether "name", "name:port" or "[address]:port" is one of the page's names; one with a port holds for it."""
        found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^\s:/@\[\]]+))(?::\d+)?", host)
        if not found:
            return False
        name = found[1] or found[2]
        try:
            return bool({name, host} & self.names) or (self.any_address and bool(ip_address(name)))
        except ValueError:
            return False
