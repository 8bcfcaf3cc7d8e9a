"""Trainings of fixed configurations, without a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.dataset.dataset import Dataset
from search.recipes import trainings
from search.recipes.compare import run_comparison
from search.recipes.configs import make_comparison, make_training
from search.recipes.train import run_training
from search.recipes.trainings import create_training
from search.run.prepare import Session
from search.signals import InterruptedSearchError
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from search.study.study import open_study
from search.terminal import Screen
from trainable.job import Workers


@pytest.mark.parametrize("kind", ["train", "compare"])
def test_seconds_are_those_of_all_runs(
    kind: str, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results of a training that was interrupted after an hour had the time of the last run alone."""
    experiment, dataset = Experiment(storage=tmp_path, name="first"), Dataset.open(scenes)
    work: Any = run_training
    fixed = make_training("ramana-dnn", str(scenes), epochs=1, overrides=[], faithful=False)
    if kind == "compare":
        work = run_comparison
        fixed = make_comparison(str(scenes), ["ramana-dnn"], epochs=1, overrides=[], faithful=False)
    create_training(experiment, fixed, dataset)
    found: list[float] = []

    @contextmanager
    def open_session(*_: object, **__: object) -> Iterator[Session]:
        yield Session(study=open_study(experiment), workers=Workers(), concurrent=1, dashboard="")

    def interrupt(*arguments: Any) -> None:
        seconds: Callable[[], float] = arguments[-1]
        found.append(seconds())
        raise InterruptedSearchError

    monkeypatch.setattr(trainings, "open_session", open_session)
    monkeypatch.setattr(trainings, "decode", lambda *_: None)
    monkeypatch.setattr(trainings, "alone", lambda job, _: job)
    monkeypatch.setattr(trainings, "_train", interrupt)
    for _ in range(2):
        with pytest.raises(InterruptedSearchError):
            work(experiment, fixed, dataset, Screen())
        beat = Heartbeat.read(experiment)
        assert beat is not None
        replace(beat, unstored=beat.unstored + 3600).write(experiment)
    with pytest.raises(InterruptedSearchError):
        work(experiment, fixed, dataset, Screen())

    assert [seconds // 3600 for seconds in found] == [0, 1, 2]
