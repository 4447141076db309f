"""Serving the page: its models, its folder for uploads, and how it starts and ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from time import time
from typing import TYPE_CHECKING

from sanet.demo.config import DemoConfig
from sanet.insight.groups import Explainer
from sanet.models.store import BUNDLED, short_names
from sanet.structures import SanetError, UsageError

if TYPE_CHECKING:
    from gradio.blocks import Blocks
    from gradio.routes import App
    from gradio.state_holder import StateHolder

    from sanet.demo.visits import Visits

EXAMPLES = Path(__file__).parent / "examples"


@contextmanager
def served(models: Sequence[str | Path], config: DemoConfig, examples: Sequence[Path] = ()) -> Iterator[str]:
    """The page, open while this is; gives its address. All its files lie in a folder of its own, and go with it.

    Gradio keeps that folder in a variable of the process: of several pages the last one opened takes pictures.

    Args:
        models: model directories; the package's own where none is named.
        config: where, and what is taken.
        examples: pictures to try; streets for the package's own model where none are named.

    Raises:
        UsageError: an example that is not there.
        SanetError: Gradio is missing, the address is taken, or a model cannot be read.
    """
    for example in examples:
        if not example.is_file():
            raise UsageError(f"example {example} is not a file")
    _require_free(config)
    with TemporaryDirectory(prefix="sanet-demo-") as folder, _variables(folder):
        try:
            from gradio import processing_utils

            from sanet.demo.actions import Actions
            from sanet.demo.limits import no_fetching
            from sanet.demo.page import build_page
            from sanet.demo.visits import Visits
        except ImportError as error:
            raise SanetError(f"the page needs an extra: pip install 'sanet-segmentation[demo]' ({error})") from error
        processing_utils.async_ssrf_protected_download = no_fetching
        visits = Visits(config.visitors, 60 * config.keep_minutes)
        actions = Actions(_opened(models, config.device), visits, config.largest_megapixels, folder)
        page = build_page(actions, examples if models or examples else sorted(EXAMPLES.glob("*.jpg")), config)
        app, address = _launched(page, config, folder)
        ended = Event()
        purger = Thread(target=_purge, args=(Path(folder), visits, app.state_holder, ended), daemon=True)
        purger.start()
        try:
            yield address
        finally:
            ended.set()
            purger.join()
            page.close(verbose=False)


def _launched(page: Blocks, config: DemoConfig, folder: str) -> tuple[App, str]:
    """The page's application, which answers from now on, and its address."""
    import gradio as gr
    from starlette.middleware import Middleware

    from sanet.demo.limits import Guard, Hosts

    largest = int(config.largest_megabytes * 1e6)
    page.queue(max_size=config.waiting, api_open=False)
    app, address, _ = page.launch(
        server_name=config.host,
        server_port=config.port or None,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        footer_links=[],
        max_file_size=largest,
        state_session_capacity=config.visitors,
        app_kwargs={
            "middleware": [
                Middleware(
                    Guard,
                    hosts=Hosts.of(config),
                    largest=largest,
                    folder=folder,
                    room=2 * config.visitors * largest,
                )
            ]
        },
        # No font from another host: the page works without a network.
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css="footer, .fetch {display: none}",
    )
    return app, address


@contextmanager
def _variables(folder: str) -> Iterator[None]:
    """Gradio asks the environment where uploads go, and whether it may tell its makers of them."""
    ours = {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _require_free(config: DemoConfig) -> None:
    """Raise a SanetError if the page cannot listen where it should."""
    with socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((config.host, config.port))
        except OSError as error:
            raise SanetError(
                f"port {config.port} of {config.host}: {error.strerror or error}; name another with --port or --host"
            ) from error


def _purge(folder: Path, visits: Visits, sessions: StateHolder, ended: Event) -> None:
    """Delete what is old: visits, what Gradio remembers of their pages, and files, but for those of the start."""
    kept = {path for path, _ in _entries(folder)}
    while not ended.wait(min(5.0, visits.seconds / 20)):
        visits.purge()
        with sessions.lock:
            for session in set(sessions.session_data) - visits.keys():
                del sessions.session_data[session]
                sessions.time_last_used.pop(session, None)
        _delete_old(folder, time() - 0.9 * visits.seconds, kept)


def _delete_old(folder: Path, oldest: float, kept: Set[Path]) -> None:
    """Delete files that were last changed before a time, and folders that have been empty since, but for those kept.

    Visits delete theirs meanwhile: what is gone already is passed over.
    """
    for path, is_folder in _entries(folder):
        with suppress(OSError):
            if path not in kept and path.lstat().st_mtime < oldest:
                path.rmdir() if is_folder else path.unlink()


def _entries(folder: Path) -> Iterator[tuple[Path, bool]]:
    """All that lies in a folder, and whether it is one; what is deeper first. ``Path.rglob`` fails on what goes."""
    for directory, folders, names in os.walk(folder, topdown=False):
        yield from ((Path(directory, name), False) for name in names)
        yield from ((Path(directory, name), True) for name in folders)


def _opened(models: Sequence[str | Path], device: str | None) -> dict[str, Explainer]:
    """By the shortest names that tell them apart; the package's own where none is named."""
    if not models:
        return {"streets": Explainer(BUNDLED["streets"], device)}
    return {name: Explainer(model, device) for name, model in zip(short_names(models), models, strict=True)}
