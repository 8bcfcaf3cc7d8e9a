"""The chart of a Pareto front as SVG and as text: trials as dots, the front joined as a staircase."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from data.quantities import counted
from search.results.front import Point, shown
from search.spec.costs import COSTS
from search.spec.objectives import MILLISECONDS
from trainable.metrics.objective import Notation, Objective

WIDTH, HEIGHT = 720, 440
"""Size of a panel, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 56, 58
"""Margins of a panel, in pixels."""
COLUMNS, ROWS = 64, 15
"""Size of the chart as text."""
TEXT, MUTED, GRID, MARK, BACKGROUND = "#1c2430", "#5a6675", "#e3e8ee", "#1d5fa8", "#ffffff"
DIGIT_WIDTH = 7.5
"""Width of a digit of a label, in pixels."""
COST_NAMES = {**COSTS, MILLISECONDS: "milliseconds per image"}


@dataclass(frozen=True)
class Scale:
    """An axis, which maps values to positions from 0 to 1; logarithmic for costs."""

    objective: Objective
    low: float
    high: float

    @classmethod
    def of(cls, objective: Objective, points: Sequence[Point]) -> Scale:
        """An axis that holds all points, with a margin."""
        found = [cls._scaled(objective, point.values[objective.name]) for point in points]
        low, high = min(found), max(found)
        room = 0.06 * (high - low) or 0.05
        return cls(objective, low - room, high + room)

    @staticmethod
    def _scaled(objective: Objective, value: float) -> float:
        return math.log10(value) if objective.name in COST_NAMES else value

    def position(self, value: float) -> float:
        """Position of a value, 0 to 1."""
        return (self._scaled(self.objective, value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Values for ticks: 1, 2 and 5 times powers of ten, or multiples of one of these."""
        if self.objective.name in COST_NAMES:
            powers = range(math.floor(self.low), math.ceil(self.high) + 1)
            found = [step * 10.0**power for power in powers for step in (1, 2, 5)]
            within = [value for value in found if 0 <= self.position(value) <= 1]
            if len(within) > 1:
                return within if len(within) <= 7 else [value for value in within if f"{value:e}"[0] == "1"]
            return list(self.ends)
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step) + 1)]

    def label(self, tick: float) -> str:
        """A tick as text; those between close metrics need more digits than a cost."""
        return rounded(tick) if self.objective.name in COST_NAMES or abs(tick) >= 1e3 else f"{tick:.6g}"

    @property
    def ends(self) -> tuple[float, float]:
        """The values at the positions 0 and 1."""
        return (10**self.low, 10**self.high) if self.objective.name in COST_NAMES else (self.low, self.high)

    @property
    def end_labels(self) -> list[str]:
        """The ends as text, with as few digits as tell them apart, three to six."""
        labels = [[rounded(end) for end in self.ends], *([f"{end:.{n}g}" for end in self.ends] for n in range(4, 7))]
        return next((each for each in labels if each[0] != each[1]), labels[0])

    @property
    def title(self) -> str:
        """The name of the objective, and its better direction."""
        words = COST_NAMES.get(self.objective.name, self.objective.name.replace("_", " "))
        return f"{words} ({'smaller' if self.objective.sign < 0 else 'larger'} is better)"


def as_svg(points: Sequence[Point], objectives: Sequence[Notation], title: str) -> str:
    """Draw one panel for each objective after the first; the first is the vertical axis of all.

    Args:
        points: at least one.
        objectives: at least two, such as 'score' and '-macs'.
        title: of the chart.
    """
    first, *others = (Objective.of(each) for each in objectives)
    panels = [
        f'<g transform="translate({number * WIDTH} 0)">{_panel(points, first, other, staircase=len(others) == 1)}</g>'
        for number, other in enumerate(others)
    ]
    width, on_front = WIDTH * len(others), sum(point.on_front for point in points)
    said = f"on the front: {on_front} of {counted(len(points), 'trial')}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="{escape(title)}: {said}">'
        f'<rect width="{width}" height="{HEIGHT}" fill="{BACKGROUND}"/>'
        f'<text x="{LEFT}" y="26" font-size="16" font-weight="600" fill="{TEXT}">{escape(title)}</text>'
        f'<text x="{LEFT}" y="44" fill="{MUTED}">{said}</text>{"".join(panels)}</svg>\n'
    )


def as_text(points: Sequence[Point], objectives: Sequence[Notation]) -> list[str]:
    """Draw the first two objectives as lines of text: ● is on the front, · is not.

    Args:
        points: at least one.
        objectives: at least two.
    """
    first, other = (Objective.of(each) for each in objectives[:2])
    up, across = Scale.of(first, points), Scale.of(other, points)
    rows = [[" "] * COLUMNS for _ in range(ROWS)]
    cells = {
        point.trial.number: (
            round((1 - up.position(point.values[first.name])) * (ROWS - 1)),
            round(across.position(point.values[other.name]) * (COLUMNS - 1)),
        )
        for point in points
    }
    for is_front, mark in ((False, "·"), (True, "●")):
        for point in points:
            if point.on_front == is_front:
                row, column = cells[point.trial.number]
                rows[row][column] = mark
    low, high = across.end_labels
    labels = dict(zip((ROWS - 1, 0), up.end_labels, strict=True))
    pad = max(map(len, labels.values()))
    lines = [f"{labels.get(number, ''):>{pad}} │{''.join(row).rstrip()}" for number, row in enumerate(rows)]
    lines.append(f"{'':>{pad}} └{'─' * COLUMNS}")
    lines.append(f"{'':>{pad}}  {low}{high:>{COLUMNS - len(low)}}")
    return [f"{up.title}", *lines, f"{across.title:>{pad + 2 + COLUMNS}}"]


def rounded(value: float) -> str:
    """A value of an axis as text."""
    return shown(float(f"{value:.3g}"))


def _panel(points: Sequence[Point], first: Objective, other: Objective, *, staircase: bool) -> str:
    up, across = Scale.of(first, points), Scale.of(other, points)

    def position(point: Point) -> tuple[float, float]:
        x = LEFT + across.position(point.values[other.name]) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - up.position(point.values[first.name]) * (HEIGHT - TOP - BOTTOM)
        return x, y

    marks = [*_axes(up, across)]
    front = [point for point in points if point.on_front]
    if staircase:
        marks.append(_staircase([position(point) for point in front], better_left=other.sign < 0))
    for point in sorted(points, key=lambda point: point.on_front):
        x, y = position(point)
        look = f'r="5.5" fill="{MARK}"' if point.on_front else f'r="3.5" fill="{MUTED}" fill-opacity="0.45"'
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}><title>{escape(_description(point))}</title></circle>')
    marks += _labels(front, [position(point) for point in front], better_left=other.sign < 0)
    return "".join(marks)


def _axes(up: Scale, across: Scale) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    marks = []
    for value in up.ticks():
        y = bottom - up.position(value) * (bottom - TOP)
        marks.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        marks.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{MUTED}">{up.label(value)}</text>')
    for value in across.ticks():
        x, label = LEFT + across.position(value) * (right - LEFT), across.label(value)
        marks.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" stroke="{GRID}"/>')
        marks.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="{MUTED}">{label}</text>')
    middle = (TOP + bottom) / 2
    marks.append(
        f'<text x="{(LEFT + right) / 2}" y="{bottom + 42}" text-anchor="middle" fill="{TEXT}">{across.title}</text>'
        f'<text transform="translate(20 {middle}) rotate(-90)" text-anchor="middle" fill="{TEXT}">{up.title}</text>'
    )
    return marks


def _staircase(positions: Sequence[tuple[float, float]], *, better_left: bool) -> str:
    """The best first objective for each cost, as a step function through the points of the front."""
    ordered = sorted(positions, reverse=not better_left)
    end = WIDTH - RIGHT if better_left else LEFT
    path = f"M{ordered[0][0]:.1f} {HEIGHT - BOTTOM}V{ordered[0][1]:.1f}"
    path += "".join(f"H{x:.1f}V{y:.1f}" for x, y in ordered[1:])
    return f'<path d="{path}H{end}" fill="none" stroke="{MARK}" stroke-width="1.8"/>'


def _labels(front: Sequence[Point], positions: Sequence[tuple[float, float]], *, better_left: bool) -> list[str]:
    """The number of each trial outside the staircase, else inside it; no number if there is no room."""
    outside, inside = ((-8, -8), (8, 18)) if better_left else ((8, -8), (-8, 18))
    marks: list[str] = []
    taken = [(x, x, y) for x, y in positions]
    for point, (x, y) in zip(front, positions, strict=True):
        name = str(point.trial.number)
        for across, down in (outside, inside, (inside[0], -8)):
            begin, end = sorted((x + across, x + across + math.copysign(DIGIT_WIDTH * len(name), across)))
            free = all(
                end < left - 4 or right + 4 < begin or abs(y + down - 4 - other) > 11 for left, right, other in taken
            )
            if free and begin > LEFT and end < WIDTH:
                taken.append((begin, end, y + down - 4))
                marks.append(f'<text x="{begin:.1f}" y="{y + down:.1f}" fill="{TEXT}" font-size="12">{name}</text>')
                break
    return marks


def _description(point: Point) -> str:
    name = f" ({point.trial.recipe})" if point.trial.recipe else ""
    figures = ", ".join(f"{key} {value:.4g}" for key, value in point.values.items())
    return f"trial {point.trial.number}{name}, epoch {point.epoch.epoch}: {figures}"
