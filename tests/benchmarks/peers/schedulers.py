"""Methods of syne-tune as a `Peer`, with the settings of its documentation.

They are those of its tutorial on multi-fidelity methods and of `benchmarking/examples` at version 0.13.0: trials are
compared after 1, 3, 9, ... epochs (`grace_period` 1, `reduction_factor` 3), with one bracket in asynchronous methods
and all brackets in synchronous ones; MOBSTER and Hyper-Tune pause and resume (`type="promotion"`) and BOHB is the
synchronous one, as there; DyHPO compares after every second epoch. Numbers in a list are ordinal parameters. Where
`refit_every` is more than 1, MOBSTER and Hyper-Tune fit hyperparameters only after so many results.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice, lograndint, loguniform, ordinal, randint, uniform
from syne_tune.optimizer.baselines import ASHA, DEHB, MOBSTER, DyHPO, HyperTune, SyncBOHB

from tests.benchmarks.peers.messages import Begin, Decision, Kind, Parameter, Proposal, Report

MAX_EPOCHS, EPOCH, SCORE = "epochs", "epoch", "score"
DECISIONS = {"CONTINUE": Decision.CONTINUE, "STOP": Decision.STOP, "PAUSE": Decision.PAUSE}
BUILDERS: dict[str, Callable[..., Any]] = {
    "asha-stopping": lambda space, **common: ASHA(space, type="stopping", **common),
    "asha-promotion": lambda space, **common: ASHA(space, type="promotion", **common),
    "mobster": lambda space, **common: MOBSTER(space, type="promotion", **common),
    "hypertune": lambda space, **common: HyperTune(space, type="promotion", **common),
    "bohb": SyncBOHB,
    "dehb": DEHB,
    "dyhpo": DyHPO,
}
GAUSSIAN_PROCESS = ("mobster", "hypertune")


class Scheduler:
    """A scheduler of syne-tune as a `Peer`, called as its `Tuner` calls it."""

    def __init__(self, begin: Begin) -> None:
        logging.disable(logging.WARNING)
        space = {parameter.name: domain(parameter) for parameter in begin.space}
        refits = begin.refit_every > 1 and begin.method in GAUSSIAN_PROCESS
        skips = {"opt_skip_period": begin.refit_every, "opt_skip_init_length": 0} if refits else {}
        self._scheduler = BUILDERS[begin.method](
            {**space, MAX_EPOCHS: begin.max_epochs},
            metric=SCORE,
            mode="max",
            resource_attr=EPOCH,
            max_resource_attr=MAX_EPOCHS,
            random_seed=begin.seed,
            **({"search_options": skips} if skips else {}),
        )
        self._names = list(space)
        self._trials: list[Trial] = []

    def suggest(self) -> Proposal | None:
        """A new trial, or one that was paused."""
        suggestion = self._scheduler.suggest(trial_id=len(self._trials))
        if suggestion is None:
            return None
        if not suggestion.spawn_new_trial_id:
            resumed = suggestion.checkpoint_trial_id
            self._trials[resumed].config = suggestion.config or self._trials[resumed].config
            return Proposal(trial=resumed, values=None)
        # Naive like the times that syne-tune takes itself.
        trial = Trial(len(self._trials), suggestion.config, datetime.now())
        self._trials.append(trial)
        self._scheduler.on_trial_add(trial)
        return Proposal(trial=trial.trial_id, values={name: plain(trial.config[name]) for name in self._names})

    def report(self, report: Report) -> Decision:
        """Add an epoch, and say what to do."""
        trial = self._trials[report.trial]
        decision = DECISIONS[self._scheduler.on_trial_result(trial, {SCORE: report.score, EPOCH: report.epoch})]
        if decision is not Decision.CONTINUE:
            self._scheduler.on_trial_remove(trial)
        return decision


def domain(parameter: Parameter) -> Any:
    """A parameter as a domain of syne-tune."""
    if parameter.kind is Kind.CHOICE:
        return choice(list(parameter.choices))
    if parameter.kind is Kind.ORDERED:
        return ordinal(list(parameter.choices), kind="equal")  # sampled as a choice
    if parameter.kind is Kind.INT:
        return (lograndint if parameter.log else randint)(int(parameter.low), int(parameter.high))
    return (loguniform if parameter.log else uniform)(parameter.low, parameter.high)


def plain(value: Any) -> Any:
    """A value of numpy as one of Python."""
    return value.item() if hasattr(value, "item") else value
