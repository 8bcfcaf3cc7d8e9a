"""The trials of a search as a table, filtered and sorted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data.errors import InputError, without_comma
from search.spec.tree import at
from search.study.experiment import Experiment
from search.study.study import open_existing_study
from search.study.trials import TrialRecord, trial_records
from trainable.metrics.names import OBJECTIVE


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A filter for trials: compares the value of a key with a constant."""

    key: str
    """A column, a parameter, or a key of the trial's configuration."""
    sign: Literal["=", ">", "<"]
    wanted: str

    def holds(self, row: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
        """Whether a trial meets the condition; False if it lacks the key.

        Raises:
            InputError: if the sign is '>' or '<' and `wanted` is not a number.
        """
        return _compare(self.value(row, config), self.sign, self.wanted)

    def value(self, row: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
        """The trial's value of the key; None if it has none."""
        return _value(self.key, row, config)


def trial_rows(
    experiment: Experiment, *, sort: str = OBJECTIVE, keep: Sequence[Condition] = ()
) -> list[dict[str, Any]]:
    """One row per trial: number, state, outcome, epochs, metrics of the best epoch, seconds, recipe, params, reason.

    Args:
        experiment: a search.
        sort: 'number', or another column, parameter or key of the configuration with numeric values: descending, and
            trials without a value last.
        keep: conditions that a row must meet.

    Raises:
        InputError: if there is no such search, or none of its trials has a value to sort or filter by.
    """
    study = open_existing_study(experiment)
    params = {trial.number: trial.params for trial in study.get_trials(deepcopy=False)}
    found = [(_row(trial, params[trial.number]), trial.config) for trial in trial_records(study)]
    for row, config in found:
        row.setdefault(sort, _value(sort, row, config))
    if found and sort != OBJECTIVE and not any(isinstance(row[sort], int | float) for row, _ in found):
        raise InputError(
            f"The value of --sort is '{sort}', but must be number, epochs, seconds, a metric such as mask_iou, or a "
            f"key of '{experiment.spec_file}' with numeric values."
        )
    for wanted in keep:
        if found and all(wanted.value(*each) is None for each in found):
            raise InputError(
                f"The key '{wanted.key}' of --where does not exist in the trials of '{experiment.name}'; use a column "
                f"of 'twinhead trials', or a key of '{experiment.spec_file}'."
            )
    rows = [row for row, config in found if all(wanted.holds(row, config) for wanted in keep)]
    if sort == "number":
        return rows
    return sorted(rows, key=lambda row: (-row[sort] if isinstance(row[sort], int | float) else math.inf, row["number"]))


def parse_condition(text: str) -> Condition:
    """Parse KEY=VALUE, KEY>NUMBER or KEY<NUMBER; KEY is a column, a parameter or a key of a spec.

    Raises:
        InputError: if the text has none of these forms.
    """
    signs: tuple[Literal["=", ">", "<"], ...] = ("=", ">", "<")
    for sign in signs:
        key, found, value = (part.strip() for part in text.partition(sign))
        if found and key and value:
            return Condition(key=key, sign=sign, wanted=value)
    raise InputError(f"The value of --where is '{text}', but must be KEY=VALUE, KEY>NUMBER or KEY<NUMBER.")


def _value(key: str, row: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """The value of a column, a parameter or a key of the configuration; None if there is none."""
    for known in (row, row["params"]):
        if key in known:
            return known[key]
    return at(config, key)


def _row(trial: TrialRecord, params: dict[str, Any]) -> dict[str, Any]:
    best = trial.best_epoch
    metrics = {name: value for name, value in (best.metrics if best else {}).items() if not name.startswith("time_")}
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "outcome": trial.outcome,
        "epochs": trial.last_epoch,
        **metrics,
        "seconds": round(sum(record.metrics.get("seconds", 0.0) for record in trial.epochs), 1),
        "recipe": trial.recipe,
        "params": params,
        "reason": trial.reason,
    }


def _compare(value: Any, sign: str, wanted: str) -> bool:
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
