"""The retraining: what it starts from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.dataset.storage import UnavailableError
from search.run import retrain
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.summary import Summary
from search.study.trials import RETRAINING
from search.terminal import Screen
from tests.search.conftest import CONFIGURATION, METRICS
from trainable.job import TrialData, TrialJob, Workers
from trainable.loop.checkpoint import save
from trainable.loop.checkpoint_files import Origin
from trainable.loop.precision import as_recorded, with_precision
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


def test_a_complete_retraining_is_repeated_only_once_its_result_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it is measured or exported, it is not trained anew by the command that continues it."""
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(data_path="set"))
    spec, study = experiment.spec(), open_study(experiment)
    precision = as_recorded(CONFIGURATION).model.precision
    config = with_precision(CONFIGURATION.model_copy(update={"epochs": spec.plan.scheduler.max_epochs}), precision)
    complete = experiment.retraining / "run-0" / "checkpoint_000000"
    network = build_model(config.model)
    save(complete, network, Origin(config=config, data_fingerprint="0", epoch=config.epochs), METRICS, state={})
    best_checkpoint = experiment.trials / "00000" / "checkpoint_000000"
    save(best_checkpoint, network, Origin(config=CONFIGURATION, data_fingerprint="0", epoch=1), METRICS)
    study.set_user_attr(RETRAINING, {"epoch": config.epochs})
    trial: Any = SimpleNamespace(config=CONFIGURATION.model_dump(), lr_factors=[])
    best: Any = SimpleNamespace(trial=trial, checkpoint=best_checkpoint)
    data = TrialData(path="set", fingerprint="0")
    job = TrialJob(data=data, workers=Workers(), checkpoint_epochs=frozenset(), group_storage=str(experiment.groups))
    run: Any = SimpleNamespace(
        experiment=experiment,
        spec=spec,
        screen=Screen(),
        stopper=None,
        dataset=None,
        study=study,
        outages=SimpleNamespace(outlast=lambda work: work()),
        retraining_job=lambda _: job,
    )

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(retrain, "start_task", kill)
        retrain.retrain_and_test(run, Summary(), best, None, again=True)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(retrain, "start_task", lambda *_, **__: None)
        measured = SimpleNamespace(retrained={}, baselines={}, retrained_intervals={})
        patched.setattr(retrain.ray, "get", lambda _: measured)
        patched.setattr(retrain, "export_retrained", kill)
        retrain.retrain_and_test(run, Summary(), best, None, again=True)
    assert retrain._retrain(run, best, job, again=True) == complete

    study.set_user_attr(RETRAINING, None)
    monkeypatch.setattr(retrain, "_retraining_steps", kill)
    with pytest.raises(KeyboardInterrupt):
        retrain._retrain(run, best, job, again=True)
    assert not complete.exists()


def test_a_retraining_waits_for_its_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would remove its checkpoints and start anew if a single request for one of them was refused."""
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(data_path="set"))
    checkpoint = experiment.retraining / "run-0" / "checkpoint_000000"
    origin = Origin(config=CONFIGURATION, data_fingerprint="0", epoch=1)
    save(checkpoint, build_model(CONFIGURATION.model), origin, METRICS, state={})
    found = retrain._resumable(experiment, CONFIGURATION, Screen())

    def refuse(*_: object, **__: object) -> None:
        raise UnavailableError("The storage refuses requests; bring it back.")

    monkeypatch.setattr(experiment.checkpoints, "fetch", refuse)
    with pytest.raises(UnavailableError):
        retrain._resumable(experiment, CONFIGURATION, Screen())

    assert found == checkpoint
