"""How a model is served: where it listens, how it starts and how it ends."""

from __future__ import annotations

import os
import socket
from asyncio import BaseTransport
from dataclasses import replace
from math import ceil
from pathlib import Path

from sanet.config import InferenceConfig
from sanet.deploy.engines import computed_by
from sanet.inference.predictor import Predictor
from sanet.serve.config import LOOPBACK, ServeConfig
from sanet.structures import SanetError, UsageError, say

# Connections at a time, below the 1,024 files that a process may open by default; and seconds for the head of a
# request, also of one that never comes.
CONNECTIONS, HEAD = 512, 10


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises a SanetError if it cannot."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise SanetError(
            f"port {port} of {host}: {error.strerror or error}; name another with --port or --host"
        ) from error


def serve(model: str | Path, config: ServeConfig, inference: InferenceConfig = InferenceConfig()) -> None:
    """Serve a model until SIGINT or SIGTERM: what has begun is answered then, and nothing else.

    Args:
        model: a model directory, one of the hub, a bundled one by its name, or an exported file.
        config: where, and its limits.
        inference: sliding window, multi-scale and flip.

    Raises:
        UsageError: open to others without a token; a warning would stand where nobody reads it.
        SanetError: FastAPI is missing, the address is taken, or the model cannot be read.
    """
    config = replace(config, token=config.token or os.environ.get("SANET_TOKEN"))
    if config.host not in LOOPBACK and not config.token:
        raise UsageError(
            f"--host {config.host}: whoever reaches it could use the model; set a token in SANET_TOKEN or by --token, "
            "or leave --host out"
        )
    try:
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol

        from sanet.serve.app import create_app
    except ImportError as error:
        raise SanetError(f"serving needs an extra: pip install 'sanet-segmentation[serve]' ({error})") from error

    class Impatient(H11Protocol):
        """Closes connections without a complete head, where uvicorn only does it before the first byte of a later one.

        What is left of the body of a request that was refused is read for as long.
        """

        def connection_made(self, transport: BaseTransport) -> None:
            super().connection_made(transport)  # type: ignore[arg-type]
            self.timeout_keep_alive_task = self.loop.call_later(HEAD, self.timeout_keep_alive_handler)

        def data_received(self, data: bytes) -> None:  # a byte does not stop the clock, as it does in uvicorn
            self.conn.receive_data(data)
            self.handle_events()

    with listening(config.host, config.port) as listener:
        used = computed_by(config.engine, str(model), config.device)
        predictor = Predictor(used, config.device, inference, config.batch)
        settings = uvicorn.Config(
            create_app(predictor, config), http=Impatient, ws="none", log_level="warning", server_header=False,
            limit_concurrency=CONNECTIONS, timeout_keep_alive=HEAD, timeout_graceful_shutdown=ceil(config.seconds),
        )  # fmt: skip
        host = f"[{config.host}]" if ":" in config.host else config.host
        say(f"{predictor}\nserved at http://{host}:{listener.getsockname()[1]}, described at /docs; Ctrl-C ends it")
        uvicorn.Server(settings).run(sockets=[listener])
