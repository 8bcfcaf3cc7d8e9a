"""What a search found, as typed values: everything that its report shows, and what could not be read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from data.errors import InputError
from search.results.analysis import Analysis, analyse
from search.results.front import Point, points_of
from search.results.summary import Best, find_best, find_best_recipe, outcomes, word_of
from search.spec.spec import SearchSpec
from search.spec.study_url import masked
from search.study.damage import examine
from search.study.experiment import Experiment
from search.study.study import open_existing_study
from search.study.summary import Summary
from search.study.trials import GPU_SECONDS, SLOTS, TrialRecord, trial_records
from trainable.config.settings import Scalar, Value
from trainable.metrics.objective import Notation, Objective

T = TypeVar("T")

TRADE_OFF = "-macs"
"""The second objective of the front of a search that has one objective."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A search with at least one finished trial."""

    experiment: Experiment
    spec: SearchSpec
    trials: Sequence[TrialRecord]
    """All started trials, by number."""
    params: Mapping[int, Mapping[str, Scalar]]
    """Parameters by the number of the trial."""
    distributions: Mapping[str, BaseDistribution]
    """The distribution of each parameter, the last one if a search has several."""
    best: Best | None
    """None if no checkpoint loads."""
    recipe: Best | None
    """The best recipe that ran for all epochs."""
    summary: Summary | None
    """None before the first end of a run, or if it is damaged."""
    analysis: Analysis | str
    """A sentence if there are too few trials."""
    objectives: Sequence[Notation]
    """Of the front."""
    points: Sequence[Point]
    """Trials with the objectives of the front; empty if they were not measured."""
    gpus: float
    """GPUs of each trial."""
    gpu_seconds: float
    """Of all trials that ended."""
    problems: list[str] = field(default_factory=list)
    """A sentence for each thing that is damaged or missing."""

    @property
    def name(self) -> str:
        """Of the search."""
        return self.experiment.name

    @property
    def objective(self) -> Objective:
        """By which trials and networks are compared."""
        return self.spec.plan.objective

    @property
    def plain_spec(self) -> dict[str, Value]:
        """The spec for a page that others may read: without the password in the URL of its study."""
        url = self.spec.plan.search.study
        if url is None:
            return self.spec.as_plain()
        search = self.spec.plan.search.model_copy(update={"study": masked(url)})
        return replace(self.spec, plan=self.spec.plan.model_copy(update={"search": search})).as_plain()

    @property
    def max_epochs(self) -> int:
        """Of a trial."""
        return self.spec.plan.scheduler.max_epochs

    @property
    def rungs(self) -> list[int]:
        """The epochs at which trials are compared, and the last one, ascending."""
        return self.spec.plan.scheduler.rungs

    def counts(self) -> Counter[str]:
        """The number of trials with each parameter."""
        return Counter(name for params in self.params.values() for name in params)

    def outcome(self, trial: TrialRecord) -> str:
        """As in `search.results.summary.word_of`."""
        return word_of(trial, self.max_epochs)

    def parameters(self) -> list[str]:
        """The searched parameters with several values, the most important first, then by the number of trials."""
        values: dict[str, set[Scalar]] = {}
        for params in self.params.values():
            for name, value in params.items():
                values.setdefault(name, set()).add(value)
        counts = self.counts()
        several = (name for name, found in values.items() if len(found) > 1)
        searched = sorted(several, key=lambda name: (-counts[name], name))
        ranked = [] if isinstance(self.analysis, str) else [name for name in self.analysis.importance if name in values]
        return [*ranked, *(name for name in searched if name not in ranked)]


def findings_of(experiment: Experiment) -> Findings:
    """Read a search; what is damaged is left out and named in `Findings.problems`.

    Raises:
        InputError: if there is no such search, its spec or its study cannot be read, or it has no finished trial.
    """
    spec = experiment.spec()
    study = open_existing_study(experiment)
    trials = trial_records(study, spec.plan.objective)
    _refuse_unfinished(experiment, spec, trials)
    problems: list[str] = _journal_problems(experiment)
    frozen = study.get_trials(deepcopy=False)

    def attempt(work: Callable[[], T], fallback: T) -> T:
        try:
            return work()
        except InputError as error:
            problems.append(str(error))
            return fallback

    summary = attempt(experiment.summary, None) if experiment.summary_file.is_file() else None
    objectives = spec.plan.objectives if len(spec.plan.objectives) > 1 else [*spec.plan.objectives, TRADE_OFF]
    found = Findings(
        experiment=experiment,
        spec=spec,
        trials=trials,
        params={trial.number: trial.params for trial in frozen},
        distributions={name: each for trial in frozen for name, each in trial.distributions.items()},
        best=attempt(lambda: find_best(experiment, trials, say=problems.append), None),
        recipe=attempt(lambda: find_best_recipe(experiment, trials, spec.plan.scheduler.max_epochs), None),
        summary=summary,
        analysis=_analysis(experiment),
        objectives=objectives,
        points=attempt(lambda: points_of(experiment, trials, objectives), []),
        gpus=float(study.user_attrs.get(SLOTS, {}).get("gpus", 0.0)),
        gpu_seconds=float(study.user_attrs.get(GPU_SECONDS, 0.0)),
        problems=problems,
    )
    if found.best is None:
        problems.append("No checkpoint of a trial loads, so that no network can be measured again.")
    return found


def _refuse_unfinished(experiment: Experiment, spec: SearchSpec, trials: Sequence[TrialRecord]) -> None:
    finished = [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE and any(math.isfinite(epoch.value) for epoch in trial.epochs)
    ]
    if finished:
        return
    counts = outcomes(trials, spec.plan.scheduler.max_epochs)
    there = ", ".join(
        f"{count} {'unfinished' if name == 'interrupted' else name}" for name, count in counts.items() if count
    )
    raise InputError(
        f"The search '{experiment.name}' has no finished trial to report on ({there or 'no trial yet'}); "
        f"{experiment.how_to_continue()}."
    )


def _journal_problems(experiment: Experiment) -> list[str]:
    """What is damaged in the journal of the study."""
    if experiment.study_url is not None:
        return []
    damage = examine(experiment.study_file.read_bytes())
    return [f"The journal '{experiment.study_file}' is damaged: {damage}."] if damage.lines else []


def _analysis(experiment: Experiment) -> Analysis | str:
    try:
        return analyse(experiment)
    except InputError as error:
        return str(error)
