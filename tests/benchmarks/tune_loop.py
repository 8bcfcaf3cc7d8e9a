"""Ray Tune's event loop in simulated time, in this process: what calls a searcher, a scheduler and callbacks.

Every epoch takes one unit of time, or what the caller says, so that the order of events, and all that follows from it,
is the same on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import optuna
from ray import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from search.strategy.space import Space
from tests.benchmarks.clock import Clock
from trainable.metrics.names import MODE, OBJECTIVE

Result = Mapping[str, Any]
Train = Callable[[dict[str, Any]], Iterator[Result]]
"""Takes a configuration, and yields a report an epoch for as long as it is asked."""
CHECKPOINT = "checkpoint"
"""Key of the `tune.Checkpoint` in a report that has one; nobody but `on_checkpoint` is told of it."""


def optuna_search(space: Space, seed: int) -> OptunaSearch:
    """Ray's OptunaSearch with its TPE, on the space of a search."""
    sampler = optuna.samplers.TPESampler(seed=seed)
    return OptunaSearch(lambda trial: {"trial": space(trial)}, metric=OBJECTIVE, mode=MODE, sampler=sampler)


@dataclass(frozen=True, kw_only=True)
class Search:
    """Whom Tune calls."""

    searcher: Searcher
    scheduler: TrialScheduler
    callbacks: Sequence[tune.Callback] = ()
    stopper: tune.Stopper | None = None


def run(
    search: Search,
    train: Train,
    *,
    concurrent: int,
    trials: int | None = None,
    epochs: int | None = None,
    seconds: Callable[[dict[str, Any]], float] = lambda _: 1.0,
) -> None:
    """Run trials until so many ended, so many epochs were spent over all of them, or the stopper says so.

    Who is called when, and with what, is as in Ray 2.60's `TuneController`: the searcher does not see the report after
    which a trial is stopped, but has it when the trial is complete.

    Args:
        search: is told of everything.
        train: the trial.
        concurrent: how many trials at a time.
        trials: how many in all; without end when left out.
        epochs: how many in all; without end when left out.
        seconds: takes a configuration, and returns the simulated time of each of its epochs.
    """
    controller, known = cast("TuneController", None), list[Trial]()
    running = Clock[tuple[Trial, float, Iterator[Result]]]()

    def start(now: float) -> None:
        if trials is not None and len(known) >= trials:
            return
        trial_id = f"t{len(known):05d}"
        trial = Trial("benchmark", stub=True, trial_id=trial_id, config=search.searcher.suggest(trial_id))
        known.append(trial)
        search.scheduler.on_trial_add(controller, trial)
        trial.set_status(Trial.RUNNING)
        for callback in search.callbacks:
            callback.on_trial_start(iteration=0, trials=known, trial=trial)
        duration = seconds(trial.config)
        running.add(now + duration, (trial, duration, train(trial.config)))

    for worker in range(concurrent):
        start(worker / concurrent)
    spent = 0
    while running and (epochs is None or spent < epochs) and not (search.stopper and search.stopper.stop_all()):
        now, (trial, duration, reports) = running.next()
        report = next(reports, None)
        if report is not None:
            spent += 1
            if _report(search, controller, known, trial, report) == TrialScheduler.CONTINUE:
                running.add(now + duration, (trial, duration, reports))
                continue
        _complete(search, controller, known, trial)
        start(now)


def _report(search: Search, controller: TuneController, known: list[Trial], trial: Trial, report: Result) -> str:
    """Tell everyone of a report; what the scheduler decides."""
    iteration = trial.run_metadata.last_result.get("training_iteration", 0) + 1
    told = {key: value for key, value in report.items() if key != CHECKPOINT}
    result = {**told, "training_iteration": iteration, "trial_id": trial.trial_id}
    decision = search.scheduler.on_trial_result(controller, trial, result)
    if decision == TrialScheduler.STOP:
        result["done"] = True
    else:
        search.searcher.on_trial_result(trial.trial_id, result)
    for callback in search.callbacks:
        callback.on_trial_result(iteration=0, trials=known, trial=trial, result=result)
    trial.run_metadata.last_result = result
    if CHECKPOINT in report:
        for callback in search.callbacks:
            callback.on_checkpoint(iteration=0, trials=known, trial=trial, checkpoint=report[CHECKPOINT])
    return str(decision)


def _complete(search: Search, controller: TuneController, known: list[Trial], trial: Trial) -> None:
    """Tell everyone that a trial has ended."""
    search.scheduler.on_trial_complete(controller, trial, dict(trial.last_result))
    search.searcher.on_trial_complete(trial.trial_id, result=dict(trial.last_result))
    for callback in search.callbacks:
        callback.on_trial_complete(iteration=0, trials=known, trial=trial)
    trial.set_status(Trial.TERMINATED)
