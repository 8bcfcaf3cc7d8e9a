"""What a run finds: measures with their limits, findings with their state, and the table of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Group = Literal["correctness", "speed"]
GROUPS: tuple[Group, ...] = ("correctness", "speed")

OK, FAILED = "ok", "FAILED"
"""States of a check of correctness. A part that raises an error is FAILED in both groups."""
REACHED, MISSED = "reached", "MISSED"
"""States of a goal of speed."""
MEASURED, SKIPPED = "measured", "skipped"
"""States without a limit, and without a measure."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measured number, and its limit if it has one. NaN meets no limit."""

    name: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_limited(self) -> bool:
        """Whether it has a limit."""
        return self.at_most is not None or self.at_least is not None

    @property
    def is_met(self) -> bool:
        """Whether the value is within its limits."""
        above = self.at_least is None or self.value >= self.at_least
        below = self.at_most is None or self.value <= self.at_most
        return above and below

    def __str__(self) -> str:
        """Such as 'gradients 0.0012 (≤ 0.03)'."""
        limits = [("≤", self.at_most), ("≥", self.at_least)]
        texts = [f"{sign} {_number(limit)}{self.unit}" for sign, limit in limits if limit is not None]
        return f"{self.name} {_number(self.value)}{self.unit}" + (f" ({', '.join(texts)})" if texts else "")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A row of the table."""

    part: str
    group: Group
    check: str
    measures: tuple[Measure, ...] = ()
    note: str = ""
    """What the measures do not say; of a finding without measures, why it was skipped."""
    error: str = ""
    """The error that ended the part; '' if there was none."""

    @property
    def state(self) -> str:
        """One of the states above."""
        if self.error:
            return FAILED
        if not self.measures:
            return SKIPPED
        if not any(measure.is_limited for measure in self.measures):
            return MEASURED
        is_met = all(measure.is_met for measure in self.measures)
        if self.group == "correctness":
            return OK if is_met else FAILED
        return REACHED if is_met else MISSED

    def __str__(self) -> str:
        """All but the name and the state."""
        return "; ".join([*map(str, self.measures), *filter(None, [self.note, self.error])])

    def as_plain(self) -> dict[str, object]:
        """Convert to JSON values; a number that is not finite becomes null."""
        measures = [
            {**vars(measure), "value": measure.value if math.isfinite(measure.value) else None}
            for measure in self.measures
        ]
        return {**vars(self), "measures": measures, "state": self.state}


def exit_code(findings: Sequence[Finding]) -> int:
    """1 if anything failed; a goal of speed that was missed is no failure."""
    return int(any(finding.state == FAILED for finding in findings))


def table(findings: Sequence[Finding]) -> list[str]:
    """The findings as the lines of a table: part, check, state, and what was found."""
    rows = [("part", "check", "state", "found")]
    rows += [(finding.part, finding.check, finding.state, str(finding)) for finding in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    padded = [[text.ljust(width) for text, width in zip(row[:3], widths, strict=True)] for row in rows]
    return ["  ".join([*cells, row[3]]).rstrip() for cells, row in zip(padded, rows, strict=True)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
