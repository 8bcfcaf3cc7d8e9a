"""The report of one or several searches as one self-contained HTML file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from data.atomic import replace_file
from data.errors import InputError
from data.quantities import counted
from search.report.history import epoch_times
from search.report.networks import Network, paired
from search.report.page import render
from search.report.progress_charts import time_unit
from search.report.search_page import SearchPage, search_page
from search.report.tables import MetricCell, MetricRow, MetricTable, scores_chart, titles
from search.report.vega import ZOOM, Axis, Chart, objective_title, sheet, tooltip
from search.report.words import meaning_of, verdict_on, with_interval
from search.study.experiment import Experiment
from trainable.config.settings import flatten
from trainable.metrics.objective import SCORE, Objective

MAX_COLOURS = 6


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Several searches beside one another."""

    words: str
    table: MetricTable
    charts: Sequence[Chart]
    differing: Sequence[tuple[str, Sequence[str]]]
    """Keys of the specs with different values, and the values of the searches."""


def write_report(experiments: Sequence[Experiment], out: Path, say: Callable[[str], None]) -> list[str]:
    """Write the report of one or several searches, atomically.

    Args:
        experiments: the searches.
        out: an HTML file.
        say: callback for a message about work that takes time.

    Returns:
        What could not be read, as sentences.

    Raises:
        InputError: if a search does not exist or has no finished trial, or the file cannot be written.
        DiskError: for a fault of the disk.
    """
    pages = [search_page(experiment, f"s{number}", say) for number, experiment in enumerate(experiments)]
    overview = _overview(pages) if len(pages) > 1 else None
    charts = [*(overview.charts if overview else []), *(chart for page in pages for chart in page.all_charts)]
    names = ", ".join(page.name for page in pages)
    html = render(
        "report.html.j2",
        charts,
        {page.prefix: page.filter() for page in pages},
        title=f"{names}: searches compared" if overview else f"The search {names}",
        subtitle=_subtitle(pages),
        overview=overview,
        searches=pages,
    )
    try:
        replace_file(out, html)
    except OSError as error:
        raise InputError(f"The report cannot be written to '{out}' ({error.strerror}); give another --out.") from None
    return [f"{page.name}: {problem}" for page in pages for problem in page.problems]


def _subtitle(pages: Sequence[SearchPage]) -> str:
    data = dict.fromkeys(page.findings.spec.data_path for page in pages)
    return f"Data set {', '.join(data)}; written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."


def _overview(pages: Sequence[SearchPage]) -> Overview:
    objective = _common_objective(pages)
    columns = titles(objective)
    results = {page.name: page.answer.result for page in pages}
    cells = {
        name: [MetricCell.of(found.metrics.get(key)) if found else None for key in columns]
        for name, found in results.items()
    }
    rows = [MetricRow(label=f"{page.name} ({_what(page)})", cells=cells[page.name]) for page in pages]
    values = {name: found.metrics[objective.key] for name, found in results.items() if found is not None}
    chart = scores_chart(
        "compared-scores", values, "", "The network that each search delivers, with its interval.", objective
    )
    return Overview(
        words=_words(pages, objective),
        table=MetricTable(title="The networks that the searches deliver", columns=list(columns.values()), rows=rows),
        charts=[*([chart] if chart else []), _over_time(pages, objective)],
        differing=_differing(pages),
    )


def _what(page: SearchPage) -> str:
    return f"{counted(len(page.findings.trials), 'trial')}, on {'test' if page.answer.part == 'test' else 'validation'}"


def _common_objective(pages: Sequence[SearchPage]) -> Objective:
    """By which searches are compared: their objective, or the score if they have several."""
    objectives = {page.findings.objective for page in pages}
    return objectives.pop() if len(objectives) == 1 else SCORE


def _words(pages: Sequence[SearchPage], objective: Objective) -> str:
    """Which search delivers the best network, and whether the difference from each other one is real."""
    known = [(page, page.answer.result) for page in pages if page.answer.result is not None]
    parts = {page.answer.part for page in pages}
    if len(known) < 2 or len(parts) > 1:
        return (
            "The searches are not compared: some have test metrics and some do not. Retrain them all, with "
            "'twinhead retrain NAME'."
            if len(parts) > 1
            else "Fewer than two of the searches have a network, so that nothing is compared."
        )
    known.sort(key=lambda item: -objective.oriented(item[1].metrics[objective.key].value))
    (best, first), *others = known
    most = f"{'highest' if objective.sign > 0 else 'lowest'} {objective.key}"
    sentences = [*_on_objectives(pages, objective)]
    sentences.append(
        f"{best.name} delivers the network with the {most}, {with_interval(first.metrics[objective.key])}."
    )
    sentences += [_difference(best, first, page, other, objective) for page, other in others]
    sentences.append("The budgets may differ; the table and the charts below show them.")
    return " ".join(sentences)


def _on_objectives(pages: Sequence[SearchPage], objective: Objective) -> Iterator[str]:
    """By what the searches are compared, if it is not the default."""
    own = {page.name: page.findings.objective for page in pages}
    if set(own.values()) != {objective}:
        listed = ", ".join(f"that of {name} is {each}" for name, each in own.items())
        yield f"The searches have different objectives ({listed}), so that they are compared by the score."
    elif objective != SCORE:
        yield meaning_of(objective, "searches")


def _difference(
    best: SearchPage, first: Network | None, page: SearchPage, other: Network | None, objective: Objective
) -> str:
    found = paired(first.table if first else None, other.table if other else None, objective).get(objective.key)
    if found is None or not _same_data(best, page):
        return f"Its difference from {page.name} is not known: the two were not measured on the same images."
    return f"Compared with {page.name}, that is {with_interval(found, signed=True)}: {verdict_on(found, objective)}."


def _same_data(one: SearchPage, other: SearchPage) -> bool:
    """Whether two searches used the same data set; IDs of backgrounds of different ones may be equal."""
    return _fingerprint(one) == _fingerprint(other) != ""


def _fingerprint(page: SearchPage) -> str:
    summary, data = page.findings.summary, page.answer.data
    return summary.data_fingerprint if summary else data.fingerprint if data else ""


def _over_time(pages: Sequence[SearchPage], objective: Objective) -> Chart:
    points: list[tuple[str, float, int, float]] = []
    for page in pages:
        begins = [trial.started.timestamp() for trial in page.findings.trials if trial.started]
        reports = sorted(
            (time, objective.value(epoch.metrics))
            for trial in page.findings.trials
            for time, epoch in zip(epoch_times(trial), trial.epochs, strict=True)
            if math.isfinite(objective.value(epoch.metrics))
        )
        begin = min([*begins, *(time for time, _ in reports[:1])], default=0.0)
        best = math.nan
        for count, (time, value) in enumerate(reports, start=1):
            is_better = objective.oriented(value) > objective.oriented(best)
            if is_better or count == len(reports):
                best = value if is_better else best
                points.append((page.name, time - begin, count, best))
    unit, second = time_unit(max((seconds for _, seconds, _, _ in points), default=0.0))
    names = [page.name for page in pages]
    colours = [f"var(--search{1 + number % MAX_COLOURS})" for number in range(len(names))]
    views = {}
    for field, title in {"time": f"{unit} since the start", "epochs": "epochs of all trials"}.items():
        line = {
            "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 2, "point": {"size": 24}},
            "encoding": {
                "x": Axis(field=field, title=title, zero=True).encoding(),
                "y": Axis(field="best", title=objective_title(objective, "best validation")).encoding(),
                "color": {"field": "search", "type": "nominal", "scale": {"domain": names, "range": colours}},
                "tooltip": tooltip(
                    search="search", time=f"{unit}|.3f", epochs="epochs", best=f"best {objective.key}|.4f"
                ),
            },
        }
        views[title] = sheet(300, layers=[line], params=[ZOOM])
    return Chart(
        key="compared-budget",
        title=f"Best {objective.key} over the budget spent",
        text=f"The best validation {objective.key} so far of each search.",
        columns=["search", "time", "epochs", "best"],
        rows=[[name, seconds * second, count, best] for name, seconds, count, best in points],
        views=views,
        choice="Budget in",
    )


def _differing(pages: Sequence[SearchPage]) -> list[tuple[str, list[str]]]:
    specs = []
    for page in pages:
        plain = flatten(page.findings.plain_spec)
        listed = ", ".join(str(Objective.of(each)) for each in page.findings.spec.plan.objectives)
        specs.append({key: listed if key == "objectives" else str(value) for key, value in plain.items()})
    keys = dict.fromkeys(key for spec in specs for key in spec if key != "name")
    return [(key, [spec.get(key, "–") for spec in specs]) for key in keys if len({spec.get(key) for spec in specs}) > 1]
