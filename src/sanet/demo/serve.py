"""Serving the page: its models, its folder for uploads, and how it starts and ends."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import TYPE_CHECKING

from sanet.demo.config import DemoConfig
from sanet.insight.groups import Explainer
from sanet.models.own import OWN_MODEL, OWN_SIDE
from sanet.models.store import short_names
from sanet.structures import SanetError

if TYPE_CHECKING:
    from sanet.demo.visits import Visits

EXAMPLES = Path(__file__).parent / "examples"


@contextmanager
def served(models: Sequence[str | Path], config: DemoConfig, examples: Sequence[Path] = ()) -> Iterator[str]:
    """The page, open while this is; gives its address. Uploads lie in a folder of its own, and go with it.

    Args:
        models: model directories; the package's own where none is named.
        config: where, and what is taken.
        examples: pictures to try; streets for the package's own model where none are named.

    Raises:
        SanetError: Gradio is missing, the port is taken, or a model cannot be read.
    """
    if not models and not examples:
        examples = sorted(EXAMPLES.glob("*.jpg"))
    with TemporaryDirectory(prefix="sanet-demo-") as folder:
        # Gradio reads both when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        try:
            import gradio as gr
            from starlette.middleware import Middleware

            from sanet.demo.actions import Actions
            from sanet.demo.limits import ENVELOPE, BodyLimit
            from sanet.demo.page import build_page
            from sanet.demo.visits import Visits
        except ImportError as error:
            raise SanetError(f"the page needs an extra: pip install 'sanet-segmentation[demo]' ({error})") from error
        visits = Visits(config.visitors, 60 * config.keep_minutes)
        page = build_page(Actions(_opened(models, config.device), visits, config.largest_megapixels), examples, config)
        page.queue(max_size=config.waiting, api_open=False)
        largest = int(config.largest_megabytes * 1e6)
        try:
            _, address, _ = page.launch(
                server_name=config.host,
                server_port=config.port or None,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                footer_links=[],
                max_file_size=largest,
                app_kwargs={"middleware": [Middleware(BodyLimit, largest=largest + ENVELOPE)]},
                # No font from another host: the page works without a network.
                theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css="footer {display: none} .grid-wrap {max-height: none}",
            )
        except OSError as error:
            raise SanetError(f"port {config.port} of {config.host}: {error}; name another with --port") from error
        ended = Event()
        purger = Thread(target=_purge, args=(visits, ended), daemon=True)
        purger.start()
        try:
            yield address
        finally:
            ended.set()
            page.close(verbose=False)
            purger.join()


def _purge(visits: Visits, ended: Event) -> None:
    while not ended.wait(visits.seconds / 10):
        visits.purge()


def _opened(models: Sequence[str | Path], device: str | None) -> dict[str, Explainer]:
    """By the shortest names that tell them apart; the package's own where none is named."""
    if not models:
        return {OWN_MODEL.name: Explainer(OWN_MODEL, device, OWN_SIDE)}
    return {name: Explainer(model, device) for name, model in zip(short_names(models), models, strict=True)}
