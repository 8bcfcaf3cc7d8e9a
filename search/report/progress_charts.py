"""The charts of how a search ran: its best value over the budget, learning curves, rungs, timeline and time spent."""

from __future__ import annotations

import math

from search.report.findings import Findings
from search.report.history import epoch_times, rankings, spans, spending
from search.report.tables import plural
from search.report.vega import (
    HOVER,
    ZOOM,
    Axis,
    Cell,
    Chart,
    Json,
    line_opacity,
    objective_title,
    ordinal_colours,
    outcome_colours,
    sheet,
    tooltip,
    trial_tooltip,
)
from search.study.trials import TrialRecord
from trainable.metrics.objective import SCORE, Objective

UNITS = {"days": 86400.0, "hours": 3600.0, "minutes": 60.0}
SHOWN_FROM = 2.0
"""Least amount that a unit of time is used for."""


def over_budget(findings: Findings, prefix: str) -> Chart:
    """The objective of each trial at its end, and the best value so far."""
    ended, key = [], findings.objective.key
    for trial in findings.trials:
        times, best = epoch_times(trial), trial.best_epoch
        if times and best is not None and math.isfinite(best.value):
            ended.append((times[-1], trial))
    ended.sort(key=lambda item: item[0])
    every_epoch = sorted(time for trial in findings.trials for time in epoch_times(trial))
    starts = [trial.started.timestamp() for trial in findings.trials if trial.started is not None]
    begin = min([*starts, *every_epoch[:1]], default=0.0)
    unit, second = time_unit(max((time - begin for time, _ in ended), default=0.0))
    rows: list[list[Cell]] = []
    gpu_hours = 0.0
    for number, (time, trial) in enumerate(ended, start=1):
        gpu_hours += findings.gpus * trial.seconds / UNITS["hours"]
        epochs = sum(other <= time for other in every_epoch)
        rows.append([trial.number, (time - begin) * second, epochs, number, gpu_hours])
    units = {f"{unit} since the start": "time", "epochs of all trials": "trained", "trials that ended": "ended"}
    if gpu_hours:
        units["GPU-hours of training"] = "gpu_hours"
    colours = outcome_colours(findings.outcome(trial) for trial in findings.trials)
    return Chart(
        key=f"{prefix}-budget",
        title=f"Best {key} over the budget spent",
        text=f"Each point is a trial at its end, at the {key} of its best epoch. The line is the best {key} so far.",
        columns=["trial", "time", "trained", "ended", "gpu_hours"],
        rows=rows,
        views={name: _budget_view(field, name, colours, findings.objective) for name, field in units.items()},
        choice="Budget in",
        filtered=prefix,
    )


def _budget_view(field: str, title: str, colours: Json, objective: Objective) -> Json:
    x = Axis(field=field, title=title, zero=True).encoding()
    y = Axis(field=objective.key, title=objective_title(objective, "validation")).encoding()
    points = {
        "mark": {"type": "point", "filled": True, "size": 55, "opacity": 0.85},
        "encoding": {"x": x, "y": y, "color": colours, "tooltip": trial_tooltip(objective)},
    }
    line = {
        "transform": [
            {
                "sort": [{"field": field}],
                "window": [{"op": objective.mode, "field": objective.key, "as": "best so far"}],
                "frame": [None, 0],
            }
        ],
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2, "color": "var(--ink)"},
        "encoding": {"x": x, "y": {"field": "best so far", "type": "quantitative"}},
    }
    return sheet(300, layers=[points, line], params=[ZOOM])


def curves(findings: Findings, prefix: str) -> Chart:
    """The learning curve of each trial."""
    rows: list[list[Cell]] = [
        [trial.number, epoch.epoch, epoch.value]
        for trial in sorted(findings.trials, key=lambda trial: trial.last_epoch)  # the longest are drawn last
        for epoch in trial.epochs
        if math.isfinite(epoch.value)
    ]
    reached = sorted({rung_reached(findings, trial) for trial in findings.trials})
    last = max((trial.last_epoch for trial in findings.trials), default=1)
    whole = {"tickMinStep": 1, "format": "d"}
    line = {
        "mark": {"type": "line", "strokeWidth": 1.8, "point": {"size": 14, "filled": True}},
        "encoding": {
            "x": Axis(field="epoch", title="epoch", domain=(1, max(2, last)), extra=whole).encoding(),
            "y": Axis(field="at", title=objective_title(findings.objective, "validation")).encoding(),
            "detail": {"field": "trial"},
            "color": ordinal_colours("rung", reached, "rung reached (epoch)"),
            "opacity": line_opacity(len(findings.trials)),
            "tooltip": [
                *tooltip(trial="trial", epoch="epoch", at=f"{findings.objective.key}|.4f"),
                *trial_tooltip(findings.objective)[1:3],
            ],
        },
        "params": [HOVER],
    }
    return Chart(
        key=f"{prefix}-curves",
        title="Learning curves",
        text="One line per trial, coloured by the last rung that it reached. Trials are compared after epoch "
        f"{', '.join(map(str, findings.rungs))}.",
        columns=["trial", "epoch", "at"],
        rows=rows,
        views={"": sheet(320, layers=[line], params=[ZOOM])},
        filtered=prefix,
    )


def rungs(findings: Findings, prefix: str) -> Chart | None:
    """The rank correlation of each rung with the last one; None if there is one rung, or too few trials."""
    found = rankings(findings)
    if not any(ranking.correlation is not None for ranking in found):
        return None
    last, compared = findings.rungs[-1], plural(findings.objective)
    noun = "score" if findings.objective == SCORE else "value"
    y = {"field": "rung", "type": "ordinal", "title": "rung (epoch)"}
    x = Axis(field="correlation", title=f"rank correlation with epoch {last}", domain=(-1, 1))
    shown = tooltip(rung="rung", trials="trials", correlation="correlation|.2f", low="from|.2f", high="to|.2f")
    layers = [
        {
            "mark": {"type": "rule", "strokeWidth": 2, "color": "var(--mark)"},
            "encoding": {"y": y, "x": {**x.encoding(), "field": "low"}, "x2": {"field": "high"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "color": "var(--mark)"},
            "encoding": {"y": y, "x": x.encoding(), "tooltip": shown},
        },
    ]
    return Chart(
        key=f"{prefix}-rungs",
        title="How well each rung predicts the last one",
        text=f"Spearman's correlation of the {compared} at a rung with those at epoch {last}, over the "
        "trials that reached both, with 95 % intervals over resampled trials. Stopped trials have no last "
        f"{noun}: among the better trials that are left, the correlation is lower than among all.",
        columns=["rung", "trials", "correlation", "low", "high"],
        rows=[[each.rung, each.trials, each.correlation, each.low, each.high] for each in found],
        views={"": sheet(34 * len(found) + 20, layers=layers)},
        zooms=False,
        wide=False,
    )


def timeline(findings: Findings, prefix: str) -> Chart | None:
    """When each trial ran, and on which host; None if it is not known."""
    found = spans(findings.trials)
    if not found:
        return None
    begin = min(span.start for span in found)
    unit, second = time_unit(max(span.end for span in found) - begin)
    rows: list[list[Cell]] = [
        [
            span.trial,
            f"{span.host}, {span.lane}",
            (span.start - begin) * second,
            (span.end - begin) * second,
            (span.end - span.start) * second,
        ]
        for span in found
    ]
    lanes = sorted({str(row[1]) for row in rows})
    bar = {
        "mark": {"type": "bar", "height": {"band": 0.8}, "stroke": "var(--back)", "strokeWidth": 1},
        "encoding": {
            "x": Axis(field="start", title=f"{unit} since the start", zero=True).encoding(),
            "x2": {"field": "end"},
            "y": {"field": "worker", "type": "nominal", "sort": lanes, "axis": {"title": None, "labelLimit": 150}},
            "color": outcome_colours(findings.outcome(trial) for trial in findings.trials),
            "tooltip": [*trial_tooltip(findings.objective), *tooltip(worker="worker", took=f"{unit}|.2f")],
        },
    }
    along_x = ZOOM | {"select": ZOOM["select"] | {"encodings": ["x"]}}
    return Chart(
        key=f"{prefix}-timeline",
        title="Timeline of the trials",
        text="One row for each trial at a time on a host; a bar goes from the start of a trial to its end.",
        columns=["trial", "worker", "start", "end", "took"],
        rows=rows,
        views={"": sheet(22 * len(lanes) + 10, layers=[bar], params=[along_x])},
        filtered=prefix,
    )


def spent(findings: Findings, prefix: str) -> Chart | None:
    """The time of training by outcome, and what early stopping saved; None if no time was reported."""
    found = spending(findings)
    total = sum(found.trained.values())
    if not total:
        return None
    unit, second = time_unit(total + found.saved)
    rows: list[list[Cell]] = [[name, seconds * second, "spent"] for name, seconds in found.trained.items()]
    rows.append(["saved by stopping", found.saved * second, "saved"])
    colour = {"domain": ["spent", "saved"], "range": ["var(--mark)", "var(--stopped)"]}
    bar = {
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "what", "type": "nominal", "sort": [str(row[0]) for row in rows], "axis": {"title": None}},
            "x": Axis(field="time", title=f"{unit} of training", zero=True).encoding(),
            "color": {"field": "kind", "type": "nominal", "scale": colour, "legend": None},
            "tooltip": tooltip(what="trials", time=f"{unit}|.2f"),
        },
    }
    share = found.saved / (total + found.saved)
    gpu_hours = findings.gpu_seconds / UNITS["hours"]
    of_gpus = f", and held GPUs for {gpu_hours:.2f} GPU-hours" if gpu_hours else ""
    of_saved = f" ({found.saved * findings.gpus / UNITS['hours']:.2f} GPU-hours)" if gpu_hours else ""
    return Chart(
        key=f"{prefix}-spent",
        title="Time spent, and saved by early stopping",
        text=f"The trials trained for {total * second:.1f} {unit} in all{of_gpus}. Had each stopped trial run to epoch "
        f"{findings.max_epochs} at its own pace, it would have been {found.saved * second:.1f} {unit} more{of_saved}: "
        f"early stopping saved {share:.0%}.",
        columns=["what", "time", "kind"],
        rows=rows,
        views={"": sheet(26 * len(rows) + 10, layers=[bar])},
        zooms=False,
        wide=False,
    )


def rung_reached(findings: Findings, trial: TrialRecord) -> int:
    """The last rung that a trial reached; 0 before the first."""
    return max((rung for rung in findings.rungs if trial.last_epoch >= rung), default=0)


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit for a span of time, and how many of it a second is."""
    unit = next((unit for unit, size in UNITS.items() if seconds >= SHOWN_FROM * size), "minutes")
    return unit, 1 / UNITS[unit]
