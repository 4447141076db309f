"""What happens on the page: a picture arrives, a point is clicked, a setting changes, a file is taken away."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from sanet.demo.limits import read_upload
from sanet.demo.visit import Channel, Download, Visit
from sanet.demo.visits import Visits
from sanet.evaluation.page import data_url
from sanet.inference.pictures import percent
from sanet.insight.groups import Explainer
from sanet.structures import UsageError, printable

Legend = dict[str, Any]
NO_LEGEND: Legend = {"rows": [], "hidden": []}


class Settings(NamedTuple):
    """What the page is set to, in the order in which its events give it."""

    opacity: float
    channel: Channel
    model: str
    legend: Legend
    rival: str
    rivals_legend: Legend


class Actions:
    """The handlers of the page's events. ``settings`` are the values of ``Settings``: Gradio gives them one by one.

    Args:
        models: by the names that the page shows.
        visits: those that are open.
        largest_megapixels: of a picture, in 10^6 pixels.
        folder: for downloads.
    """

    def __init__(self, models: Mapping[str, Explainer], visits: Visits, largest_megapixels: float, folder: str) -> None:
        self.models = models
        self.visits = visits
        self.largest_megapixels = largest_megapixels
        self.folder = folder

    def arrive(
        self,
        payload: dict[str, Any] | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),
        *settings: Any,
    ) -> list[Any]:
        """A new picture."""
        if payload is None or not payload.get("path"):
            raise gr.Error("send the picture as a file")
        path = Path(payload["path"])
        name = Path(payload.get("orig_name") or path.name).name
        try:
            image = read_upload(path, name, Path(self.folder), self.largest_megapixels)
        except UsageError as error:
            # Browsers show it as HTML; and what a visitor calls a file is not for the terminal.
            raise gr.Error(escape(printable(str(error))), print_exception=False) from error
        self.visits.put(_key(request), Visit(image, name, self.folder))
        return self.view(request, progress, *settings)

    def clear(self, request: gr.Request, *settings: Any) -> list[Any]:
        """The picture was taken off the page, and what was seen of it goes, too."""
        self.visits.close(_key(request))
        return self._panes(None, Settings(*settings), gr.Progress())

    def leave(self, request: gr.Request) -> None:
        """The page was closed, or lost its connection."""
        self.visits.leave(_key(request))

    def click(self, event: gr.SelectData, request: gr.Request, *settings: Any) -> list[Any]:
        """A point of what is shown."""
        self._visit(request).click((int(event.index[0]), int(event.index[1])))
        return self.redraw(request, *settings)

    def view(self, request: gr.Request, progress: gr.Progress = gr.Progress(), *settings: Any) -> list[Any]:
        """What both panes show: of each whether it is there, its legend, picture, status and groups."""
        visit, now = self.visits.get(_key(request)), Settings(*settings)
        if visit is None and now.legend["rows"]:
            raise self._expired()
        return self._panes(visit, now, progress)

    def _panes(self, visit: Visit | None, now: Settings, progress: gr.Progress) -> list[Any]:
        values: list[Any] = []
        for name, shown in ((now.model, now.legend), (now.rival, now.rivals_legend)):
            if visit is None or name not in self.models:
                values += [gr.Column(visible=name in self.models), NO_LEGEND, None, "", []]
                continue
            if name not in visit.seen:
                progress(0.3, f"{name} looks at {visit.name}")
            values += self._pane(visit, name, shown["hidden"], now.opacity, now.channel)
        return values

    def redraw(self, request: gr.Request, *settings: Any) -> list[Any]:
        """``view`` without what its own settings are: an answer that comes late must not set them back."""
        values = self.view(request, gr.Progress(), *settings)
        half = len(values) // 2
        return [*values[2:half], *values[half + 2 :]]

    def mask(self, opacity: float, model: str, legend: Legend, request: gr.Request) -> str:
        """The file of the classes."""
        return self._save("mask", opacity, model, legend, request)

    def overlay(self, opacity: float, model: str, legend: Legend, request: gr.Request) -> str:
        """The file of the picture under its mask."""
        return self._save("overlay", opacity, model, legend, request)

    def figure(self, opacity: float, model: str, legend: Legend, request: gr.Request) -> str:
        """The file of all groups of the point."""
        return self._save("figure", opacity, model, legend, request)

    def _pane(self, visit: Visit, name: str, hidden: list[str], opacity: float, channel: Channel) -> list[Any]:
        seen = visit.see(name, self.models)
        hidden = [entry for entry in hidden if entry in seen.encoding.labels.names]
        rows = [
            {
                "name": entry.name,
                "text": _literal(entry.name),
                "color": "rgb({},{},{})".format(*entry.color),
                "share": percent(entry.share),
                "checked": "" if entry.name in hidden else "checked",
            }
            for entry in seen.legend
        ]
        height, width = visit.image.shape[:2]
        groups = visit.groups(seen, channel)
        high, wide = seen.encoding.seen
        text = f"{width} x {height} pixels, seen{'' if (high, wide) == (height, width) else f' as {wide} x {high}'} in "
        text += f"{seen.seconds:.2f} s"
        if visit.point is not None:
            text += f"; point {visit.point[0]}, {visit.point[1]}"
            text += "" if groups else "; this network has no attention to look into"
        return [
            gr.Column(visible=True),
            {"rows": rows, "hidden": hidden},
            gr.Image(visit.shown(seen, opacity, hidden), label=f"{name}: click anywhere"),
            text,
            [{"src": data_url(picture, "JPEG"), "caption": caption} for picture, caption in groups],
        ]

    def _save(self, what: Download, opacity: float, model: str, legend: Legend, request: gr.Request) -> str:
        visit = self._visit(request)
        if what == "figure" and (visit.point is None or not self.models[model].stages):
            raise gr.Error("the figure shows the pixel groups of a point: click on a picture under a SANet first")
        return str(visit.save(visit.see(model, self.models), what, opacity, legend["hidden"]))

    def _visit(self, request: gr.Request) -> Visit:
        visit = self.visits.get(_key(request))
        if visit is None:
            raise self._expired()
        return visit

    def _expired(self) -> gr.Error:
        minutes = self.visits.seconds / 60
        return gr.Error(f"there is no picture, or it was deleted, as all are after {minutes:g} minutes; drop it again")


def _literal(name: str) -> str:
    """Safe in the JavaScript template that Gradio makes of the legend: a class's name may be anybody's."""
    return name.replace("\\", "\\\\").replace("${", "\\${")


def _key(request: gr.Request) -> str:
    if not request.session_hash:
        raise gr.Error("open the page in a browser")
    return request.session_hash
