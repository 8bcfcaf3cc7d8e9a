"""Interruptions that a search survives: Ctrl-C and killed drivers and trials, with real processes and signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search.study.experiment import Experiment
from search.study.trials import TrialRecord
from tests.commands import (
    LONG,
    command_of,
    descendants,
    kill_all,
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


Trials = Mapping[int, TrialRecord]


@dataclass(frozen=True)
class Stages:
    """What was there, and what was said, after each interruption of one search, and at its end."""

    experiment: Experiment
    ctrl_c: subprocess.CompletedProcess[str]
    after_ctrl_c: Trials
    summary: Mapping[str, Any]
    """Of the search that Ctrl-C ended."""
    after_kill: Trials
    damaged: Mapping[int, Path]
    """The state of the newest checkpoint of each trial that ran when the driver was killed, which is altered then."""
    end: subprocess.CompletedProcess[str]
    after_end: Trials


@pytest.fixture(scope="module")
def stages(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A search: a trial is killed; Ctrl-C; resumed, and the driver is killed; checkpoints are damaged; resumed."""
    storage = tmp_path_factory.mktemp("storage")
    experiment = Experiment(storage=storage, name="broken-off")
    where = ("--storage", str(storage))
    with started("search", "--data", str(drawn), "--name", experiment.name, *where, *LONG, "--trials", "6") as process:
        wait_for_epoch(process, experiment)
        trials = [pid for pid in descendants(process.pid) if "ray::twinhead" in command_of(pid)]
        os.kill(trials[0], signal.SIGKILL)
        wait_for(process, r"trial \d+: score")
        process.send_signal(signal.SIGINT)
        ctrl_c = completed(process)
    after_ctrl_c = numbered(experiment)
    summary = json.loads(experiment.summary_file.read_text())

    with started("search", "--resume", experiment.name, *where) as process:
        wait_for(process, r"trial \d+: score")
        while not any(numbered(experiment)[number].last_epoch < 30 for number in newest_of_running(experiment)):
            assert process.poll() is None
            time.sleep(0.1)
        kill_all(process)
    after_kill, damaged = numbered(experiment), newest_of_running(experiment)
    for path in damaged.values():
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    end = run("search", "--resume", experiment.name, *where, "--json")
    return Stages(experiment, ctrl_c, after_ctrl_c, summary, after_kill, damaged, end, numbered(experiment))


def completed(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, said = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, said)


def numbered(experiment: Experiment) -> Trials:
    return {trial.number: trial for trial in records(experiment)}


def newest_of_running(experiment: Experiment) -> Mapping[int, Path]:
    """The state from which each trial that runs, or was interrupted, would resume."""
    running = [trial for trial in records(experiment) if trial.state == TrialState.RUNNING]
    return {trial.number: path / STATE for trial in running if (path := trial.newest(experiment))}


def test_ctrl_c_ends_a_search_that_can_be_resumed(stages: Stages) -> None:
    """Finished trials stay finished, and running ones resume from their checkpoints."""
    assert stages.ctrl_c.returncode == 130
    assert f"twinhead search --resume broken-off --storage {stages.experiment.storage}" in stages.ctrl_c.stderr
    assert not stages.summary["complete"]
    assert stages.summary["outcomes"]["finished"] >= 1
    assert stages.summary["outcomes"]["interrupted"] >= 1
    check_resumed(stages.after_ctrl_c, stages.after_kill)


def test_killed_trial_resumes_from_its_checkpoint(stages: Stages) -> None:
    """A dead process is started again; the search only loses time."""
    assert stages.summary["retried"] == 1
    assert [trial.retries for trial in stages.after_end.values() if trial.retries] == [1]


def test_a_killed_driver_loses_no_finished_trial(stages: Stages) -> None:
    """The machine that runs the command may fail at any time."""
    finished = [trial for trial in stages.after_kill.values() if trial.state == TrialState.COMPLETE]
    assert len(finished) > stages.summary["outcomes"]["finished"]
    check_resumed(stages.after_kill, stages.after_end)
    check_complete(stages.experiment)


def test_search_resumes_without_a_damaged_checkpoint(stages: Stages) -> None:
    """The trial resumes from the checkpoint before, or starts over, and the search reports it."""
    assert stages.end.returncode == 0, stages.end.stderr
    done = sum(trial.state == TrialState.COMPLETE for trial in stages.after_kill.values())
    assert f"{done} of 6 trials are done" in stages.end.stderr
    assert stages.damaged
    for number, path in stages.damaged.items():
        assert re.search(
            rf"trial {number}: the file '{path}' is truncated or altered.*; "
            "the trial (resumes after epoch [0-9]+|starts over)",
            stages.end.stderr,
        )


def test_interrupted_retraining_resumes(stages: Stages) -> None:
    """It may take days; a service manager ends all processes of its group, of which Ray's own handler prints a dump."""
    experiment = stages.experiment
    retrain = ("retrain", experiment.name, "--epochs", "100", "--storage", str(experiment.storage))
    with started(*retrain) as process:
        wait_for_file(process, experiment.root / "retraining", f"run-0/*/{STATE}")
        os.killpg(process.pid, signal.SIGTERM)
        done = completed(process)

    assert done.returncode == 130
    assert done.stderr.endswith(f"continue with: twinhead {' '.join(retrain)}\n")
    assert "SIGTERM" not in done.stderr

    twinhead(*retrain)

    runs = sorted(path.name for path in (experiment.root / "retraining").glob("run-*"))
    assert runs == ["run-0", "run-1"]
    assert load_origin(experiment.retrained).epoch == 100


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
        before = numbered(experiment)

        assert process.returncode == 1
        assert "Traceback" not in said
        [line] = [line for line in said.splitlines() if line.startswith("twinhead: ")]
        assert f"'{small}" in line
        assert line.endswith(f"continue with 'twinhead search --resume full --storage {small}'.")
        assert any(trial.state == TrialState.COMPLETE for trial in before.values())

        (small / "fill").unlink()
        twinhead("search", "--resume", experiment.name, "--storage", str(small))

        check_resumed(before, numbered(experiment))
        check_complete(experiment)
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def check_resumed(before: Trials, after: Trials) -> None:
    """Finished trials did not run again, and interrupted ones were resumed."""
    for number, trial in before.items():
        if trial.state == TrialState.COMPLETE:
            assert after[number].epochs == trial.epochs
        assert after[number].attempt == trial.attempt + (trial.state != TrialState.COMPLETE)


def check_complete(experiment: Experiment) -> None:
    """Every trial ran all epochs, and has each of them once."""
    summary = json.loads(experiment.summary_file.read_text())
    assert summary["complete"]
    assert summary["trials"] == experiment.spec().plan.budget.trials
    assert summary["outcomes"]["finished"] == summary["trials"]
    for trial in records(experiment):
        assert [record.epoch for record in trial.epochs] == list(range(1, 41))
