"""The state of searches, read from their storage, and from the jobs of a cluster if one answers.

A search whose driver ended unexpectedly, as with its machine, is lost: it is resumed from its storage.
"""

from __future__ import annotations

from data.dataset.storage import AnyPath, Location
from data.errors import InputError
from search.cluster.client import Cluster, Job
from search.cluster.submission import job_prefix, latest_job
from search.results.status import LIVE, Retraining, SearchStatus, State
from search.results.summary import is_complete
from search.results.tally import RunPlan, Tally
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from search.study.names import search_names
from search.study.study import open_study
from search.study.trials import GPU_SECONDS, RETRAINING, RETRAINING_SECONDS, SLOTS, WAITING, trial_records


def search_status(
    experiment: Experiment, cluster: Cluster | None = None, *, address: str | None = None
) -> SearchStatus:
    """The present state of a search, a comparison or a training.

    Args:
        experiment: its storage is read anew.
        cluster: whose jobs are looked at too.
        address: of the cluster, if the next command needs it as an option.

    Raises:
        InputError: if there is no such search, or its storage cannot be read.
    """
    experiment = Experiment(storage=experiment.storage, name=experiment.name)
    return _status(experiment, latest_job(cluster, experiment) if cluster else None, address)


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
            found.append(SearchStatus(name=name, state="damaged", reason=str(error)))
    return found


def _status(experiment: Experiment, job: Job | None, address: str | None = None) -> SearchStatus:
    heartbeat = Heartbeat.read(experiment)
    plan, is_done = _plan(experiment)
    study = open_study(experiment)
    records, attributes = trial_records(study, plan.objective), study.user_attrs
    state, reason = _state(is_done, heartbeat, job)
    retraining = attributes.get(RETRAINING) if state == "running" else None
    if state == "running" and (waits := attributes.get(WAITING)):
        state, reason = "waiting", waits
    tally = Tally(plan, records)
    unfinished = [trial.number for trial in records if not trial.state.is_finished()]
    if state == "running":
        for number in unfinished:
            tally.start(number)
    ended = float(attributes.get("seconds", 0.0)) - float(attributes.get(RETRAINING_SECONDS, 0.0))
    starts = [trial.datetime_start.timestamp() for trial in study.get_trials(deepcopy=False) if trial.datetime_start]
    return tally.status(
        state=state,
        reason=reason,
        seconds=ended + (heartbeat.seconds() if heartbeat else 0.0),
        gpu_seconds=float(attributes.get(GPU_SECONDS, 0.0)),
        slots=attributes.get(SLOTS),
        retraining=Retraining(**retraining) if retraining else None,
        started=min(starts, default=None),
        reported=heartbeat.written if heartbeat else None,
        job=job.id if job else (heartbeat.job if heartbeat else ""),
        host=heartbeat.host if heartbeat else "",
        command=_command(experiment, state, job, heartbeat, address),
    )


def _plan(experiment: Experiment) -> tuple[RunPlan, bool]:
    """What an experiment consists of, and whether it has its results."""
    if experiment.fixed_file.is_file():
        fixed = experiment.fixed()
        epochs = [int(config["epochs"]) for config in fixed["trials"].values()]
        results = experiment.summary_file if fixed["kind"] == "train" else experiment.comparison_page
        return RunPlan.of_trainings(experiment.name, fixed["kind"], epochs), results.is_file()
    spec = experiment.spec()
    return RunPlan.of_search(experiment.name, spec), is_complete(experiment, spec)


def _state(is_done: bool, heartbeat: Heartbeat | None, job: Job | None) -> tuple[State, str]:
    """The state of an experiment, and why it failed."""
    has_beaten = job is not None and heartbeat is not None and heartbeat.job == job.id
    # The cluster knows of its jobs at once: a heartbeat stays fresh for a while, and may be late.
    is_alive = job.is_live if job is not None and has_beaten else heartbeat is not None and heartbeat.is_alive()
    if heartbeat is not None and heartbeat.state == "running" and is_alive:
        return "running", ""
    if job is not None and job.is_live and not has_beaten:
        return "queued", ""
    if is_done:
        return "finished", ""
    if job is not None and job.state == "failed" and not has_beaten:
        return "failed", job.reason
    if heartbeat is None:
        return ("stopped" if job is not None and job.state == "stopped" else "new"), ""
    if heartbeat.state == "failed":
        return "failed", heartbeat.reason
    return ("lost", "") if heartbeat.state == "running" else ("stopped", "")


def _command(
    experiment: Experiment, state: State, job: Job | None, heartbeat: Heartbeat | None, address: str | None
) -> str:
    if experiment.fixed_file.is_file():
        watch = experiment.command("status", "--watch")
        return watch if state in LIVE else "" if state == "finished" else experiment.resume_command
    if state == "finished":
        return experiment.command("best", "--out", f"{experiment.name}-best")
    is_job = job is not None or (heartbeat is not None and heartbeat.job.startswith("twinhead-"))
    if not is_job and state not in LIVE:
        return experiment.resume_command
    if state in LIVE:
        return experiment.command("logs", "--follow", address=address)
    return experiment.command("resume", address=address)
