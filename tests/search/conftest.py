"""Fixtures of the search tests: the command line in this process, a network, and a search with one trial."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl

import optuna
import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from data.dataset.dataset import Dataset
from search.cli import main as command_line
from search.results.export import export_checkpoint
from search.run.cluster import ENVIRONMENT
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import note_epoch, note_start
from trainable.config import DataConfig, ModelConfig, TrialConfig
from trainable.loop.checkpoint import save
from trainable.loop.checkpoint_files import Origin
from trainable.models import build_model
from trainable.report import TrialReport

CONFIGURATION = TrialConfig(model=ModelConfig(family="debug", width=2), data=DataConfig(image_size=32))
METRICS = {"score": 0.5, "mask_iou": 0.4, "mask_rmse": 0.3, "depth_delta1": 0.6, "depth_rmse": 0.2}
BASELINES = {"mask_threshold": {"mask_iou": 0.25}, "depth_mean": {"depth_delta1": 0.75}}
TOKEN = "a" * 64
ANSWERS: dict[str, Any] = {
    "/api/version": {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""},
    "/api/v0/cluster_metadata": {"data": {"rayVersion": "2.60.0", "pythonVersion": "3.11.7"}},
}
NODES = [
    *({"state": "DEAD", "resources_total": {"CPU": 8.0}} for _ in range(100)),
    {"state": "ALIVE", "resources_total": {"CPU": 8.0, "GPU": 1.0}},
]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Silence Optuna, which logs each study and trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


class Said(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def twinhead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Said]:
    """Run a command in this process, in an empty directory; its changes of the environment are undone."""
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, os.environ.get(name, value))

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["twinhead", *map(str, arguments)])
        capsys.readouterr()
        try:
            command_line.main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(twinhead: Callable[..., Said]) -> Callable[..., str]:
    """Run a command that must fail on bad input; return its error message, which is all that it prints."""

    def run(*arguments: object) -> str:
        said = twinhead(*arguments)
        lines = [line for line in said.err.splitlines() if line]
        assert (said.code, said.out) == (2, "")
        assert lines[-1].startswith("twinhead: ")
        assert not any("Traceback" in line for line in lines)
        return lines[-1]

    return run


@pytest.fixture
def network(scenes: Path, tmp_path: Path) -> Path:
    """An exported checkpoint with untrained weights."""
    fingerprint = Dataset.open(scenes).info.fingerprint
    save(
        tmp_path / "raw",
        build_model(CONFIGURATION.model),
        Origin(config=CONFIGURATION, data_fingerprint=fingerprint, epoch=1),
        METRICS,
    )
    export_checkpoint(
        tmp_path / "raw", tmp_path / "best", metrics={"test": METRICS, "baselines": BASELINES}, title="a network"
    )
    return tmp_path / "best"


@pytest.fixture
def experiment(network: Path, tmp_path: Path) -> Experiment:
    """A search with one trial, before its retraining."""
    experiment = Experiment(storage=tmp_path / "artifacts", name="first")
    experiment.create(load_spec(data_path="set"))
    trial = open_study(experiment).ask()
    note_start(trial, CONFIGURATION.model_dump())
    shutil.copytree(network, experiment.trials / "00000" / "checkpoint_000000")
    report = TrialReport(epoch=1, metrics=METRICS, outcome="trained")
    note_epoch(trial, report, "trials/00000/checkpoint_000000")
    return experiment


@dataclass
class _StubTrial:
    """The attributes of a trial that the scheduler reads."""

    trial_id: str
    config: dict[str, Any] = field(default_factory=dict)


def _stopped_at(
    scheduler: TrialScheduler, name: str, curve: list[float], recipe: str = "", metric: str = "score"
) -> int:
    """The epoch after which a trial with this curve is stopped."""
    trial = cast("Trial", _StubTrial(name, {"recipe": recipe}))
    controller = cast("Any", None)
    scheduler.on_trial_add(controller, trial)
    for epoch, score in enumerate(curve, start=1):
        result = {"epoch": epoch, metric: score}
        if scheduler.on_trial_result(controller, trial, result) == TrialScheduler.STOP:
            scheduler.on_trial_complete(controller, trial, result)
            return epoch
    raise AssertionError("the scheduler let the trial run beyond its last epoch")


@pytest.fixture
def stopped_at() -> Callable[..., int]:
    """The epoch after which a scheduler stops a trial of a name, with these scores, of a recipe or none."""
    return _stopped_at


class Dashboard(ThreadingHTTPServer):
    """Answers with or without a token, or with an error, and keeps the tokens that it was sent."""

    def __init__(self, *, is_open: bool, error: int | None) -> None:
        super().__init__(("127.0.0.1", 0), _DashboardHandler)
        self.is_open, self.error = is_open, error
        self.sent: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _DashboardHandler(BaseHTTPRequestHandler):
    server: Dashboard

    def do_GET(self) -> None:
        token = self.headers.get("Authorization")
        self.server.sent.append(token)
        is_accepted = self.server.is_open or token == f"Bearer {TOKEN}"
        code = self.server.error or (200 if is_accepted else 401 if token is None else 403)
        body = json.dumps(self._answer() if code == 200 else "Unauthorized").encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> Any:
        """As Ray's StateHead: nodes in the asked-for state, no more than the limit."""
        path, _, query = self.path.partition("?")
        if path != "/api/v0/nodes":
            return ANSWERS[path]
        asked = dict(parse_qsl(query))
        is_filtered = (asked.get("filter_keys"), asked.get("filter_predicates")) == ("state", "=")
        found = [node for node in NODES if not is_filtered or node["state"] == asked["filter_values"]]
        return {"data": {"result": {"result": found[: int(asked.get("limit", 100))]}}}

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def dashboard() -> Iterator[Callable[..., Dashboard]]:
    """Starts a server."""
    started: list[Dashboard] = []

    def start(*, is_open: bool = False, error: int | None = None) -> Dashboard:
        server = Dashboard(is_open=is_open, error=error)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()
