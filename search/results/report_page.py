"""The HTML page of a comparison: one file without anything from elsewhere, its pictures inside."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from search.results.comparison import (
    BASELINES,
    below_baselines,
    best_value,
    figure,
    groups,
    label,
    provenance,
    sorted_rows,
    summary_of,
    unfinished,
)
from search.results.export import baseline_metrics

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6675; --line: #d5dbe3; --back: #fff; --mark: #1d5fa8;
        --band: #eef3f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #a3afbd; --line: #39434f; --back: #14191f; --mark: #7fb4ee; --band: #1c242d; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 0 auto;
       max-width: 68rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p, li { max-width: 46rem; } ul { padding-left: 1.2rem; } .soft { color: var(--soft); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } td.words, th.words { text-align: left; white-space: normal;
       min-width: 12rem; } thead th { font-weight: 600; border-bottom: 2px solid var(--line); }
tbody th { font-weight: 500; } .best { font-weight: 700; color: var(--mark); } .range { color: var(--soft);
       font-size: .85em; } tr.baseline { background: var(--band); }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; height: auto; border: 1px solid var(--line); }
figcaption { color: var(--soft); } svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg text.tick { fill: var(--soft); } svg .tick { stroke-width: 1; }
"""

WIDTH, LEFT, ROW, TOP = 860, 264, 30, 26
"""Of the chart, in pixels: its width, the names' part of it, a row's height, what is above the first row."""
LONGEST_NAME = 32
"""Letters of a name that the chart has room for; the tables have it whole."""


def page(comparison: Mapping[str, Any], directory: Path) -> str:
    """The whole page.

    Args:
        comparison: plain values, as `run_comparison` gives them.
        directory: where the pictures lie that its rows name.
    """
    rows = sorted_rows(comparison)
    tables = [
        f"<h2>{_heading(number, group)}</h2>{_table(comparison, rows, columns)}"
        for number, (group, columns) in enumerate(groups(comparison).items())
    ]
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison["notes"])
    name = escape(str(comparison["name"]))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: recipes compared</title><style>{STYLE}</style></head><body>
<h1>{name}: recipes compared</h1>
<p>{escape(summary_of(comparison))}</p><ul class="soft">{notes}</ul>
<p>{escape(below_baselines(comparison))}</p>
<h2>Scores and their intervals</h2>{_chart(comparison, rows)}
{"".join(tables)}
<h2>What each recipe is</h2>{_recipes(rows)}
{_unfinished(rows)}
<h2>Predictions on test pictures</h2>{_pictures(rows, directory)}
<p class="soft">{escape(provenance(comparison))}</p>
</body></html>
"""


def _heading(number: int, group: str) -> str:
    return escape(group.capitalize() if number == 0 else f"The metric of {group}")


def _table(
    comparison: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, str]]
) -> str:
    head = "".join(f'<th scope="col">{escape(column["title"])}</th>' for column in columns)
    body = []
    for row in rows:
        cells = "".join(_cell(rows, row, column) for column in columns)
        body.append(f'<tr><th scope="row">{escape(label(row))}</th>{cells}</tr>')
    for key, name in BASELINES.items():
        values = comparison["baselines"][key]
        if any(column["key"] in values for column in columns):
            cells = "".join(
                f"<td>{values[column['key']]:.3f}</td>" if column["key"] in values else "<td>–</td>"
                for column in columns
            )
            body.append(f'<tr class="baseline"><th scope="row">{name}</th>{cells}</tr>')
    return _framed(f'<th scope="col">recipe</th>{head}', body)


def _framed(head: str, body: Sequence[str]) -> str:
    """A table that scrolls where the screen is narrow, with the keyboard too."""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _cell(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any], column: Mapping[str, str]) -> str:
    found = figure(row, column["key"])
    if found is None:
        return "<td>–</td>"
    marked = (
        f'<span class="best">{found["value"]:.3f}</span>'
        if found["value"] == best_value(rows, column)
        else f"{found['value']:.3f}"
    )
    spread = "" if found["low"] is None else f' <span class="range">{found["low"]:.3f}–{found["high"]:.3f}</span>'
    return f"<td>{marked}{spread}</td>"


def _chart(comparison: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """A dot and its interval for each recipe's score, and a line for what needs no network."""
    shown = [(label(row), score) for row in rows if (score := figure(row, "score")) is not None]
    if not shown:
        return "<p>No recipe came to a result.</p>"
    baseline: float = baseline_metrics(comparison["baselines"])["score"]
    ends = [baseline]
    ends += [score[end] for _, score in shown for end in ("value", "low", "high") if score[end] is not None]
    low, high = max(0.0, min(ends) - 0.03), min(1.0, max(ends) + 0.03)

    def across(value: float) -> float:
        return float(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - 70))

    height = TOP + ROW * len(shown)
    marks = [_tick(across(tenth / 10), height, tenth / 10) for tenth in range(11) if low <= tenth / 10 <= high]
    for number, (name, score) in enumerate(shown):
        y = TOP + ROW * number + ROW / 2
        marks.append(f'<text x="{LEFT - 12}" y="{y + 4:.0f}" text-anchor="end">{escape(_shortened(name))}</text>')
        if score["low"] is not None:
            marks.append(
                f'<line x1="{across(score["low"]):.1f}" x2="{across(score["high"]):.1f}" y1="{y}" y2="{y}" '
                'stroke="var(--mark)" stroke-width="2"/>'
            )
        marks.append(f'<circle cx="{across(score["value"]):.1f}" cy="{y}" r="5" fill="var(--mark)"/>')
        marks.append(f'<text x="{WIDTH - 55}" y="{y + 4:.0f}">{score["value"]:.3f}</text>')
    x = across(baseline)
    return (
        f'<div class="wide" tabindex="0"><svg viewBox="0 0 {WIDTH} {height + 26}" '
        f'width="{WIDTH}" height="{height + 26}" role="img" '
        f'aria-label="Score of each recipe with its 95 % interval; without a network it is {baseline:.3f}">'
        f"{''.join(marks)}"
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{height}" stroke="var(--soft)" stroke-dasharray="4 4"/>'
        f'<text x="{x:.1f}" y="14" text-anchor="middle">without a network {baseline:.3f}</text></svg></div>'
    )


def _tick(x: float, height: int, value: float) -> str:
    return (
        f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height}" stroke="var(--line)"/>'
        f'<text class="tick" x="{x:.1f}" y="{height + 18}" text-anchor="middle">{value:.1f}</text>'
    )


def _shortened(name: str) -> str:
    """A name that the chart has room for: without its middle, for its end may say that it diverged."""
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[: half - 1]}…{name[-half:]}"


def _recipes(rows: Sequence[Mapping[str, Any]]) -> str:
    headings = ("recipe", "family", "width", "parameters", "multiply-adds", "batch", "epoch", "seconds")
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    body = []
    for row in rows:
        seconds = "–" if row["seconds"] is None else f"{row['seconds']:.0f}"
        figures = (row["family"], row["width"], f"{row['parameters']:,}", f"{row['macs'] / 1e9:.2f} G")
        cells = "".join(
            f"<td>{escape(str(text))}</td>" for text in (*figures, row["batch_size"], row["epoch"] or "–", seconds)
        )
        for words in (f"{row['losses']}; {row['optimizer']}; {row['policy']}", row["source"] or "–"):
            cells += f'<td class="words">{escape(words)}</td>'
        body.append(f'<tr><th scope="row">{escape(label(row))}</th>{cells}</tr>')
    for heading in ("losses, optimizer and policy", "source"):
        head += f'<th scope="col" class="words">{heading}</th>'
    return _framed(head, body)


def _unfinished(rows: Sequence[Mapping[str, Any]]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in unfinished(rows))
    return f"<h2>Not trained to the end</h2><ul>{items}</ul>" if items else ""


def _pictures(rows: Sequence[Mapping[str, Any]], directory: Path) -> str:
    """Each recipe's grid, inside the page, so that the file can be sent by itself."""
    shown = []
    for row in rows:
        file = directory / row["pictures"] if row["pictures"] else None
        if file is not None and file.is_file():
            png = file.read_bytes()
            data = base64.b64encode(png).decode()
            width, height = struct.unpack(">II", png[16:24])  # of the header; the page keeps the room for it
            name = escape(row["recipe"])
            shown.append(
                f'<figure><img width="{width}" height="{height}" '
                f'alt="Backgrounds, pictures, true and predicted masks and depths of {name}" '
                f'src="data:image/png;base64,{data}"><figcaption>{name}</figcaption></figure>'
            )
    return "".join(shown) or "<p>There are none.</p>"
