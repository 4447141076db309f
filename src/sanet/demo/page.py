"""The page: an image, its mask under the chosen models, and the pixel groups of the point that is clicked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
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
NO_OTHER = "—"
# A hidden button gets the file once it is written, and is then clicked for the visitor.
FETCH = "() => setTimeout(() => document.getElementById('{name}').click(), 300)"


class Pane:
    """One model's view of the image; the components are made where this is."""

    def __init__(self, name: str, visible: bool) -> None:
        with gr.Column(visible=visible, min_width=300) as self.column:
            self.image = gr.Image(
                show_label=True, interactive=False, format="jpeg", buttons=["fullscreen"], elem_id=f"{name}-image"
            )  # fmt: skip
            self.status = gr.Markdown(elem_id=f"{name}-status")
            with gr.Row():
                buttons = [
                    gr.Button(f"Download {what}", size="sm", elem_id=f"{name}-get-{what}", min_width=120)
                    for what in DOWNLOADS
                ]
            links = [gr.DownloadButton(elem_classes="fetch", elem_id=f"{name}-link-{what}") for what in DOWNLOADS]
            self.downloads = list(zip(DOWNLOADS, buttons, links, strict=True))
            self.legend = gr.HTML(NO_LEGEND, **_template("legend"), elem_id=f"{name}-legend")
            self.groups = gr.HTML([], **_template("groups"), elem_id=f"{name}-groups")

        # What the visitor does not set; and all in the order of ``Actions.view``.
        self.drawn: list[Any] = [self.image, self.status, self.groups]
        self.outputs = [self.column, self.legend, *self.drawn]


def _template(name: str) -> dict[str, Any]:
    """The files of an element that Gradio does not have."""
    files = {"html_template": f"{name}.html", "css_template": f"{name}.css", "js_on_load": f"{name}.js"}
    return {key: (HERE / file).read_text(encoding="utf-8") for key, file in files.items() if (HERE / file).exists()}


class Controls:
    """Everything on the page, made where this is: image, models, panes, settings and downloads."""

    def __init__(self, models: Sequence[str], examples: Sequence[Path], seconds: float) -> None:
        # The time starts again with every event, as each returns the visit.
        self.visit = gr.State(None, time_to_live=seconds, delete_callback=lambda visit: visit and visit.close())
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                self.upload = gr.Image(
                    type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Image", height=220,
                    elem_id="upload",
                )  # fmt: skip
                self.uploads = [self.upload.upload]
                if examples:
                    files = [[str(path)] for path in examples]
                    chosen = gr.Examples(files, self.upload, label="Examples", api_visibility="private")
                    self.uploads.append(chosen.load_input_event.success)
                self.model = gr.Dropdown(models, value=models[0], label="Model", elem_id="model")
                self.other = gr.Dropdown(
                    [NO_OTHER, *models], value=NO_OTHER, label="Compare with", elem_id="other", visible=len(models) > 1
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
        """Connect the events with their handlers."""
        first, second = self.panes
        settings = [self.opacity, self.channel, self.model, first.legend, self.other, second.legend]
        # One at a time, so that threads do not compete for the cores; of a slider's many values only the last counts.
        common: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "models", "api_visibility": "private"}
        last = {**common, "trigger_mode": "always_last"}
        everything = [self.visit, *first.outputs, *second.outputs]
        drawn: dict[str, Any] = {"outputs": [self.visit, *first.drawn, *second.drawn], "show_progress": "hidden"}
        for upload in self.uploads:
            # Gradio would open the file by itself.
            upload(actions.upload, [self.upload, *settings], everything, preprocess=False, **last)
        self.upload.clear(actions.clear, settings, everything, **common)
        for choice in (self.model, self.other):
            choice.input(actions.view, [self.visit, *settings], everything, **last)
        for pane in self.panes:
            pane.image.select(actions.click, [self.visit, *settings], **drawn, **common)
            pane.legend.input(actions.redraw, [self.visit, *settings], **drawn, **last)
        for setting in (self.opacity, self.channel):
            setting.change(actions.redraw, [self.visit, *settings], **drawn, **last)
        for model, pane in zip((self.model, self.other), self.panes, strict=True):
            inputs = [self.visit, self.opacity, model, pane.legend]
            for what, button, link in pane.downloads:
                written = button.click(partial(actions.download, what), inputs, [self.visit, link], **common)
                written.success(None, js=FETCH.format(name=link.elem_id), api_visibility="private")


def build_page(actions: Actions, examples: Sequence[Path], config: DemoConfig) -> gr.Blocks:
    """The page, not yet served, with images to try as examples."""
    seconds = 60 * config.keep_minutes
    # How often, and from which age on, Gradio deletes files.
    page = gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(max(1, int(0.1 * seconds)), max(1, int(0.9 * seconds)))
    )
    with page:
        gr.Markdown(
            f"# {TITLE}\nDrop or paste an image, then click on it: every head of the network shows which pixels it "
            f"groups with that point. {', '.join(FORMATS)}; up to {config.largest_megabytes:g} MB and "
            f"{config.largest_megapixels:g} megapixels. Images stay on the computer that serves this page, and are "
            f"deleted after {config.keep_minutes:g} minutes."
        )
        Controls([*actions.models], examples, seconds).connect(actions)
        # Gradio has a button for what is on the clipboard; people press Ctrl+V.
        page.load(None, js=(HERE / "paste.js").read_text(encoding="utf-8"), api_visibility="private")
        page.unload(actions.leave)
    return page
