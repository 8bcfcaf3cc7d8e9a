"""What stops trials: our successive halving, and those of Ray Tune that never pause a trial.

In asynchronous successive halving, the best trials continue at each rung, and the best recipe with them. The stopping
variant of ASHA continues every trial in the best third of the trials before it. The proposals of a model-based searcher
improve, so that soon nearly all trials would continue. Here their number is bounded as well.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from search.spec.sections import rung_epochs
from search.study.trials import RECIPE, is_untrained
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
    name: str = "halving",
    metric: str = OBJECTIVE,
    mode: str = MODE,
    max_epochs: int,
    grace_epochs: int,
    reduction_factor: float,
) -> TrialScheduler:
    """A scheduler that may stop trials and never pauses them.

    Args:
        name: 'halving' for successive halving after ASHA (Li et al. 2020): at each rung a trial continues if it is the
            best so far, or if it is among the best one in `reduction_factor` and the bound `ROOM` is not reached. A NaN
            is stopped. The best recipe so far continues too, so that one recipe gets the whole budget. 'asha' for
            Ray's ASHAScheduler, 'median' for its MedianStoppingRule, 'none' to stop no trial before its end.
        metric: key of the score in a report.
        mode: 'max' or 'min'.
        max_epochs: epochs of a full trial.
        grace_epochs: no trial is stopped before this epoch.
        reduction_factor: of the rungs.
    """
    scored = {"time_attr": TIME_ATTR, "metric": metric, "mode": mode}
    match name:
        case "asha":
            return _Asha(**scored, max_t=max_epochs, grace_period=grace_epochs, reduction_factor=reduction_factor)
        case "median":
            # It would pause a trial while there are too few others to compare it with.
            return _Median(**scored, grace_period=grace_epochs, min_time_slice=math.inf)
        case "none":
            return _InOrder()
    rungs = rung_epochs(max_epochs=max_epochs, grace_epochs=grace_epochs, reduction_factor=reduction_factor)
    return _Halving(metric=metric, mode=mode, rungs=rungs, factor=reduction_factor)


@dataclass(frozen=True, eq=False, kw_only=True)
class _PastTrial:
    """What a scheduler reads of a trial."""

    trial_id: str
    config: Mapping[str, Any]


def replay(scheduler: TrialScheduler, trials: Iterable[FrozenTrial], *, metric: str = OBJECTIVE) -> None:
    """Replay the history of trials to a new scheduler, so that a resumed search is as strict as before.

    Args:
        scheduler: as `build_scheduler` made it. Ours knows an interrupted trial again when it is resumed; to Ray's,
            which compare it anew, its history is not replayed.
        trials: trials of the study that ended or were interrupted.
        metric: key of the scheduler's metric.
    """
    for frozen in trials:
        has_ended = frozen.state.is_finished()
        if not has_ended and not isinstance(scheduler, _Halving):
            continue
        request = TrialRequest(name="", number=frozen.number, recipe=frozen.user_attrs.get(RECIPE, ""))
        past: Any = _PastTrial(trial_id=f"past-{frozen.number}", config=request.as_plain())
        results = [{TIME_ATTR: epoch, metric: value} for epoch, value in sorted(frozen.intermediate_values.items())]
        if not results or is_untrained(frozen.user_attrs):
            continue
        if isinstance(scheduler, _Median):
            scheduler.replay(past, results)
            continue
        if isinstance(scheduler, _Halving):
            scheduler.replay(past, results, has_ended=has_ended)
            continue
        scheduler.on_trial_add(None, past)  # type: ignore[arg-type]
        for result in results:
            scheduler.on_trial_result(None, past, result)  # type: ignore[arg-type]
        scheduler.on_trial_complete(None, past, results[-1])  # type: ignore[arg-type]


class _InOrder(FIFOScheduler):
    """Starts trials in their order, and stops none. To its subclasses, trials that are not trained are no trials."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]

    def choose_trial_to_run(self, tune_controller: TuneController) -> None:
        """Leave the order to Tune, which starts waiting trials as they come.

        The choice of a trial whose process is being started would give it the process of a trial that ended, and end
        the new one: where trials end often, a node that joins would never get one.
        """

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: Mapping[str, Any]) -> str:
        """Compare nothing with a trial that is not trained, whose value stands for none."""
        if is_untrained(result):
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, dict(result)))

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: Mapping[str, Any]) -> None:
        """Forget a trial that was not trained."""
        if is_untrained(result):
            self.on_trial_remove(tune_controller, trial)
        else:
            super().on_trial_complete(tune_controller, trial, dict(result))


class _Asha(_InOrder, ASHAScheduler):
    """Ray's, with the order of starts of all schedulers here."""


class _Median(_InOrder, MedianStoppingRule):
    """Ray's, with the order of starts of all schedulers here."""

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: Mapping[str, Any]) -> None:
        """Keep the last report; one without an epoch, of a trial that reported nothing, would break every decision."""
        if TIME_ATTR in result:
            super().on_trial_complete(tune_controller, trial, dict(result))

    def replay(self, trial: Trial, results: Sequence[Mapping[str, Any]]) -> None:
        """Keep the reports of an ended trial, which are not compared again: that would fail where it was stopped."""
        for result in results:
            self.on_trial_complete(None, trial, result)  # type: ignore[arg-type]


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
        count = len(self._scores) + 1
        has_room = self._continued < ROOM * count / factor
        decision = score > -math.inf and (better == 0 or (better + 1 <= count / factor and has_room))
        self.add(score, decision)
        return decision

    def add(self, score: float, continued: bool) -> None:
        """Add a score, and whether its trial continued."""
        bisect.insort(self._scores, -math.inf if math.isnan(score) else score)
        self._continued += continued


class _Halving(_InOrder):
    """Stops trials at rungs; the best of all recipes continues."""

    def __init__(self, *, metric: str, mode: str, rungs: Sequence[int], factor: float) -> None:
        super().__init__()
        self._score_key = metric
        self._sign = 1 if mode == "max" else -1
        self._factor = factor
        self._last = rungs[-1]
        self._rungs = {rung: _Rung() for rung in rungs[:-1]}
        self._ahead: dict[str, list[int]] = {}
        """Rungs that a trial has not reached, by `_key`."""
        self._stopped: set[str] = set()
        """Trials that are to stop; one that was interrupted before it did stops when it is resumed."""
        self._recipes: dict[int, list[float]] = defaultdict(list)

    def on_trial_result(
        self,
        tune_controller: TuneController,
        trial: Trial,
        result: Mapping[str, Any],
    ) -> str:
        """Compare a trial at the rungs that it reached since its last report."""
        if TIME_ATTR not in result or self._score_key not in result or is_untrained(result):
            return str(TrialScheduler.CONTINUE)
        epoch, score = int(result[TIME_ATTR]), self._sign * float(result[self._score_key])
        is_best_recipe = self._is_best_recipe(trial, epoch, score)
        key = _key(trial)
        if epoch >= self._last or key in self._stopped:
            return str(TrialScheduler.STOP)
        ahead = self._ahead.setdefault(key, list(self._rungs))
        continues = True
        while ahead and ahead[0] <= epoch:
            continues = self._rungs[ahead.pop(0)].is_continued(score, self._factor)
        if continues or is_best_recipe:
            return str(TrialScheduler.CONTINUE)
        self._stopped.add(key)
        return str(TrialScheduler.STOP)

    def replay(self, trial: Trial, results: Sequence[Mapping[str, Any]], *, has_ended: bool) -> None:
        """Add the scores of a trial as they were compared: it continued at a rung if it reported again.

        An interrupted trial whose last report is at a rung is compared there now.
        """
        key, last = _key(trial), int(results[-1][TIME_ATTR])
        ahead = list(self._rungs)
        for result in results:
            epoch, score = int(result[TIME_ATTR]), self._sign * float(result[self._score_key])
            continues = self._is_best_recipe(trial, epoch, score)
            while ahead and ahead[0] <= epoch:
                rung = self._rungs[ahead.pop(0)]
                if epoch < last or has_ended:
                    rung.add(score, epoch < last)
                elif not rung.is_continued(score, self._factor) and not continues:
                    self._stopped.add(key)
        if not has_ended:
            self._ahead[key] = ahead

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: Mapping[str, Any]) -> None:
        """Add the last report of a trial that ended by itself."""
        self.on_trial_result(tune_controller, trial, result)
        self.on_trial_remove(tune_controller, trial)

    def on_trial_remove(self, tune_controller: TuneController, trial: Trial) -> None:
        """Forget a trial that was stopped by something else."""
        self._ahead.pop(_key(trial), None)
        self._stopped.discard(_key(trial))

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


def _key(trial: Trial) -> str:
    """The same in all runs of a search, while Tune's own ID changes when a trial is resumed."""
    number = TrialRequest.from_plain(trial.config).number
    return trial.trial_id if number is None else str(number)
