"""Other tools that record the trials: what they get, and that their failures do not reach the search."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.air.integrations.wandb import _QueueItem
from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback

from search.run.trackers import tracker as tracking
from search.run.trackers.of_spec import trackers
from search.run.trackers.tracker import TrackedTrial, Tracker
from search.run.trackers.wandb_runs import WandbLogger, WandbRuns
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import attempt_directory
from search.terminal import Screen
from tests.commands import command_of, descendants
from tests.search.conftest import CONFIGURATION
from tests.search.run.test_recorder import StubTrial
from tests.servers import ask, server
from trainable.config.settings import flatten
from trainable.report import TrialReport


class Said:
    """A screen that remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def as_screen(self) -> Screen:
        return cast("Screen", self)


class Recording(LoggerCallback):
    """A callback that remembers its calls, fails while `broken`, and waits for `gate`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()

    def _note(self, *call: Any) -> None:
        self.gate.wait()
        if self.broken:
            raise ConnectionError("\n the server is away\nand more")
        self.calls.append(call)

    def log_trial_start(self, trial: Trial) -> None:
        self._note("start", str(trial))

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:  # noqa: ARG002
        self._note("result", str(trial), result["training_iteration"], result["score"])

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        self._note("end", str(trial), failed)


def trial(number: int, directory: Path, *, attempt: int = 0) -> Trial:
    name = attempt_directory(number, attempt)
    config = {"name": name, "number": number, "trial": CONFIGURATION.model_dump(), "resume_from": "x" * attempt or None}
    return cast("Trial", StubTrial(directory, trial_id=f"{name}", config=config))


def report(epoch: int, score: float) -> TrialReport:
    return TrialReport(epoch=epoch, metrics={"score": score, "mask_iou": 2 * score}, outcome="trained")


def tracked(trial: Trial) -> TrackedTrial:
    name = f"s-{trial.trial_id}"
    return TrackedTrial(trial_id=name, name=name, config={}, experiment_dir_name="s", local_path=".")


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def callback() -> Recording:
    return Recording()


@pytest.fixture
def tracker(callback: Recording, said: Said) -> Tracker:
    return Tracker("A tool", lambda: callback, tracked, said.as_screen())


def test_trials_are_passed_on_in_order(tracker: Tracker, callback: Recording, said: Said, tmp_path: Path) -> None:
    """What is interrupted has its end too, so that no run stays open there."""
    one, two = trial(0, tmp_path), trial(1, tmp_path)
    tracker.started(one)
    tracker.reported(one, report(1, 0.25))
    tracker.started(two)
    tracker.completed(one)
    tracker.ended([two])

    assert callback.calls == [
        ("start", "s-00000"),
        ("result", "s-00000", 1, 0.25),
        ("start", "s-00001"),
        ("end", "s-00000", False),
        ("end", "s-00001", False),
    ]
    assert said.lines == []


def test_failure_is_said_once_and_the_callback_tried_again(
    tracker: Tracker, callback: Recording, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is away for a while costs what happened meanwhile, and no trial."""
    monkeypatch.setattr(tracking, "RETRY_SECONDS", 0.0)
    one = trial(0, tmp_path)
    callback.broken = True
    for epoch in (1, 2, 3):
        tracker.reported(one, report(epoch, 0.5))
    tracker.ended([])
    callback.broken = False
    tracker.reported(one, report(4, 0.5))
    tracker.ended([])

    assert callback.calls == [("result", "s-00000", 4, 0.5), ("end", "s-00000", False)]
    assert said.lines == [
        "warning: A tool does not record the trials (the server is away); the search goes on, and A tool is tried "
        "again every 0 s",
        "A tool records the trials again",
    ]


def test_failing_callback_is_left_alone_for_a_while(
    tracker: Tracker, callback: Recording, said: Said, tmp_path: Path
) -> None:
    """Each attempt may take seconds, and the search must not end later for it."""
    callback.broken = True
    tracker.started(trial(0, tmp_path))
    tracker.ended([])
    callback.broken = False
    tracker.started(trial(1, tmp_path))
    tracker.ended([])

    assert (callback.calls, len(said.lines)) == ([], 1)


def test_slow_callback_delays_nothing(
    tracker: Tracker, callback: Recording, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports return at once, and the end of the search waits for a limited time."""
    monkeypatch.setattr(tracking, "FLUSH_SECONDS", 0.05)
    callback.gate.clear()
    for number in range(3):
        tracker.started(trial(number, tmp_path))
    tracker.ended([])
    before = list(callback.calls)
    callback.gate.set()

    assert before == []
    assert said.lines == ["warning: A tool has not received everything after 0 s"]


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server with a database."""
    directory = tmp_path_factory.mktemp("mlflow")
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{directory}/runs.db", "--artifacts-destination", f"{directory}/files"),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with server(command, "health", **quiet) as address:
        yield address


def runs(mlflow: str, experiment: str) -> list[SimpleNamespace]:
    """The runs of an experiment, as MLflow's own API has them."""
    api = f"{mlflow}/api/2.0/mlflow"
    found = ask(f"{api}/experiments/get-by-name?experiment_name={experiment}")["experiment"]["experiment_id"]
    answered = ask(f"{api}/runs/search", {"experiment_ids": [found]})["runs"]
    return [
        SimpleNamespace(
            name=run["info"]["run_name"],
            status=run["info"]["status"],
            params={each["key"]: each["value"] for each in run["data"]["params"]},
            scores=[
                (each["step"], each["value"])
                for each in ask(f"{api}/metrics/get-history?run_id={run['info']['run_id']}&metric_key=score")["metrics"]
            ],
            tags={each["key"]: each["value"] for each in run["data"]["tags"]},
        )
        for run in answered
    ]


@pytest.mark.slow
def test_mlflow_has_a_run_for_each_trial_which_a_resumed_trial_continues(
    mlflow: str, tmp_path: Path, said: Said
) -> None:
    """On a real server: settings, curves and outcomes; the second driver knows nothing of the first."""
    experiment = Experiment(storage=tmp_path, name="first")
    spec = load_spec(overrides=[("logging.mlflow", mlflow)], data_path="set")
    experiment.create(spec)

    def driver() -> Tracker:
        [tracker] = trackers(experiment, spec, open_study(experiment), said.as_screen())
        return tracker

    first, second = driver(), driver()
    for number in (0, 1):
        first.started(trial(number, tmp_path))
        first.reported(trial(number, tmp_path), report(1, 0.25))
    first.completed(trial(0, tmp_path))
    first.ended([])
    resumed = trial(1, tmp_path, attempt=1)
    second.started(resumed)
    second.reported(resumed, report(2, 0.5))
    second.failed(resumed)
    second.ended([])
    by_name = {run.name: run for run in runs(mlflow, "first")}

    assert said.lines == []
    assert sorted(by_name) == ["first-00000", "first-00001"]
    one, two = by_name["first-00000"], by_name["first-00001"]
    assert (one.status, one.scores) == ("FINISHED", [(1, 0.25)])
    assert (two.status, two.scores) == ("FAILED", [(1, 0.25), (2, 0.5)])
    assert one.params == {key: str(value) for key, value in flatten(CONFIGURATION.model_dump()).items()}
    assert one.tags["outcome"] == "trained"


@pytest.mark.slow
def test_unreachable_mlflow_is_said(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason, and the search goes on."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    experiment = Experiment(storage=tmp_path, name="first")
    spec = load_spec(overrides=[("logging.mlflow", "http://127.0.0.1:9")], data_path="set")
    experiment.create(spec)
    [tracker] = trackers(experiment, spec, open_study(experiment), said.as_screen())
    tracker.started(trial(0, tmp_path))
    tracker.reported(trial(0, tmp_path), report(1, 0.25))
    tracker.ended([])

    [line] = said.lines
    assert line.startswith("warning: MLflow does not record the trials (Connection refused); the search goes on, ")


def children() -> set[int]:
    """IDs of the processes that this one has started and that run."""
    return {pid for pid in descendants(os.getpid()) if command_of(pid)}


@pytest.mark.slow
def test_run_of_wandb_is_complete_when_its_actor_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's callback then kills the actor, and with it W&B's own process, which must have nothing left to write."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    messages: queue.Queue[tuple[_QueueItem, Any]] = queue.Queue()
    for message in ((_QueueItem.RESULT, {"score": 0.5, "training_iteration": 1}), (_QueueItem.END, None)):
        messages.put(message)
    before = children()

    WandbLogger(logdir=str(tmp_path), queue=messages, exclude=[], to_config=[], environment={}, dir=str(tmp_path)).run()

    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"score" in file.read_bytes()
    assert children() == before


def test_run_of_wandb_that_is_cut_off_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for a server that does not answer; a run that is not complete can be sent by hand."""
    runs = WandbRuns("team/depth", "groups", tmp_path)
    monkeypatch.setattr("ray.wait", lambda futures, **_: ([], futures))
    monkeypatch.setattr("ray.kill", lambda _: None)
    name, future = "groups-00001", object()
    for of_trial in (runs._trial_logging_futures, runs._trial_queues, runs._trial_logging_actors):
        cast("dict[str, object]", of_trial)[name] = future
    cast("dict[object, str]", runs._logging_future_to_trial)[future] = name

    with pytest.raises(TimeoutError, match="not everything of groups-00001 was recorded within 45 s"):
        runs.on_experiment_end([])
