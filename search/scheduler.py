"""ASHA as a search uses it: at each rung the best go on, and with them the best recipe, to measure others against."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from trainable.metrics import MODE, OBJECTIVE

TIME_ATTR = "epoch"
RECIPE = "recipe"
"""Key of a recipe's name in a trial's configuration and in the study's attributes."""


def rung_epochs(*, max_epochs: int, grace_epochs: int, reduction_factor: float) -> list[int]:
    """The epochs at which ASHA compares trials, and the last one."""
    reached = (grace_epochs * reduction_factor**number for number in itertools.count())
    before_the_end = itertools.takewhile(lambda epoch: epoch < max_epochs, reached)
    # A rung between two epochs is compared at the later one.
    return sorted({*(math.ceil(epoch) for epoch in before_the_end), max_epochs})


def build_scheduler(
    *,
    metric: str = OBJECTIVE,
    mode: str = MODE,
    time_attr: str = TIME_ATTR,
    max_epochs: int,
    grace_epochs: int,
    reduction_factor: float,
) -> TrialScheduler:
    """ASHA in its stopping form (Li et al. 2020): at each rung, only the best one in `reduction_factor` go on.

    The best recipe so far goes on too, so that one of them has had the whole budget in the end.
    """
    return _RecipeKeeper(
        time_attr=time_attr,
        metric=metric,
        mode=mode,
        max_t=max_epochs,
        grace_period=grace_epochs,
        reduction_factor=reduction_factor,
    )


def remind(scheduler: TrialScheduler, ended: Iterable[FrozenTrial]) -> None:
    """Tell a new scheduler what earlier trials reached, so that a resumed search is as strict as before."""
    for frozen in ended:
        past: Any = _Past(trial_id=f"past-{frozen.number}", config={RECIPE: frozen.user_attrs.get(RECIPE)})
        curve = sorted(frozen.intermediate_values.items())
        if not curve:
            continue
        scheduler.on_trial_add(None, past)  # type: ignore[arg-type]
        results = [{TIME_ATTR: epoch, OBJECTIVE: value} for epoch, value in curve]
        for result in results:
            scheduler.on_trial_result(None, past, result)  # type: ignore[arg-type]
        scheduler.on_trial_complete(None, past, results[-1])  # type: ignore[arg-type]


class _RecipeKeeper(ASHAScheduler):
    """Does not stop a recipe that is the best of all recipes after as many epochs."""

    def __init__(
        self, *, time_attr: str, metric: str, mode: str, max_t: int, grace_period: int, reduction_factor: float
    ) -> None:
        super().__init__(
            time_attr=time_attr,
            metric=metric,
            mode=mode,
            max_t=max_t,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
        )
        self._asked = (time_attr, metric, 1 if mode == "max" else -1, max_t)
        self._recipes: dict[int, list[float]] = defaultdict(list)

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Decide as ASHA does, but for the best recipe."""
        decision = str(super().on_trial_result(tune_controller, trial, result))
        time_attr, metric, sign, max_epochs = self._asked
        if not trial.config.get(RECIPE) or metric not in result:
            return decision
        epoch, value = int(result[time_attr]), sign * float(result[metric])
        others = self._recipes[epoch]
        is_best = all(value >= other for other in others)  # false for a score that is NaN
        others.append(value)
        if decision == TrialScheduler.STOP and is_best and epoch < max_epochs:
            return str(TrialScheduler.CONTINUE)
        return decision


@dataclass
class _Past:
    """A trial of an earlier run, as far as a scheduler looks at it."""

    trial_id: str
    config: dict[str, Any] = field(default_factory=dict)
