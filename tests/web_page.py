"""A page of HTML, parsed, and what is asked of every page that sanet writes."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

VOID_ELEMENTS = {"meta", "img"}


class Page(HTMLParser):
    """A parsed page: its elements and text; fails where a tag is not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.pieces.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def assert_needs_nothing(self) -> None:
        """No other file, no script and no network."""
        for _, attributes in self.elements:
            assert all(attributes.get(key, "data:").startswith("data:") for key in ("src", "href", "srcset"))
        assert not {"script", "link", "iframe"} & {tag for tag, _ in self.elements}
        style = self.source[self.source.index("<style>") : self.source.index("</style>")]
        assert not re.search(r"https?:|url\(|@import", style)
