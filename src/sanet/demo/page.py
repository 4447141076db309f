"""The page: what the models know, an image under their masks, what a click and a brush tell, and the controls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from sanet.demo.actions import Actions
from sanet.demo.config import DemoConfig
from sanet.demo.visit import Channel, Download, Layer
from sanet.serve.limits import FORMATS

HERE = Path(__file__).parent
TITLE = "A class for every pixel"
PAPER = "https://arxiv.org/abs/1909.03402"
LAYERS: tuple[Layer, ...] = get_args(Layer)
CHANNELS: tuple[Channel, ...] = get_args(Channel)
DOWNLOADS: tuple[Download, ...] = get_args(Download)
NO_OTHER = "—"
# A hidden button gets the file once it is written, and is then clicked for the visitor.
FETCH = "() => setTimeout(() => document.getElementById('{name}').click(), 300)"


class Pane:
    """One model's view of the image; the components are made where this is, and show what the model knows."""

    def __init__(self, name: str, visible: bool, known: Sequence[dict[str, Any]]) -> None:
        with gr.Column(visible=visible, min_width=300, elem_classes="pane") as self.column:
            self.image = gr.Image(
                show_label=True, interactive=False, format="jpeg", buttons=["fullscreen"], elem_id=f"{name}-image",
                elem_classes="shown",
            )  # fmt: skip
            self.status = gr.HTML(known[1], **_template("status"), elem_id=f"{name}-status")
            self.groups = gr.HTML([], **_template("groups"), elem_id=f"{name}-groups")
            self.legend = gr.HTML(known[0], **_template("legend"), elem_id=f"{name}-legend")
            with gr.Row(elem_classes="files"):
                buttons = [
                    gr.Button(f"Download {what}", size="sm", elem_id=f"{name}-get-{what}", min_width=120)
                    for what in DOWNLOADS
                ]
            links = [gr.DownloadButton(elem_classes="fetch", elem_id=f"{name}-link-{what}") for what in DOWNLOADS]
            self.downloads = list(zip(DOWNLOADS, buttons, links, strict=True))

        # What the visitor does not set; and all in the order of ``Actions.view``.
        self.drawn: list[Any] = [self.image, self.status, self.groups]
        self.outputs = [self.column, self.legend, *self.drawn]


def _template(name: str) -> dict[str, Any]:
    """The files of an element that Gradio does not have."""
    files = {"html_template": f"{name}.html", "css_template": f"{name}.css", "js_on_load": f"{name}.js"}
    return {key: (HERE / file).read_text(encoding="utf-8") for key, file in files.items() if (HERE / file).exists()}


class Controls:
    """Everything on the page, made where this is: image, models, panes, settings and downloads."""

    def __init__(self, actions: Actions, examples: Sequence[Path], seconds: float) -> None:
        models, known = [*actions.models], actions.known(next(iter(actions.models)))
        classes = dict.fromkeys(row["name"] for model in models for row in actions.known(model)[0]["rows"])
        # The time starts again with every event, as each returns the visit.
        self.visit = gr.State(None, time_to_live=seconds, delete_callback=lambda visit: visit and visit.close())
        with gr.Row(elem_id="stage"):
            with gr.Column(elem_id="input", min_width=0):
                self.upload = gr.Image(
                    type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Image", height=220,
                    elem_id="upload",
                )  # fmt: skip
                self.uploads = [self.upload.upload]
            if examples:
                with gr.Column(elem_id="examples", min_width=0):
                    files = [[str(path)] for path in examples]
                    chosen = gr.Examples(files, self.upload, label="Examples", api_visibility="private")
                    self.uploads.append(chosen.load_input_event.success)
            with gr.Column(elem_id="picture", min_width=0), gr.Row():
                self.panes = (Pane("first", True, known), Pane("second", False, known))
            with gr.Column(elem_id="controls", min_width=0):
                self.model = gr.Dropdown(models, value=models[0], label="Model", elem_id="model")
                self.other = gr.Dropdown(
                    [NO_OTHER, *models], value=NO_OTHER, label="Compare with", elem_id="other", visible=len(models) > 1
                )
                self.layer = gr.Radio(LAYERS, value=LAYERS[0], label="Layer", elem_id="layer")
                self.opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity", elem_id="opacity")
                self.channel = gr.Radio(CHANNELS, value=CHANNELS[0], label="Heat maps of a click", elem_id="channel")
                with gr.Group(elem_id="brushing"):
                    self.brushed = gr.Dropdown(
                        [NO_OTHER, *classes], value=NO_OTHER, label="Brush a class", elem_id="brushed"
                    )
                    self.brush = gr.HTML({"on": False}, **_template("brush"), elem_id="brush", padding=True)
                    self.again = gr.Button("Clear the brush", size="sm", elem_id="again")

    def connect(self, actions: Actions) -> None:
        """Connect the events with their handlers."""
        first, second = self.panes
        settings = [
            *(self.opacity, self.layer, self.channel, self.brushed),
            *(self.model, first.legend, self.other, second.legend),
        ]
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
        for setting in (self.opacity, self.layer, self.channel):
            setting.change(actions.redraw, [self.visit, *settings], **drawn, **last)
        # Every stroke counts.
        self.brush.input(actions.brush, [self.visit, self.brush, *settings], **drawn, **common, trigger_mode="multiple")
        for event in (self.brushed.input, self.again.click):
            event(actions.unbrush, [self.visit, *settings], **drawn, **common)
        self.brushed.input(
            None, self.brushed, self.brush, js=f"(name) => ({{on: name != '{NO_OTHER}'}})", api_visibility="private"
        )
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
            f"# {TITLE}\nNetworks such as [SANet]({PAPER}) say of every pixel of an image what it shows. Drop or paste "
            "one, or choose an example; then click on it: the class there, how sure the model is, what it looks at."
        )
        Controls(actions, examples, seconds).connect(actions)
        gr.Markdown(
            f"{', '.join(FORMATS)}; up to {config.largest_megabytes:g} MB and {config.largest_megapixels:g} megapixels."
            f" Images stay on the computer that serves the page, and are deleted after {config.keep_minutes:g} minutes."
        )
        with gr.Accordion("How to read this page", open=False):
            urls = metadata("sanet-segmentation").get_all("Project-URL", [])
            links = "".join("\n- [{}]({})".format(*entry.split(", ", 1)) for entry in urls)
            gr.Markdown((HERE / "reading.md").read_text(encoding="utf-8") + links)
        # Gradio has a button for what is on the clipboard; people press Ctrl+V.
        page.load(None, js=(HERE / "paste.js").read_text(encoding="utf-8"), api_visibility="private")
        page.unload(actions.leave)
    return page
