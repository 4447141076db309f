"""The page: a picture, its mask under every model that is chosen, and the pixel groups of the point that is clicked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from sanet.demo.actions import NO_LEGEND, Actions
from sanet.demo.config import DemoConfig
from sanet.demo.limits import FORMATS
from sanet.demo.visit import Channel, Download

HERE = Path(__file__).parent
TITLE = "Squeeze and attention"
CHANNELS: tuple[Channel, ...] = get_args(Channel)
DOWNLOADS: tuple[Download, ...] = get_args(Download)
NO_RIVAL = "—"
# A hidden button gets the file once it is written, and is then clicked for the visitor.
FETCH = "() => setTimeout(() => document.getElementById('{name}').click(), 300)"


class Pane:
    """One model's view of the picture; the components are made where this is."""

    def __init__(self, name: str, visible: bool) -> None:
        with gr.Column(visible=visible, min_width=300) as self.column:
            self.picture = gr.Image(
                show_label=True, interactive=False, format="jpeg", buttons=["fullscreen"], elem_id=f"{name}-picture"
            )  # fmt: skip
            self.status = gr.Markdown(elem_id=f"{name}-status")
            with gr.Row():
                buttons = [
                    gr.Button(f"Download {what}", size="sm", elem_id=f"{name}-get-{what}", min_width=120)
                    for what in DOWNLOADS
                ]
            links = [gr.DownloadButton(elem_classes="fetch", elem_id=f"{name}-link-{what}") for what in DOWNLOADS]
            self.downloads = list(zip(buttons, links, strict=True))
            self.legend = gr.HTML(NO_LEGEND, **_template("legend"), elem_id=f"{name}-legend")
            self.groups = gr.HTML([], **_template("groups"), elem_id=f"{name}-groups")

    def outputs(self) -> list[Any]:
        """What ``_pane`` gives values for."""
        return [self.column, self.legend, *self.drawn()]

    def drawn(self) -> list[Any]:
        """Those of them that do not decide what the others show."""
        return [self.picture, self.status, self.groups]


def _template(name: str) -> dict[str, Any]:
    """The files of an element that Gradio does not have."""
    files = {"html_template": f"{name}.html", "css_template": f"{name}.css", "js_on_load": f"{name}.js"}
    return {key: (HERE / file).read_text(encoding="utf-8") for key, file in files.items() if (HERE / file).exists()}


class Controls:
    """Everything on the page, made where this is: picture, models, panes, settings and downloads."""

    def __init__(self, models: Sequence[str], examples: Sequence[Path]) -> None:
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                self.upload = gr.Image(
                    type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Picture", height=220,
                    elem_id="upload",
                )  # fmt: skip
                files = [[str(path)] for path in examples]
                self.arrivals = [self.upload.upload]
                if files:
                    chosen = gr.Examples(files, self.upload, label="Examples", api_visibility="private")
                    self.arrivals.append(chosen.load_input_event.success)
                self.model = gr.Dropdown(models, value=models[0], label="Model", elem_id="model")
                self.rival = gr.Dropdown(
                    [NO_RIVAL, *models], value=NO_RIVAL, label="Compare with", elem_id="rival", visible=len(models) > 1
                )
            with gr.Column(scale=4, min_width=300):
                with gr.Row():
                    self.panes = (Pane("first", True), Pane("second", False))
                with gr.Row():
                    self.opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", elem_id="opacity", min_width=200)
                    self.channel = gr.Radio(
                        CHANNELS, value=CHANNELS[0], label="Pixel groups, near or active is red", elem_id="channel",
                        min_width=260,
                    )  # fmt: skip

    def connect(self, actions: Actions) -> None:
        """Let things happen."""
        first, second = self.panes
        settings = [self.opacity, self.channel, self.model, first.legend, self.rival, second.legend]
        # One at a time, so that threads do not fight for the cores; only the last of a slider's many values counts.
        common: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "look", "api_visibility": "private"}
        view = {"fn": actions.view, "inputs": settings, "outputs": [*first.outputs(), *second.outputs()], **common}
        redraw = {
            **view,
            "fn": actions.redraw,
            "outputs": [*first.drawn(), *second.drawn()],
            "show_progress": "hidden",
        }
        last = {"trigger_mode": "always_last"}
        for arrival in self.arrivals:
            arrival(**{**view, **last, "fn": actions.arrive, "inputs": [self.upload, *settings], "preprocess": False})
        self.upload.clear(**{**view, "fn": actions.clear})
        for choice in (self.model, self.rival):
            choice.input(**{**view, **last})
        for pane in self.panes:
            pane.picture.select(**{**redraw, "fn": actions.click})
            pane.legend.input(**{**redraw, **last})
        for setting in (self.opacity, self.channel):
            setting.change(**{**redraw, **last})
        for model, pane in zip((self.model, self.rival), self.panes, strict=True):
            for save, (button, link) in zip(
                (actions.mask, actions.overlay, actions.figure), pane.downloads, strict=True
            ):
                button.click(save, [self.opacity, model, pane.legend], [link], **common).success(
                    None, js=FETCH.format(name=link.elem_id), api_visibility="private"
                )


def build_page(actions: Actions, examples: Sequence[Path], config: DemoConfig) -> gr.Blocks:
    """The page, not yet served.

    Args:
        actions: what its events do, with the models that it shows.
        examples: pictures to try.
        config: what the page says of uploads.
    """
    page = gr.Blocks(title=TITLE, analytics_enabled=False)
    with page:
        gr.Markdown(
            f"# {TITLE}\nDrop or paste a picture, then click on it: every head of the network shows which pixels it "
            f"puts together with that point. {', '.join(FORMATS)}; up to {config.largest_megabytes:g} MB and "
            f"{config.largest_megapixels:g} megapixels. Pictures stay on the computer that serves this page, and are "
            f"deleted after {config.keep_minutes:g} minutes."
        )
        Controls([*actions.models], examples).connect(actions)
        # Gradio has a button for what is on the clipboard; people press Ctrl+V.
        page.load(None, js=(HERE / "paste.js").read_text(encoding="utf-8"), api_visibility="private")
        page.unload(actions.leave)
    return page
