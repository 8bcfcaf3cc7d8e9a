"""The analysis of a finished search: the importance of its parameters, and the trials nearest to the best one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from data.errors import InputError
from data.quantities import counted
from search.results.importance import MIN_TRIALS, Figure, importance
from search.study.experiment import Experiment
from search.study.study import open_existing_study
from search.study.trials import TrialRecord, is_untrained
from trainable.config.settings import Scalar
from trainable.metrics.names import DIVERGED
from trainable.metrics.objective import SCORE, Objective

GOOD_SHARE, MIN_GOOD = 0.1, 5
"""The best tenth of the trials, but at least this many, are compared with all trials."""


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A trial near the best one."""

    number: int
    distance: float
    """0..1: the mean over all parameters."""
    score: float | None
    """The metric of this name at the best epoch; None if it was not recorded."""
    value: float
    """Of the objective."""
    below: float
    """By how much the best trial's value is better."""
    differs: dict[str, tuple[Scalar, Scalar]]
    """The best trial's value and this one's, by parameter, largest difference first; None for a missing one."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Importance of the parameters of a search, and the neighbourhood of its best trial."""

    objective: str
    """Its name in tables."""
    trials: int
    good: int
    """Number of trials that count as the best."""
    importance: dict[str, float]
    """By parameter, most important first; the values add up to 1, and 0 is no measured difference. Parameters in
    `too_few` are left out."""
    figures: dict[str, Figure]
    """The same with 95 % intervals over resampled trials, and the number of trials with the parameter."""
    sections: dict[str, Figure]
    """The same for all parameters of a section of the spec together."""
    too_few: dict[str, int]
    """Parameters of fewer than `MIN_TRIALS` trials, and the number of trials with each."""
    best: int | None
    """Number of the best trial."""
    neighbours: list[Neighbour]
    """The trials nearest to the best one."""


def analyse(experiment: Experiment, *, neighbours: int = 5) -> Analysis:
    """Compute the importance of each parameter for the objective, and the trials around the best one.

    Importance is the difference between a parameter's values in the best trials and in all trials; see
    `search.results.importance`.

    Raises:
        InputError: if there is no such search, or it has too few finished trials.
    """
    study, objective = open_existing_study(experiment), experiment.objective
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    done = [trial for trial in ended if _is_scored(trial)]
    if len(done) < MIN_TRIALS:
        budget = experiment.spec().plan.budget
        more = max(budget.trials, MIN_TRIALS + len(ended) - len(done))
        limits = [key for key in ("hours", "gpu_hours", "patience") if getattr(budget, key) is not None]
        also = f", and with a larger {' and '.join(f'budget.{key}' for key in limits)}" if limits else ""
        advice = experiment.how_to_continue("--trials", str(more))
        value = "a score" if objective == SCORE else f"a value of {objective.name}"
        raise InputError(
            f"The search '{experiment.name}' has {counted(len(done), 'trial')} with {value}, but must have "
            f"{MIN_TRIALS}; {advice}{'' if experiment.is_running else also}."
        )
    diverged = [trial for trial in ended if _diverged_without_value(trial)]
    compared = sorted([*done, *diverged], key=lambda trial: trial.number)
    good = min(max(math.ceil(GOOD_SHARE * len(compared)), MIN_GOOD), len(done) // 2)
    found = importance(compared, [objective.oriented(_value(trial)) for trial in compared], good)
    best = max(done, key=lambda trial: (objective.oriented(_value(trial)), -trial.number))
    return Analysis(
        objective=objective.key,
        trials=len(compared),
        good=good,
        importance={name: figure.share for name, figure in found.parameters.items()},
        figures=found.parameters,
        sections=found.sections,
        too_few=found.too_few,
        best=best.number,
        neighbours=_neighbours(best, done, objective)[:neighbours],
    )


def _is_scored(trial: FrozenTrial) -> bool:
    is_trained = trial.state == TrialState.COMPLETE and not is_untrained(trial.user_attrs)
    return is_trained and bool(trial.params) and math.isfinite(_value(trial))


def _diverged_without_value(trial: FrozenTrial) -> bool:
    """Whether a trial diverged for an objective without a worst value; it is worse than all others."""
    is_failed = trial.state == TrialState.FAIL and bool(trial.params)
    return is_failed and TrialRecord.of(trial).outcome == DIVERGED


def _value(trial: FrozenTrial) -> float:
    return float(trial.value) if trial.value is not None else math.nan


def _neighbours(best: FrozenTrial, others: Sequence[FrozenTrial], objective: Objective) -> list[Neighbour]:
    """All other trials, nearest first."""
    rows = []
    for trial in others:
        if trial.number == best.number:
            continue
        epoch = TrialRecord.of(trial, objective).best_epoch
        gaps = {name: _gap(name, best, trial) for name in {**best.params, **trial.params}}
        rows.append(
            Neighbour(
                number=trial.number,
                distance=sum(gaps.values()) / len(gaps),
                score=_value(trial) if objective == SCORE else epoch.score if epoch else None,
                value=_value(trial),
                below=objective.sign * (_value(best) - _value(trial)),
                differs={
                    name: (best.params.get(name), trial.params.get(name))
                    for name, gap in sorted(gaps.items(), key=lambda item: -item[1])
                    if gap > 0
                },
            )
        )
    return sorted(rows, key=lambda row: (row.distance, row.number))


def _gap(name: str, one: FrozenTrial, other: FrozenTrial) -> float:
    """Distance of two trials in a parameter: 0 to 1; 1 if one of them lacks it."""
    if name not in one.params or name not in other.params:
        return 1.0
    distribution = one.distributions[name]
    if isinstance(distribution, CategoricalDistribution) or distribution.single():
        return float(one.params[name] != other.params[name])
    return abs(normalised(distribution, one.params[name]) - normalised(distribution, other.params[name]))


def normalised(distribution: BaseDistribution, value: float) -> float:
    """The position of a number in its range, 0 to 1."""
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise TypeError(f"{distribution} is not a range")
    low, high, value = float(distribution.low), float(distribution.high), float(value)
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return min(max((value - low) / (high - low), 0.0), 1.0)
