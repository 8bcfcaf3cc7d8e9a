"""What a submission checks before anything is uploaded."""

from __future__ import annotations

import platform
import subprocess
import tomllib
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from data.errors import InputError
from search.cluster import submission
from search.cluster.client import Cluster, Job
from search.cluster.code import ENTRY, Archive
from search.cluster.status import search_status
from search.cluster.submission import (
    MIN_PYTHON,
    check_env,
    check_python,
    code_archive,
    job_command,
    job_prefix,
    submit,
    version_notes,
)
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat

RAY, PYTHON = metadata.version("ray"), platform.python_version()


def test_versions_that_differ_are_named() -> None:
    """A search runs with those of the cluster."""
    assert version_notes(RAY, PYTHON) == []
    assert version_notes("2.50.0", "3.12.1") == [
        f"the cluster has Ray 2.50.0, this machine {RAY}",
        f"the cluster has Python 3.12.1, this machine {PYTHON}",
    ]


def test_a_python_that_is_too_old_is_refused() -> None:
    """The job would end with a syntax error."""
    check_python("3.11.0")
    check_python("3.14.2")
    with pytest.raises(InputError, match=r"The cluster has Python 3\.10\.12, but Twinhead needs 3\.11 or newer"):
        check_python("3.10.12")


def test_the_oldest_python_is_that_of_the_project() -> None:
    """One of the two is easily forgotten."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())

    assert project["project"]["requires-python"] == f">={'.'.join(map(str, MIN_PYTHON))}"


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_JOB_STOP_SIGNAL", "TWINHEAD_SUBMISSION"])
def test_a_token_is_not_put_on_the_dashboard(name: str) -> None:
    """The environment of a job is shown there, and what stops a search cleanly is not changed."""
    assert check_env({"A": "1"}) == {"A": "1"}
    with pytest.raises(InputError, match=rf"The variable '{name}' cannot be given with --env"):
        check_env({name: "secret"})


def test_the_archive_of_the_code_is_removed() -> None:
    """Each submission left a file in the directory for temporary ones, also one that was not confirmed."""
    with pytest.raises(KeyboardInterrupt), code_archive() as archive:
        assert archive.path.stat().st_size == archive.bytes
        raise KeyboardInterrupt

    assert not archive.path.parent.exists()


@pytest.mark.slow
def test_a_job_gets_the_plugins_that_were_submitted_with_it(own_plugin: Path, tmp_path: Path) -> None:
    """By an absolute path, in whatever directory Ray unpacked the code."""
    experiment = Experiment(storage=tmp_path / "my storage", name="first")
    experiment.create(load_spec({"plugins": [str(own_plugin)]}, data_path="set"))
    code = tmp_path / "un packed"
    code.mkdir()
    (code / ENTRY).write_text("cd / && printf '%s\\n' \"$@\"")

    words = subprocess.run(
        ["sh", "-c", job_command(experiment)], cwd=code, capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert words[:3] == ["search", "--resume", "first"]
    assert words[-2:] == ["--plugins", str(code / "plugins" / "own.py")]


class _NewHead(Cluster):
    """A cluster that knows no jobs yet."""

    def __init__(self) -> None:
        self.is_open = False
        self._jobs: dict[str, Job] = {}

    def jobs(self, prefix: str) -> list[Job]:
        return [job for job in self._jobs.values() if job.id.startswith(prefix)]

    def job(self, submission_id: str) -> Job:
        return self._jobs[submission_id]

    def submit(self, submission_id: str, *_: object, **__: Any) -> bool:
        self._jobs[submission_id] = Job(
            id=submission_id, state="pending", exit_code=None, started=1.0, message="", metadata={}
        )
        return True


@pytest.mark.parametrize("ended", ["running", "interrupted", "failed"])
def test_a_job_on_a_new_head_is_not_taken_for_the_last_one(experiment: Experiment, ended: Any, tmp_path: Path) -> None:
    """With its number, the end of the last one was shown as its own: `rm` removed a search that was queued."""
    beat = replace(Heartbeat.of_this_process(), host="another", job=f"{job_prefix(experiment)}4", written=0.0)
    replace(beat, state=ended).write(experiment)
    head = _NewHead()

    submitted = submit(head, experiment, Archive(path=tmp_path, bytes=0, files=0, largest=()), env={})

    assert (submitted.job.id, submitted.is_new) == (f"{job_prefix(experiment)}5", True)
    assert search_status(experiment, head).state == "queued"


class _EndingJob(_NewHead):
    """A cluster whose last job runs at the first look, and has ended at the next."""

    def jobs(self, prefix: str) -> list[Job]:
        found = super().jobs(prefix)
        self._jobs |= {job.id: replace(job, state="succeeded") for job in found}
        return found


@pytest.mark.parametrize(("state", "is_new"), [("ended", True), ("interrupted", True), ("running", False)])
def test_a_search_is_resumed_while_the_process_of_its_last_job_ends(
    experiment: Experiment, state: Any, is_new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is 'finished' by then: `resume --trials` was taken for a second submission, and nothing ran."""
    monkeypatch.setattr(submission, "POLL_SECONDS", 0.0)
    archive = Archive(path=tmp_path, bytes=0, files=0, largest=())
    cluster = _EndingJob()
    first = submit(cluster, experiment, archive, env={})
    replace(Heartbeat.of_this_process(), job=first.job.id, state=state).write(experiment)

    assert submit(cluster, experiment, archive, env={}).is_new is is_new
