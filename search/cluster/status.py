"""The state of searches, read from their storage, and from the jobs of a cluster if one answers.

A search whose driver ended unexpectedly, as with its machine, is lost: it is resumed from its storage.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from optuna.trial import TrialState

from data.dataset.storage import AnyPath, Location
from data.errors import InputError
from search.cluster.client import Cluster, Job
from search.cluster.submission import job_prefix
from search.commands import shell_command
from search.results.summary import best_score, is_complete, outcomes
from search.spec.describe import describe
from search.spec.spec import SearchSpec
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from search.study.names import search_names
from search.study.study import open_existing_study
from search.study.trials import GPU_SECONDS, SLOTS, TrialRecord, trial_records
from trainable.config import TrialConfig, build

State = Literal["new", "queued", "running", "stopped", "failed", "lost", "finished", "damaged"]
"""'new': created, and never run; 'queued': its job waits or starts; 'damaged': its files cannot be read."""
LIVE: tuple[State, ...] = ("queued", "running")


@dataclass(frozen=True, kw_only=True)
class BestTrial:
    """The best trial so far."""

    trial: int
    epoch: int
    score: float
    """The metric of this name, whatever the objective is."""
    objective: str
    """Name of the objective."""
    value: float
    """Of the objective."""
    settings: str
    """Its main settings in one line."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a search has used, and what it may use; None where there is no limit."""

    trials: int
    """Trials that ended."""
    max_trials: int
    hours: float
    max_hours: float | None
    gpu_hours: float
    max_gpu_hours: float | None


@dataclass(frozen=True, kw_only=True)
class SearchStatus:
    """The state of a search."""

    name: str
    state: State
    reason: str
    """Why it failed or is damaged, in a sentence; '' otherwise."""
    trials: Mapping[str, int]
    """Number of trials by outcome; 'running' ones are 'interrupted' while no driver runs."""
    recoveries: int
    """Retries after a crash, and trials that were resumed after an interruption."""
    best: BestTrial | None
    rungs: Mapping[int, int]
    """Number of trials that reached each rung, by its epoch."""
    budget: Budget
    seconds_left: float | None
    """Estimate, from the mean time of the trials so far; None before the first one ended, or if nothing runs."""
    concurrent: int | None
    """Trials that may run at a time; None before the first run."""
    cpus_busy: float
    gpus_busy: float
    started: float | None
    """Unix time of the first trial's start; None before it."""
    reported: float | None
    """Unix time at which the driver last wrote; None before the first run."""
    job: str
    """Submission ID of its last job; '' if it ran outside of a job."""
    host: str
    """Of its driver; '' before the first run."""
    command: str
    """What to do next: how to follow, resume or use it."""

    def as_plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def search_status(experiment: Experiment, cluster: Cluster | None = None) -> SearchStatus:
    """The present state of a search.

    Args:
        experiment: the search; its storage is read anew.
        cluster: whose jobs are looked at too.

    Raises:
        InputError: if there is no such search, or its storage cannot be read.
    """
    experiment = Experiment(storage=experiment.storage, name=experiment.name)
    jobs = cluster.jobs(job_prefix(experiment)) if cluster else []
    return _status(experiment, jobs[-1] if jobs else None)


def list_searches(storage: AnyPath, cluster: Cluster | None = None) -> list[SearchStatus]:
    """The state of every search in a storage, by name; one that cannot be read is 'damaged'.

    Args:
        storage: a directory or address.
        cluster: whose jobs are looked at too.
    """
    jobs = cluster.jobs("twinhead-") if cluster else []
    location, found = Location.of_storage(storage), []
    for name in search_names(storage):
        experiment = Experiment(storage=location.local or location, name=name)
        own = [job for job in jobs if job.id.startswith(job_prefix(experiment))]
        try:
            found.append(_status(experiment, own[-1] if own else None))
        except InputError as error:
            found.append(_damaged(experiment, str(error)))
    return found


def _status(experiment: Experiment, job: Job | None, *, now: float | None = None) -> SearchStatus:
    now = time.time() if now is None else now
    spec, heartbeat = experiment.spec(), Heartbeat.read(experiment)
    study = open_existing_study(experiment)
    records, slots = trial_records(study, spec.plan.objective), study.user_attrs.get(SLOTS)
    state, reason = _state(experiment, spec, heartbeat, job)
    running = [trial for trial in records if not trial.state.is_finished()] if state == "running" else []
    since = heartbeat.started if heartbeat and state == "running" else now
    seconds = float(study.user_attrs.get("seconds", 0.0)) + max(0.0, now - since)
    limits = spec.plan.budget
    budget = Budget(
        trials=sum(trial.state.is_finished() for trial in records),
        max_trials=limits.trials,
        hours=round(seconds / 3600, 4),
        max_hours=limits.hours,
        gpu_hours=round(float(study.user_attrs.get(GPU_SECONDS, 0.0)) / 3600, 4),
        max_gpu_hours=limits.gpu_hours,
    )
    starts = [trial.datetime_start.timestamp() for trial in study.get_trials(deepcopy=False) if trial.datetime_start]
    return SearchStatus(
        name=experiment.name,
        state=state,
        reason=reason,
        trials=_counts(records, spec, is_running=state == "running"),
        recoveries=sum(trial.retries + max(0, trial.attempt) for trial in records),
        best=_best(records),
        rungs={rung: sum(trial.last_epoch >= rung for trial in records) for rung in spec.plan.scheduler.rungs},
        budget=budget,
        seconds_left=_seconds_left(records, running, budget, slots) if state == "running" else None,
        concurrent=slots["concurrent"] if slots else None,
        cpus_busy=len(running) * slots["cpus"] if slots else 0,
        gpus_busy=len(running) * slots["gpus"] if slots else 0,
        started=min(starts, default=None),
        reported=heartbeat.written if heartbeat else None,
        job=job.id if job else (heartbeat.job if heartbeat else ""),
        host=heartbeat.host if heartbeat else "",
        command=_command(experiment, state, job, heartbeat),
    )


def _state(experiment: Experiment, spec: SearchSpec, heartbeat: Heartbeat | None, job: Job | None) -> tuple[State, str]:
    """The state of a search, and why it failed."""
    has_beaten = job is not None and heartbeat is not None and heartbeat.job == job.id
    # The cluster knows of its jobs at once: a heartbeat stays fresh for a while, and may be late.
    is_alive = job.is_live if job is not None and has_beaten else heartbeat is not None and heartbeat.is_alive()
    if heartbeat is not None and heartbeat.state == "running" and is_alive:
        return "running", ""
    if job is not None and job.is_live and not has_beaten:
        return "queued", ""
    if is_complete(experiment, spec):
        return "finished", ""
    if job is not None and job.state == "failed" and not has_beaten:
        return "failed", job.reason
    if heartbeat is None:
        return "new", ""
    if heartbeat.state == "failed":
        return "failed", heartbeat.reason
    return ("lost", "") if heartbeat.state == "running" else ("stopped", "")


def _counts(records: Sequence[TrialRecord], spec: SearchSpec, *, is_running: bool) -> dict[str, int]:
    counts = outcomes(records, spec.plan.scheduler.max_epochs)
    return {("running" if is_running and name == "interrupted" else name): count for name, count in counts.items()}


def _best(records: Iterable[TrialRecord]) -> BestTrial | None:
    records = list(records)
    value = best_score(records)
    for trial in records:
        best = trial.best_epoch
        if best is not None and best.value == value and trial.config:
            return BestTrial(
                trial=trial.number,
                epoch=best.epoch,
                score=best.score,
                objective=best.objective.key,
                value=best.value,
                settings=str(describe(build(TrialConfig, trial.config, source="the study"))),
            )
    return None


def _seconds_left(
    records: Sequence[TrialRecord], running: Sequence[TrialRecord], budget: Budget, slots: Mapping[str, Any] | None
) -> float | None:
    ended = [_seconds(trial) for trial in records if trial.state in (TrialState.COMPLETE, TrialState.FAIL)]
    if not ended or not slots:
        return None
    mean = sum(ended) / len(ended)
    done = sum(min(mean, _seconds(trial)) for trial in running)
    left = max(0.0, (budget.max_trials - budget.trials) * mean - done) / slots["concurrent"]
    if budget.max_hours is not None:
        left = min(left, max(0.0, 3600 * (budget.max_hours - budget.hours)))
    return round(float(left), 1)


def _seconds(trial: TrialRecord) -> float:
    return sum(float(record.metrics.get("seconds", 0.0)) for record in trial.epochs)


def _command(experiment: Experiment, state: State, job: Job | None, heartbeat: Heartbeat | None) -> str:
    name, storage = experiment.name, experiment.storage
    if state == "finished":
        return shell_command("twinhead", "best", name, "--out", f"{name}-best", "--storage", storage)
    is_job = job is not None or (heartbeat is not None and heartbeat.job.startswith("twinhead-"))
    if not is_job:
        return experiment.resume_command
    word = "logs" if state in LIVE else "resume"
    follow = ("--follow",) if state in LIVE else ()
    return shell_command("twinhead", word, name, *follow, "--storage", storage)


def _damaged(experiment: Experiment, reason: str) -> SearchStatus:
    return SearchStatus(
        name=experiment.name,
        state="damaged",
        reason=reason,
        trials={},
        recoveries=0,
        best=None,
        rungs={},
        budget=Budget(trials=0, max_trials=0, hours=0, max_hours=None, gpu_hours=0, max_gpu_hours=None),
        seconds_left=None,
        concurrent=None,
        cpus_busy=0,
        gpus_busy=0,
        started=None,
        reported=None,
        job="",
        host="",
        command="",
    )
