"""A comparison as text: a table for the terminal, and Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

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
from search.results.export import baseline_metrics
from search.terminal import print_line, print_table

if TYPE_CHECKING:
    from rich.console import Console

SCREEN_COLUMNS = ("score", "mask_iou", "depth_delta1")


def show_comparison(console: Console, comparison: Comparison) -> None:
    """Print the table, best first."""
    rows, titles = comparison.sorted_rows, {column.key: column.title for column in comparison.columns}
    both = baseline_metrics(comparison.baselines)
    table = [
        {
            "recipe": row.label,
            "parameters": f"{row.parameters:,}",
            **{titles.get(key, key): cell(row, key) for key in SCREEN_COLUMNS},
            "seconds": "–" if row.seconds is None else f"{row.seconds:.0f}",
        }
        for row in rows
    ]
    without = {titles.get(key, key): _short(both[key]) for key in SCREEN_COLUMNS}
    table.append({"recipe": "without a network", "parameters": "0", **without, "seconds": "–"})
    print_line(console, f"{summary_of(comparison)}\n")
    print_table(console, table, wrapped="recipe", optional=["seconds", "parameters"])
    if below := below_baselines(comparison):
        print_line(console, f"\n{below}")
    for sentence in unfinished(rows):
        print_line(console, sentence)


def as_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown: summary, Twinhead's metrics, published metrics, and the recipes."""
    rows = comparison.sorted_rows
    parts = [f"# {_plain(comparison.name)}", _plain(summary_of(comparison))]
    parts.append("\n".join(f"- {_plain(note)}" for note in comparison.notes))
    parts.append(_plain(below_baselines(comparison)))
    for group, columns in comparison.groups.items():
        heading = f"## {group}" if group == next(iter(comparison.groups)) else f"## The metric of {group}"
        parts += [heading, _metrics_table(comparison, rows, columns)]
    parts += ["## Recipes", _recipes_table(rows)]
    said = unfinished(rows)
    if said:
        parts += ["## Unfinished trainings", "\n".join(f"- {_plain(sentence)}" for sentence in said)]
    parts.append(_plain(provenance(comparison)))
    return "\n\n".join(part for part in parts if part) + "\n"


def cell(row: Row, key: str) -> str:
    """A metric with its interval, such as '.612 (.580–.640)'."""
    found = row.figure(key)
    if found is None:
        return "–"
    if math.isnan(found.low):
        return _short(found.value)
    return f"{_short(found.value)} ({_short(found.low)}–{_short(found.high)})"


def _short(value: float) -> str:
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


def _metrics_table(comparison: Comparison, rows: Sequence[Row], columns: Sequence[Column]) -> str:
    lines = [
        "| recipe | " + " | ".join(column.title for column in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    best = {column.key: comparison.best_value(column) for column in columns}
    for row in rows:
        cells = []
        for column in columns:
            text, found = cell(row, column.key), row.figure(column.key)
            is_best = found is not None and found.value == best[column.key]
            cells.append(f"**{text}**" if is_best else text)
        lines.append(f"| {_plain(row.label)} | " + " | ".join(cells) + " |")
    for key, name in BASELINES.items():
        values = comparison.baselines[key]
        cells = [_short(values[column.key]) if column.key in values else "–" for column in columns]
        if any(text != "–" for text in cells):
            lines.append(f"| *{name}* | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _recipes_table(rows: Sequence[Row]) -> str:
    lines = [
        "| recipe | family, width | parameters | multiply-adds | batch | training | epoch | seconds | source |",
        "|---" * 9 + "|",
    ]
    lines += [
        f"| {_plain(row.recipe)} | {row.family}, {row.width} | {row.parameters:,} "
        f"| {row.macs / 1e9:.2f} G | {row.batch_size} | {row.losses}; {row.optimizer}; {row.policy} "
        f"| {row.epoch or '–'} | {'–' if row.seconds is None else round(row.seconds)} "
        f"| {_plain(row.source) or '–'} |"
        for row in rows
    ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Escape Markdown, since names and reasons come from files that users write."""
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")
