"""The search itself: Ray Tune runs trials, `RungSearcher` proposes them, ASHA stops them, the study remembers."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from data.errors import EnvironmentFaultError, InputError
from search.driver import DriverOnly
from search.run.budget import Budget
from search.run.failures import Failures
from search.run.recorder import Recorder
from search.spec.spec import SearchSpec
from search.strategy.scheduler import build_scheduler, replay
from search.strategy.searcher import RungSearcher
from search.strategy.space import Space, define_space
from search.study.experiment import Experiment
from search.study.trials import RECIPE, TrialRecord, note_start
from trainable.config import TrialConfig, build
from trainable.entry import tune_function
from trainable.job import TrialJob
from trainable.metrics.names import MODE, OBJECTIVE, TIME_ATTR

RETRIES = 2
"""How often a trial that crashed is taken up again from its checkpoint."""


class InterruptedSearchError(RuntimeError):
    """Somebody pressed Ctrl-C; what there is was written down."""


class Tuner:
    """Runs an experiment's search, from its start or from wherever it was left."""

    def __init__(
        self,
        experiment: Experiment,
        spec: SearchSpec,
        job: TrialJob,
        *,
        concurrent: int,
        listeners: Sequence[tune.Callback] = (),
    ) -> None:
        self._experiment = experiment
        self._spec = spec
        self._job = job
        self._concurrent = concurrent
        self._listeners = list(listeners)

    def run(self, study: optuna.Study, stopper: Stopper) -> None:
        """Search until the budget is spent, or `stopper` says so.

        Raises:
            EnvironmentFaultError: as `run_trials`.
        """
        plan = self._spec.plan
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        scheduler = build_scheduler(**plan.scheduler.model_dump())
        replay(scheduler, ended)
        run_trials(
            self._experiment,
            self._job,
            study,
            define_space(self._spec),
            scheduler,
            rungs=plan.scheduler.rungs,
            samples=0 if stopper.stop_all() else plan.budget.trials - len(ended),
            seed=plan.search.seed,
            objectives=plan.objectives[1:],
            concurrent=self._concurrent,
            stopper=stopper,
            listeners=self._listeners,
        )


def run_trials(
    experiment: Experiment,
    job: TrialJob,
    study: optuna.Study,
    space: Space,
    scheduler: TrialScheduler,
    *,
    rungs: Sequence[int],
    samples: int,
    seed: int,
    concurrent: int,
    stopper: Stopper,
    listeners: Sequence[tune.Callback],
    objectives: Sequence[str] = (),
) -> None:
    """Run trials of a study, those first that wait or were interrupted there, and keep what they report in it.

    Args:
        experiment: where they lie.
        job: what they have in common.
        study: what remembers them.
        space: gives a trial's configuration.
        scheduler: stops them.
        rungs: the epochs at which they are compared.
        samples: how many to run; none if it is not positive.
        seed: of the proposals.
        concurrent: how many at a time.
        stopper: ends them all.
        listeners: told of every report.
        objectives: what they are to reach beside a high score, as the spec's `objectives` name it.

    Raises:
        EnvironmentFaultError: if what they share cannot be used; those that ran are kept as interrupted.
    """
    if samples <= 0:
        return
    searcher = build_searcher(experiment, study, space, rungs=rungs, seed=seed, objectives=objectives)

    def pause(fault: EnvironmentFaultError) -> None:
        stopper.pause(fault)
        searcher.interrupt()

    recorder = Recorder(experiment, searcher, Failures(pause))
    with stopper.on_ctrl_c(searcher.interrupt):
        tune.Tuner(
            trainable(job),
            tune_config=tune.TuneConfig(
                num_samples=samples,
                search_alg=searcher,
                scheduler=scheduler,
                max_concurrent_trials=concurrent,
                # The driver of a worker group is still winding it down when the next trial wants its process.
                reuse_actors=not job.workers.is_group,
                trial_dirname_creator=trial_directory,
                trial_name_creator=trial_directory,
            ),
            run_config=run_config(experiment.trials, stopper, [recorder, *listeners]),
        ).fit()


def build_searcher(
    experiment: Experiment,
    study: optuna.Study,
    space: Space,
    *,
    rungs: Sequence[int],
    seed: int,
    objectives: Sequence[str] = (),
) -> RungSearcher:
    """What proposes the trials of a study; see `run_trials`."""
    return RungSearcher(
        space,
        metric=OBJECTIVE,
        mode=MODE,
        rungs=rungs,
        time_attr=TIME_ATTR,
        seed=seed,
        objectives=objectives,
        study=study,
        describe=partial(_describe, experiment),
    )


def run_config(
    directory: Path, stopper: tune.Stopper, listeners: list[tune.Callback], *, newest_alone: bool = False
) -> tune.RunConfig:
    """How Tune runs trials in `directory`: silent, and crashes retried.

    Of each trial's checkpoints it keeps the newest alone, or all, if it is a listener that removes them.
    """
    return tune.RunConfig(
        name=directory.name,
        storage_path=str(directory.parent),
        stop=stopper,
        callbacks=listeners,
        failure_config=tune.FailureConfig(max_failures=RETRIES),
        checkpoint_config=tune.CheckpointConfig(num_to_keep=1 if newest_alone else None),
        verbose=0,
    )


def trial_directory(trial: Trial) -> str:
    """A trial's directory, after its number in the study and how often it was gone on with."""
    return str(trial.config["name"])


def trainable(job: TrialJob) -> Any:
    """The Tune function of a job, with what it takes."""
    return tune.with_resources(tune.with_parameters(tune_function, job=job), job.resources())


def _describe(experiment: Experiment, trial: optuna.Trial, values: dict[str, Any]) -> dict[str, Any]:
    """What Tune is given of a trial: its directory's name, its configuration, and where it was left."""
    left = TrialRecord.of(trial).newest(experiment)
    attempt = note_start(trial, values)
    return {
        "name": f"{trial.number:05d}" + (f"-{attempt}" if attempt else ""),
        "number": trial.number,
        RECIPE: trial.user_attrs.get(RECIPE, ""),
        "trial": values,
        "resume_from": str(left) if left else None,
        "refused": _refusal(trial, values),
    }


def _refusal(trial: optuna.Trial, values: dict[str, Any]) -> str:
    """Why a trial is not to be trained at all; '' if it is.

    The space told it of a limit that it breaks, or its values do not go together, as weights that are all 0.
    """
    said = [
        f"{name} is {1 + excess:.2f} times what it may be" for name, excess in trial.constraints.items() if excess > 0
    ]
    try:
        build(TrialConfig, values, source="the proposal")
    except InputError as error:
        said.append(f"its values do not go together ({str(error).rpartition(';')[0]})")
    return " and ".join(said)


class Stopper(DriverOnly, tune.Stopper):
    """Ends the search: at its time, when its budget is spent, or at the first Ctrl-C. The second leaves at once."""

    def __init__(self, seconds: float | None = None, budget: Budget | None = None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._budget = budget
        self.interrupted = False
        self._fault: EnvironmentFaultError | None = None
        self.reason = ""
        """The key of the budget that ended the search; '' if none of these did."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped by what it reports; that is the scheduler's part."""
        return False

    def stop_all(self) -> bool:
        """Whether all trials are to end now.

        Raises:
            EnvironmentFaultError: if they cannot go on without what is at fault. Tune ends them at once then, and does
                not write its own state, for which it would make a storage anew that is gone.
        """
        if self.interrupted or self.reason:
            return True
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.reason = "hours"
        elif self._budget is not None:
            self.reason = self._budget.spent()
        return bool(self.reason)

    def pause(self, fault: EnvironmentFaultError) -> None:
        """End the trials that run, at the next `stop_all`."""
        self._fault = fault

    def extend(self, seconds: float) -> None:
        """End so many seconds later: the search waited, and did not work."""
        if self._deadline is not None:
            self._deadline += seconds

    @contextmanager
    def on_ctrl_c(self, then: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Within it, Ctrl-C sets `interrupted` and calls `then`; pressed again it does what it did before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def stop(_signal: int, _frame: FrameType | None) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, before)
            then()

        signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
