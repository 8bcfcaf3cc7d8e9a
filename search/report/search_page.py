"""The part of a report about one search: what the template `search.html.j2` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from search.report.findings import Findings, findings_of
from search.report.networks import Answer, answer_of
from search.report.parameter_charts import MIN_POINTS, coordinates, dimensions, front, importance
from search.report.progress_charts import curves, over_budget, rung_reached, rungs, spent, time_unit, timeline
from search.report.repeat import as_yaml, commands, described, failures, provenance
from search.report.samples import Picture, SampleRow, sample_rows, stored_grid
from search.report.tables import DifferenceRow, MetricTable, answer_charts, answer_table, difference_rows, titles
from search.report.vega import OUTCOMES, Cell, Chart, table_of
from search.report.words import answer_in_words, basis_in_words
from search.study.experiment import Experiment
from search.study.trials import FIRST_TRIALS, TrialRecord
from trainable.config.settings import Scalar
from trainable.metrics.bootstrap import COMPARED
from trainable.metrics.names import OBJECTIVE
from trainable.metrics.objective import Objective

SUBJECTS = {"test": "test images", "val": "validation images"}


@dataclass(frozen=True, kw_only=True)
class SearchPage:
    """What a page shows of a search."""

    prefix: str
    """Of the IDs on the page; the name of the filter."""
    findings: Findings
    answer: Answer
    words: str
    basis: str
    facts: Sequence[tuple[str, str, str]]
    """Name, value and a remark."""
    metrics: MetricTable
    answer_charts: Sequence[Chart]
    differences: Sequence[DifferenceRow]
    difference_columns: Sequence[str]
    described: str
    config: str
    """As YAML; '' if it is not known."""
    samples_title: str
    samples: Sequence[SampleRow]
    grid: Picture | None
    charts: Sequence[Chart]
    dimensions: Sequence[Chart]
    costs: Sequence[Chart]
    no_importance: str
    """Why there is no importance; '' if there is."""
    outcomes: Sequence[tuple[str, int]]
    first_trials: Sequence[str]
    """Sources of the first trials that are no recipes."""
    families: Sequence[str]
    rare: Sequence[str]
    """Parameters of too few trials for a chart."""
    trial_metrics: Sequence[str]
    """Among the attributes of a trial: the objective first, and the score."""
    parameters: Sequence[str]
    failures: Sequence[tuple[str, str, str]]
    """Numbers of trials, their outcome and the reason."""
    commands: str
    provenance: Sequence[tuple[str, str]]
    spec: str
    """As YAML."""

    @property
    def name(self) -> str:
        """Of the search."""
        return self.findings.name

    @property
    def problems(self) -> list[str]:
        """What is damaged or missing, once each."""
        return list(dict.fromkeys([*self.findings.problems, *self.answer.problems]))

    @property
    def all_charts(self) -> list[Chart]:
        """Of the search."""
        return [*self.answer_charts, *self.charts, *self.dimensions, *self.costs]

    def filter(self) -> dict[str, object]:
        """What the script filters the trials by: their score, or a value in `params`."""
        trials = table_of(*_trials(self.findings))
        others = [name for name in self.trial_metrics if name != OBJECTIVE]
        params = self.findings.params
        rows = [
            [
                trial.number,
                *(_metrics_of(trial).get(name) for name in others),
                *(_value(params[trial.number].get(name)) for name in self.parameters),
            ]
            for trial in self.findings.trials
        ]
        return {"trials": trials, "params": table_of(["trial", *others, *self.parameters], rows)}


def search_page(experiment: Experiment, prefix: str, say: Callable[[str], None]) -> SearchPage:
    """Read a search and compute what its page shows.

    Args:
        experiment: of the search.
        prefix: of the IDs on the page.
        say: callback for a message about work that takes time.

    Raises:
        InputError: as `findings_of`.
    """
    findings = findings_of(experiment)
    answer = answer_of(findings, say)
    samples = sample_rows(answer, answer.problems)
    subject = SUBJECTS[answer.part]
    counts = Counter(map(findings.outcome, findings.trials))
    best = next((trial for trial in findings.trials if trial.number == answer.chosen.trial), None)
    families = {str(trial.config.get("model", {}).get("family", "")) for trial in findings.trials} - {""}
    found = (f(findings, prefix) for f in (over_budget, curves, rungs, coordinates, importance))
    costs = (f(findings, prefix) for f in (front, timeline, spent))
    return SearchPage(
        prefix=prefix,
        findings=findings,
        answer=answer,
        words=answer_in_words(findings, answer),
        basis=basis_in_words(answer),
        facts=_facts(findings, counts, best),
        metrics=answer_table(answer, subject),
        answer_charts=answer_charts(answer, prefix, subject),
        differences=difference_rows(answer),
        difference_columns=list(titles(findings.objective, COMPARED).values()),
        described=described(best),
        config=as_yaml(best.config_as_run) if best else "",
        samples_title=f"Best, median and worst {subject}" if samples else "Images",
        samples=samples,
        grid=None if samples else stored_grid(findings),
        charts=[chart for chart in found if chart is not None],
        dimensions=list(dimensions(findings, prefix)),
        costs=[chart for chart in costs if chart is not None],
        no_importance=findings.analysis if isinstance(findings.analysis, str) else "",
        outcomes=[(name, counts[name]) for name in OUTCOMES if counts[name]],
        first_trials=[name for name in FIRST_TRIALS if any(trial.proposed_by == name for trial in findings.trials)],
        families=sorted(families),
        rare=[name for name in findings.parameters() if findings.counts()[name] < MIN_POINTS],
        trial_metrics=_trial_metrics(findings.objective),
        parameters=findings.parameters(),
        failures=failures(findings),
        commands=commands(findings),
        provenance=provenance(findings),
        spec=as_yaml(findings.plain_spec),
    )


def _trial_metrics(objective: Objective) -> list[str]:
    return list(dict.fromkeys([objective.key, OBJECTIVE]))


def _trials(findings: Findings) -> tuple[list[str], list[list[Cell]]]:
    """The attributes of the trials that the filter, the tooltips and the tables use: columns and rows."""
    metrics = _trial_metrics(findings.objective)
    columns = ["trial", "outcome", "source", "family", "width", *metrics, "epochs", "rung", "host"]
    return columns, [_trial(findings, trial, metrics) for trial in findings.trials]


def _metrics_of(trial: TrialRecord) -> dict[str, float]:
    """Those of its best epoch with the objective; empty before the first report."""
    best = trial.best_epoch
    return best.objective.with_value(best.metrics) if best else {}


def _trial(findings: Findings, trial: TrialRecord, metrics: Sequence[str]) -> list[Cell]:
    model, measured = trial.config.get("model", {}), _metrics_of(trial)
    return [
        trial.number,
        findings.outcome(trial),
        _source(trial),
        model.get("family"),
        model.get("width"),
        *(measured.get(name) for name in metrics),
        trial.last_epoch,
        rung_reached(findings, trial),
        trial.host,
    ]


def _source(trial: TrialRecord) -> str:
    """Where a trial comes from; the filter compares the beginning."""
    if trial.recipe:
        return f"recipe {trial.recipe}"
    if trial.proposed_by in FIRST_TRIALS:
        return trial.proposed_by
    return f"proposed ({trial.proposed_by})" if trial.proposed_by else "proposed"


def _facts(findings: Findings, counts: Mapping[str, int], best: TrialRecord | None) -> list[tuple[str, str, str]]:
    epochs = sum(len(trial.epochs) for trial in findings.trials)
    detail = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name])
    facts = [("trials", str(len(findings.trials)), detail), ("epochs", f"{epochs:,}", "of all trials")]
    summary = findings.summary
    if summary is not None and summary.seconds:
        facts.append(("time", _duration(summary.seconds), "with the retraining" if summary.retrained else ""))
    if findings.gpu_seconds:
        facts.append(("GPU time", _duration(findings.gpu_seconds), "of all trials"))
    if best is not None and best.best_epoch is not None:
        where = f"trial {best.number}, epoch {best.best_epoch.epoch}"
        facts.append((f"validation {findings.objective.key}", f"{best.best_epoch.value:.3f}", where))
    return facts


def _duration(seconds: float) -> str:
    unit, second = time_unit(seconds)
    return f"{seconds * second:.1f} {unit}"


def _value(value: Scalar) -> Cell:
    """Booleans as text, which the filter offers as choices."""
    return ("yes" if value else "no") if isinstance(value, bool) else value
