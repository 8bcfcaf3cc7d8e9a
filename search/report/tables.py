"""Tables of metrics with intervals, and the chart of scores, for searches and comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from data.quantities import counted
from search.report.networks import UNKNOWN, Answer
from search.report.vega import Axis, Chart, Json, objective_title, sheet, tooltip
from search.report.words import short_verdict, with_interval
from trainable.metrics.bootstrap import COMPARED, Interval
from trainable.metrics.names import ERRORS
from trainable.metrics.objective import SCORE, Objective

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


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """The paired differences of two networks."""

    label: str
    cells: Sequence[str]
    verdict: str


def titles(objective: Objective, names: Iterable[str] = tuple(TITLES)) -> dict[str, str]:
    """The titles of metrics by name, with the objective first."""
    return {name: TITLES.get(name, name) for name in (objective.key, *names)}


def plural(objective: Objective) -> str:
    """Several values of an objective, such as 'scores' or 'values of depth_rmse'."""
    if objective == SCORE:
        return "scores"
    return f"values of {objective.key if objective.key == objective.name else 'the objective'}"


def scores_chart(
    key: str, scores: Mapping[str, Interval], baseline: str, text: str, objective: Objective = SCORE
) -> Chart | None:
    """A dot and an interval for each row, and a line through the baseline; None without values.

    Args:
        key: of the chart.
        scores: values of the objective by label, in the order of the rows.
        baseline: a label; '' for none.
        text: of the chart.
        objective: by which the networks are compared.
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
    name = objective.key
    x = Axis(field=name, title=objective_title(objective), extra={"grid": True}).encoding()
    tip = tooltip(network="network", **{name: f"{name}|.4f"}, low="from|.4f", high="to|.4f")
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
        title=f"{plural(objective).capitalize()} and their intervals",
        text=text,
        columns=["network", name, "low", "high"],
        rows=rows,
        views={"": sheet(30 * len(rows) + 10, layers=layers)},
        zooms=False,
    )


def answer_table(answer: Answer, subject: str) -> MetricTable:
    """The metrics of the networks of a search on images such as 'test images', the objective first."""
    objective = answer.objective
    columns = titles(objective)
    smaller = {*ERRORS, *([objective.key] if objective.sign < 0 else [])}
    known = {name: [each.metrics[name].value for each in answer.networks if name in each.metrics] for name in columns}
    best = {name: (min if name in smaller else max)(values) for name, values in known.items() if len(set(values)) > 1}
    rows = [
        MetricRow(
            label=each.label,
            cells=[
                MetricCell.of(
                    each.metrics.get(name),
                    is_best=name in each.metrics and each.metrics[name].value == best.get(name),
                )
                for name in columns
            ],
            is_baseline=each.key == "baselines",
        )
        for each in answer.networks
    ]
    of = f"{counted(answer.images, 'image')} of {counted(answer.backgrounds, 'background')}"
    with_intervals = ", with 95 % intervals" if answer.backgrounds > 1 else ""
    size = f" ({of}){with_intervals}" if answer.images else ""
    return MetricTable(title=f"On the {subject}{size}", columns=list(columns.values()), rows=rows)


def answer_charts(answer: Answer, prefix: str, subject: str) -> list[Chart]:
    """The values of the objective of these networks."""
    values = {each.label: each.metrics[answer.objective.key] for each in answer.networks}
    without = next((each.label for each in answer.networks if each.key == "baselines"), "")
    text = f"On the {subject}; the dashed line is what needs no network: a threshold on the difference of the two "
    text += "images, and the mean depth."
    chart = scores_chart(f"{prefix}-scores", values, without, text, answer.objective)
    return [chart] if chart else []


def difference_rows(answer: Answer) -> list[DifferenceRow]:
    """The paired differences of these networks, the objective first."""
    objective, labels = answer.objective, {each.key: each.label for each in answer.networks}
    pairs = [("retrained", "baselines"), ("best", "baselines"), ("best", "recipe"), ("retrained", "best")]
    rows = []
    for one, other in pairs:
        if found := answer.differences(one, other):
            cells = [with_interval(found.get(name, UNKNOWN), signed=True) for name in titles(objective, COMPARED)]
            label = f"{labels[one]} less {labels[other]}"
            verdict = short_verdict(found.get(objective.key, UNKNOWN), objective)
            rows.append(DifferenceRow(label=label, cells=cells, verdict=verdict))
    return rows
