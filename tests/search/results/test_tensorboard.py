"""TensorBoard on an experiment: what its HTTP API answers, while trials run, and from a remote storage."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from ray.tune.experiment import Trial
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.dataset.storage import Location
from data.grids import save_png
from search.results.tensorboard.log_directory import LogDirectory
from search.run.recorder import TensorBoard
from search.spec.spec import load_spec
from search.strategy.space import define_space
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import RECIPE, note_epoch, note_start
from tests.commands import command, descendants
from tests.s3 import failing_store
from tests.search.run.test_recorder import StubTrial
from tests.servers import ask
from trainable.loop.checkpoint_files import PICTURES
from trainable.report import TrialReport

SPACE = (
    ("data.batch_size", "16"),
    ("loss.mask.dice", "{low: 0.1, high: 2.0, log: true, or_zero: true}"),
    ("model.family", "{choices: [debug, resunet]}"),
    ("optimizer.name", "{choices: [sgd, adamw]}"),
    ("optimizer.nesterov", "{choices: [true, false]}"),
    ("optimizer.lr", "{per: optimizer.name, sgd: {low: 0.01, high: 1.0}, adamw: {low: 0.001, high: 0.02}}"),
    ("policy.name", "{choices: [constant, step]}"),
)
METRICS = {"lr": 0.1, "mask_iou": 0.5, "mask_rmse": 0.2, "depth_delta1": 0.25, "depth_rmse": 0.4, "train_loss": 0.5}
OTHERS = {"train_mask_bce": 0.3, "train_depth_l1": 0.2, "time_data": 0.1, "time_forward": 0.4, "memory_host_gb": 0.5}
EVERY_STATUS = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
GIVE_UP = 60.0


class Searched:
    """A search whose trials report without training, as the driver of one does."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.spec = load_spec(overrides=SPACE, data_path="set")
        if not experiment.spec_file.exists():
            experiment.create(self.spec)
        self.study = open_study(experiment)
        self.board = TensorBoard(experiment)

    def start(self, **fixed: Any) -> optuna.Trial:
        """A trial with these parameters; others are sampled."""
        self.study.enqueue_trial({name.replace("__", "."): value for name, value in fixed.items()})
        trial = self.study.ask()
        note_start(trial, define_space(self.spec)(trial))
        return trial

    def report(self, trial: optuna.Trial, epoch: int, score: float) -> None:
        """An epoch of a trial, with an image grid."""
        directory = self.experiment.trials / f"{trial.number:05d}" / f"checkpoint_{epoch - 1:06d}"
        directory.mkdir(parents=True)
        save_png(np.full((24, 32, 3), 20 * epoch, np.uint8), directory / PICTURES)
        metrics = {"score": score, **METRICS, **OTHERS, "depth_delta1": score / 2}
        report = TrialReport(epoch=epoch, metrics=metrics, outcome="trained", checkpoint_dir_name=directory.name)
        note_epoch(trial, report)
        self.board.reported(self._tunes(trial), report)

    def end(self, trial: optuna.Trial, score: float, state: TrialState = TrialState.COMPLETE) -> None:
        self.study.tell(trial, None if state == TrialState.FAIL else score, state=state)
        self.board.completed(self._tunes(trial))

    def close(self) -> None:
        """Close the event files of running trials."""
        self.board.ended([self._tunes(trial) for trial in self.study.trials])

    def _tunes(self, trial: optuna.Trial | FrozenTrial) -> Trial:
        config = {"name": f"{trial.number:05d}", "number": trial.number}
        return cast("Trial", StubTrial(self.experiment.root, trial_id=str(trial.number), config=config))


class Served:
    """A running `twinhead tensorboard`."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process, self.address = process, address

    def get(self, path: str) -> Any:
        return ask(f"{self.address}data/plugin/{path}")

    def post(self, path: str, **values: Any) -> Any:
        return ask(f"{self.address}data/plugin/hparams/{path}", {"experimentName": "", **values})

    def rows(self) -> dict[str, Any]:
        """The rows of the HParams table by name."""
        found = self.post("session_groups", allowedStatuses=EVERY_STATUS, colParams=[], startIndex=0, sliceSize=99)
        return {group["name"]: group for group in found["sessionGroups"]}


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; TensorBoard looks for new events every five seconds."""
    give_up = time.monotonic() + GIVE_UP
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.2)


def started(*arguments: str) -> Served:
    process = subprocess.Popen(
        command("tensorboard", *arguments), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert match, line
    return Served(process, match[0])


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    """Three trials: one that ended, one that failed, one that runs."""
    searched = Searched(Experiment(storage=tmp_path_factory.mktemp("storage"), name="first"))
    sgd = {"optimizer__name": "sgd", "optimizer__lr@sgd": 0.5, "loss__mask__dice?": False, "policy__name": "step"}
    adamw = {"optimizer__name": "adamw", "optimizer__lr@adamw": 0.01, "policy__name": "constant"}
    trials = [searched.start(**sgd), searched.start(**adamw), searched.start(**adamw)]
    for epoch, score in enumerate([0.1, 0.5, 0.3], start=1):
        for trial in trials:
            searched.report(trial, epoch, score)
    searched.end(trials[0], 0.5)
    searched.end(trials[1], 0.5, TrialState.FAIL)
    yield searched
    searched.close()


@pytest.fixture(scope="module")
def served(searched: Searched) -> Iterator[Served]:
    served = started("first", "--storage", str(searched.experiment.storage))
    try:
        until(lambda: len(served.get("scalars/tags")) == 3)
        yield served
    finally:
        served.process.kill()
        served.process.communicate()


@pytest.mark.slow
def test_curves_and_images_of_each_trial_are_served(served: Served) -> None:
    """Losses by part, metrics, learning rate, time, memory; and how the predictions become better."""
    tags = served.get("scalars/tags")
    curves = {"score", "lr", "mask/mask_iou", "depth/depth_rmse", "memory/memory_host_gb", "time/time_data"}

    assert sorted(tags) == ["00000", "00001", "00002"]
    assert curves | {"train/train_mask_bce", "train/train_depth_l1", "train/train_loss"} <= tags["00000"].keys()
    curve = served.get("scalars/scalars?run=00000&tag=score")
    assert [(step, value) for _, step, value in curve] == [(1, pytest.approx(0.1)), (2, 0.5), (3, pytest.approx(0.3))]
    assert served.get("images/tags")["00001"]["pictures"]["samples"] == 1
    assert [image["step"] for image in served.get("images/images?run=00000&tag=pictures&sample=0")] == [1, 2]


@pytest.mark.slow
def test_every_dimension_has_its_domain(served: Served, searched: Searched) -> None:
    """A value that the spec fixes is no dimension; one whose domain depends on another is one column."""
    columns = {column["name"]: column for column in served.post("experiment")["hparamInfos"]}
    dimensions = {
        key for key, leaf in searched.spec.space.items() if hasattr(leaf, "as_plain") and key != "data.batch_size"
    }

    assert columns.keys() == dimensions
    assert columns["optimizer.name"]["domainDiscrete"] == ["adamw", "sgd"]
    assert columns["optimizer.nesterov"]["domainDiscrete"] == [False, True]
    assert columns["optimizer.lr"]["domainInterval"] == {"minValue": 0.001, "maxValue": 1.0}
    assert columns["loss.mask.dice"]["domainInterval"] == {"minValue": 0.0, "maxValue": 2.0}


@pytest.mark.slow
def test_a_trial_is_a_row_with_its_settings_and_results(served: Served) -> None:
    """The results are those of its best epoch, as everywhere; it lacks the settings that it does not have."""
    rows = served.rows()
    first, other = (rows[name]["hparams"] for name in ("00000", "00001"))
    results = {value["name"]["tag"]: value["value"] for value in rows["00000"]["metricValues"]}

    assert sorted(rows) == ["00000", "00001", "00002"]
    assert [[each["status"] for each in rows[name]["sessions"]] for name in sorted(rows)] == [
        ["STATUS_SUCCESS"],
        ["STATUS_FAILURE"],
        ["STATUS_UNKNOWN"],
    ]
    assert (first["optimizer.name"], first["optimizer.lr"], first["loss.mask.dice"]) == ("sgd", 0.5, 0.0)
    assert (other["optimizer.name"], other["optimizer.lr"]) == ("adamw", 0.01)
    assert {"optimizer.nesterov", "policy.step.every"} <= first.keys()
    assert not {"optimizer.nesterov", "policy.step.every"} & other.keys()
    assert results["result/score"] == 0.5
    assert results["result/depth_delta1"] == 0.25
    assert {"result/mask_iou", "result/depth_rmse"} <= results.keys()


@pytest.mark.slow
def test_a_running_search_grows_and_ctrl_c_ends_the_server(served: Served, searched: Searched) -> None:
    """New epochs and trials appear by themselves, and no process is left behind. The last test of this server."""
    new = searched.start()
    searched.report(new, 1, 0.75)
    until(lambda: bool(served.rows().get("00003", {}).get("metricValues")))
    until(lambda: "score" in served.get("scalars/tags").get("00003", {}))
    children = descendants(served.process.pid)
    served.process.send_signal(signal.SIGINT)
    out, _ = served.process.communicate(timeout=GIVE_UP)

    assert (served.process.returncode, out) == (0, "")
    assert children
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_a_port_in_use_is_refused(refused: Callable[..., str], searched: Searched) -> None:
    """A free one is searched for only if none was given."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refused("tensorboard", "first", "--storage", searched.experiment.storage, "--port", port)

    assert f"port {port} of '127.0.0.1' (Address already in use)" in error


def test_attempts_of_a_trial_are_one_run(searched: Searched, tmp_path: Path) -> None:
    """A resumed trial has a directory of its own, and is still one row and one curve."""
    shutil.copytree(searched.experiment.root, tmp_path / "storage" / "first")
    again = Experiment(storage=tmp_path / "storage", name="first")
    shutil.copytree(again.trials / "00002", again.trials / "00002-1")
    logs = tmp_path / "logs"
    logs.mkdir()
    LogDirectory(again, logs).refresh()

    files = {path.name: len(list(path.iterdir())) for path in logs.iterdir()}
    assert "00002-1" not in files
    assert files["00002"] == files["00000"] + 1


def test_fixed_configurations_are_compared_by_what_differs(tmp_path: Path) -> None:
    """A comparison of recipes has no search space."""
    experiment = Experiment(storage=tmp_path / "storage", name="recipes")
    experiment.create_fixed({"kind": "compare"})
    study = open_study(experiment)
    for width in (2, 4):
        study.enqueue_trial({}, user_attrs={RECIPE: f"w{width}"})
        trial = study.ask()
        note_start(trial, {"model": {"width": width, "family": "debug"}})
        note_epoch(trial, TrialReport(epoch=1, metrics={"score": 0.5, **METRICS}, outcome="trained"))
    logs = tmp_path / "logs"
    logs.mkdir()
    LogDirectory(experiment, logs).refresh()

    found = EventAccumulator(str(logs / "00000"))
    found.Reload()
    content = found.SummaryMetadata("_hparams_/experiment").plugin_data.content
    assert b"model.width" in content
    assert b"model.family" not in content


def test_unknown_experiment_is_refused(refused: Callable[..., str], searched: Searched) -> None:
    """With the names of those that there are."""
    assert "there are first" in refused("tensorboard", "nowhere", "--storage", str(searched.experiment.storage))


@pytest.mark.slow
def test_curves_of_a_remote_search_are_mirrored_and_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another machine than that of the driver, which publishes whole files again and again."""
    logs = tmp_path / "logs"
    logs.mkdir()
    with failing_store() as store:
        storage = Location.of_storage(store.address("curves"))
        monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "driver"))
        searched = Searched(Experiment(storage=storage, name="first"))
        trial = searched.start()
        searched.report(trial, 1, 0.25)
        assert searched.experiment.mirror is not None
        searched.experiment.mirror.publish()
        monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "reader"))
        directory = LogDirectory(Experiment(storage=storage, name="first"), logs)
        directory.refresh()
        before = scores(logs)
        monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "driver"))
        searched.report(trial, 2, 0.5)
        searched.experiment.mirror.publish()
        monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "reader"))
        directory.refresh()
        searched.close()

    assert (before, scores(logs)) == ([0.25], [0.25, 0.5])


def scores(logs: Path) -> list[float]:
    found = EventAccumulator(str(logs / "00000"))
    found.Reload()
    assert [event.value for event in found.Scalars("result/score")] == [event.value for event in found.Scalars("score")]
    return [event.value for event in found.Scalars("score")]
