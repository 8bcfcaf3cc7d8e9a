"""Trials on Ray Tune: `RungSearcher` proposes them, a scheduler stops them, and the study stores them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import optuna
from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from data.dataset.storage import Location
from data.errors import EnvironmentFaultError
from search.dashboard import named_trainable
from search.driver import DriverOnly, request_of
from search.run.budget import Budget
from search.run.failures import Failures
from search.run.recorder import Recorder
from search.spec.sampler import OURS, SamplerNotation
from search.spec.spec import SearchSpec
from search.strategy.limiter import SlotLimiter
from search.strategy.proposer import UNBUILDABLE
from search.strategy.scheduler import build_scheduler, replay
from search.strategy.searcher import RungSearcher
from search.strategy.space import Space, define_space, unbuildable
from search.study.experiment import Experiment
from search.study.trials import RECIPE, TrialRecord, attempt_directory, note_start
from trainable.entry import tune_function
from trainable.job import TrialJob, TrialRequest
from trainable.metrics.objective import Notation

RETRIES = 2
"""How often a crashed trial resumes from its checkpoint."""


def tune_spec(
    experiment: Experiment,
    spec: SearchSpec,
    job: TrialJob,
    study: optuna.Study,
    *,
    slots: Callable[[], int],
    stopper: Stopper,
    callbacks: Sequence[tune.Callback] = (),
) -> None:
    """Run the trials that are left of a search's budget; see `run_trials` for the arguments."""
    plan = spec.plan
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    metric = job.objective.key
    scheduler = build_scheduler(metric=metric, mode=job.objective.mode, **plan.scheduler.model_dump())
    interrupted = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    replay(scheduler, [*ended, *interrupted], metric=metric)
    run_trials(
        experiment,
        job,
        study,
        define_space(spec),
        scheduler,
        rungs=plan.scheduler.rungs,
        samples=0 if stopper.stop_all() else plan.budget.trials - len(ended),
        seed=plan.search.seed,
        objectives=plan.objectives[1:],
        sampler=plan.search.sampler,
        slots=slots,
        stopper=stopper,
        callbacks=callbacks,
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
    slots: Callable[[], int],
    stopper: Stopper,
    callbacks: Sequence[tune.Callback],
    objectives: Sequence[Notation] = (),
    sampler: SamplerNotation = OURS,
) -> None:
    """Run trials and store their reports in the study; waiting and interrupted trials run first.

    Args:
        experiment: owns the trials' directories.
        job: what the trials share.
        study: stores the trials.
        space: gives a trial's configuration.
        scheduler: stops trials early.
        rungs: epochs at which trials are compared.
        samples: number of trials to run; does nothing if not positive.
        seed: of the proposals.
        slots: returns the number of trials that may run at a time, which changes as nodes join and leave.
        stopper: ends the run.
        callbacks: receive every report.
        objectives: further objectives after that of the job, as in the spec.
        sampler: what proposes, as in the spec.

    Raises:
        EnvironmentFaultError: if what trials share is unavailable; running trials stay interrupted in the study.
    """
    if samples <= 0:
        return
    searcher = RungSearcher(
        space,
        objective=job.objective,
        rungs=rungs,
        seed=seed,
        objectives=objectives,
        sampler=sampler,
        study=study,
        describe=partial(new_request, experiment),
    )

    def pause(fault: EnvironmentFaultError) -> None:
        stopper.pause(fault)
        searcher.interrupt()

    recorder = Recorder(experiment, searcher, Failures(pause), job.objective)
    with stopper.on_ctrl_c(searcher.interrupt):
        tune.Tuner(
            trainable(job),
            tune_config=tune.TuneConfig(
                num_samples=samples,
                search_alg=SlotLimiter(searcher, slots),
                scheduler=scheduler,
                # The driver of a worker group is still shutting down when the next trial would reuse its process.
                reuse_actors=not job.workers.is_group,
                trial_dirname_creator=trial_directory,
                trial_name_creator=trial_directory,
            ),
            run_config=run_config(experiment.in_storage(experiment.trials), stopper, [recorder, *callbacks]),
        ).fit()


def run_config(
    directory: Location, stopper: tune.Stopper, callbacks: list[tune.Callback], *, keep_newest: bool = False
) -> tune.RunConfig:
    """Tune's configuration for trials in `directory`: no output, and crashed trials are retried.

    Tune keeps only the newest checkpoint of each trial if `keep_newest`, else all; a callback may remove them.
    """
    return tune.RunConfig(
        name=directory.name,
        storage_path=directory.parent.path,
        storage_filesystem=directory.filesystem() if directory.scheme else None,
        stop=stopper,
        callbacks=callbacks,
        failure_config=tune.FailureConfig(max_failures=RETRIES),
        checkpoint_config=tune.CheckpointConfig(num_to_keep=1 if keep_newest else None),
        verbose=0,
    )


def trial_directory(trial: Trial) -> str:
    """A trial's directory: its number in the study and, if it was resumed, the attempt."""
    return request_of(trial).name


def trainable(job: TrialJob) -> Any:
    """The Tune function of a job as a class, with its resources, and named after the search on the Ray dashboard."""
    function = tune.with_resources(tune.with_parameters(tune_function, job=job), _resources(job))
    return named_trainable(function, job.search, is_warm=not job.workers.is_group)


def _resources(job: TrialJob) -> dict[str, float] | tune.PlacementGroupFactory:
    """What Tune reserves for a trial. The controller of a worker group stays off nodes that are labelled as spot."""
    if not job.workers.is_group:
        return job.resources()
    return tune.PlacementGroupFactory([job.resources()], bundle_label_selector=[{"ray.io/market-type": "!spot"}])


def new_request(experiment: Experiment, trial: optuna.Trial, values: Mapping[str, Any]) -> dict[str, object]:
    """A trial's request: its directory's name, its hyperparameters and its last checkpoint."""
    checkpoint = TrialRecord.of(trial).newest(experiment)
    attempt = note_start(trial, values)
    return TrialRequest(
        name=attempt_directory(trial.number, attempt),
        number=trial.number,
        recipe=trial.user_attrs.get(RECIPE, ""),
        trial=values,
        resume_from=str(experiment.in_storage(checkpoint).explicit()) if checkpoint else None,
        refused=_refusal(trial, values),
    ).as_plain()


def _refusal(trial: optuna.Trial, values: Mapping[str, Any]) -> str:
    """Why a trial is not trained: it breaks a limit, or its values do not fit together. '' if it is trained."""
    reasons = [
        f"{name} is {1 + excess:.2f} times what it may be"
        for name, excess in trial.constraints.items()
        if excess > 0 and name != UNBUILDABLE
    ]
    if why := unbuildable(values):
        reasons.append(f"its values do not go together ({why})")
    return " and ".join(reasons)


class Stopper(DriverOnly, tune.Stopper):
    """Ends a search at its deadline, when its budget is spent, or at the first Ctrl-C. A second Ctrl-C exits at once.

    Args:
        seconds: until the deadline; None sets none.
        budget: of the search, if it has one.
    """

    def __init__(self, seconds: float | None = None, budget: Budget | None = None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._budget = budget
        self.interrupted = False
        self._fault: EnvironmentFaultError | None = None
        self.reason = ""
        """The key of `budget` that ended the search; '' if none did."""

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Never stop a single trial; the scheduler does."""
        return False

    def stop_all(self) -> bool:
        """Whether all trials end now.

        Raises:
            EnvironmentFaultError: after `pause`. Tune then ends the trials at once without writing its own state, which
                would re-create the directory of a storage that is gone.
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
        """End the running trials at the next `stop_all`."""
        self._fault = fault

    def extend(self, seconds: float) -> None:
        """Postpone the deadline by the time that the search spent waiting."""
        if self._deadline is not None:
            self._deadline += seconds

    def lift_budget(self) -> None:
        """End nothing by the deadline and the budget from now on: the retraining does not count."""
        self._deadline, self._budget, self.reason = None, None, ""

    @contextmanager
    def on_ctrl_c(self, then: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Within the context, the first Ctrl-C sets `interrupted` and calls `then`; the second has its usual effect."""
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
