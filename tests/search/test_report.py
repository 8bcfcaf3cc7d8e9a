"""The report of a comparison: three files that say the same, whatever names users give and whatever failed."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from data.pictures import save_png
from search.compare import COLUMNS
from search.report import show_comparison, write_report

NASTY = "<b>x</b>|`y`"


def row(name: str, score: float | None, **changes: Any) -> dict[str, Any]:
    keys = {column["key"] for column in COLUMNS}
    figures = None
    if score is not None:
        figures = {key: {"value": score, "low": score - 0.02, "high": score + 0.03} for key in keys}
    return {
        "recipe": name,
        "source": "",
        "faithful": False,
        "family": "debug",
        "width": 4,
        "parameters": 1_234,
        "macs": 56_000_000,
        "batch_size": 16,
        "losses": "bce mask, l1 depth",
        "optimizer": "sgd 0.1",
        "policy": "step",
        "outcome": "finished" if figures else "diverged",
        "reason": "" if figures else "The loss became nan",
        "epoch": 2 if figures else None,
        "seconds": 3.4,
        "figures": figures,
        "pictures": None,
        **changes,
    }


def comparison(*rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "compare",
        "data": "rooms",
        "data_fingerprint": "ab",
        "image_size": 64,
        "epochs": 9,
        "seed": 0,
        "complete": True,
        "samples": {"train": 420, "val": 92, "test": 88},
        "samples_seen": 3_780,
        "test": {"pictures": 88, "backgrounds": 22},
        "notes": ["batch sizes are the recipes' own"],
        "columns": list(COLUMNS),
        "rows": list(rows),
        "baselines": {
            "mask_threshold": {"mask_iou": 0.875, "mask_rmse": 0.2, "threshold": 20.0},
            "depth_mean": {"depth_delta1": 0.25, "depth_rmse": 0.3},
        },
        "versions": {},
        "seconds": 12.0,
    }


class Page(HTMLParser):
    """What a page shows, and which tags it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.open = "", [], []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "line", "circle"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def test_the_best_comes_first_and_what_failed_last(tmp_path: Path) -> None:
    """A reader looks at the top, and must learn at the bottom what is missing and why."""
    files = write_report(comparison(row("low", 0.3), row("broken", None), row("high", 0.6)), tmp_path)
    markdown = files["md"].read_text()

    table = [line for line in markdown.splitlines() if line.startswith(("| high", "| low", "| broken"))][:3]
    assert [line.split()[1] for line in table] == ["high", "low", "broken"]
    assert "**.600 (.580–.630)**" in table[0]
    assert ".300 (.280–.330) |" in table[1].split("**")[0]  # the score is not marked; an error of .3 is the best
    assert "- broken diverged: The loss became nan" in markdown


def test_baselines_stand_in_the_table(tmp_path: Path) -> None:
    """A network that loses to a threshold on the difference of two pictures is no network."""
    files = write_report(comparison(row("a", 0.5)), tmp_path)
    for text in (files["md"].read_text(), Page(files["html"].read_text()).text):
        assert "a threshold on the difference" in text
        assert ".875" in text


def test_every_column_is_there(tmp_path: Path) -> None:
    """Our metrics, and each project's own."""
    files = write_report(comparison(row("a", 0.5)), tmp_path)
    for text in (files["md"].read_text(), Page(files["html"].read_text()).text):
        for column in COLUMNS:
            assert column["title"] in text
        assert "The metric of monimoyd" in text


def test_names_are_text_and_no_markup(tmp_path: Path) -> None:
    """They come from files that anybody may have written."""
    files = write_report(comparison(row(NASTY, 0.5), row("bad", None, reason=NASTY)), tmp_path)
    page = Page(files["html"].read_text())

    assert page.text.count(NASTY) >= 3
    assert "b" not in [tag for tag, _ in page.tags]
    assert NASTY not in files["md"].read_text()


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    """It is sent around by itself: pictures inside, no script, no address."""
    save_png(np.zeros((4, 6, 3), np.uint8), tmp_path / "a.png")
    html = write_report(comparison(row("a", 0.5, pictures="a.png")), tmp_path)["html"].read_text()
    page = Page(html)

    assert page.open == []
    assert "script" not in [tag for tag, _ in page.tags]
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 1
    assert str(sources[0]).startswith("data:image/png;base64,")
    assert "http" not in html
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in page.tags if tag == "th")


def test_json_is_the_comparison(tmp_path: Path) -> None:
    """Programs read what people read."""
    given = comparison(row("a", 0.5))
    assert json.loads(write_report(given, tmp_path)["json"].read_text()) == given
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.html", "comparison.json", "comparison.md"]


def test_figures_without_an_interval_are_shown(tmp_path: Path) -> None:
    """A single background says nothing of how much others would differ."""
    alone = row("a", 0.5)
    for figure in alone["figures"].values():
        figure.update(low=None, high=None)
    files = write_report(comparison(alone), tmp_path)
    assert "**.500** |" in files["md"].read_text()
    assert "0.500" in Page(files["html"].read_text()).text


def test_nothing_but_failures_is_a_report_too(tmp_path: Path) -> None:
    """Somebody waited hours for it."""
    page = Page(write_report(comparison(row("a", None)), tmp_path)["html"].read_text())
    assert "No recipe came to a result." in page.text


@pytest.mark.parametrize("width", [120, 100])
def test_the_screen_has_room_for_the_table(width: int) -> None:
    """Lines that are broken in the middle cannot be read."""
    console = Console(width=width, record=True, file=io.StringIO())
    show_comparison(console, comparison(row("raguram-resunet-lite", 0.5), row("bad", None)))
    shown = console.export_text()
    line = next(line for line in shown.splitlines() if line.startswith("raguram-resunet-lite"))
    assert ".500 (.480–.530)" in line
    assert len(line.rstrip()) <= width
    assert "bad diverged: The loss became nan" in shown


def test_recipes_below_the_baselines_are_named(tmp_path: Path) -> None:
    """A network that is no better than none must not look like a result."""
    files = write_report(comparison(row("good", 0.9), row("poor", 0.3)), tmp_path)
    for text in (files["md"].read_text(), Page(files["html"].read_text()).text):
        assert "Not better than without a network (score 0.562): poor." in text


def test_a_value_that_several_share_is_not_the_best(tmp_path: Path) -> None:
    """Three zeros are no winners."""
    assert "**" not in write_report(comparison(row("a", 0.5), row("b", 0.5)), tmp_path)["md"].read_text()
