"""A search as a job: its ID, its command and environment, and the check that it is submitted once.

The ID of a job is derived from the name of the search and its storage, and ends with the number of the run: Ray refuses
a second job of the same ID, and forgets all jobs when the head of the cluster goes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from data.dataset.storage import Location
from data.errors import InputError
from search.cluster.client import Cluster, Job
from search.cluster.code import ENTRY, MAX_BYTES, PLUGINS, Archive, version, write_archive
from search.commands import JOB_VARIABLE, shell_command
from search.run.cluster import ENVIRONMENT
from search.spec.spec import SearchSpec
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from trainable.plugins.active import PluginRecord, sources_of

STOP_SECONDS = 60
"""Time that a stopped search has to write its checkpoints and summary; Ray kills it after that."""
END_SECONDS, POLL_SECONDS = 30.0, 0.5
"""Time that the process of a job takes at most to end after its search, and the time between two looks at it."""
AFTER = "TWINHEAD_AFTER"
"""Environment variable with the name of the search that a submitted one waits for."""
VERSIONS = "TWINHEAD_SUBMITTED_WITH"
"""Environment variable with the versions of the submitting machine, as JSON."""
COMPARED = ("twinhead", "torch", "optuna", "pyarrow", "numpy")
"""Packages whose versions the driver compares; those of Ray and Python are compared before the submission."""
MIN_PYTHON = (3, 11)
"""The version that pyproject.toml requires."""
_RESERVED = ("RAY_AUTH_", "RAY_JOB_", JOB_VARIABLE, AFTER, VERSIONS)


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """The outcome of a submission."""

    job: Job
    """The job of the search: the new one, or the one that runs already."""
    is_new: bool


def job_prefix(experiment: Experiment) -> str:
    """The beginning of the ID of every job of a search, such as 'twinhead-first-1f0c3a9b-'."""
    digest = hashlib.sha256(f"{_storage(experiment)}\n{experiment.name}".encode()).hexdigest()
    return f"twinhead-{experiment.name}-{digest[:8]}-"


def spec_digest(spec: SearchSpec) -> str:
    """Hash of a spec: 12 hexadecimal digits. 3 and 3.0 are the same value, which a file may write either way."""
    text = json.dumps(_as_floats(spec.as_plain()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def latest_job(cluster: Cluster, experiment: Experiment) -> Job | None:
    """The last job of a search on the cluster; None if it knows none, or if the search ran elsewhere after that one."""
    jobs = cluster.jobs(job_prefix(experiment))
    if not jobs or jobs[-1].is_live:
        return jobs[-1] if jobs else None
    beat = Heartbeat.read(experiment)
    ran_later = beat is not None and beat.job != jobs[-1].id and beat.written > (jobs[-1].started or 0.0)
    return None if ran_later else jobs[-1]


def submit(
    cluster: Cluster,
    experiment: Experiment,
    archive: Archive,
    *,
    env: Mapping[str, str],
    after: str | None = None,
) -> Submitted:
    """Submit a search that exists in its storage, unless a job runs it already.

    Args:
        cluster: where it runs.
        experiment: the search; it is started or continued.
        archive: the code.
        env: further environment variables, as `check_env` returns them.
        after: name of a search in the same storage; this one waits until it ended.

    Raises:
        InputError: if the cluster refuses the job.
    """
    prefix = job_prefix(experiment)
    jobs, beat = cluster.jobs(prefix), Heartbeat.read(experiment)
    end = time.monotonic() + END_SECONDS
    while jobs and jobs[-1].is_live:
        has_ended = beat is not None and beat.job == jobs[-1].id and beat.state != "running"
        if not has_ended or time.monotonic() > end:
            return Submitted(job=jobs[-1], is_new=False)
        time.sleep(POLL_SECONDS)
        jobs = cluster.jobs(prefix)
    # The heartbeat may be of a job that a new head of the cluster does not know.
    ids = [job.id for job in jobs] + ([beat.job] if beat and beat.job.startswith(prefix) else [])
    number = max((int(each.removeprefix(prefix)) for each in ids), default=0) + 1
    submission_id = f"{prefix}{number}"
    is_new = cluster.submit(
        submission_id,
        job_command(experiment),
        code=archive.path,
        env=_environment(cluster, submission_id, env, after),
        metadata={
            "job_name": f"twinhead: {experiment.name}",
            "search": experiment.name,
            "spec": spec_digest(experiment.spec()),
            "storage": _storage(experiment),
            "twinhead": version(),
        },
    )
    return Submitted(job=cluster.job(submission_id), is_new=is_new)


def job_command(experiment: Experiment) -> str:
    """The shell command of a job, which starts in the directory of the unpacked code."""
    command = shell_command(
        "exec", "sh", ENTRY, "search", "--resume", experiment.name, "--storage", _storage(experiment)
    )
    # Absolute, because the script leaves the directory.
    return command + "".join(f' --plugins "$PWD/{PLUGINS}/{each.file}"' for each in experiment.spec().plan.plugins)


def check_env(pairs: Mapping[str, str]) -> dict[str, str]:
    """Check the environment variables that a user adds to a job.

    Raises:
        InputError: for a variable that Twinhead sets itself, or a token: Ray shows the variables on its dashboard.
    """
    for name in pairs:
        if name.startswith(_RESERVED):
            raise InputError(
                f"The variable '{name}' cannot be given with --env: Twinhead sets it, and the dashboard shows the "
                "environment of a job; leave it out."
            )
    return dict(pairs)


def version_notes(cluster_ray: str, cluster_python: str) -> list[str]:
    """Sentences on the versions of Ray and Python that differ from those on this machine."""
    here = {"Ray": metadata.version("ray"), "Python": platform.python_version()}
    there = {"Ray": cluster_ray, "Python": cluster_python}
    return [
        f"the cluster has {name} {there[name]}, this machine {here[name]}" for name in here if there[name] != here[name]
    ]


def check_python(version: str) -> None:
    """Refuse a cluster with a Python that cannot run this code.

    Raises:
        InputError: if it is older than `MIN_PYTHON`.
    """
    if tuple(map(int, version.split(".")[:2])) < MIN_PYTHON:
        needed = ".".join(map(str, MIN_PYTHON))
        raise InputError(
            f"The cluster has Python {version}, but Twinhead needs {needed} or newer; start it from an "
            f"environment with Python {needed}, made by 'make setup'."
        )


def submitted_versions() -> dict[str, str]:
    """Versions on this machine that the driver compares with its own."""
    return {name: metadata.version(name) for name in COMPARED}


@contextmanager
def code_archive(plugins: Iterable[PluginRecord] = ()) -> Iterator[Archive]:
    """Within the context, the archive of the code, in a temporary directory.

    Args:
        plugins: of the search; each is a plugin of this process.

    Raises:
        InputError: if it is far larger than the code can be, or a plugin is not loaded or has changed.
    """
    with tempfile.TemporaryDirectory(prefix="twinhead-code-") as directory:
        archive = write_archive(Path(directory), sources_of(plugins))
        if archive.bytes > MAX_BYTES:
            name, size = archive.largest[0]
            raise InputError(
                f"The code has {archive.bytes >> 20} MiB, more than {MAX_BYTES >> 20}, because of files such as "
                f"'{name}' ({size >> 20} MiB); move them out of the packages."
            )
        yield archive


def _as_floats(value: object) -> object:
    """Plain values with all integers as floats."""
    if isinstance(value, dict):
        return {name: _as_floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_floats(inner) for inner in value]
    return float(value) if type(value) is int else value


def _environment(cluster: Cluster, submission_id: str, env: Mapping[str, str], after: str | None) -> dict[str, str]:
    ours = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("RAY_AUTH_")}
    ours |= {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    ours |= {JOB_VARIABLE: submission_id, VERSIONS: json.dumps(submitted_versions())}
    if after is not None:
        ours[AFTER] = after
    if cluster.is_open:
        ours["RAY_AUTH_MODE"] = "disabled"
    return ours | dict(env)


def _storage(experiment: Experiment) -> str:
    """The storage as the driver finds it, whatever its working directory and environment."""
    return str(Location.of_storage(experiment.storage).absolute().explicit())
