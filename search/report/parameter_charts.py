"""The charts of parameters: parallel coordinates, importance, each against the objective, and the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from optuna.distributions import BaseDistribution, CategoricalDistribution

from search.report.findings import Findings
from search.report.vega import (
    HOVER,
    ZOOM,
    Axis,
    Cell,
    Chart,
    Json,
    line_opacity,
    outcome_colours,
    sheet,
    tooltip,
    trial_tooltip,
)
from search.results.analysis import normalised
from search.results.front_chart import COST_NAMES
from search.spec.domains import in_words
from trainable.config.settings import Scalar
from trainable.metrics.objective import Objective

MAX_COORDINATES = 8
"""Parameters among the parallel coordinates."""
MAX_BARS = 20
"""Parameters in the chart of importance; its table has all."""
MIN_POINTS = 3
MAX_LETTERS = 30
"""Of the choices of a parameter, beside one another."""
FIFTHS = 5
UNSET = -0.12
"""Position of a parameter that a trial does not have, below the axis of 0 to 1."""
_WITHOUT_SECTION = "indexof(datum.label, '.') < 0 ? datum.label : slice(datum.label, indexof(datum.label, '.') + 1)"


def coordinates(findings: Findings, prefix: str) -> Chart | None:
    """The most important parameters and the objective as parallel axes; None without parameters."""
    names = findings.parameters()[:MAX_COORDINATES]
    if not names:
        return None
    best = (trial.best_epoch and (trial.number, trial.best_epoch) for trial in findings.trials)
    # The best are drawn last.
    measured = sorted((each for each in best if each and math.isfinite(each[1].value)), key=lambda each: each[1].rank)
    reached = {number: epoch.value for number, epoch in measured}
    key, more = findings.objective.key, len(findings.parameters()) - len(names)
    smallest = f" ({key}: the smallest at the top)" if findings.objective.sign < 0 else ""
    return Chart(
        key=f"{prefix}-coordinates",
        title="Parallel coordinates",
        text=f"One line per trial through its parameters, {_order(findings)}, to its {key}; each axis goes from the "
        f"lowest value to the highest{smallest}{f'; {more} more parameters are in the charts below' if more else ''}.",
        columns=["trial", "parameter", "at", "value", "level"],
        rows=_points(findings, names, reached),
        views={"": sheet(360, layers=_layers(findings, names, list(reached.values())))},
        zooms=False,
        min_width=70 * (len(names) + 1),
        filtered=prefix,
    )


def _points(findings: Findings, names: Sequence[str], reached: Mapping[int, float]) -> list[list[Cell]]:
    """A row for each trial and axis; `reached` has the objective by trial, the worst first."""
    values = [*reached.values()]
    worst, top = values[0], values[-1]
    rows: list[list[Cell]] = []
    for rank, (number, value) in enumerate(reached.items()):
        params, level = findings.params[number], 1 + rank * FIFTHS // len(reached)
        for name in names:
            at = UNSET if name not in params else _position(findings.distributions[name], params[name])
            rows.append([number, name, at, "not set" if name not in params else _text(params[name]), level])
        at = (value - worst) / (top - worst) if top != worst else 0.5
        rows.append([number, findings.objective.key, at, f"{value:.4f}", level])
    return rows


def _layers(findings: Findings, names: Sequence[str], values: Sequence[float]) -> list[Json]:
    """The lines, and the ends of the axes; `values` are those of the objective, the worst first."""
    key = findings.objective.key
    labels = {"labelAngle": -30, "labelLimit": 170, "labelPadding": 14, "labelExpr": _WITHOUT_SECTION}
    x = {
        "field": "parameter",
        "type": "nominal",
        "sort": [*names, key],
        "axis": {"title": None, "domain": False, "ticks": False, "grid": True, "orient": "top", **labels},
    }
    y = {
        "field": "at",
        "type": "quantitative",
        "axis": {"title": None, "values": [UNSET], "labelExpr": "'not set'", "grid": False, "domain": False},
        "scale": {"domain": [UNSET - 0.06, 1.08], "zero": False, "nice": False},
    }
    ends = [
        {"parameter": key, "at": 1, "text": f"{values[-1]:.3f}"},
        {"parameter": key, "at": 0, "text": f"{values[0]:.3f}"},
    ]
    for name in names:
        bottom, highest = _ends(findings.distributions[name])
        ends += [{"parameter": name, "at": 1, "text": highest}, {"parameter": name, "at": 0, "text": bottom}]
    end: Json = {
        "data": {"values": ends},
        "mark": {"type": "text", "color": "var(--soft)", "fontSize": 11, "dy": {"expr": "datum.at ? -9 : 11"}},
        "encoding": {"x": x, "y": y, "text": {"field": "text"}},
    }
    steps = {"domain": [1, 2, 3, 4, 5], "range": [f"var(--step{step})" for step in (1, 3, 4, 5, 6)]}
    line: Json = {
        "mark": {"type": "line", "strokeWidth": 1.6, "point": {"size": 26, "filled": True}},
        "encoding": {
            "x": x,
            "y": y,
            "detail": {"field": "trial"},
            "color": {
                "field": "level",
                "type": "ordinal",
                "scale": steps,
                "legend": {"title": f"fifth of the trials by {key}", "labelExpr": _fifths(findings.objective)},
            },
            "opacity": line_opacity(len(values)),
            "tooltip": [
                *tooltip(trial="trial", parameter="parameter", value="value"),
                *tooltip(**{key: f"best {key}|.4f"}, source="from"),
            ],
        },
        "params": [HOVER],
    }
    return [line, end]


def importance(findings: Findings, prefix: str) -> Chart | None:
    """The importance of parameters with intervals; None with too few trials."""
    analysis = findings.analysis
    if isinstance(analysis, str) or not analysis.figures:
        return None
    rows: list[list[Cell]] = [
        [name, figure.share, figure.low, figure.high, figure.trials] for name, figure in analysis.figures.items()
    ]
    shown = [name for name, *_ in rows[:MAX_BARS]]
    y = {"field": "parameter", "type": "nominal", "sort": shown, "axis": {"title": None, "labelLimit": 170}}
    tip = tooltip(parameter="parameter", share="share|.3f", low="from|.3f", high="to|.3f", trials="trials")
    only = [{"filter": {"field": "parameter", "oneOf": shown}}]
    layers = [
        {
            "transform": only,
            "mark": {"type": "bar", "color": "var(--mark)", "opacity": 0.55},
            "encoding": {"y": y, "x": Axis(field="share", title="share", zero=True).encoding(), "tooltip": tip},
        },
        {
            "transform": only,
            "mark": {"type": "rule", "color": "var(--ink)"},
            "encoding": {"y": y, "x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}},
        },
    ]
    return Chart(
        key=f"{prefix}-importance",
        title="Importance",
        text=f"How much the parameters of the best {analysis.good} of {analysis.trials} trials differ from those of "
        "all (PED-ANOVA; the shares add up to 1), with 95 % intervals over resampled trials.",
        columns=["parameter", "share", "low", "high", "trials"],
        rows=rows,
        views={"": sheet(19 * len(shown) + 10, layers=layers)},
        zooms=False,
        wide=False,
    )


def dimensions(findings: Findings, prefix: str) -> Iterator[Chart]:
    """Each parameter of at least `MIN_POINTS` trials against the objective."""
    objective = findings.objective
    colours = outcome_colours((findings.outcome(trial) for trial in findings.trials), legend=False)
    counts = findings.counts()
    for number, name in enumerate(findings.parameters()):
        if counts[name] < MIN_POINTS:
            continue
        distribution = findings.distributions[name]
        rows: list[list[Cell]] = [
            [trial.number, findings.params[trial.number][name]]
            for trial in findings.trials
            if name in findings.params[trial.number] and trial.best_epoch is not None
        ]
        if isinstance(distribution, CategoricalDistribution):
            rows = [[trial, _text(value)] for trial, value in rows]
            order = [_text(value) for value in distribution.choices]
            angle = 0 if sum(map(len, order)) < MAX_LETTERS else -35
            axis = {"title": None, "labelLimit": 80, "labelAngle": angle, "labelOverlap": False}
            x = {"field": "value", "type": "nominal", "sort": order, "axis": axis}
        else:
            is_log = bool(getattr(distribution, "log", False))
            x = Axis(field="value", title=None, log=is_log, extra={"format": "~g", "tickCount": 4}).encoding()
        point = {
            "mark": {"type": "point", "filled": True, "size": 34, "opacity": 0.7},
            "encoding": {
                "x": x,
                "y": Axis(field=objective.key, title=None, extra={"tickCount": 4}).encoding(),
                "color": colours,
                "tooltip": [*trial_tooltip(objective), *tooltip(value=name.replace("|", "/"))],
            },
        }
        zooms = not isinstance(distribution, CategoricalDistribution)
        yield Chart(
            key=f"{prefix}-dimension{number}",
            title=name,
            text=f"Best {objective.key} of each trial against {in_words(name)}.",
            columns=["trial", "value"],
            rows=rows,
            views={"": sheet(150, layers=[point], params=[ZOOM] if zooms else [])},
            zooms=zooms,
            wide=False,
            filtered=prefix,
        )


def front(findings: Findings, prefix: str) -> Chart | None:
    """The first two objectives of all trials; None if they were not measured."""
    if not findings.points:
        return None
    up, across = (Objective.of(text) for text in findings.objectives[:2])
    rows: list[list[Cell]] = [
        [point.trial.number, point.values[across.name], point.values[up.name], "yes" if point.on_front else "no"]
        for point in findings.points
    ]
    on_front = sum(point.on_front for point in findings.points)
    x = Axis(field="x", title=_objective_title(across), log=across.name in COST_NAMES, extra={"format": "~s"})
    y = Axis(field="y", title=_objective_title(up), log=up.name in COST_NAMES)
    yes_no = {"domain": ["yes", "no"], "range": ["var(--mark)", "var(--stopped)"]}
    tip = [*tooltip(trial="trial", x=f"{across.name}|.4s", y=f"{up.name}|.4f"), *trial_tooltip(findings.objective)[1:3]]
    layers: list[Json] = [
        {
            "mark": {"type": "point", "filled": True, "size": 55, "opacity": 0.9},
            "encoding": {
                "x": x.encoding(),
                "y": y.encoding(),
                "color": {
                    "field": "front",
                    "type": "nominal",
                    "scale": yes_no,
                    "legend": {"title": "on the front"},
                },
                "tooltip": tip,
            },
        }
    ]
    if len(findings.objectives) == 2:
        step = "step-after" if across.sign < 0 else "step-before"
        line: Json = {
            "transform": [{"filter": "datum.front == 'yes'"}],
            "mark": {"type": "line", "interpolate": step, "color": "var(--mark)", "strokeWidth": 1.6},
            "encoding": {"x": x.encoding(), "y": y.encoding()},
        }
        layers.append(line)
    return Chart(
        key=f"{prefix}-front",
        title="Pareto front",
        text=f"No other trial beats the {on_front} on the front in every one of "
        f"{', '.join(str(Objective.of(each)) for each in findings.objectives)}. Each trial is shown "
        "at the epoch whose checkpoint is kept.",
        columns=["trial", "x", "y", "front"],
        rows=rows,
        views={"": sheet(300, layers=layers, params=[ZOOM])},
        wide=False,
        filtered=prefix,
    )


def _position(distribution: BaseDistribution, value: Scalar) -> float:
    """The position of a value in the range or among the choices of its parameter, 0 to 1."""
    if isinstance(distribution, CategoricalDistribution):
        last = len(distribution.choices) - 1
        return list(distribution.choices).index(value) / last if last and value in distribution.choices else 0.5
    if distribution.single() or not isinstance(value, int | float):
        return 0.5
    return normalised(distribution, value)


def _ends(distribution: BaseDistribution) -> tuple[str, str]:
    """The values at the positions 0 and 1."""
    if isinstance(distribution, CategoricalDistribution):
        return _text(distribution.choices[0]), _text(distribution.choices[-1])
    return _text(getattr(distribution, "low", "")), _text(getattr(distribution, "high", ""))


def _fifths(objective: Objective) -> str:
    """Labels of the fifths, the best one last."""
    first, last = ("lowest", "highest") if objective.sign > 0 else ("highest", "lowest")
    return f"{{'1': '{first}', '2': '2nd', '3': '3rd', '4': '4th', '5': '{last}'}}[datum.label]"


def _order(findings: Findings) -> str:
    if isinstance(findings.analysis, str):
        return "the most frequent first, as there are too few trials for an order by importance"
    return "the most important first"


def _objective_title(objective: Objective) -> str:
    words = COST_NAMES.get(objective.name, objective.name.replace("_", " "))
    return f"{words} ({'smaller' if objective.sign < 0 else 'larger'} is better)"


def _text(value: Scalar) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
