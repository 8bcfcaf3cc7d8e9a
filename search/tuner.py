"""The search itself: Ray Tune runs trials, `RungSearcher` proposes them, ASHA stops them, the study remembers."""

from __future__ import annotations

import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from search.driver import DriverOnly
from search.experiment import Experiment
from search.recorder import Recorder
from search.searcher import RungSearcher
from search.space import default_parameters, define_space
from search.spec import SearchSpec
from search.trials import TrialRecord, note_start
from trainable.metrics import MODE, OBJECTIVE
from trainable.trainer import TrialJob, run_trial

TIME_ATTR = "epoch"
RETRIES = 2
"""How often a trial that crashed is taken up again from its checkpoint."""


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
    """ASHA in its stopping form (Li et al. 2020): at each rung, only the best one in `reduction_factor` go on."""
    return ASHAScheduler(
        time_attr=time_attr,
        metric=metric,
        mode=mode,
        max_t=max_epochs,
        grace_period=grace_epochs,
        reduction_factor=reduction_factor,
    )


def open_study(experiment: Experiment) -> optuna.Study:
    """The experiment's study, made when it is not there; it lies in one journal file beside the spec."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # The lock is a file that is opened, not linked: it works wherever the experiment may lie.
    path = str(experiment.study_file)
    storage = JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    return optuna.create_study(
        study_name=experiment.name,
        storage=storage,
        direction="maximize" if MODE == "max" else "minimize",
        sampler=optuna.samplers.RandomSampler(),
        load_if_exists=True,
    )


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
        """Search until the budget is spent, or `stopper` says so."""
        spec = self._spec
        scheduler_config = spec.plan.scheduler.model_dump()
        if not study.get_trials(deepcopy=False) and "default" in spec.plan.search.start_from:
            study.enqueue_trial(default_parameters(spec))
        remaining = spec.plan.budget.trials - len(_ended(study))
        if remaining <= 0:
            return
        searcher = RungSearcher(
            define_space(spec),
            metric=OBJECTIVE,
            mode=MODE,
            rungs=rung_epochs(**scheduler_config),
            time_attr=TIME_ATTR,
            seed=spec.plan.search.seed,
            study=study,
            describe=partial(_describe, self._experiment),
        )
        scheduler = build_scheduler(**scheduler_config)
        _remind(scheduler, _ended(study))
        with stopper.on_ctrl_c(searcher.interrupt):
            tune.Tuner(
                trainable(self._job),
                tune_config=tune.TuneConfig(
                    num_samples=remaining,
                    search_alg=searcher,
                    scheduler=scheduler,
                    max_concurrent_trials=self._concurrent,
                    # The driver of a worker group is still winding it down when the next trial wants its process.
                    reuse_actors=not self._job.workers.is_group,
                    trial_dirname_creator=trial_directory,
                    trial_name_creator=trial_directory,
                ),
                run_config=run_config(
                    self._experiment.trials,
                    stopper,
                    [Recorder(self._experiment, searcher), *self._listeners],
                ),
            ).fit()


def run_config(
    directory: Path, stopper: tune.Stopper, listeners: list[tune.Callback], *, scored: bool = True
) -> tune.RunConfig:
    """How Tune runs trials in `directory`: silent, and crashes retried.

    Of each trial's checkpoints the newest is kept and, if they are `scored`, the best.
    """
    return tune.RunConfig(
        name=directory.name,
        storage_path=str(directory.parent),
        stop=stopper,
        callbacks=listeners,
        failure_config=tune.FailureConfig(max_failures=RETRIES),
        checkpoint_config=tune.CheckpointConfig(
            num_to_keep=1,
            checkpoint_score_attribute=OBJECTIVE if scored else None,
            checkpoint_score_order=MODE,
        ),
        verbose=0,
    )


def trial_directory(trial: Trial) -> str:
    """A trial's directory, after its number in the study and how often it was gone on with."""
    return str(trial.config["name"])


def trainable(job: TrialJob) -> Any:
    """The Tune function of a job, with what it takes."""
    return tune.with_resources(tune.with_parameters(run_trial, job=job), job.resources())


def _describe(experiment: Experiment, trial: optuna.Trial, values: dict[str, Any]) -> dict[str, Any]:
    """What Tune is given of a trial: its directory's name, its configuration, and where it was left."""
    left = TrialRecord.of(trial).newest(experiment)
    attempt = note_start(trial, values)
    return {
        "name": f"{trial.number:05d}" + (f"-{attempt}" if attempt else ""),
        "number": trial.number,
        "trial": values,
        "resume_from": str(left) if left else None,
    }


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))


@dataclass
class _Past:
    """A trial of an earlier run, as far as a scheduler looks at it."""

    trial_id: str


def _remind(scheduler: TrialScheduler, ended: Iterable[FrozenTrial]) -> None:
    """Tell a new scheduler what earlier trials reached, so that a resumed search is as strict as before."""
    for frozen in ended:
        past: Any = _Past(trial_id=f"past-{frozen.number}")
        curve = sorted(frozen.intermediate_values.items())
        if not curve:
            continue
        scheduler.on_trial_add(None, past)  # type: ignore[arg-type]
        results = [{TIME_ATTR: epoch, OBJECTIVE: value} for epoch, value in curve]
        for result in results:
            scheduler.on_trial_result(None, past, result)  # type: ignore[arg-type]
        scheduler.on_trial_complete(None, past, results[-1])  # type: ignore[arg-type]


class Stopper(DriverOnly, tune.Stopper):
    """Ends the search: at its time, or at the first Ctrl-C. The second Ctrl-C leaves at once."""

    def __init__(self, seconds: float | None = None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.interrupted = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped by what it reports; that is the scheduler's part."""
        return False

    def stop_all(self) -> bool:
        """Whether all trials are to end now."""
        return self.interrupted or (self._deadline is not None and time.monotonic() > self._deadline)

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
