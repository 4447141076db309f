"""The commands that serve a model until they are ended; ``--help`` imports no torch."""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from sanet.cli.parsing import FLAT, Command, model_in, positional, words
from sanet.config import InferenceConfig
from sanet.demo.config import DemoConfig
from sanet.serve.config import ServeConfig
from sanet.structures import say


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Open a page to play with, which shows masks and the pixel groups of a click.

    Args:
        models: run directories, model directories or hf:OWNER/NAME; by default streets, the bundled model.
        examples: images that visitors can choose.
        page: where the page is served, and what it accepts.
    """

    models: tuple[str, ...] = positional("MODEL", nargs="*")
    examples: tuple[str, ...] = words("IMAGE", ())
    page: DemoConfig = field(default_factory=DemoConfig, metadata=FLAT)

    def __call__(self) -> None:
        from sanet.demo.serve import served

        ended = Event()  # by Ctrl-C or SIGTERM, either of which deletes what visitors left
        signal.signal(signal.SIGTERM, lambda *_: ended.set())

        models = [model_in(model) for model in self.models]
        with served(models, self.page, [Path(example) for example in self.examples]) as address:
            say(f"open {address} in a browser; Ctrl-C ends it")
            with suppress(KeyboardInterrupt):
                ended.wait()


@dataclass(frozen=True, kw_only=True)
class Serve(Command):
    """Answer over HTTP: an image in, a mask or what stands in it out.

    Args:
        model: run directory, model directory, hf:OWNER/NAME or exported file; streets is the bundled model.
        server: where it is served, and what it accepts.
        inference: inference settings.
    """

    model: str = positional("MODEL")
    server: ServeConfig = field(default_factory=ServeConfig, metadata=FLAT)
    inference: InferenceConfig = field(default_factory=InferenceConfig, metadata=FLAT)

    def __call__(self) -> None:
        from sanet.serve.server import serve

        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            serve(model_in(self.model), self.server, self.inference)
