"""What a search learned: its trials as a table, which parameters matter, and how flat the optimum is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from data.errors import InputError, without_comma
from search.commands import cited
from search.results.intervals import Figure, importance
from search.spec.tree import at
from search.study.trials import TrialRecord, trial_records
from trainable.metrics.names import OBJECTIVE

if TYPE_CHECKING:
    from search.study.experiment import Experiment

FEWEST_TRIALS = 10
"""Of fewer, no share is 'the best ones'."""
GOOD_SHARE, FEWEST_GOOD = 0.1, 5
"""The best tenth of the trials, but at least so many, are what the others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What the finished trials of a search say of its space."""

    trials: int
    good: int
    """How many of them count as the best."""
    importance: dict[str, float]
    """By parameter, most important first; they add up to 1, and 0 is no difference that was seen. Parameters that too
    few trials have are not among them."""
    figures: dict[str, Figure]
    """The same with 95 % intervals over resampled trials, and how many trials have the parameter."""
    sections: dict[str, Figure]
    """The same for all parameters of each section of the spec together."""
    too_few: dict[str, int]
    """Parameters that fewer than `search.importance.MIN_TRIALS` trials have, and how many have them."""
    best: int | None
    """Number of the best trial."""
    neighbours: list[dict[str, Any]]
    """The trials nearest to the best one: number, distance (0..1), score, below (by how much), and what differs."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a trial has to have, to be listed."""

    key: str
    """A column, a parameter, or a key of the trial's configuration."""
    sign: Literal["=", ">", "<"]
    wanted: str

    def holds(self, row: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
        """Whether a trial has it; one that lacks the key has not."""
        return _holds(self.value(row, config), self.sign, self.wanted)

    def value(self, row: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
        """What the trial has under the key; None if it has nothing."""
        return _value(self.key, row, config)


def trial_rows(
    experiment: Experiment, *, sort: str = OBJECTIVE, keep: Sequence[Condition] = ()
) -> list[dict[str, Any]]:
    """A row a trial: number, outcome, epochs, best score and its metrics, seconds, recipe, parameters, reason.

    Args:
        experiment: a search.
        sort: 'number', or another column, parameter or key of the configuration that has numbers: the largest comes
            first, and what lacks it last.
        keep: a row stays if all of them hold.

    Raises:
        InputError: if there is no such search, or none of its trials has what it is sorted or filtered by.
    """
    study = open_to_read(experiment)
    params = {trial.number: trial.params for trial in study.get_trials(deepcopy=False)}
    trials = trial_records(study)
    rows = [_row(trial, params[trial.number]) for trial in trials]
    found = list(zip(rows, (trial.config for trial in trials), strict=True))
    for row, config in found:
        row.setdefault(sort, _value(sort, row, config))
    if rows and sort != OBJECTIVE and not any(isinstance(row[sort], int | float) for row in rows):
        raise InputError(
            f"The value of --sort is '{sort}', but must be number, epochs, seconds, a metric as mask_iou, or a key "
            f"of '{experiment.spec_file}' that has a number."
        )
    for wanted in keep:
        if rows and all(wanted.value(*each) is None for each in found):
            raise InputError(
                f"The key '{wanted.key}' of --where is none of a trial of '{experiment.name}'; use a column of "
                f"'twinhead trials', or a key of '{experiment.spec_file}'."
            )
    rows = [each[0] for each in found if all(wanted.holds(*each) for wanted in keep)]
    if sort == "number":
        return rows
    return sorted(rows, key=lambda row: (-row[sort] if isinstance(row[sort], int | float) else math.inf, row["number"]))


def condition(text: str) -> Condition:
    """A filter from KEY=VALUE, KEY>NUMBER or KEY<NUMBER; KEY is a column, a parameter or a key of a spec.

    Raises:
        InputError: if the text is none of these.
    """
    signs: tuple[Literal["=", ">", "<"], ...] = ("=", ">", "<")
    for sign in signs:
        key, found, value = (part.strip() for part in text.partition(sign))
        if found and key and value:
            return Condition(key=key, sign=sign, wanted=value)
    raise InputError(f"The value of --where is '{text}', but must be KEY=VALUE, KEY>NUMBER or KEY<NUMBER.")


def learn(experiment: Experiment, *, neighbours: int = 5) -> Learned:
    """Which parameters the best trials agree in, and what the trials around the best one reached.

    Importance is how much a parameter's values among the best trials differ from those among all; see
    `search.importance`.

    Raises:
        InputError: if there is no such search, or it has too few finished trials.
    """
    study = open_to_read(experiment)
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    done = [trial for trial in ended if _is_scored(trial)]
    if len(done) < FEWEST_TRIALS:
        budget = experiment.spec().plan.budget
        more = max(budget.trials, FEWEST_TRIALS + len(ended) - len(done))
        limits = [key for key in ("hours", "gpu_hours", "patience") if getattr(budget, key) is not None]
        also = f", and with a larger {' and '.join(f'budget.{key}' for key in limits)}" if limits else ""
        raise InputError(
            f"The search '{experiment.name}' has {len(done)} trials with a score, but must have {FEWEST_TRIALS}; go on "
            f"with {cited(f'{experiment.resume_command} --trials {more}')}{also}."
        )
    good = min(max(math.ceil(GOOD_SHARE * len(done)), FEWEST_GOOD), len(done) // 2)
    found = importance(done, [_score(trial) for trial in done], good)
    best = max(done, key=lambda trial: (_score(trial), -trial.number))
    return Learned(
        trials=len(done),
        good=good,
        importance={name: figure.share for name, figure in found.parameters.items()},
        figures=found.parameters,
        sections=found.sections,
        too_few=found.too_few,
        best=best.number,
        neighbours=_neighbours(best, done)[:neighbours],
    )


def open_to_read(experiment: Experiment) -> optuna.Study:
    """The study of a search that exists.

    Raises:
        InputError: if there is none.
    """
    from search.study.study import open_study

    experiment.spec()  # says what is wrong, if there is no such search
    return open_study(experiment)


def _value(key: str, row: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """What a trial has under the name of a column, of a parameter, or under a key of its configuration; else None."""
    for known in (row, row["params"]):
        if key in known:
            return known[key]
    return at(config, key)


def _row(trial: TrialRecord, params: dict[str, Any]) -> dict[str, Any]:
    best = max(trial.epochs, key=lambda record: record.score, default=None)
    metrics = {name: value for name, value in (best.metrics if best else {}).items() if not name.startswith("time_")}
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "outcome": trial.outcome,
        "epochs": trial.epochs[-1].epoch if trial.epochs else 0,
        **metrics,
        "seconds": round(sum(record.metrics.get("seconds", 0.0) for record in trial.epochs), 1),
        "recipe": trial.recipe,
        "params": params,
        "reason": trial.reason,
    }


def _holds(value: Any, sign: str, wanted: str) -> bool:
    if sign == "=":
        return str(value) == wanted
    try:
        number = float(wanted)
    except ValueError:
        meant = without_comma(wanted)
        raise InputError(
            f"The value of --where compares with '{wanted}', but must compare with a number"
            f"{f'; write {meant}' if meant else ''}."
        ) from None
    if not isinstance(value, int | float):
        return False
    return value > number if sign == ">" else value < number


def _is_scored(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE and bool(trial.params) and math.isfinite(_score(trial))


def _score(trial: FrozenTrial) -> float:
    return float(trial.value) if trial.value is not None else math.nan


def _neighbours(best: FrozenTrial, others: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    rows = []
    for trial in others:
        if trial.number == best.number:
            continue
        gaps = {name: _gap(name, best, trial) for name in {**best.params, **trial.params}}
        rows.append(
            {
                "number": trial.number,
                "distance": sum(gaps.values()) / len(gaps),
                "score": _score(trial),
                "below": _score(best) - _score(trial),
                "differs": {
                    name: [best.params.get(name), trial.params.get(name)]
                    for name, gap in sorted(gaps.items(), key=lambda item: -item[1])
                    if gap > 0
                },
            }
        )
    return sorted(rows, key=lambda row: (row["distance"], row["number"]))


def _gap(name: str, one: FrozenTrial, other: FrozenTrial) -> float:
    """How far two trials are apart in a parameter: 0 to 1; 1 if one of them does not have it."""
    if name not in one.params or name not in other.params:
        return 1.0
    distribution = one.distributions[name]
    if isinstance(distribution, CategoricalDistribution) or distribution.single():
        return float(one.params[name] != other.params[name])
    return abs(_place(distribution, one.params[name]) - _place(distribution, other.params[name]))


def _place(distribution: BaseDistribution, value: float) -> float:
    """Where a number lies in its range: 0 to 1."""
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise TypeError(f"{distribution} is no range")
    low, high, value = float(distribution.low), float(distribution.high), float(value)
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return min(max((value - low) / (high - low), 0.0), 1.0)
