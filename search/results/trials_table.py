"""The trials of a search as a table, filtered and sorted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data.errors import InputError, without_comma
from search.results.summary import word_of
from search.spec.objectives import known_objectives
from search.study.experiment import Experiment
from search.study.study import open_existing_study
from search.study.trials import TrialRecord, trial_records
from trainable.config.settings import Scalar, at
from trainable.metrics.names import OBJECTIVE
from trainable.metrics.objective import Objective

MAX_VALUES = 12
"""Values of a key that are listed at most."""


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A trial in the table."""

    number: int
    state: str
    """Optuna's, in lower case."""
    outcome: str
    """As in `search.results.summary.word_of`."""
    epochs: int
    metrics: Mapping[str, float]
    """Of the best epoch; empty before the first report."""
    seconds: float
    """Of all epochs."""
    recipe: str
    """'' if it is none."""
    proposed_by: str
    """As in `TrialRecord`."""
    params: Mapping[str, Scalar]
    reason: str
    """Why it diverged, failed or was not trained; '' otherwise."""
    config: Mapping[str, Any]
    """Values of its `TrialConfig`."""

    def as_plain(self, sort: str = OBJECTIVE) -> dict[str, object]:
        """As JSON values, a key per column; `sort` adds the key that the table is sorted by."""
        plain = self._columns()
        return plain if sort in plain else plain | {sort: self.value(sort)}

    def value(self, key: str) -> object:
        """The value of a column, a parameter or a key of the configuration; None if there is none."""
        for known in (self._columns(), self.params):
            if key in known:
                return known[key]
        return at(self.config, key)

    def number_of(self, key: str) -> float | None:
        """The value of a key, if it is a number."""
        value = self.value(key)
        return value if isinstance(value, int | float) else None

    def _columns(self) -> dict[str, object]:
        return {
            "number": self.number,
            "state": self.state,
            "outcome": self.outcome,
            "epochs": self.epochs,
            **self.metrics,
            "seconds": self.seconds,
            "recipe": self.recipe,
            "proposed_by": self.proposed_by,
            "params": dict(self.params),
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A filter for trials: compares the value of a key with a constant."""

    key: str
    """A column, a parameter, or a key of the trial's configuration."""
    sign: Literal["=", ">", "<"]
    wanted: str

    def holds(self, row: TrialRow) -> bool:
        """Whether a trial meets the condition; False if it lacks the key.

        Raises:
            InputError: if the sign is '>' or '<' and `wanted` is not a number.
        """
        if self.sign == "=":
            return self.wanted in _texts(row.value(self.key))
        try:
            wanted = float(self.wanted)
        except ValueError:
            meant = without_comma(self.wanted)
            raise InputError(
                f"The value of --where compares with '{self.wanted}', but must compare with a number"
                f"{f'; write {meant}' if meant else ''}."
            ) from None
        number = row.number_of(self.key)
        return number is not None and (number > wanted if self.sign == ">" else number < wanted)


def trial_rows(experiment: Experiment, *, sort: str | None = None, keep: Sequence[Condition] = ()) -> list[TrialRow]:
    """The trials of a search that meet all conditions.

    Args:
        experiment: a search.
        sort: 'number', or another column, parameter or key of the configuration with numeric values: the objective,
            metrics and costs best first, others descending, and trials without a value last; default: the objective.
        keep: conditions that a trial must meet.

    Raises:
        InputError: if there is no such search, or none of its trials has a value to sort or filter by.
    """
    study = open_existing_study(experiment)
    params = {trial.number: trial.params for trial in study.get_trials(deepcopy=False)}
    objective = experiment.objective
    whole = experiment.spec().plan.scheduler.max_epochs
    rows = [_row(trial, params[trial.number], whole) for trial in trial_records(study, objective)]
    sort = sort or objective.key
    order = {row.number: row.number_of(sort) for row in rows}
    if rows and sort not in (OBJECTIVE, objective.key) and all(value is None for value in order.values()):
        raise InputError(
            f"The value of --sort is '{sort}', but must be number, epochs, seconds, a metric such as mask_iou, or a "
            f"key of '{experiment.spec_file}' with numeric values."
        )
    for wanted in keep:
        if rows and all(row.value(wanted.key) is None for row in rows):
            raise InputError(
                f"The key '{wanted.key}' of --where does not exist in the trials of '{experiment.name}'; use a column "
                f"of 'twinhead trials', or a key of '{experiment.spec_file}'."
            )
    rows = [row for row in rows if all(wanted.holds(row) for wanted in keep)]
    if sort == "number":
        return rows

    own = [notation for record in experiment.spec().plan.plugins for notation in record.metrics]
    by = objective if sort == objective.key else Objective.of(known_objectives(own).get(sort, sort))

    def rank(row: TrialRow) -> tuple[float, int]:
        value = order[row.number]
        return (math.inf if value is None else -by.oriented(value), row.number)

    return sorted(rows, key=rank)


def unknown_values(experiment: Experiment, keep: Sequence[Condition]) -> list[str]:
    """For each value of `keep` that no trial has, a clause with those that there are; raises as `trial_rows`."""
    rows, clauses = trial_rows(experiment), []
    for wanted in keep:
        present = {_texts(row.value(wanted.key))[-1] for row in rows}
        if wanted.sign == "=" and present and not any(wanted.holds(row) for row in rows):
            more = ", …" if len(present) > MAX_VALUES else ""
            clauses.append(f"{wanted.key} is {', '.join(sorted(present)[:MAX_VALUES])}{more}, not {wanted.wanted}")
    return clauses


def parse_condition(text: str) -> Condition:
    """Parse KEY=VALUE, KEY>NUMBER or KEY<NUMBER; KEY is a column, a parameter or a key of a spec.

    Raises:
        InputError: if the text has none of these forms.
    """
    signs: tuple[Literal["=", ">", "<"], ...] = ("=", ">", "<")
    for sign in signs:
        key, found, value = (part.strip() for part in text.partition(sign))
        if found and key and value and key[-1] not in "<>!" and value[0] != "=":
            return Condition(key=key, sign=sign, wanted=value)
    raise InputError(f"The value of --where is '{text}', but must be KEY=VALUE, KEY>NUMBER or KEY<NUMBER.")


def _texts(value: object) -> tuple[str, ...]:
    """How a value may be written: also as in YAML, where it differs from Python."""
    return (str(value), str(value).lower()) if isinstance(value, bool) else (str(value),)


def _row(trial: TrialRecord, params: Mapping[str, Scalar], whole: int) -> TrialRow:
    metrics = trial.best_epoch.metrics if trial.best_epoch else {}
    return TrialRow(
        number=trial.number,
        state=trial.state.name.lower(),
        outcome=word_of(trial, whole),
        epochs=trial.last_epoch,
        metrics={name: value for name, value in metrics.items() if not name.startswith("time_")},
        seconds=round(trial.seconds, 1),
        recipe=trial.recipe,
        proposed_by=trial.proposed_by,
        params=params,
        reason=trial.reason,
        config=trial.config,
    )
