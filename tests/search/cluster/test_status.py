"""The state of a search as its storage and its job tell it."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from search.cluster.client import Job, JobState
from search.cluster.status import list_searches, search_status
from search.cluster.submission import job_prefix, latest_job, spec_digest
from search.results.status import Retraining
from search.study.experiment import Experiment
from search.study.heartbeat import FRESH_SECONDS, Heartbeat
from search.study.study import open_study
from search.study.summary import Summary
from search.study.trials import RECIPE, RETRAINING, RETRAINING_SECONDS, SLOTS, WAITING, note_epoch, note_start
from tests.search.conftest import CONFIGURATION
from trainable.report import TrialReport


class _Jobs:
    """A cluster that knows one job."""

    def __init__(self, *jobs: Job) -> None:
        self._jobs = list(jobs)

    def jobs(self, prefix: str) -> list[Job]:
        return [job for job in self._jobs if job.id.startswith(prefix)]


def job(experiment: Experiment, state: JobState, *, run: int = 1, message: str = "") -> Job:
    return Job(
        id=f"{job_prefix(experiment)}{run}", state=state, exit_code=None, started=1.0, message=message, metadata={}
    )


def beat(experiment: Experiment, state: str = "running", *, age: float = 0.0, job: str = "", reason: str = "") -> None:
    """A heartbeat of a driver on another machine."""
    first = replace(Heartbeat.of_this_process(), host="another", job=job)
    replace(first, state=state, reason=reason, written=time.time() - age, started=time.time() - 3600).write(experiment)


def test_a_search_that_never_ran(experiment: Experiment) -> None:
    """As after a submission that broke off before the job was there."""
    assert search_status(experiment).state == "new"
    assert search_status(experiment, _Jobs()).state == "new"


def test_a_job_that_waits(experiment: Experiment) -> None:
    """For its environment, or for another search."""
    found = search_status(experiment, _Jobs(job(experiment, "pending")))

    assert found.state == "queued"
    assert found.command == f"twinhead logs first --follow --storage {experiment.storage}"


def test_a_driver_that_lives(experiment: Experiment) -> None:
    """It runs, whether or not a cluster answers."""
    beat(experiment, job=f"{job_prefix(experiment)}1")

    assert search_status(experiment).state == "running"
    assert search_status(experiment, _Jobs(job(experiment, "running"))).state == "running"


def test_a_driver_that_is_silent_is_lost(experiment: Experiment) -> None:
    """The cluster is gone with it; what resumes the search is said."""
    beat(experiment, age=FRESH_SECONDS + 1, job=f"{job_prefix(experiment)}1")
    found = search_status(experiment)

    assert found.state == "lost"
    assert found.command == f"twinhead resume first --storage {experiment.storage}"
    assert found.trials["interrupted"] == 1


def test_a_job_that_failed_takes_its_driver_with_it(experiment: Experiment) -> None:
    """Its last heartbeat is still fresh for a while."""
    beat(experiment, job=f"{job_prefix(experiment)}1")

    assert search_status(experiment, _Jobs(job(experiment, "failed"))).state == "lost"


def test_a_driver_that_the_cluster_knows_to_run_may_be_silent(experiment: Experiment) -> None:
    """Its storage may refuse requests for a while."""
    beat(experiment, age=FRESH_SECONDS + 1, job=f"{job_prefix(experiment)}1")

    assert search_status(experiment, _Jobs(job(experiment, "running"))).state == "running"


def test_a_driver_that_has_just_ended(experiment: Experiment) -> None:
    """Its process, and with it the job, ends a moment later; a new job waits for its own driver."""
    beat(experiment, "interrupted", job=f"{job_prefix(experiment)}1")

    assert search_status(experiment, _Jobs(job(experiment, "running"))).state == "stopped"
    assert search_status(experiment, _Jobs(job(experiment, "running", run=2))).state == "queued"


def test_a_job_that_failed_before_its_driver_ran(experiment: Experiment) -> None:
    """Such as on a cluster without the packages; the reason is the last line of its output."""
    message = (
        "failed with exit code 2, last available logs:\nRunning entrypoint\ntwinhead: The package 'x' is missing.\n"
    )
    failed = _Jobs(replace(job(experiment, "failed", run=2, message=message), started=time.time()))
    found = search_status(experiment, failed)

    assert (found.state, found.reason) == ("failed", "The package 'x' is missing.")

    beat(experiment, "interrupted", age=60, job=f"{job_prefix(experiment)}1")
    assert search_status(experiment, failed).state == "failed"


def test_a_driver_outside_of_a_job_is_resumed_outside_of_one(experiment: Experiment) -> None:
    """The command is the one that was given."""
    beat(experiment, age=FRESH_SECONDS + 1)

    assert search_status(experiment).command == f"twinhead search --resume first --storage {experiment.storage}"


@pytest.mark.parametrize(("ended", "state"), [("interrupted", "stopped"), ("failed", "failed")])
def test_how_a_driver_ended(experiment: Experiment, ended: str, state: str) -> None:
    """It says so before it goes."""
    beat(experiment, ended, job=f"{job_prefix(experiment)}1", reason="No trial reached a result.")
    found = search_status(experiment, _Jobs(job(experiment, "failed", message="failed with exit code 2")))

    assert found.state == state
    assert found.reason == ("No trial reached a result." if state == "failed" else "")


def test_a_job_that_was_stopped_before_its_driver_ran(experiment: Experiment) -> None:
    """It was stopped, and is not as new as before its submission."""
    assert search_status(experiment, _Jobs(job(experiment, "stopped"))).state == "stopped"


def test_a_search_that_waits_for_room(experiment: Experiment) -> None:
    """It runs, but nothing of it does: other searches use the cluster."""
    study = open_study(experiment)
    study.set_user_attr(SLOTS, {"concurrent": 2, "cpus": 1, "gpus": 0})
    study.set_user_attr(WAITING, "it needs 1 CPU, and 0 of 2 CPU are free")
    beat(experiment)
    found = search_status(experiment)

    assert (found.state, found.reason) == ("waiting", "it needs 1 CPU, and 0 of 2 CPU are free")
    assert (found.cpus_busy, found.trials["running"]) == (0, 0)
    assert found.command == f"twinhead logs first --follow --storage {experiment.storage}"

    beat(experiment, "interrupted")
    assert search_status(experiment).state == "stopped"


def test_a_retraining(experiment: Experiment) -> None:
    """What it uses and how far it is; nothing of it is left after its driver."""
    study = open_study(experiment)
    study.tell(0, 0.5)
    retraining = Retraining(epoch=2, epochs=6, cpus=4, gpus=1, seconds=3.0, samples_per_second=80.0)
    study.set_user_attr(RETRAINING, asdict(retraining))
    beat(experiment)
    found = search_status(experiment)

    assert found.retraining is not None
    assert (found.retraining.epoch, found.retraining.epochs, found.seconds_left) == (2, 6, 12.0)
    assert (found.cpus_busy, found.gpus_busy, found.samples_per_second) == (4, 1, 80.0)

    beat(experiment, "interrupted")
    stopped = search_status(experiment)
    assert (stopped.retraining, stopped.cpus_busy) == (None, 0)


def test_a_comparison(tmp_path: Path) -> None:
    """By epochs: nothing stops its trainings early."""
    experiment = Experiment(storage=tmp_path / "artifacts", name="compare")
    configs = {name: {"epochs": 3} for name in ("narrow", "wide")}
    experiment.create_fixed({"kind": "compare", "data": "set", "faithful": False, "trials": configs})
    assert search_status(experiment).state == "new"

    study = open_study(experiment)
    trial = study.ask()
    trial.set_user_attr(RECIPE, "narrow")
    note_start(trial, CONFIGURATION.model_dump())
    note_epoch(trial, TrialReport(epoch=1, metrics={"score": 0.5, "seconds": 2.0}))
    study.set_user_attr(SLOTS, {"concurrent": 1, "cpus": 1, "gpus": 0})
    beat(experiment)
    found = search_status(experiment)
    assert (found.kind, found.state, found.epochs, found.max_epochs) == ("compare", "running", 1, 6)
    assert (found.seconds_left, found.budget.max_trials, found.rungs) == (10.0, 2, {})
    assert found.best is not None
    assert found.best.recipe == "narrow"
    assert found.command == f"twinhead status compare --watch --storage {experiment.storage}"

    beat(experiment, "interrupted")
    assert search_status(experiment).command == f"twinhead compare --resume compare --storage {experiment.storage}"
    experiment.comparison_page.write_text("")
    assert search_status(experiment).state == "finished"


@pytest.mark.parametrize("state", ["ended", "running"])
def test_a_training_with_its_results_is_finished(tmp_path: Path, state: str) -> None:
    """Also where a full disk had no room for the last heartbeat."""
    experiment = Experiment(storage=tmp_path, name="train")
    experiment.create_fixed({"kind": "train", "data": "set", "faithful": False, "trials": {"wide": {"epochs": 3}}})
    beat(experiment, state, age=FRESH_SECONDS + 1)
    assert search_status(experiment).state != "finished"
    experiment.summary_file.write_text("{}")
    assert search_status(experiment).state == "finished"


def test_a_lost_run_counts_until_its_last_heartbeat(experiment: Experiment) -> None:
    """A run that ended in another way has stored its time itself."""
    open_study(experiment).set_user_attr("seconds", 1800.0)
    beat(experiment, age=FRESH_SECONDS + 60)

    assert search_status(experiment).budget.hours == pytest.approx((1800 + 3600 - FRESH_SECONDS - 60) / 3600, abs=1e-3)

    beat(experiment, "interrupted")
    assert search_status(experiment).budget.hours == 0.5


def test_a_search_that_runs_outside_of_its_last_job(experiment: Experiment) -> None:
    """`logs --follow`, which `status` names, showed the log of that job and ended with its exit code."""
    jobs = _Jobs(job(experiment, "stopped"))
    beat(experiment, job="01000000")

    assert latest_job(jobs, experiment) is None
    assert search_status(experiment, jobs).job == "01000000"

    beat(experiment, job=f"{job_prefix(experiment)}1")
    assert latest_job(jobs, experiment) is not None


def test_a_retraining_uses_nothing_of_the_hours(experiment: Experiment) -> None:
    """A search that went on after one showed more hours than its limit, and that it ends in 0 s."""
    study = open_study(experiment)
    study.set_user_attr("seconds", 9000.0)
    study.set_user_attr(RETRAINING_SECONDS, 7200.0)
    beat(experiment, "interrupted")

    assert search_status(experiment).budget.hours == 0.5


def test_the_next_command_has_the_address_of_the_cluster(experiment: Experiment) -> None:
    """Without it, it would go to another one; what needs no cluster does without."""
    beat(experiment, "interrupted", job=f"{job_prefix(experiment)}1")
    address = "http://head:8265"
    where = f"--storage {experiment.storage} --address {address}"
    assert search_status(experiment, address=address).command == f"twinhead resume first {where}"

    beat(experiment, "interrupted")
    command = f"twinhead search --resume first --storage {experiment.storage}"
    assert search_status(experiment, address=address).command == command


def test_a_finished_search(experiment: Experiment) -> None:
    """A larger budget makes it one that can go on."""
    trials = experiment.spec().plan.budget.trials
    experiment.write_summary(Summary(name="first", complete=True, trials=trials))
    beat(experiment, "ended")

    assert search_status(experiment).state == "finished"

    experiment.extend([("budget.trials", str(trials + 1))])
    assert search_status(experiment).state == "stopped"


def test_what_a_status_tells(experiment: Experiment) -> None:
    """Trials, the best one, rungs, what is in use and what is left."""
    study = open_study(experiment)
    study.set_user_attr(SLOTS, {"concurrent": 2, "cpus": 1, "gpus": 0.5})
    study.set_user_attr("gpu_seconds", 1800.0)
    running = next(trial for trial in study.get_trials(deepcopy=False))
    config = running.user_attrs["config"]
    study.tell(0, 0.5)
    second = study.ask()
    note_start(second, config)
    note_start(second, config)
    metrics = {"score": 0.75, "mask_iou": 0.7, "depth_delta1": 0.8, "seconds": 5.0}
    for epoch in (1, 2, 3):
        note_epoch(second, TrialReport(epoch=epoch, metrics=metrics, outcome="trained"), None)
    beat(experiment)
    found = search_status(experiment)

    assert (found.trials["running"], found.trials["stopped"]) == (1, 1)
    assert found.best is not None
    assert (found.best.trial, found.best.epoch, found.best.score) == (1, 1, 0.75)
    assert "debug" in found.best.settings
    assert found.rungs == {3: 1, 9: 0}
    assert found.recoveries == 1
    assert (found.concurrent, found.cpus_busy, found.gpus_busy) == (2, 1, 0.5)
    assert found.budget.gpu_hours == 0.5
    assert 0.99 < found.budget.hours < 1.01
    assert (found.budget.trials, found.budget.max_trials) == (1, 20)


def test_all_searches_of_a_storage(experiment: Experiment, tmp_path: Path) -> None:
    """One whose files are damaged does not hide the others."""
    damaged = Experiment(storage=experiment.storage, name="second")
    damaged.create(experiment.spec())
    damaged.spec_file.write_text("budget: [")

    found = list_searches(experiment.storage)

    assert [(each.name, each.state) for each in found] == [("first", "new"), ("second", "damaged")]
    assert str(damaged.spec_file) in found[1].reason
    assert list_searches(tmp_path / "empty") == []


def test_a_job_is_known_by_name_and_storage(experiment: Experiment, tmp_path: Path) -> None:
    """Two storages may have searches of the same name on one cluster."""
    other = Experiment(storage=tmp_path / "other", name=experiment.name)

    assert job_prefix(experiment) == job_prefix(Experiment(storage=experiment.storage, name="first"))
    assert job_prefix(experiment) != job_prefix(other)
    assert job_prefix(experiment).startswith("twinhead-first-")


def test_the_digest_of_a_spec(experiment: Experiment) -> None:
    """Another budget is another spec."""
    before = spec_digest(experiment.spec())

    assert spec_digest(experiment.spec()) == before
    assert spec_digest(experiment.extend([("budget.trials", "30")])) != before
