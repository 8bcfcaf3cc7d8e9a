"""The retraining: what it starts from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.run import retrain
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.terminal import Screen
from tests.search.conftest import CONFIGURATION, METRICS
from trainable.job import TrialData, TrialJob, Workers
from trainable.loop.checkpoint import save
from trainable.loop.checkpoint_files import Origin
from trainable.models import build_model


class _BegunError(Exception):
    """The retraining has removed what it does not start from."""


def test_a_new_retraining_does_not_start_from_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Train restores a worker group from its directory by itself, whatever network was trained there."""
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(data_path="set"))
    earlier = [experiment.retraining / "run-0", experiment.groups / experiment.retraining.name / "run-0"]
    for directory in earlier:
        (directory / "checkpoint_000000").mkdir(parents=True)
    origin = Origin(config=CONFIGURATION, data_fingerprint="0", epoch=1)
    save(tmp_path / "best", build_model(CONFIGURATION.model), origin, METRICS)
    trial: Any = SimpleNamespace(config=CONFIGURATION.model_dump(), lr_factors=[])
    best: Any = SimpleNamespace(trial=trial, checkpoint=tmp_path / "best")
    run: Any = SimpleNamespace(experiment=experiment, spec=experiment.spec(), screen=Screen(), stopper=None)
    data = TrialData(path="set", fingerprint="0")
    job = TrialJob(data=data, workers=Workers(), checkpoint_epochs=frozenset(), group_storage=str(experiment.groups))

    def begin(*_: object) -> None:
        raise _BegunError

    monkeypatch.setattr(retrain, "_retraining_steps", begin)
    with pytest.raises(_BegunError):
        retrain._retrain(run, best, job, again=True)

    assert [directory.exists() for directory in earlier] == [False, False]
