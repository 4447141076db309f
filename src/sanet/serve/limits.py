"""What servers accept: images of common formats and moderate size, and requests under their own names."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sanet.data.decoding import UNREADABLE
from sanet.serve.config import LOOPBACK
from sanet.structures import UsageError, first_line

# Pillow has decoders for many more; each is a possible weakness.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# Largest ratio of the sides: networks need 32 rows, and a single row of millions of pixels would become 32.
LONGEST = 20


class Refused(UsageError):
    """A request that is not answered.

    Attributes:
        status: of HTTP, which says why.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def opened(source: Path | BytesIO, name: str, largest_megapixels: float) -> Iterator[Image.Image]:
    """An image that may be decoded where this is open. Errors, also of decoding, call it by the name.

    Raises:
        Refused: no image, one of another format, one that is too large, or, with status 422, a damaged one.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if width * height > largest_megapixels * 1e6:
                raise Refused(413, f"{name} is {width} x {height}; the limit is {largest_megapixels:g} million pixels")
            if max(width, height) > LONGEST * min(width, height):
                raise Refused(413, f"{name} is {width} x {height}; one side may be {LONGEST} times the other at most")
            yield image
    except UsageError:
        raise
    except UnidentifiedImageError as error:
        raise Refused(415, f"{name} is not an image of a format that is read: {', '.join(FORMATS)}") from error
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        status = 413 if isinstance(error, Image.DecompressionBombError) else 422
        raise Refused(status, f"{name} cannot be read as an image ({reason})") from error


class OwnHostsOnly:
    """ASGI middleware that answers requests under the server's own names, and 403 to all others.

    Another site can point its name at this computer (DNS rebinding) or send forms here (cross-site requests). The
    headers Host, X-Forwarded-Host, of a proxy, and Origin give both away. Starlette's TrustedHostMiddleware looks at
    the first alone, and Gradio's own check of Origin holds for pages of this computer alone.
    """

    def __init__(self, app: ASGIApp, host: str, allowed_hosts: Sequence[str]) -> None:
        self.app = app
        host, machine = host.lower().strip("[]"), socket.gethostname().lower()
        # Addresses in digits are nobody else's name.
        self.any_address = host in {"0.0.0.0", "::"}
        names = LOOPBACK if host in LOOPBACK else {host, machine, f"{machine}.local"}
        if self.any_address:
            names = names | LOOPBACK
        self.names = names | {name.lower() for name in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or self.allows(Headers(scope=scope)):
            await self.app(scope, receive, send)
        else:
            refusal = JSONResponse({"detail": "not a name of this server; see --allowed_hosts"}, 403)
            await refusal(scope, receive, send)

    def allows(self, headers: Headers) -> bool:
        """Whether all headers name the server."""
        given = headers.getlist("host") + headers.getlist("x-forwarded-host")
        hosts = [host.strip().lower() for value in given for host in value.split(",")]
        origin = headers.get("origin")
        known = bool(headers.get("host")) and all(self.knows(host) for host in hosts)
        return known and (origin is None or origin.lower().partition("://")[2] in hosts)

    def knows(self, host: str) -> bool:
        """Whether "name", "name:port" or "[address]:port" is a name of the server; one with a port holds for it."""
        found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^\s:/@\[\]]+))(?::\d+)?", host)
        if not found:
            return False
        name = found[1] or found[2]
        try:
            return bool({name, host} & self.names) or (self.any_address and bool(ip_address(name)))
        except ValueError:
            return False
