"""The best trials of an earlier search, as what another search may try first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import TrialRecord, trial_records
from trainable.config import ConfigError
from trainable.metrics.names import TRAINED
from trainable.recipes import RECIPES

COUNT = 5
"""Trials that are taken of each earlier search."""
WORDS = ("recipes", "default")
"""What `search.start_from` may hold that is no name."""


@dataclass(frozen=True, kw_only=True)
class EarlierTrial:
    """A trial of an earlier search."""

    name: str
    """SEARCH:NUMBER."""
    config: Mapping[str, Any]
    """Values of its `TrialConfig`, as that version of Twinhead had them which ran it."""


def is_earlier(name: str) -> bool:
    """Whether `name`, of `search.start_from`, is that of a search, and not of a recipe."""
    return name not in (*WORDS, *RECIPES)


def best_trials(storage: Path, name: str, key: str = "search.start_from") -> list[EarlierTrial]:
    """The best trials of a search, each with another configuration.

    Those that ran for the most epochs come before the others, for scores after different epochs cannot be compared,
    and ASHA lets run on what is good; among those that ran for as many, the best score decides. What failed, diverged
    or broke a constraint is no start.

    Args:
        storage: where the search lies.
        name: of the search.
        key: of the spec, which holds the name, for the errors.

    Raises:
        ConfigError: if there is no such search, or it has no such trial.
        InputError: if its study cannot be read.
    """
    experiment = Experiment(storage=storage, name=name)
    if not experiment.spec_file.is_file():
        there = sorted(path.parent.name for path in storage.glob(f"*/{experiment.spec_file.name}"))
        searches = f"there are {', '.join(there)}" if there else "there is no search yet"
        sentence = (
            f"The value of 'search.start_from' holds '{name}', but there is no such recipe and no such search in "
            f"'{storage}', where {searches}; correct it in the spec."
        )
        raise ConfigError.about(key, sentence)
    best = list(_distinct(sorted(filter(_is_start, trial_records(open_study(experiment))), key=_rank)))[:COUNT]
    if not best:
        sentence = (
            f"The value of 'search.start_from' holds '{name}', but that search has no trial with a score yet; wait for "
            "it, or remove it from the spec."
        )
        raise ConfigError.about(key, sentence)
    return [EarlierTrial(name=f"{name}:{trial.number}", config=trial.config) for trial in best]


def _is_start(trial: TrialRecord) -> bool:
    known = bool(trial.config)  # it may be lost with a damaged record
    return known and trial.state != TrialState.FAIL and trial.outcome == TRAINED and math.isfinite(_score(trial))


def _rank(trial: TrialRecord) -> tuple[int, float, int]:
    return -trial.epochs[-1].epoch, -_score(trial), trial.number


def _score(trial: TrialRecord) -> float:
    return max((record.score for record in trial.epochs), default=math.nan)


def _distinct(trials: list[TrialRecord]) -> Iterator[TrialRecord]:
    seen = []
    for trial in trials:
        if trial.config not in seen:
            seen.append(trial.config)
            yield trial
