"""Curves of steps with a band around each, as an SVG file that stands by itself."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 900, 460
"""In pixels; the curves lie within these margins."""
LEFT, RIGHT, TOP, BOTTOM = 64, 216, 56, 54
COLOURS = ("#1d5fa8", "#c2571a", "#2f7d4f", "#6b7280", "#7a3f9d")
LABEL = 17
"""Names beside the curves' ends stand so far apart at least."""
STYLE = "text { fill: #1c2430; font: 13px system-ui, sans-serif; } .soft { fill: #5a6675; } .title { font-size: 16px; }"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A value that is known at x = 1, 2, …, N, and holds until the next."""

    name: str
    middle: Sequence[float]
    """(N,)"""
    low: Sequence[float]
    """(N,) lower edge of the band"""
    high: Sequence[float]
    """(N,) its upper edge"""


def line_chart(lines: Sequence[Line], *, title: str, across: str, upwards: str, start: int = 1) -> str:
    """The chart.

    Args:
        lines: of one length; the first one lies above the others.
        title: what it shows.
        across: what the x axis has.
        upwards: what the y axis has.
        start: the first x that is drawn.
    """
    count = len(lines[0].middle)
    values = [value for line in lines for edge in (line.low, line.high) for value in edge[start - 1 :]]
    x_step, y_step = max(1, round(_step(count - start))), _step(max(values) - min(values))
    low, high = math.floor(min(values) / y_step) * y_step, math.ceil(max(values) / y_step) * y_step

    def x(place: float) -> float:
        return LEFT + (place - start) / (count - start) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>']
    for number in range(round((high - low) / y_step) + 1):
        value = low + number * y_step
        parts.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#d5dbe3"/>')
        parts.append(f'<text class="soft" x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    parts += [
        f'<text class="soft" x="{x(place):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{place}</text>'
        for place in range(math.ceil(start / x_step) * x_step, count + 1, x_step)
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="soft" x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{escape(across)}</text>')
    parts.append(f'<text class="soft" x="{LEFT}" y="46">{escape(upwards)}</text>')

    def steps(values: Sequence[float]) -> list[str]:
        """Corners of a value that holds until the next one."""
        return [
            f"{x(place):.1f} {y(values[known - 1]):.1f}"
            for place in range(start, count + 1)
            for known in (max(place - 1, start), place)
        ]

    coloured = list(zip(lines, COLOURS, strict=False))
    for line, colour in reversed(coloured):
        outline = "L".join([*steps(line.high), *reversed(steps(line.low))])
        parts.append(f'<path d="M{outline}Z" fill="{colour}" fill-opacity=".12"/>')
    for line, colour in reversed(coloured):
        corners = "L".join(steps(line.middle))
        parts.append(f'<path d="M{corners}" fill="none" stroke="{colour}" stroke-width="2.2"/>')
    for (line, colour), height in zip(coloured, _apart([y(line.middle[-1]) for line in lines]), strict=True):
        label = f"{escape(line.name)} {line.middle[-1]:.3f}"
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{height + 4:.1f}" style="fill: {colour}">{label}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(title)}"><style>{STYLE}</style>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _step(reach: float) -> float:
    """Between marks of an axis: 1, 2 or 5 times a power of ten, so that there are four to ten of them."""
    power = 10 ** math.floor(math.log10(max(reach, 1e-9) / 4))
    return next(factor * power for factor in (5, 2, 1) if factor * power <= max(reach, 1e-9) / 4)


def _apart(heights: Sequence[float]) -> list[float]:
    """The heights of labels, moved so that none lies upon another."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    moved = list(heights)
    for before, after in itertools.pairwise(order):
        moved[after] = max(moved[after], moved[before] + LABEL)
    excess = max(0.0, max(moved) - (HEIGHT - BOTTOM))
    return [height - excess for height in moved]
