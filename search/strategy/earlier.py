"""The best trials of an earlier search, as first trials of another one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from data.dataset.storage import Location
from search.study.experiment import Experiment
from search.study.names import search_names
from search.study.study import open_study
from search.study.trials import TrialRecord, trial_records
from trainable.config import ConfigError
from trainable.config.settings import Value
from trainable.metrics.names import TRAINED
from trainable.metrics.objective import SCORE, Objective
from trainable.recipes import PORTFOLIO, RECIPES

MAX_TRIALS = 5
"""Of each earlier search."""
GROUPS = {"recipes": RECIPES, "portfolio": PORTFOLIO}
"""Entries of `search.start_from` that stand for several names."""
DEFAULT = "default"
"""Entry of `search.start_from`: the default configuration, clipped to the space."""
_KNOWN = {DEFAULT, *GROUPS, *RECIPES, *PORTFOLIO}


@dataclass(frozen=True, kw_only=True)
class EarlierTrial:
    """A trial of an earlier search."""

    name: str
    """SEARCH:NUMBER."""
    config: Mapping[str, Value]
    """Values of its `TrialConfig`, in the version of Twinhead that ran it."""
    ranked_by: Objective = SCORE
    """What the trials of its search were ordered by."""


def is_earlier(name: str) -> bool:
    """Whether an entry of `search.start_from` is the name of a search."""
    return name not in _KNOWN


def best_trials(
    storage: Path | Location, name: str, objective: Objective = SCORE, key: str = "search.start_from"
) -> list[EarlierTrial]:
    """The best trials of a search, each with a different configuration.

    Trials are ordered by their number of epochs, then by their best value of `objective`: values after different
    numbers of epochs cannot be compared, and ASHA continues the good trials. Failed, diverged and excluded trials are
    left out. If none of them measured `objective`, they are ordered by the objective of their own search.

    Args:
        storage: directory of the search's directory.
        name: of the search.
        objective: of the new search.
        key: of the spec that holds the name, for error messages.

    Raises:
        ConfigError: if there is no such search, or it has no such trial.
        InputError: if its study cannot be read.
    """
    experiment = Experiment(storage=storage, name=name)
    if not experiment.spec_file.is_file():
        names = search_names(storage)
        searches = f"which has {', '.join(names)}" if names else "which has no searches"
        sentence = (
            f"The value of 'search.start_from' contains '{name}', but there is no such recipe and no such search in "
            f"'{storage}', {searches}; give one of them, or 'recipes'."
        )
        raise ConfigError.about(key, sentence)
    study = open_study(experiment)
    for ranked_by in (objective, experiment.objective):
        starts = filter(_is_start, trial_records(study, ranked_by))
        best = list(_distinct(sorted(starts, key=_rank)))[:MAX_TRIALS]
        if best:
            break
    else:
        sentence = (
            f"The value of 'search.start_from' contains '{name}', but that search has no trial with a score yet; wait "
            "for it, or remove it from the spec."
        )
        raise ConfigError.about(key, sentence)
    return [EarlierTrial(name=f"{name}:{trial.number}", config=trial.config, ranked_by=ranked_by) for trial in best]


def _is_start(trial: TrialRecord) -> bool:
    known = bool(trial.config)  # a damaged journal can lose it
    return known and trial.state != TrialState.FAIL and trial.outcome == TRAINED and math.isfinite(_best_rank(trial))


def _rank(trial: TrialRecord) -> tuple[int, float, int]:
    return -trial.last_epoch, -_best_rank(trial), trial.number


def _best_rank(trial: TrialRecord) -> float:
    return trial.best_epoch.rank if trial.best_epoch else math.nan


def _distinct(trials: list[TrialRecord]) -> Iterator[TrialRecord]:
    seen = []
    for trial in trials:
        if trial.config not in seen:
            seen.append(trial.config)
            yield trial
