"""The page of a comparison, and the files of its report: JSON, Markdown and HTML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.atomic import replace_file
from search.report.page import render
from search.report.samples import Picture, png_picture
from search.report.tables import MetricCell, MetricRow, MetricTable, scores_chart
from search.report.vega import Chart
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
from search.results.comparison_report import as_markdown
from trainable.metrics.bootstrap import Interval

WITHOUT = "without a network"
"""The row of the baselines in the chart."""
MAX_NAME = 32
"""Characters of a name in the chart."""


def write_comparison(comparison: Comparison, directory: Path) -> dict[str, Path]:
    """Write comparison.json, comparison.md and comparison.html, each atomically.

    Args:
        comparison: as `run_comparison` returns it.
        directory: the directory of the experiment, with the images of the rows.

    Returns:
        The files by suffix, without the dot.
    """
    texts = {
        "json": json.dumps(comparison.as_plain(), indent=2) + "\n",
        "md": as_markdown(comparison),
        "html": comparison_page(comparison, directory),
    }
    written = {}
    for suffix, text in texts.items():
        written[suffix] = directory / f"comparison.{suffix}"
        replace_file(written[suffix], text)
    return written


def comparison_page(comparison: Comparison, directory: Path) -> str:
    """Render the page; the arguments are those of `write_comparison`."""
    rows = comparison.sorted_rows
    chart = _chart(comparison, rows)
    return render(
        "comparison.html.j2",
        [chart] if chart else [],
        name=comparison.name,
        summary=summary_of(comparison),
        notes=comparison.notes,
        below_baselines=below_baselines(comparison),
        chart=chart,
        tables=[_table(comparison, rows, *group) for group in comparison.groups.items()],
        rows=rows,
        unfinished=unfinished(rows),
        pictures=list(_pictures(rows, directory)),
        provenance=provenance(comparison),
    )


def _table(comparison: Comparison, rows: Sequence[Row], group: str, columns: Sequence[Column]) -> MetricTable:
    """A table of the metrics of one group."""
    is_first = group == next(iter(comparison.groups))
    best = {column.key: comparison.best_value(column) for column in columns}

    def cell(row: Row, key: str) -> MetricCell | None:
        found = row.figure(key)
        return MetricCell.of(found, is_best=found is not None and found.value == best[key])

    keys = [column.key for column in columns]
    networks = [MetricRow(label=row.label, cells=[cell(row, key) for key in keys]) for row in rows]
    baselines = [
        MetricRow(
            label=name,
            cells=[MetricCell(value=values[key], low=None, high=None) if key in values else None for key in keys],
            is_baseline=True,
        )
        for baseline, name in BASELINES.items()
        if any(key in (values := comparison.baselines[baseline]) for key in keys)
    ]
    title = group.capitalize() if is_first else f"The metric of {group}"
    return MetricTable(title=title, columns=[column.title for column in columns], rows=[*networks, *baselines])


def _chart(comparison: Comparison, rows: Sequence[Row]) -> Chart | None:
    """The scores of the recipes, and a line for the baselines; None if no recipe has a score."""
    names = Counter(_shortened(row.label) for row in rows)
    scores = {
        row.label if names[_shortened(row.label)] > 1 else _shortened(row.label): found
        for row in rows
        if (found := row.figure("score")) is not None
    }
    if not scores:
        return None
    baseline = Interval(value=comparison.baseline_score, low=float("nan"), high=float("nan"))
    text = (
        "The score of each recipe on the test images, with its 95 % interval; without a network it is "
        f"{comparison.baseline_score:.3f} (the dashed line)."
    )
    return scores_chart("scores", scores | {WITHOUT: baseline}, WITHOUT, text)


def _shortened(name: str) -> str:
    """A long name without its middle; its end can be an outcome such as '(diverged)'."""
    half = MAX_NAME // 2
    return name if len(name) <= MAX_NAME else f"{name[: half - 1]}…{name[-half:]}"


def _pictures(rows: Sequence[Row], directory: Path) -> Iterator[Picture]:
    """The grid of each recipe."""
    for row in rows:
        file = directory / row.pictures if row.pictures else None
        if file is not None and file.is_file():
            alt = f"Backgrounds, images, true and predicted masks and depths of {row.recipe}"
            yield png_picture(file.read_bytes(), alt, row.recipe)
