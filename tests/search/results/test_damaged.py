"""Damaged checkpoints: the error names the file, and where an intact copy or the next best network is."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest

from data.grids import save_png
from search.results.export import export_checkpoint
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import note_epoch, note_start
from tests.search.conftest import CONFIGURATION, METRICS, Said
from trainable.loop.checkpoint_files import CHECKSUMS, CONFIG, WEIGHTS
from trainable.report import TrialReport

Command = Callable[..., Said]
Refused = Callable[..., str]


def alter(path: Path) -> None:
    """One bit."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def command_in(sentence: str) -> list[str]:
    """The words of the last command that a sentence names, without the program's name."""
    found = re.findall(r"'(twinhead [^']*)'|`(twinhead [^`]*)`", sentence)[-1]
    return shlex.split(max(found))[1:]


@pytest.fixture
def two_trials(experiment: Experiment, network: Path) -> Experiment:
    """Trial 1 is better than trial 0, and lies in best/ too."""
    study = open_study(experiment)
    trial = study.ask()
    note_start(trial, CONFIGURATION.model_dump())
    checkpoint = "trials/00001/checkpoint_000000"
    shutil.copytree(network, experiment.root / checkpoint)
    note_epoch(trial, TrialReport(epoch=1, metrics={**METRICS, "score": 0.6}, outcome="trained"), checkpoint)
    for number, state in ((0, optuna.trial.TrialState.COMPLETE), (1, optuna.trial.TrialState.COMPLETE)):
        study.tell(number, 0.5 + number / 10, state=state)
    source = {"search": "first", "trial": 1}
    export_checkpoint(
        experiment.root / checkpoint, experiment.best, metrics={"val": METRICS}, title="first", source=source
    )
    return experiment


def predict(refused: Refused, checkpoint: Path) -> str:
    photo = Path("photo.png")

    save_png(np.zeros((32, 32, 3), np.uint8), photo)
    return refused("predict", checkpoint, "--bg", photo, "--fg-bg", photo)


def test_error_for_a_damaged_best_network_names_the_copy_in_its_trial(
    refused: Refused, twinhead: Command, two_trials: Experiment
) -> None:
    """Evaluate and predict say so, and the command that they name exports it."""
    alter(two_trials.best / WEIGHTS)
    said = refused("evaluate", "artifacts/first/best", "nowhere")

    assert "best/model.safetensors' is truncated or altered" in said
    assert "the intact copy in trials/" in said
    assert command_in(said) == ["best", "first", "--trial", "1", "--storage", "artifacts"]
    assert predict(refused, Path("artifacts/first/best")) == said
    assert twinhead(*command_in(said), "--out", "again").code == 0
    assert (Path("again") / WEIGHTS).is_file()


def test_error_for_a_damaged_export_names_the_copy_in_its_search(
    refused: Refused, twinhead: Command, two_trials: Experiment
) -> None:
    """The checksums say which search and trial it is of."""
    twinhead("best", "first", "--trial", 0, "--out", "mine")
    alter(Path("mine") / WEIGHTS)

    assert command_in(predict(refused, Path("mine"))) == ["best", "first", "--trial", "0", "--storage", "artifacts"]


def test_error_for_a_damaged_foreign_export_advises_another_export(
    refused: Refused, twinhead: Command, two_trials: Experiment
) -> None:
    """Whoever was given it has no search."""
    twinhead("best", "first", "--trial", 0, "--out", "mine")
    two_trials.remove()
    alter(Path("mine") / CONFIG)

    assert predict(refused, Path("mine")).endswith("export the checkpoint again with 'twinhead best NAME'.")


def test_error_for_a_damaged_trial_names_the_next_best(refused: Refused, two_trials: Experiment) -> None:
    """And its own copy in best/, where that is whole."""
    alter(two_trials.trials / "00001" / "checkpoint_000000" / WEIGHTS)
    said = refused("best", "first", "--trial", 1)

    assert "00001/checkpoint_000000/model.safetensors'" in said
    assert "'artifacts/first/best' has an intact copy of the network" in said
    assert command_in(said) == ["best", "first", "--trial", "0", "--storage", "artifacts"]

    alter(two_trials.best / WEIGHTS)
    assert "the same network" not in refused("best", "first", "--trial", 1)


def test_error_for_a_damaged_retrained_network_advises_retraining(refused: Refused, two_trials: Experiment) -> None:
    """And until then, the best trial is there."""
    source = {"search": "first", "trial": None}
    export_checkpoint(two_trials.best, two_trials.retrained, metrics={"test": METRICS}, title="first", source=source)
    alter(two_trials.retrained / "metrics.json")
    said = refused("best", "first")

    assert "retrained/metrics.json' is truncated or altered" in said
    assert "train the network again with 'twinhead retrain first --storage artifacts'" in said
    assert command_in(said) == ["best", "first", "--trial", "1", "--storage", "artifacts"]


def test_a_network_of_an_earlier_version_is_evaluated_with_a_note(
    twinhead: Command, two_trials: Experiment, scenes: Path
) -> None:
    """It has no checksums: what nobody verified is not called whole."""
    described = json.loads((two_trials.best / CONFIG).read_text())
    described.pop("checksums", None)
    (two_trials.best / CONFIG).write_text(json.dumps(described))
    before = twinhead("evaluate", two_trials.best, scenes, "--json")
    (two_trials.best / CHECKSUMS).unlink()
    said = twinhead("evaluate", two_trials.best, scenes, "--json")

    assert before.code == 2
    assert said.code == 0, said.err
    assert json.loads(said.out)["verified"] is False
    assert "without checksums, and was not verified" in said.err
