"""Records of running trials: the needed checkpoints, reasons of failures, curves and images."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Trial
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.errors import EnvironmentFaultError
from data.grids import save_png
from search.run import recorder as recording
from search.run.failures import Failures
from search.run.recorder import Recorder, TensorBoard
from search.spec.spec import load_spec
from search.strategy.searcher import RungSearcher
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import trial_records
from trainable.config.policy import PlateauPolicy
from trainable.loop.checkpoint_files import PICTURES, STATE, WEIGHTS
from trainable.metrics.objective import Objective
from trainable.report import metrics_of

CONTROLLER: list[Any] = []
MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
DIED = (
    "The actor is dead. Worker exit type: SYSTEM_ERROR Worker exit detail: End of file. Some common causes include: 1."
)


@dataclass
class StubTrial:
    """As much of Tune's trial as is looked at."""

    directory: Path
    trial_id: str = "a"
    config: dict[str, Any] = field(default_factory=lambda: {"name": "00000", "number": 0})
    last_result: dict[str, Any] = field(default_factory=dict)
    checkpoint: tune.Checkpoint | None = None
    registered: list[str] = field(default_factory=list)

    @property
    def error_file(self) -> str:
        return str(self.directory / "error.txt")

    @property
    def storage(self) -> SimpleNamespace:
        return SimpleNamespace(trial_fs_path="/storage/00000", storage_filesystem=None)

    def on_checkpoint(self, result: Any) -> None:
        self.registered.append(result.checkpoint.path)


@dataclass
class Running:
    """A search whose one trial runs."""

    experiment: Experiment
    study: optuna.Study
    searcher: RungSearcher
    recorder: Recorder
    trial: Trial

    def report(self, epoch: int, score: float, *listeners: tune.Callback, pictures: bool = False) -> None:
        """A report with a checkpoint, as Tune hands it around."""
        directory = self.experiment.trials / "00000" / f"checkpoint_{epoch - 1:06d}"
        directory.mkdir(parents=True)
        for name in (WEIGHTS, STATE):
            (directory / name).touch()
        if pictures:
            save_png(np.full((64, 48, 3), 10 * epoch, np.uint8), directory / PICTURES)
        result = {"epoch": epoch, "score": score, "train_loss": 0.5, "checkpoint_dir_name": directory.name}
        self.searcher.on_trial_result("a", result)
        for listener in (self.recorder, *listeners):
            listener.on_trial_result(iteration=0, trials=CONTROLLER, trial=self.trial, result=result)
            listener.on_checkpoint(
                iteration=0, trials=CONTROLLER, trial=self.trial, checkpoint=tune.Checkpoint(str(directory))
            )

    def kept(self) -> list[int]:
        """Epochs of the checkpoints that are there."""
        return sorted(int(path.name[-6:]) + 1 for path in (self.experiment.trials / "00000").glob("checkpoint_*"))


@pytest.fixture
def running(tmp_path: Path) -> Running:
    experiment = Experiment(storage=tmp_path, name="s")
    experiment.create(load_spec(data_path="set"))
    study = open_study(experiment)
    space = lambda trial: {"x": trial.suggest_float("x", 0, 1)}  # noqa: E731
    searcher = RungSearcher(space, rungs=[9], study=study)
    searcher.suggest("a")
    recorder, trial = Recorder(experiment, searcher, Failures(lambda _: None)), cast("Trial", StubTrial(tmp_path))
    recorder.on_trial_start(iteration=0, trials=CONTROLLER, trial=trial)
    return Running(experiment, study, searcher, recorder, trial)


def test_the_report_after_which_a_trial_is_stopped_is_stored_whole(running: Running) -> None:
    """If the search ends before Tune has stopped the trial, it is resumed after that epoch.

    Without the epoch's value, its score of a later epoch was compared at the rung.
    """
    result = {"epoch": 3, "score": 0.5, "outcome": "trained"}
    running.recorder.on_trial_result(iteration=0, trials=CONTROLLER, trial=running.trial, result=result)
    [stored] = running.study.trials
    assert [record.epoch for record in trial_records(running.study)[0].epochs] == [3]
    assert stored.intermediate_values == {3: 0.5}


def test_best_and_newest_checkpoints_are_kept(running: Running) -> None:
    """One is the result, the other is needed to resume; more would fill the disk in a search of thousands of trials."""
    kept = []
    for epoch, score in enumerate([0.1, 0.5, 0.3, 0.5, 0.2], start=1):
        running.report(epoch, score)
        kept.append(running.kept())
    assert kept == [[1], [2], [2, 3], [2, 4], [2, 5]]


def test_checkpoint_of_the_best_objective_is_kept(running: Running) -> None:
    """The score, which gets worse, is not what the search looks for."""
    least = Objective.of("-score")
    running.recorder = Recorder(running.experiment, running.searcher, Failures(lambda _: None), least)
    kept = []
    for epoch, score in enumerate([0.5, 0.3, 0.4, 0.6], start=1):
        running.report(epoch, score)
        kept.append(running.kept())
    assert kept == [[1], [2], [2, 3], [2, 4]]


def test_finished_trial_keeps_only_its_best_weights(running: Running) -> None:
    """It is never resumed."""
    for epoch, score in enumerate([0.1, 0.5, 0.3], start=1):
        running.report(epoch, score)
    running.searcher.on_trial_complete("a", {"epoch": 3, "score": 0.3})
    running.recorder.on_trial_complete(iteration=0, trials=CONTROLLER, trial=running.trial)
    assert running.kept() == [2]
    assert not list(running.experiment.trials.rglob(STATE))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["Traceback", "ValueError: a bug"], "ValueError: a bug"),
        (["[Rank 0]", MEMORY, "[Rank 1]", "RuntimeError: Connection closed by peer"], MEMORY),
        (["[Rank 0]", DIED, "[Rank 1]", "RuntimeError: Connection closed by peer"], "its process died: End of file."),
        ([MEMORY, "Failure # 2 (occurred at noon)", "ValueError: another"], "ValueError: another"),
    ],
)
@pytest.mark.parametrize("epochs", [0, 1])
def test_failed_trial_records_its_reason(running: Running, said: Sequence[str], reason: str, epochs: int) -> None:
    """With or without earlier reports, whatever its other workers raise; and the search continues."""
    for epoch in range(epochs):
        running.report(epoch + 1, 0.5)
    Path(running.trial.error_file).write_text("\n".join(["Failure # 1 (occurred at noon)", *said, ""]))
    running.searcher.on_trial_complete("a", error=True)
    running.recorder.on_trial_error(iteration=0, trials=CONTROLLER, trial=running.trial)

    [record] = trial_records(running.study)
    assert (record.state, record.outcome, record.reason) == (TrialState.FAIL, "failed", reason)
    assert running.searcher.suggest("b")


def test_every_metric_that_a_policy_may_watch_is_recorded() -> None:
    """The curve that a learning rate followed can be looked up; the metrics that Tune adds are left out."""
    figures = dict.fromkeys(get_args(PlateauPolicy.model_fields["watch"].annotation), 0.5)
    assert set(figures) == {"score", "val_loss", "train_loss"}
    assert metrics_of({**figures, "training_iteration": 3, "pid": 7, "time_total_s": 2.5}) == figures


def test_retries_are_counted(running: Running) -> None:
    """Whose machine kills processes wants to know it."""
    for _ in range(2):
        running.recorder.on_trial_recover(iteration=0, trials=CONTROLLER, trial=running.trial)
    assert trial_records(running.study)[0].retries == 2


@pytest.mark.parametrize(
    ("reported", "known", "registered"),
    [
        ("checkpoint_000001", None, ["/storage/00000/checkpoint_000001"]),
        ("checkpoint_000001", "checkpoint_000000", ["/storage/00000/checkpoint_000001"]),
        ("checkpoint_000001", "checkpoint_000001", []),
        ("", "checkpoint_000001", []),
    ],
)
def test_trial_resumes_from_the_checkpoint_of_its_last_report(
    running: Running, reported: str, known: str | None, registered: list[str]
) -> None:
    """Tune registers it a moment after the report, in which the process may die."""
    trial = cast("Any", running.trial)
    trial.last_result = {"epoch": 2, "score": 0.5, "checkpoint_dir_name": reported}
    trial.checkpoint = tune.Checkpoint(f"/storage/00000/{known}") if known else None
    running.recorder.on_trial_recover(iteration=0, trials=CONTROLLER, trial=running.trial)
    assert trial.registered == registered


def test_environment_fault_is_not_recorded_as_a_failure(running: Running) -> None:
    """It stays in the state RUNNING, from which it is resumed, and keeps all its retries."""
    Path(running.trial.error_file).with_suffix(".pkl").write_bytes(pickle.dumps(EnvironmentFaultError("gone; wait.")))
    running.recorder.on_trial_recover(iteration=0, trials=CONTROLLER, trial=running.trial)
    running.searcher.on_trial_complete("a", error=True)
    running.recorder.on_trial_error(iteration=0, trials=CONTROLLER, trial=running.trial)

    [record] = trial_records(running.study)
    assert (record.state, record.retries, record.outcome) == (TrialState.RUNNING, 0, "")
    again = RungSearcher(lambda trial: trial.params, rungs=[9], study=running.study)
    assert again.suggest("b") == running.study.trials[0].params


@pytest.mark.parametrize(("every", "shown"), [(60.0, [1, 2, 3, 5, 6]), (0.0, [1, 2, 3, 4, 5, 6])])
def test_images_are_logged_over_epochs(
    running: Running, monkeypatch: pytest.MonkeyPatch, every: float, shown: list[int]
) -> None:
    """Of a short trial ever fewer and its best, of a long one some in between; scalars of every epoch."""
    monkeypatch.setattr(recording, "PICTURES_SECONDS", every)
    board = TensorBoard(running.experiment)
    scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.1]
    for epoch, score in enumerate(scores, start=1):
        running.report(epoch, score, board, pictures=epoch < len(scores))
    board.on_trial_complete(iteration=0, trials=CONTROLLER, trial=running.trial)

    events = EventAccumulator(str(running.experiment.trials / "00000"), size_guidance={"images": 0})
    events.Reload()
    assert [event.value for event in events.Scalars("score")] == pytest.approx(scores)
    assert "train/train_loss" in events.Tags()["scalars"]
    assert [(event.step, event.height, event.width) for event in events.Images("pictures")] == [
        (step, 64, 48) for step in shown
    ]


def test_journal_is_readable_by_optuna(running: Running) -> None:
    """Its dashboard opens the file, while the search runs."""
    running.report(1, 0.5)
    storage = JournalStorage(JournalFileBackend(str(running.experiment.study_file)))
    [trial] = optuna.load_study(study_name="s", storage=storage).trials
    assert (trial.params, trial.intermediate_values) == (running.study.trials[0].params, {1: 0.5})
