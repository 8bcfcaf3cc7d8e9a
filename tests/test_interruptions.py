"""Interruptions that a search survives: Ctrl-C and killed drivers and trials, with real processes and signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.study.experiment import Experiment
from search.study.trials import TrialRecord
from tests.commands import (
    LONG,
    SMALL,
    command_of,
    descendants,
    records,
    run,
    started,
    twinhead,
    wait_for,
    wait_for_epoch,
    wait_for_file,
)
from trainable.loop.checkpoint_files import STATE, load_origin

pytestmark = pytest.mark.cluster


def test_search_resumes_after_ctrl_c(drawn: Path, tmp_path: Path) -> None:
    """Finished trials stay finished, and running ones resume from their checkpoints."""
    experiment = Experiment(storage=tmp_path, name="broken-off")
    with started(
        "search", "--data", str(drawn), "--name", experiment.name, "--storage", str(tmp_path), *LONG, "--trials", "4"
    ) as process:
        wait_for(process, r"trial \d+: score")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=300)[1]
    before = {trial.number: trial for trial in records(experiment)}
    summary = json.loads(experiment.summary_file.read_text())

    assert process.returncode == 130
    assert f"twinhead search --resume broken-off --storage {tmp_path}" in said
    assert not summary["complete"]
    assert summary["outcomes"]["finished"] >= 1
    assert summary["outcomes"]["interrupted"] >= 1

    twinhead("search", "--resume", experiment.name, "--storage", str(tmp_path))

    check_resumed(experiment, before)


def test_a_killed_driver_loses_no_finished_trial(drawn: Path, tmp_path: Path) -> None:
    """The machine that runs the command may fail at any time."""
    experiment = Experiment(storage=tmp_path, name="killed")
    with started(
        "search", "--data", str(drawn), "--name", experiment.name, "--storage", str(tmp_path), *LONG, "--trials", "3"
    ) as process:
        wait_for(process, r"trial \d+: score")
        for pid in (process.pid, *descendants(process.pid)):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    before = {trial.number: trial for trial in records(experiment)}

    assert any(trial.state == TrialState.COMPLETE for trial in before.values())

    twinhead("search", "--resume", experiment.name, "--storage", str(tmp_path))

    check_resumed(experiment, before)


def test_search_resumes_without_a_damaged_checkpoint(drawn: Path, tmp_path: Path) -> None:
    """The trial resumes from the checkpoint before, or starts over, and the search reports it."""
    experiment = Experiment(storage=tmp_path, name="damaged")
    with started(
        "search", "--data", str(drawn), "--name", experiment.name, "--storage", str(tmp_path), *LONG, "--trials", "2"
    ) as process:
        wait_for_epoch(process, experiment)
        for pid in (process.pid, *descendants(process.pid)):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    before = {trial.number: trial for trial in records(experiment)}
    newest = {number: trial.newest(experiment) for number, trial in before.items()}
    damaged = {number: path / STATE for number, path in newest.items() if path}
    for path in damaged.values():
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    resumed = run("search", "--resume", experiment.name, "--storage", str(tmp_path))

    assert resumed.returncode == 0, resumed.stderr
    assert "0 of 2 trials are done" in resumed.stderr
    assert damaged
    for number, path in damaged.items():
        assert re.search(
            rf"trial {number}: the file '{path}' is truncated or altered.*; "
            "the trial (resumes after epoch [0-9]+|starts over)",
            resumed.stderr,
        )
    check_resumed(experiment, before)


def test_killed_trial_resumes_from_its_checkpoint(drawn: Path, tmp_path: Path) -> None:
    """A dead process is started again; the search only loses time."""
    experiment = Experiment(storage=tmp_path, name="crashed")
    with started(
        "search",
        "--data",
        str(drawn),
        "--name",
        experiment.name,
        "--storage",
        str(tmp_path),
        *LONG,
        "--trials",
        "2",
        "--json",
    ) as process:
        wait_for_epoch(process, experiment)
        trials = [pid for pid in descendants(process.pid) if "ray::twinhead" in command_of(pid)]
        os.kill(trials[0], signal.SIGKILL)
        out, said = process.communicate(timeout=300)

    assert process.returncode == 0, said
    assert json.loads(out)["outcomes"]["finished"] == 2
    for trial in records(experiment):
        assert [record.epoch for record in trial.epochs] == list(range(1, 41))


def test_search_survives_an_unavailable_data_set(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk is unmounted, a share is moved: no trial is lost, whether the outage is short or long."""
    data, away = tmp_path / "set", tmp_path / "away"
    shutil.copytree(drawn, data)
    experiment = Experiment(storage=tmp_path, name="waiting")
    one_by_one = ("--set", "resources.concurrent=1", "--set", "scheduler.max_epochs=4")
    where = ("--name", experiment.name, "--storage", str(tmp_path), "--data", str(data))
    monkeypatch.setenv("TWINHEAD_OUTAGE_SECONDS", "2")
    with started("search", *where, *LONG, *one_by_one, "--set", "scheduler.grace_epochs=4", "--trials", "6") as process:
        wait_for(process, r"trial 0: score")
        data.rename(away)
        said = process.communicate(timeout=300)[1]
    ended = [trial.number for trial in records(experiment) if trial.state == TrialState.COMPLETE]

    assert process.returncode == 1
    assert len(ended) < 6
    assert all(trial.state in {TrialState.COMPLETE, TrialState.RUNNING} for trial in records(experiment))
    check_outage(said, f"The data set '{data}' does not exist")
    last = said.splitlines()[-1]
    assert f"continue with 'twinhead search --resume waiting --storage {tmp_path}'" in last

    away.rename(data)
    monkeypatch.setenv("TWINHEAD_OUTAGE_SECONDS", "120")
    with started("search", "--resume", experiment.name, "--storage", str(tmp_path), "--json") as process:
        wait_for(process, r"trial \d+: score")
        data.rename(away)
        wait_for(process, "does not exist; waiting since")
        away.rename(data)
        out, said = process.communicate(timeout=300)

    assert process.returncode == 0, said
    assert "available again after" in said
    summary = json.loads(out)
    assert (summary["outcomes"]["finished"], summary["trials"], summary["retried"]) == (6, 6, 0)
    for trial in records(experiment):
        assert [record.epoch for record in trial.epochs] == [1, 2, 3, 4]


def check_outage(said: str, sentence: str) -> None:
    """A command names what is missing once when it waits, and once when it ends, without a traceback."""
    lines = said.splitlines()
    [waits] = [line for line in lines if "; waiting since" in line]
    assert re.fullmatch(rf"\S+ \S+Z {re.escape(sentence)}; .*", waits)
    assert [line for line in lines if sentence in line] == [waits, lines[-1]]
    assert lines[-1].startswith(f"twinhead: {sentence}, since")
    assert "Traceback" not in said
    assert len(lines) < 20


def test_interrupted_retraining_resumes(drawn: Path, tmp_path: Path) -> None:
    """It may take days; a service manager ends it with SIGTERM, of which Ray's own handler would print a dump."""
    where = ("--storage", str(tmp_path))
    once = ("--trials", "1", "--set", "scheduler.max_epochs=1", "--set", "scheduler.grace_epochs=1")
    alone = ("--set", "retrain.enabled=false", "--set", "search.start_from=[]")
    twinhead("search", "--data", str(drawn), "--name", "first", *where, *SMALL, *once, *alone)
    with started("retrain", "first", "--epochs", "100", *where) as process:
        wait_for_file(process, tmp_path / "first/retraining", f"run-0/*/{STATE}")
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=300)[1]

    assert process.returncode == 130
    assert said.endswith(f"continue with: twinhead retrain first --epochs 100 --storage {tmp_path}\n")
    assert "SIGTERM" not in said

    twinhead("retrain", "first", "--epochs", "100", *where)

    runs = sorted(path.name for path in (tmp_path / "first/retraining").glob("run-*"))
    assert runs == ["run-0", "run-1"]
    assert load_origin(tmp_path / "first/retrained").epoch == 100


def test_search_resumes_after_a_full_disk(drawn: Path, tmp_path: Path) -> None:
    """With one sentence that names it; once there is room again, nothing is lost."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted")
    experiment = Experiment(storage=small, name="full")
    try:
        with started(
            "search", "--data", str(drawn), "--name", experiment.name, "--storage", str(small), *LONG, "--trials", "3"
        ) as process:
            wait_for(process, r"trial \d+: score")
            with (small / "fill").open("wb", buffering=0) as fill:
                while process.poll() is None:  # again and again, for checkpoints are removed meanwhile
                    with suppress(OSError):
                        while True:
                            fill.write(bytes(2**12))
                    time.sleep(0.01)
            said = process.communicate()[1]
        before = {trial.number: trial for trial in records(experiment)}

        assert process.returncode == 1
        assert "Traceback" not in said
        [line] = [line for line in said.splitlines() if line.startswith("twinhead: ")]
        assert f"'{small}" in line
        assert line.endswith(f"continue with 'twinhead search --resume full --storage {small}'.")
        assert any(trial.state == TrialState.COMPLETE for trial in before.values())

        (small / "fill").unlink()
        twinhead("search", "--resume", experiment.name, "--storage", str(small))

        check_resumed(experiment, before)
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def check_resumed(experiment: Experiment, before: dict[int, TrialRecord]) -> None:
    """Every trial is complete, finished ones did not run again, and interrupted ones resumed from a checkpoint."""
    summary = json.loads(experiment.summary_file.read_text())
    after = {trial.number: trial for trial in records(experiment)}
    assert summary["complete"]
    assert summary["trials"] == experiment.spec().plan.budget.trials
    assert summary["outcomes"]["finished"] == summary["trials"]
    for number, trial in before.items():
        assert [record.epoch for record in after[number].epochs] == list(range(1, 41))
        assert after[number].epochs[: len(trial.epochs)] == trial.epochs or trial.state == TrialState.RUNNING
        assert after[number].attempt == trial.attempt + (trial.state != TrialState.COMPLETE)
