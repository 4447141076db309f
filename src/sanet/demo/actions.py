"""What happens on the page: an image comes, is clicked or brushed, a setting changes, a file is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import gradio as gr
import numpy as np

from sanet.demo.config import DemoConfig
from sanet.demo.visit import Channel, Download, Layer, Result, Visit, read_upload
from sanet.evaluation.page import data_url
from sanet.inference.drawing import percent
from sanet.insight.groups import Explainer
from sanet.structures import LabelSet, UsageError, printable

Legend = dict[str, Any]
NO_LEGEND: Legend = {"rows": [], "hidden": []}
NO_STATUS: dict[str, Any] = {"rows": [], "text": ""}
HINTS: dict[Layer, str] = {
    "mask": "click anywhere",
    "confidence": "confidence, from dark, unsure, to bright, sure",
    "image": "the image alone",
}
LONGEST_STROKE = 5000  # points


class Settings(NamedTuple):
    """What the page is set to, in the order in which its events give it."""

    opacity: float
    layer: Layer
    channel: Channel
    brushed: str
    model: str
    legend: Legend
    other: str
    others_legend: Legend


class Actions:
    """The handlers of the page's events.

    Each is given the visitor's own ``Visit``, which Gradio keeps by session, and the values of ``Settings`` one by one.
    Uploads and downloads lie in the folder.
    """

    def __init__(self, models: Mapping[str, Explainer], config: DemoConfig, folder: str) -> None:
        self.models, self.config, self.folder = models, config, folder
        # By session; Gradio's state, which holds the visits, cannot be asked when a page is closed.
        self._visits: WeakValueDictionary[str, Visit] = WeakValueDictionary()

    def upload(
        self,
        payload: dict[str, Any] | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),
        *settings: Any,
    ) -> list[Any]:
        """A new image: the visit, and what ``view`` returns."""
        if payload is None or not payload.get("path"):
            raise gr.Error("upload the image as a file")
        path = Path(payload["path"])
        name = Path(payload.get("orig_name") or path.name).name
        try:
            image = read_upload(path, name, Path(self.folder), self.config.largest_megapixels)
        except UsageError as error:
            # Browsers show it as HTML; and what a visitor calls a file is not for the terminal.
            raise gr.Error(escape(printable(str(error))), print_exception=False) from error
        visit = self._visits[request.session_hash or ""] = Visit(image, name, self.folder)
        return self.view(visit, progress, *settings)

    def clear(self, *settings: Any) -> list[Any]:
        """The image is removed from the page."""
        return [None, *self._panes(None, Settings(*settings), gr.Progress())]

    def leave(self, request: gr.Request) -> None:
        """The page is closed, or loses its connection."""
        visit = self._visits.pop(request.session_hash or "", None)
        if visit is not None:
            visit.close()

    def click(self, event: gr.SelectData, visit: Visit | None, *settings: Any) -> list[Any]:
        """A click on what is shown."""
        self._required(visit).click((int(event.index[0]), int(event.index[1])))
        return self.redraw(visit, *settings)

    def brush(self, visit: Visit | None, brush: dict[str, Any], *settings: Any) -> list[Any]:
        """A stroke over what is shown."""
        try:
            points = np.array(brush["stroke"], np.float64)
            fits = points.shape[1:] == (2,) and len(points) <= LONGEST_STROKE and ((points >= 0) & (points <= 1)).all()
        except (KeyError, OverflowError, TypeError, ValueError):
            fits = False
        if not fits:
            raise gr.Error("no stroke over an image", print_exception=False)
        self._required(visit).brush(points.tolist())
        return self.redraw(visit, *settings)

    def unbrush(self, visit: Visit | None, *settings: Any) -> list[Any]:
        """Another class is brushed, or the same one again."""
        if visit is not None:
            visit.truth[:] = False
        return self.redraw(visit, *settings)

    def view(self, visit: Visit | None, progress: gr.Progress = gr.Progress(), *settings: Any) -> list[Any]:
        """The visit, and for both panes: whether it is visible, its legend, image, status and groups."""
        now = Settings(*settings)
        if visit is not None or any(row["share"] for row in now.legend["rows"]):
            visit = self._required(visit)
        return [visit, *self._panes(visit, now, progress)]

    def redraw(self, visit: Visit | None, *settings: Any) -> list[Any]:
        """``view`` without what the visitor sets: an answer that comes late must not set it back."""
        visit, *values = self.view(visit, gr.Progress(), *settings)
        half = len(values) // 2
        return [visit, *values[2:half], *values[half + 2 :]]

    def download(
        self, what: Download, visit: Visit | None, opacity: float, model: str, legend: Legend
    ) -> tuple[Visit, str]:
        """The visit, and the file."""
        visit = self._required(visit)
        if what == "figure" and visit.point is None:
            raise gr.Error("the figure shows the pixel groups of a point: click on an image first")
        return visit, str(visit.save(visit.result(model, self.models), what, opacity, legend["hidden"]))

    def _panes(self, visit: Visit | None, now: Settings, progress: gr.Progress) -> list[Any]:
        values: list[Any] = []
        for name, legend in ((now.model, now.legend), (now.other, now.others_legend)):
            # Closed, where the visitor left while the first pane was made.
            if visit is None or visit.closed or name not in self.models:
                known = self.known(name) if name in self.models else (NO_LEGEND, NO_STATUS)
                values += [gr.Column(visible=name in self.models), known[0], None, known[1], []]
                continue
            if name not in visit.results:
                progress(0.3, f"{name} labels {visit.name}")
            values += self._pane(visit, visit.result(name, self.models), legend["hidden"], now)
        return values

    def _pane(self, visit: Visit, result: Result, hidden: list[str], now: Settings) -> list[Any]:
        labels = result.encoding.labels
        hidden = [entry for entry in hidden if entry in labels.names]
        rows = [
            {**_row(labels, entry, percent(share)), "checked": "" if entry in hidden else "checked"}
            for entry, share in result.shares.items()
        ]
        groups = visit.groups(result, now.channel)
        hint = f"brush all of {now.brushed}" if now.brushed in labels.names else HINTS[now.layer]
        return [
            gr.Column(visible=True),
            {"rows": rows, "hidden": hidden},
            gr.Image(visit.overlay(result, now.opacity, hidden, now.layer), label=f"{result.model}: {hint}"),
            _status(visit, result, now.brushed),
            [{"src": data_url(image, "JPEG"), "caption": caption} for image, caption in groups],
        ]

    def known(self, name: str) -> tuple[Legend, dict[str, Any]]:
        """Legend and status of a pane without an image: the classes that its model knows."""
        labels = self.models[name].network.labels
        rows = [{**_row(labels, entry, ""), "checked": "disabled"} for entry in labels.names]
        return {"rows": rows, "hidden": []}, {"rows": [], "text": f"{_text(name)} knows {len(rows)} classes:"}

    def _required(self, visit: Visit | None) -> Visit:
        if visit is None or visit.closed:
            minutes = self.config.keep_minutes
            raise gr.Error(
                f"no image: it is deleted after {minutes:g} minutes, and when the page is closed; drop it again"
            )
        return visit


def _status(visit: Visit, result: Result, brushed: str) -> dict[str, Any]:
    """The class of the point, the IoU of what is brushed, and the sizes."""
    (height, width), (rows, columns) = result.encoding.size, result.encoding.input_size
    labels, found = result.encoding.labels, []
    text = f"{width} x {height} pixels"
    if (rows, columns) != (height, width):
        text += f", input of the network {columns} x {rows}"
    text += f", {result.seconds:.2f} s"
    if result.unlike is not None:
        text += f"; farther from the model's training images than {percent(min(0.999, result.unlike))} of held-out ones"
    if visit.point is not None:
        x, y = visit.point
        name = labels.names[result.prediction[y, x]]
        # Never 100.0%, which no model is sure of.
        found.append(_row(labels, name, f"confidence {percent(min(0.999, float(result.confidence[y, x])))}"))
        text += f"; point {x}, {y}"
    if brushed in labels.names and visit.truth.any():
        found.append(_row(labels, brushed, f"IoU {visit.iou(result, brushed):.2f} with the brushed region"))
    return {"rows": found, "text": text}


def _row(labels: LabelSet, name: str, share: str) -> dict[str, str]:
    """A class, its colour, and what is said of it."""
    color = "rgb({},{},{})".format(*labels.colors[labels.names.index(name)])
    return {"name": name, "text": _text(name), "color": color, "share": share}


def _text(name: str) -> str:
    """A name, which may be anybody's, in what Gradio makes a JavaScript template of."""
    return name.replace("\\", "\\\\").replace("${", "\\${")
