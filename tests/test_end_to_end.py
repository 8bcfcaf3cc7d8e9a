"""The commands as a user runs them, each in a process of its own, on Ray: a search from its start to the hand-over."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search.experiment import Experiment
from search.results import trial_records
from search.trials import TrialRecord
from search.tuner import open_study
from trainable.checkpoint import load_model

SMALL = ("--set", "data.image_size=32", "--set", "model.family=debug", "--set", "model.width={choices: [2, 4]}")
LONG = (
    *SMALL,
    "--set",
    "scheduler.max_epochs=40",
    "--set",
    "scheduler.grace_epochs=40",
    "--set",
    "retrain.enabled=false",
)
"""Trials that take some seconds, so that there is something to interrupt."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, drawn by the command that users have for it."""
    path = tmp_path_factory.mktemp("data") / "scenes"
    twinhead("render", str(path), "--backgrounds", "24", "--per-background", "2", "--size", "32", "--seed", "3")
    return path


@pytest.fixture(scope="module")
def searched(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, dict[str, Any]]:
    """A finished search, and the JSON that it printed."""
    storage = tmp_path_factory.mktemp("storage")
    options = (*SMALL, "--set", "scheduler.max_epochs=3", "--trials", "5", "--json")
    summary = json.loads(
        twinhead("search", "--data", str(scenes), "--name", "first", "--storage", str(storage), *options)
    )
    return Experiment(storage=storage, name="first"), summary


def test_search_keeps_its_summary_and_its_places(searched: tuple[Experiment, dict[str, Any]]) -> None:
    """What is printed is what is kept, and everything it names is there."""
    experiment, summary = searched

    assert summary == json.loads(experiment.summary_file.read_text())
    assert summary["trials"] == 5
    assert sum(summary["outcomes"].values()) == 5
    assert summary["epochs"] == sum(len(trial.epochs) for trial in records(experiment))
    assert experiment.spec().plan.budget.trials == 5
    assert (experiment.root / summary["retrained"]["checkpoint"] / "model.safetensors").is_file()
    assert {"mask_iou", "threshold"} <= summary["baselines"]["mask_threshold"].keys()
    assert "depth_delta1" in summary["baselines"]["depth_mean"]
    assert summary["versions"]["ray"]
    assert summary["data_fingerprint"]


def test_best_trial_is_the_best_reported_score_with_that_epochs_weights(
    searched: tuple[Experiment, dict[str, Any]],
) -> None:
    """A trial's last row is not its best: what is handed over is what was measured."""
    experiment, summary = searched
    scores = {trial.number: [record.score for record in trial.epochs] for trial in records(experiment)}

    best = max(scores, key=lambda number: max(scores[number]))
    assert summary["best"]["trial"] == best
    assert summary["best"]["score"] == max(scores[best])
    _, origin = load_model(experiment.root / summary["best"]["checkpoint"])
    assert origin.epoch == summary["best"]["epoch"]


def test_finished_trials_keep_the_weights_of_their_best_epoch_alone(
    searched: tuple[Experiment, dict[str, Any]],
) -> None:
    """A search of thousands of trials must not fill the disk with states that nobody resumes."""
    experiment, _ = searched

    for trial in records(experiment):
        kept = list((experiment.trials / f"{trial.number:05d}").glob("checkpoint_*"))
        best = trial.best(experiment)
        assert best is not None
        assert [experiment.root / str(best.checkpoint)] == kept
        assert best.score == max(record.score for record in trial.epochs)
        assert not (kept[0] / "state.pt").exists()
        assert (kept[0] / "pictures.png").is_file()


def test_trials_log_scalars_and_a_picture_for_tensorboard(searched: tuple[Experiment, dict[str, Any]]) -> None:
    """People watch a search in TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    experiment, summary = searched
    events = EventAccumulator(str(experiment.trials / f"{summary['best']['trial']:05d}"))
    events.Reload()

    assert {"score", "lr", "mask/mask_iou", "depth/depth_delta1", "train/train_loss"} <= set(events.Tags()["scalars"])
    assert max(event.value for event in events.Scalars("score")) == pytest.approx(summary["best"]["score"], abs=1e-6)
    assert events.Tags()["images"] == ["pictures"]


def test_best_evaluate_and_predict_hand_the_network_over(
    searched: tuple[Experiment, dict[str, Any]], scenes: Path, tmp_path: Path
) -> None:
    """What `evaluate` measures on the handed-over network is what the summary said of it."""
    from data.images import decode_photo, encode_png
    from data.shards import Dataset

    experiment, summary = searched
    out = tmp_path / "best"
    twinhead("best", "first", "--storage", str(experiment.storage), "--out", str(out))
    measured = json.loads(twinhead("evaluate", str(out), str(scenes), "--split", "test", "--json"))
    sample = next(Dataset.open(scenes).read([0]))
    for name, pixels in (("bg", sample.bg), ("fg_bg", sample.fg_bg)):
        (tmp_path / f"{name}.png").write_bytes(encode_png(pixels))
    pictures = ("--bg", str(tmp_path / "bg.png"), "--fg-bg", str(tmp_path / "fg_bg.png"))
    twinhead("predict", str(out), *pictures, "--out", str(tmp_path / "out"))

    assert {path.name for path in out.iterdir()} == {
        "model.safetensors",
        "config.json",
        "metrics.json",
        "README.md",
        "pictures.png",
    }
    assert measured["metrics"] == pytest.approx(summary["retrained"]["metrics"], abs=1e-6)
    assert measured["baselines"] == summary["baselines"]
    assert measured["same_data"]
    overlay = (tmp_path / "out" / "overlay.png").read_bytes()
    assert decode_photo(overlay, "overlay").shape == sample.fg_bg.shape


def test_best_hands_over_a_trials_own_weights(searched: tuple[Experiment, dict[str, Any]], tmp_path: Path) -> None:
    """Any trial can be had, not the best alone."""
    experiment, _ = searched
    out = tmp_path / "third"

    twinhead("best", "first", "--trial", "3", "--storage", str(experiment.storage), "--out", str(out))

    validation = json.loads((out / "metrics.json").read_text())["val"]
    assert validation["score"] == max(record.score for record in records(experiment)[3].epochs)


def test_retrain_replaces_the_retrained_network(searched: tuple[Experiment, dict[str, Any]]) -> None:
    """A finished search can be retrained for longer."""
    experiment, summary = searched

    again = json.loads(twinhead("retrain", "first", "--epochs", "5", "--storage", str(experiment.storage), "--json"))

    assert again["retrained"]["epochs"] == 5
    assert load_model(experiment.retrained)[1].epoch == 5
    assert again["best"]["score"] == summary["best"]["score"]


def test_the_same_search_gives_the_same_trials(
    searched: tuple[Experiment, dict[str, Any]], scenes: Path, tmp_path: Path
) -> None:
    """One at a time, the same seed and data give the same configurations and the same curves."""
    options = (*SMALL, "--set", "scheduler.max_epochs=3", "--trials", "4", "--set", "resources.concurrent=1")
    curves = []
    for name in ("one", "two"):
        retrain = ("--set", "retrain.enabled=false")
        twinhead("search", "--data", str(scenes), "--name", name, "--storage", str(tmp_path), *options, *retrain)
        experiment = Experiment(storage=tmp_path, name=name)
        curves.append([(trial.config, [record.score for record in trial.epochs]) for trial in records(experiment)])

    assert curves[0] == curves[1]


def test_ctrl_c_leaves_a_search_that_goes_on(scenes: Path, tmp_path: Path) -> None:
    """Finished trials stay finished, and those that ran go on from their checkpoints."""
    experiment = Experiment(storage=tmp_path, name="broken-off")
    with started(
        "search", "--data", str(scenes), "--name", experiment.name, "--storage", str(tmp_path), *LONG, "--trials", "4"
    ) as process:
        wait_for(process, r"trial \d+: score")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    before = {trial.number: trial for trial in records(experiment)}
    summary = json.loads(experiment.summary_file.read_text())

    assert process.returncode == 130
    assert f"twinhead search --resume broken-off --storage {tmp_path}" in said
    assert not summary["complete"]
    assert summary["outcomes"]["finished"] >= 1
    assert summary["outcomes"]["interrupted"] >= 1

    twinhead("search", "--resume", experiment.name, "--storage", str(tmp_path))

    check_gone_on(experiment, before)


def test_a_killed_driver_loses_no_finished_trial(scenes: Path, tmp_path: Path) -> None:
    """The machine that runs the command may die at any moment."""
    experiment = Experiment(storage=tmp_path, name="killed")
    with started(
        "search", "--data", str(scenes), "--name", experiment.name, "--storage", str(tmp_path), *LONG, "--trials", "3"
    ) as process:
        wait_for(process, r"trial \d+: score")
        for pid in (process.pid, *descendants(process.pid)):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    before = {trial.number: trial for trial in records(experiment)}

    assert any(trial.state == TrialState.COMPLETE for trial in before.values())

    twinhead("search", "--resume", experiment.name, "--storage", str(tmp_path))

    check_gone_on(experiment, before)


def test_a_killed_trial_goes_on_from_its_checkpoint(scenes: Path, tmp_path: Path) -> None:
    """A process that dies is started again; the search does not notice but for the time."""
    experiment = Experiment(storage=tmp_path, name="crashed")
    with started(
        "search",
        "--data",
        str(scenes),
        "--name",
        experiment.name,
        "--storage",
        str(tmp_path),
        *LONG,
        "--trials",
        "2",
        "--json",
    ) as process:
        deadline = time.monotonic() + 60
        while not experiment.trials.is_dir() or not list(experiment.trials.glob("*/checkpoint_*")):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        trials = [pid for pid in descendants(process.pid) if "ImplicitFunc" in command_of(pid)]
        os.kill(trials[0], signal.SIGKILL)
        out, said = process.communicate(timeout=120)

    assert process.returncode == 0, said
    assert json.loads(out)["outcomes"]["finished"] == 2
    for trial in records(experiment):
        assert [record.epoch for record in trial.epochs] == list(range(1, 41))


def test_a_diverging_trial_is_told_as_the_worst_and_the_search_goes_on(scenes: Path, tmp_path: Path) -> None:
    """One absurd learning rate must not end a search, nor look good to it."""
    rates = ("--set", "optimizer.lr={choices: [0.002, 1e+30]}", "--set", "optimizer.clip_norm=0")
    policy = ("--set", "policy.name=constant", "--set", "optimizer.name=sgd", "--set", "scheduler.max_epochs=3")
    summary = json.loads(
        twinhead(
            "search",
            "--data",
            str(scenes),
            "--name",
            "wild",
            "--storage",
            str(tmp_path),
            *SMALL,
            *rates,
            *policy,
            "--trials",
            "6",
            "--json",
        )
    )
    diverged = [trial for trial in records(Experiment(storage=tmp_path, name="wild")) if trial.outcome == "diverged"]

    assert summary["outcomes"]["diverged"] == len(diverged) >= 1
    assert summary["best"]["config"]["optimizer"]["lr"] == 0.002
    assert all(record.score == 0 for trial in diverged for record in trial.epochs)
    assert "step" in diverged[0].reason


def test_trials_that_need_several_workers_run_as_groups(scenes: Path, tmp_path: Path) -> None:
    """Two processes share a trial, and its metrics are those of the whole split."""
    summary = json.loads(
        twinhead(
            "search",
            "--data",
            str(scenes),
            "--name",
            "groups",
            "--storage",
            str(tmp_path),
            *SMALL,
            "--trials",
            "2",
            "--set",
            "resources.workers=2",
            "--set",
            "scheduler.max_epochs=2",
            "--json",
        )
    )
    out = tmp_path / "best"
    twinhead("best", "groups", "--storage", str(tmp_path), "--out", str(out))
    measured = json.loads(twinhead("evaluate", str(out), str(scenes), "--json"))

    assert summary["outcomes"]["finished"] + summary["outcomes"]["stopped"] == 2
    assert measured["metrics"] == pytest.approx(summary["retrained"]["metrics"], abs=1e-6)


def test_a_name_in_use_and_a_search_that_runs_are_refused(
    searched: tuple[Experiment, dict[str, Any]], scenes: Path
) -> None:
    """Two searches must never write to one place."""
    experiment, _ = searched
    again = run("search", "--data", str(scenes), "--name", "first", "--storage", str(experiment.storage))

    assert again.returncode == 2
    assert "'first' is in use" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1


@pytest.mark.skipif("TWINHEAD_REAL" not in os.environ, reason="TWINHEAD_REAL names no folder of real pictures")
def test_the_main_job_on_real_pictures(tmp_path: Path) -> None:
    """Import, inspect, search: the README's lines on photographs."""
    real = Path(os.environ["TWINHEAD_REAL"]) / "nyu_composed"
    imported = json.loads(twinhead("import", str(real), str(tmp_path / "classroom"), "--json"))
    sheet = tmp_path / "sheet.png"
    twinhead("inspect", str(tmp_path / "classroom"), "--out", str(sheet))
    options = (*SMALL, "--set", "scheduler.max_epochs=2", "--trials", "3", "--json")
    summary = json.loads(
        twinhead(
            "search", "--data", str(tmp_path / "classroom"), "--name", "real", "--storage", str(tmp_path), *options
        )
    )

    assert imported["counts"] == {"samples": 600, "backgrounds": 150, "foregrounds": 199}
    assert imported["depth_polarity"] == "far-bright"
    assert sheet.stat().st_size > 10_000
    assert summary["baselines"]["mask_threshold"]["mask_iou"] > 0.8


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, check=False)


def twinhead(*arguments: str) -> str:
    """What a command that must succeed writes to standard output."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "search.cli", *arguments]


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command while it runs; it and all that it started are gone at the end."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            for pid in (process.pid, *descendants(process.pid)):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def wait_for(process: subprocess.Popen[str], pattern: str) -> None:
    """Read what a command says until a line matches."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if re.search(pattern, line):
            return
    pytest.fail(f"the command ended without saying {pattern!r}: {''.join(said)}")


def descendants(pid: int) -> list[int]:
    """Every process below `pid`."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def command_of(pid: int) -> str:
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_bytes().replace(b"\0", b" ").decode() if path.exists() else ""


def records(experiment: Experiment) -> list[TrialRecord]:
    return trial_records(open_study(experiment))


def check_gone_on(experiment: Experiment, before: dict[int, TrialRecord]) -> None:
    """Every trial is whole, finished ones were not run again, and interrupted ones went on from a checkpoint."""
    summary = json.loads(experiment.summary_file.read_text())
    after = {trial.number: trial for trial in records(experiment)}
    assert summary["complete"]
    assert summary["trials"] == experiment.spec().plan.budget.trials
    assert summary["outcomes"]["finished"] == summary["trials"]
    for number, trial in before.items():
        assert [record.epoch for record in after[number].epochs] == list(range(1, 41))
        assert after[number].epochs[: len(trial.epochs)] == trial.epochs or trial.state == TrialState.RUNNING
        assert after[number].attempt == trial.attempt + (trial.state != TrialState.COMPLETE)
