"""Charts as Vega-Lite specifications: static data with hover and zoom. `templates/report.js` embeds and filters them.

Colours are CSS variables of `templates/report.css`, so that dark mode and printing need no second drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainable.metrics.objective import Objective

Cell = str | int | float | bool | None
Json = dict[str, Any]

ROWS = "rows"
"""Name of the data of a chart, whose columns are the fields of its encodings."""
ZOOM: Json = {
    "name": "zoom",
    "select": {
        "type": "interval",
        # A plain wheel and a finger scroll the page.
        "zoom": "wheel![event.ctrlKey || event.metaKey]",
        "translate": "[pointerdown[event.pointerType == 'mouse'], window:pointerup] > window:pointermove!",
        "clear": "dblclick",
    },
    "bind": "scales",
}
HOVER: Json = {
    "name": "hover",
    "select": {"type": "point", "fields": ["trial"], "on": "pointerover", "clear": "pointerout"},
}
OUTCOMES = ("finished", "stopped", "diverged", "constraint", "failed", "unfinished")
EDGE = 8
"""Pixels between the outermost points and the edge."""
MANY_LINES = 40
"""Trials from which on their lines are translucent."""
MAX_RUNGS = 6
"""Steps of the ordered colours."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with the data behind it."""

    key: str
    """Unique on the page."""
    title: str
    text: str
    """What it shows, in a sentence or two: its caption, and its description for a screen reader."""
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    """Values of the columns; of a chart of trials, with a column `trial`."""
    views: Mapping[str, Json]
    """Vega-Lite specifications without data, by the name of the choice; with one, its name is ''."""
    choice: str = ""
    """What the reader chooses by the names of several views."""
    zooms: bool = True
    wide: bool = True
    """Whether it takes the whole width of the page."""
    min_width: int = 0
    """Pixels; a narrower page scrolls the chart."""
    filtered: str = ""
    """The filter that the rows follow; '' for none."""

    def as_plain(self) -> Json:
        """For the script of the page."""
        return {
            "title": self.title,
            "text": self.text,
            **table_of(self.columns, self.rows),
            "views": dict(self.views),
            "filtered": self.filtered,
        }


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A position of a number."""

    field: str
    title: str | None
    log: bool = False
    zero: bool = False
    domain: Sequence[float] | None = None
    extra: Json | None = None
    """Other properties of the axis."""

    def encoding(self) -> Json:
        """For Vega-Lite."""
        scale: Json = {"type": "log"} if self.log else {"zero": self.zero}
        if self.domain is not None:
            scale |= {"domain": list(self.domain), "nice": False}
        elif not self.zero:
            scale["padding"] = EDGE
        axis = {"title": self.title, **(self.extra or {})}
        return {"field": self.field, "type": "quantitative", "scale": scale, "axis": axis}


def sheet(height: int, *, layers: Sequence[Json], params: Sequence[Json] = (), **others: Any) -> Json:
    """A specification of the width of its container, of one or several layers."""
    common = {"width": "container", "height": height, "data": {"name": ROWS}, **others}
    if len(layers) == 1:
        return {**common, **layers[0], "params": [*params, *layers[0].get("params", [])]}
    first, *rest = layers
    return {**common, "layer": [{**first, "params": [*params, *first.get("params", [])]}, *rest]}


def tooltip(**titles: str) -> list[Json]:
    """Fields and their titles; a title that ends with '%' or a number of digits formats the field, as 'score|.4f'."""
    found = []
    for name, text in titles.items():
        title, _, form = text.partition("|")
        found.append({"field": name, "title": title, **({"format": form, "type": "quantitative"} if form else {})})
    return found


def line_opacity(lines: int) -> Json:
    """The line under the mouse stands out."""
    return {"condition": {"param": "hover", "value": 0.95 if lines < MANY_LINES else 0.6}, "value": 0.08}


def outcome_colours(outcomes: Iterable[str], *, legend: bool = True) -> Json:
    """The colours of the outcomes that occur."""
    found = set(outcomes)
    names = [name for name in OUTCOMES if name in found]
    scale = {"domain": names, "range": [f"var(--{name})" for name in names]}
    return {"field": "outcome", "type": "nominal", "scale": scale, "legend": {"title": None} if legend else None}


def ordinal_colours(name: str, values: Sequence[int], title: str) -> Json:
    """Ordered colours for a few numbers, ascending."""
    gap = (MAX_RUNGS - 1) / max(1, len(values) - 1)
    steps = [round(MAX_RUNGS - gap * below) for below in reversed(range(len(values)))]
    scale = {"domain": list(values), "range": [f"var(--step{step})" for step in steps]}
    return {"field": name, "type": "ordinal", "scale": scale, "legend": {"title": title}}


def trial_tooltip(objective: Objective) -> list[Json]:
    """Of the attributes of a trial, which the script joins to the rows of a chart; the second and third say what it is.

    The value of its best epoch has the key of the objective.
    """
    best = {objective.key: f"best {objective.key}|.4f"}
    return tooltip(trial="trial", source="from", outcome="outcome", **best, epochs="epochs")


def objective_title(objective: Objective, of: str = "") -> str:
    """The title of an axis: the key of the objective, after a word such as 'validation'."""
    title = f"{of} {objective.key}".lstrip()
    return title if objective.sign > 0 else f"{title} (smaller is better)"


def table_of(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Json:
    """Columns and rows for the script of the page."""
    return {"columns": list(columns), "rows": [[_plain(value) for value in row] for row in rows]}


def _plain(value: Cell) -> Cell:
    """As JSON, with six significant digits; None for NaN and infinities."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
