"""Tables of metrics with intervals, and the chart of scores, for searches and comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.report.vega import Axis, Chart, Json, sheet, tooltip
from trainable.metrics.bootstrap import Interval

TITLES = {
    "score": "score",
    "mask_iou": "mask IoU",
    "depth_delta1": "depth δ < 1.25",
    "mask_rmse": "mask RMSE",
    "depth_rmse": "depth RMSE",
}
"""The metrics of the table of a search."""
MIN_LABELS = 60
MAX_LABELS = 230
LETTER = 7.4
"""Width of a letter of a label, in pixels."""


@dataclass(frozen=True, kw_only=True)
class MetricCell:
    """A metric in a table."""

    value: float
    low: float | None
    high: float | None
    is_best: bool = False

    @classmethod
    def of(cls, found: Interval | None, *, is_best: bool = False) -> MetricCell | None:
        """None for a missing metric, or NaN."""
        if found is None or math.isnan(found.value):
            return None
        low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
        return cls(value=found.value, low=low, high=high, is_best=is_best)


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """The metrics of a network, or of the baselines."""

    label: str
    cells: Sequence[MetricCell | None]
    is_baseline: bool = False


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """Metrics with intervals."""

    title: str
    columns: Sequence[str]
    rows: Sequence[MetricRow]


def scores_chart(key: str, scores: Mapping[str, Interval], baseline: str, text: str) -> Chart | None:
    """A dot and an interval for each row, and a line through the baseline; None without scores.

    Args:
        key: of the chart.
        scores: by label, in the order of the rows.
        baseline: a label; '' for none.
        text: of the chart.
    """
    rows = [
        [label, found.value, *(None if math.isnan(end) else end for end in (found.low, found.high))]
        for label, found in scores.items()
        if not math.isnan(found.value)
    ]
    if not rows:
        return None
    labels = [str(row[0]) for row in rows]
    room = min(MAX_LABELS, max(MIN_LABELS, LETTER * max(map(len, labels))))
    axis = {"title": None, "labelLimit": room, "ticks": False, "domain": False, "grid": True}
    y: Json = {"field": "network", "type": "nominal", "sort": labels, "axis": axis}
    x = Axis(field="score", title="score", extra={"grid": True}).encoding()
    tip = tooltip(network="network", score="score|.4f", low="from|.4f", high="to|.4f")
    line: Json = {
        "transform": [{"filter": {"field": "network", "equal": baseline}}],
        "mark": {"type": "rule", "strokeDash": [4, 4], "color": "var(--soft)"},
        "encoding": {"x": x},
    }
    interval: Json = {
        "transform": [{"filter": "isValid(datum.low)"}],
        "mark": {"type": "rule", "strokeWidth": 2.5, "color": "var(--mark)"},
        "encoding": {"y": y, "x": x | {"field": "low"}, "x2": {"field": "high"}, "tooltip": tip},
    }
    dot: Json = {
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 1, "color": "var(--mark)"},
        "encoding": {"y": y, "x": x, "tooltip": tip},
    }
    layers = [
        *([line] if baseline in labels else []),
        *([interval] if any(row[2] is not None for row in rows) else []),
        dot,
    ]
    return Chart(
        key=key,
        title="Scores and their intervals",
        text=text,
        columns=["network", "score", "low", "high"],
        rows=rows,
        views={"": sheet(30 * len(rows) + 10, layers=layers)},
        zooms=False,
    )
