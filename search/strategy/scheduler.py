"""Asynchronous successive halving: at each rung the best trials continue, and the best recipe with them.

The stopping variant of ASHA continues every trial in the best third of the trials before it. The proposals of a
model-based searcher improve, so that soon nearly all trials would continue. Here their number is bounded as well.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.spec.sections import rung_epochs
from search.study.trials import RECIPE
from trainable.job import TrialRequest
from trainable.metrics.names import MODE, OBJECTIVE, TIME_ATTR

ROOM = 1.5
"""At most so many times one in `reduction_factor` of the trials at a rung continue, and the best so far.

On six tasks of a published surrogate (see `tests/benchmarks/search_quality.py`) a search of 10 and of 40 full trainings
was worth 829 and 4,031 random ones with 1.5, with 1, the rule to the letter, 643 and 3,517, with 2, 677 and 4,610; on
synthetic noisy curves that cross, 26 with 1.5 and 15 with 1. Without a bound, an earlier searcher was worth
189 on six other tasks within 10 full trainings, and 438 with 1.5. One standard error is about a third of each.
"""


def build_scheduler(
    *,
    metric: str = OBJECTIVE,
    mode: str = MODE,
    max_epochs: int,
    grace_epochs: int,
    reduction_factor: float,
) -> TrialScheduler:
    """Successive halving that stops trials and never pauses them, after ASHA (Li et al. 2020).

    At each rung a trial continues if it is the best so far, or if it is among the best one in `reduction_factor` and
    the bound `ROOM` is not reached. A NaN is stopped. The best recipe so far continues too, so that one recipe gets the
    whole budget.
    """
    return _Halving(
        metric=metric,
        mode=mode,
        rungs=rung_epochs(max_epochs=max_epochs, grace_epochs=grace_epochs, reduction_factor=reduction_factor),
        factor=reduction_factor,
    )


def replay(scheduler: TrialScheduler, ended: Iterable[FrozenTrial], *, metric: str = OBJECTIVE) -> None:
    """Replay the history of ended trials to a new scheduler, so that a resumed search is as strict as before.

    Args:
        scheduler: as `build_scheduler` made it.
        ended: trials of the study.
        metric: key of the scheduler's metric.
    """
    for frozen in ended:
        request = TrialRequest(name="", recipe=frozen.user_attrs.get(RECIPE, ""))
        past: Any = SimpleNamespace(trial_id=f"past-{frozen.number}", config=request.as_plain())
        curve = sorted(frozen.intermediate_values.items())
        if not curve:
            continue
        scheduler.on_trial_add(None, past)  # type: ignore[arg-type]
        results = [{TIME_ATTR: epoch, metric: value} for epoch, value in curve]
        for result in results:
            scheduler.on_trial_result(None, past, result)  # type: ignore[arg-type]
        scheduler.on_trial_complete(None, past, results[-1])  # type: ignore[arg-type]


class _Rung:
    """The scores at a rung, higher is better, and the number of trials that continued."""

    def __init__(self) -> None:
        self._scores: list[float] = []
        self._continued = 0

    def is_continued(self, score: float, factor: float) -> bool:
        """Add a score, and decide whether its trial continues."""
        if math.isnan(score):
            score = -math.inf
        better = len(self._scores) - bisect.bisect_right(self._scores, score)
        bisect.insort(self._scores, score)
        count = len(self._scores)
        has_room = self._continued < ROOM * count / factor
        decision = score > -math.inf and (better == 0 or (better + 1 <= count / factor and has_room))
        self._continued += decision
        return decision


class _Halving(FIFOScheduler):
    """Starts trials in their order and stops them at rungs; the best of all recipes continues."""

    def __init__(self, *, metric: str, mode: str, rungs: Sequence[int], factor: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._score_key = metric
        self._sign = 1 if mode == "max" else -1
        self._factor = factor
        self._last = rungs[-1]
        self._rungs = {rung: _Rung() for rung in rungs[:-1]}
        self._ahead: dict[str, list[int]] = {}
        self._recipes: dict[int, list[float]] = defaultdict(list)

    def choose_trial_to_run(self, tune_controller: TuneController) -> None:
        """Leave the order to Tune, which starts waiting trials as they come.

        The choice of a trial whose process is being started would give it the process of a trial that ended, and end
        the new one: where trials end often, a node that joins would never get one.
        """

    def on_trial_result(
        self,
        tune_controller: TuneController,
        trial: Trial,
        result: Mapping[str, Any],
    ) -> str:
        """Compare a trial at the rungs that it reached since its last report."""
        if TIME_ATTR not in result or self._score_key not in result:
            return str(TrialScheduler.CONTINUE)
        epoch, score = int(result[TIME_ATTR]), self._sign * float(result[self._score_key])
        is_best_recipe = self._is_best_recipe(trial, epoch, score)
        if epoch >= self._last:
            return str(TrialScheduler.STOP)
        ahead = self._ahead.setdefault(trial.trial_id, list(self._rungs))
        continues = True
        while ahead and ahead[0] <= epoch:
            continues = self._rungs[ahead.pop(0)].is_continued(score, self._factor)
        return str(TrialScheduler.CONTINUE if continues or is_best_recipe else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: Mapping[str, Any]) -> None:
        """Add the last report of a trial that ended by itself."""
        self.on_trial_result(tune_controller, trial, result)
        self._ahead.pop(trial.trial_id, None)

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """Forget a trial that was stopped by something else."""
        self._ahead.pop(trial.trial_id, None)

    def debug_string(self) -> str:
        """A description for the output of Tune."""
        return f"Halving at the epochs {[*self._rungs, self._last]}"

    def _is_best_recipe(self, trial: Trial, epoch: int, score: float) -> bool:
        if not TrialRequest.from_plain(trial.config).recipe:
            return False
        others = self._recipes[epoch]
        is_best = all(score >= other for other in others)  # false for a score that is NaN
        others.append(score)
        return is_best
