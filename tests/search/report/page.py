"""A page as its text, its tags and the data of its charts, without a browser."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """What a page shows, and which tags it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.open, self.data = "", [], [], ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "script"}:
            self.text += data
        if self.tags and self.tags[-1] == ("script", {"type": "application/json", "id": "data"}):
            self.data += data

    def rows(self, chart: str) -> list[list[Any]]:
        """The data of a chart."""
        rows: list[list[Any]] = json.loads(self.data)["charts"][chart]["rows"]
        return rows
