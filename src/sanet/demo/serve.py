"""Serving the page: its models, its folder for files, and how it starts and ends."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from sanet.demo.config import DemoConfig
from sanet.insight.groups import Explainer
from sanet.models.store import BUNDLED, short_names
from sanet.serve.server import listening
from sanet.structures import SanetError, UsageError

HERE = Path(__file__).parent
EXAMPLES = HERE / "examples"


@contextmanager
def served(models: Sequence[str | Path], config: DemoConfig, examples: Sequence[Path] = ()) -> Iterator[str]:
    """The page, open while this is; gives its address. All its files lie in a folder of its own, deleted at the end.

    Gradio finds that folder in an environment variable: of several pages the last one opened takes images.

    Args:
        models: model directories; the bundled model where none is named.
        config: where the page is served, and its limits.
        examples: images to try; streets for the bundled model where none are named.

    Raises:
        UsageError: an example that does not exist, or a model that takes other images than RGB.
        SanetError: Gradio is missing, the address is taken, or a model cannot be read.
    """
    for example in examples:
        if not example.is_file():
            raise UsageError(f"example {example} is not a file")
    with listening(config.host, config.port) as tried:  # Gradio would try for minutes
        port = tried.getsockname()[1]
    with (
        TemporaryDirectory(prefix="sanet-demo-") as folder,
        patch.dict(os.environ, GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED="False"),
    ):
        try:
            import gradio as gr
            from starlette.middleware import Middleware

            from sanet.demo.actions import Actions
            from sanet.demo.page import build_page
            from sanet.serve.limits import OwnHostsOnly
        except ImportError as error:
            raise SanetError(f"the page needs an extra: pip install 'sanet-segmentation[demo]' ({error})") from error
        actions = Actions(_opened(models, config.device), config, folder)
        page = build_page(actions, examples if models or examples else sorted(EXAMPLES.glob("*.jpg")), config)
        page.queue(max_size=config.waiting, api_open=False)
        _, address, _ = page.launch(
            server_name=config.host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            max_file_size=int(config.largest_megabytes * 1e6),
            state_session_capacity=config.visitors,
            app_kwargs={"middleware": [Middleware(OwnHostsOnly, host=config.host, allowed_hosts=config.allowed_hosts)]},
            # No font from another host: the page works without a network.
            theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=(HERE / "page.css").read_text(encoding="utf-8"),
        )
        try:
            yield address
        finally:
            page.close(verbose=False)


def _opened(models: Sequence[str | Path], device: str | None) -> dict[str, Explainer]:
    """By the shortest names that distinguish them; the bundled model where none is named."""
    named = dict(zip(short_names(models), models, strict=True)) if models else BUNDLED
    explainers = {name: Explainer(model, device) for name, model in named.items()}
    for explainer in explainers.values():
        explainer.require_rgb()
    return explainers
