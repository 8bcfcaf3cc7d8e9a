"""The HTML page of a comparison: `templates/comparison.html.j2` with embedded images."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from search.results.comparison import (
    BASELINES,
    Column,
    Comparison,
    Row,
    below_baselines,
    provenance,
    summary_of,
    unfinished,
)

WIDTH, LEFT, ROW, TOP = 860, 264, 30, 26
"""Of the chart, in pixels: its width, the column of names, the height of a row, the space above the first row."""
MAX_NAME = 32
"""Characters of a name in the chart."""


@dataclass(frozen=True, kw_only=True)
class _Cell:
    value: float
    low: float | None
    high: float | None
    is_best: bool


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The metrics of one group; each row has a label."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[_Cell | None]]]
    baselines: list[tuple[str, list[float | None]]]


@dataclass(frozen=True, kw_only=True)
class _Tick:
    x: float | None
    value: float


@dataclass(frozen=True, kw_only=True)
class _Bar(_Tick):
    """A recipe's score; x, y, low and high are pixels."""

    name: str
    y: int
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class _Chart:
    width: int
    left: int
    top: int
    height: int
    bars: list[_Bar]
    ticks: list[_Tick]
    baseline: _Tick


@dataclass(frozen=True, kw_only=True)
class _Image:
    name: str
    width: int
    height: int
    data: str
    """The PNG file in Base64."""


def page(comparison: Comparison, directory: Path) -> str:
    """Render the page.

    Args:
        comparison: as `run_comparison` returns it.
        directory: the directory of the experiment, with the images of the rows.
    """
    environment = Environment(
        loader=PackageLoader("search.results"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    rows = comparison.sorted_rows
    return environment.get_template("comparison.html.j2").render(
        name=comparison.name,
        summary=summary_of(comparison),
        notes=comparison.notes,
        below_baselines=below_baselines(comparison),
        chart=_chart(comparison, rows),
        tables=[_table(comparison, rows, *group) for group in comparison.groups.items()],
        rows=rows,
        unfinished=unfinished(rows),
        images=list(_images(rows, directory)),
        provenance=provenance(comparison),
    )


def _table(comparison: Comparison, rows: Sequence[Row], group: str, columns: Sequence[Column]) -> _Table:
    """A table of the metrics of one group."""
    is_first = group == next(iter(comparison.groups))
    best = {column.key: comparison.best_value(column) for column in columns}

    def cell(row: Row, key: str) -> _Cell | None:
        found = row.figure(key)
        if found is None:
            return None
        low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
        return _Cell(value=found.value, low=low, high=high, is_best=found.value == best[key])

    keys = [column.key for column in columns]
    return _Table(
        title=group.capitalize() if is_first else f"The metric of {group}",
        columns=[column.title for column in columns],
        rows=[(row.label, [cell(row, key) for key in keys]) for row in rows],
        baselines=[
            (name, [comparison.baselines[baseline].get(key) for key in keys])
            for baseline, name in BASELINES.items()
            if any(key in comparison.baselines[baseline] for key in keys)
        ],
    )


def _chart(comparison: Comparison, rows: Sequence[Row]) -> _Chart | None:
    """A dot and an interval per recipe, and a line for the baselines; None if no recipe has a score."""
    shown = [(row.label, score) for row in rows if (score := row.figure("score")) is not None]
    if not shown:
        return None
    baseline = comparison.baseline_score
    ends = [end for _, score in shown for end in (score.value, score.low, score.high) if not math.isnan(end)]
    ends.append(baseline)
    low, high = max(0.0, min(ends) - 0.03), min(1.0, max(ends) + 0.03)

    def across(value: float) -> float | None:
        return None if math.isnan(value) else round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - 70), 1)

    return _Chart(
        width=WIDTH,
        left=LEFT,
        top=TOP,
        height=TOP + ROW * len(shown),
        bars=[
            _Bar(
                name=_shortened(name),
                y=TOP + ROW * number + ROW // 2,
                x=across(score.value),
                value=score.value,
                low=across(score.low),
                high=across(score.high),
            )
            for number, (name, score) in enumerate(shown)
        ],
        ticks=[_Tick(x=across(tenth / 10), value=tenth / 10) for tenth in range(11) if low <= tenth / 10 <= high],
        baseline=_Tick(x=across(baseline), value=baseline),
    )


def _shortened(name: str) -> str:
    """A long name without its middle; its end can be an outcome such as '(diverged)'."""
    half = MAX_NAME // 2
    return name if len(name) <= MAX_NAME else f"{name[: half - 1]}…{name[-half:]}"


def _images(rows: Sequence[Row], directory: Path) -> Iterator[_Image]:
    """The grid of each recipe as Base64, with the size from its PNG header."""
    for row in rows:
        file = directory / row.pictures if row.pictures else None
        if file is not None and file.is_file():
            png = file.read_bytes()
            width, height = struct.unpack(">II", png[16:24])
            yield _Image(name=row.recipe, width=width, height=height, data=base64.b64encode(png).decode())
