"""Budgets of a search: patience and GPU-hours, over all its runs."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from ray.tune.experiment import Trial

from data.dataset.dataset import Dataset
from data.errors import EnvironmentFaultError, InputError
from search.run import run as running_search
from search.run.budget import Budget, check_budget
from search.run.tuner import Stopper
from search.signals import InterruptedSearchError
from search.spec.sections import BudgetConfig
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from search.study.study import open_study
from search.study.summary import Retrained, Summary
from search.study.trials import note_epoch
from search.terminal import Screen
from trainable.job import TrialRequest, Workers
from trainable.metrics.objective import Objective
from trainable.report import TrialReport


def run(
    budget: Budget, name: str, *scores: float, outcome: str = "trained", ends: bool = True, number: int | None = None
) -> None:
    """Let a trial start, report these scores, and end."""
    config = TrialRequest(name=name, number=number).as_plain()
    trial = cast("Trial", SimpleNamespace(trial_id=name, last_result={"outcome": outcome}, config=config))
    budget.on_trial_start(0, [], trial)
    for epoch, score in enumerate(scores, start=1):
        budget.on_trial_result(0, [], trial, {"score": score, "epoch": epoch})
    if ends:
        budget.on_trial_complete(0, [], trial)


def budget_of(study: optuna.Study | None = None, clock: Any = lambda: 0.0, gpus: float = 0.0, **limits: Any) -> Budget:
    return Budget(BudgetConfig(**limits), study or optuna.create_study(), gpus=gpus, clock=clock)


def test_patience_counts_trials_without_improvement() -> None:
    """So many in a row without a better one, not so many in all."""
    budget = budget_of(patience=2)
    for name, scores in {"a": [0.5], "b": [0.4], "c": [0.3, 0.6], "d": [0.6]}.items():
        run(budget, name, *scores)
    before = budget.spent()
    run(budget, "e", 0.1)

    assert (before, budget.spent()) == ("", "patience")


def test_patience_waits_for_running_better_trials() -> None:
    """Ending the best trial of all, because others were worse, would be a poor end."""
    budget = budget_of(patience=1)
    run(budget, "a", 0.5)
    run(budget, "ahead", 0.7, ends=False)
    run(budget, "b", 0.4)

    assert budget.spent() == ""


def test_untrained_trials_do_not_count_for_patience() -> None:
    """Networks that are too slow end in a second; patience is with training."""
    budget = budget_of(patience=1)
    run(budget, "a", 0.5)
    run(budget, "b", -1.0, outcome="constraint")

    assert budget.spent() == ""


def test_resumed_search_keeps_its_patience_count() -> None:
    """What ended before the interruption counts."""
    study = optuna.create_study(direction="maximize")
    for score in (0.5, 0.4, 0.3):
        trial = study.ask()
        note_epoch(trial, TrialReport(epoch=1, metrics={"score": score}, outcome="trained"))
        study.tell(trial, score)

    assert budget_of(study, patience=2).spent() == "patience"
    assert budget_of(study, patience=3).spent() == ""


def test_patience_waits_for_an_interrupted_better_trial() -> None:
    """What it reached before is its own, also if its last epochs are worse."""
    study = optuna.create_study(direction="maximize")
    for score in (0.5, 0.4, 0.8):
        trial = study.ask()
        note_epoch(trial, TrialReport(epoch=1, metrics={"score": score}, outcome="trained"))
        if score < 0.8:
            study.tell(trial, score)

    budget = budget_of(study, patience=1)
    assert budget.spent() == ""
    run(budget, "resumed", 0.3, number=2)
    assert budget.spent() == ""
    run(budget, "next", 0.7, number=3)
    assert budget.spent() == "patience"


def test_patience_waits_for_a_better_trial_that_an_outage_interrupted() -> None:
    """The same budget goes on after the outage, in which all trials end."""
    budget = budget_of(patience=1)
    run(budget, "a", 0.5)
    run(budget, "ahead", 0.7, ends=False, number=1)
    trial: Any = SimpleNamespace(trial_id="ahead", config=TrialRequest(name="ahead", number=1).as_plain())
    budget.on_experiment_end([trial])
    run(budget, "b", 0.4)

    assert budget.spent() == ""


def test_trial_that_its_environment_interrupted_is_not_one_without_improvement(tmp_path: Path) -> None:
    """It is resumed later, and counted then."""
    error = tmp_path / "error.pkl"
    budget = budget_of(patience=1)
    run(budget, "a", 0.5)
    run(budget, "b", 0.4, ends=False)
    for cause, spent in ((EnvironmentFaultError("The storage is away."), ""), (ValueError("its own"), "patience")):
        error.write_bytes(pickle.dumps(cause))
        trial: Any = SimpleNamespace(trial_id="b", last_result={}, error_file=str(tmp_path / "error.txt"))
        budget.on_trial_error(0, [], trial)
        assert budget.spent() == spent


def test_gpu_hours_add_up_over_trials_and_runs() -> None:
    """Two trials at a time with half a GPU each spend an hour in an hour, and a resumed search has the rest."""
    now, study = [0.0], optuna.create_study()
    budget = budget_of(study, clock=lambda: now[0], gpus=0.5, gpu_hours=1.0)
    run(budget, "a", 0.5, ends=False)
    run(budget, "b", 0.5, ends=False)
    now[0] = 1800.0
    run(budget, "a", 0.5)

    assert budget.gpu_seconds == 1800.0
    assert budget.spent() == ""
    again = budget_of(study, clock=lambda: now[0], gpus=0.5, gpu_hours=1.0)
    assert again.gpu_seconds == 1800.0  # with what "b" used until then
    now[0] = 3600.0
    assert (budget.gpu_seconds, budget.spent()) == (2700.0, "")
    now[0] = 5400.0
    assert budget.spent() == "gpu_hours"


def test_gpu_hours_of_interrupted_trials_are_stored() -> None:
    """A resumed search would otherwise use them once more."""
    now, study = [0.0], optuna.create_study()
    budget = budget_of(study, clock=lambda: now[0], gpus=2.0, gpu_hours=1.0)
    run(budget, "a", 0.5, ends=False)
    now[0] = 900.0
    budget.on_experiment_end([])

    assert budget_of(study, gpus=2.0, gpu_hours=1.0).gpu_seconds == 1800.0


def test_gpu_hours_of_running_trials_are_known_to_other_processes() -> None:
    """To `status`, and to the run after a driver that was killed: it would use them once more."""
    now, study = [0.0], optuna.create_study()
    budget = budget_of(study, clock=lambda: now[0], gpus=2.0, gpu_hours=1.0)
    run(budget, "a", 0.5, ends=False)
    run(budget, "b", 0.5, ends=False)
    now[0] = 900.0
    budget.on_step_begin(0, [])
    budget.on_step_begin(0, [])
    assert budget_of(study, gpus=2.0, gpu_hours=1.0).gpu_seconds == 3600.0

    run(budget, "a", 0.5)
    assert budget_of(study, gpus=2.0, gpu_hours=1.0).gpu_seconds == 3600.0


def test_a_trial_that_waits_for_its_retry_uses_no_gpu() -> None:
    """As when all spot nodes are taken away for an hour, which ended the search."""
    now, study = [0.0], optuna.create_study()
    budget = budget_of(study, clock=lambda: now[0], gpus=1.0, gpu_hours=1.0)
    trial = cast("Trial", SimpleNamespace(trial_id="a", config=TrialRequest(name="a").as_plain()))
    budget.on_trial_start(0, [], trial)
    now[0] = 900.0
    budget.on_trial_recover(0, [], trial)
    now[0] = 4500.0
    assert (budget.gpu_seconds, budget.spent()) == (900.0, "")
    budget.on_trial_start(0, [], trial)
    now[0] = 5400.0
    assert budget.gpu_seconds == 1800.0


def test_a_complete_search_names_the_limit_that_ended_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More trials alone do not continue a search whose hours are used up, and were what the message asked for."""
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec({"budget": {"trials": 20, "hours": 1.0}}, data_path="set"))
    experiment.write_summary(Summary(complete=True, trials=12, ended_by="hours", limit=1.0))
    changes, dataset = [("budget.trials", "40")], cast("Dataset", None)
    running_search.run_search(experiment, experiment.extended(changes), dataset, Screen(), changes)

    said = capsys.readouterr().err
    assert "its time is up (budget.hours)" in said
    assert "--set budget.hours=VALUE" in said


def test_the_retraining_is_not_ended_by_a_limit_of_the_search() -> None:
    """Neither by the one that ended the trials, nor by one that is reached meanwhile."""
    budget = budget_of(patience=1)
    stopper = Stopper(seconds=1e-9, budget=budget)
    assert stopper.stop_all()

    run(budget, "a", 0.5)
    run(budget, "b", 0.5)
    stopper.lift_budget()
    assert (stopper.stop_all(), stopper.reason) == (False, "")
    stopper.interrupted = True
    assert stopper.stop_all()


def test_the_first_limit_ends_the_search() -> None:
    """And it is said which one it was."""
    budget = budget_of(patience=1)
    stopper = Stopper(seconds=3600, budget=budget)
    run(budget, "a", 0.5)
    before = stopper.stop_all()
    run(budget, "b", 0.5)

    assert (before, stopper.stop_all(), stopper.reason) == (False, True, "patience")


def test_gpu_hours_limit_needs_gpus() -> None:
    """The search would never end."""
    with pytest.raises(InputError, match=r"'budget.gpu_hours' is 2, but the trials use no GPU; remove it"):
        check_budget(BudgetConfig(gpu_hours=2.0), Workers())
    check_budget(BudgetConfig(gpu_hours=2.0), Workers(gpus=0.5))
    check_budget(BudgetConfig(), Workers())


def test_patience_follows_the_objective() -> None:
    """A smaller error is an improvement, over all runs; a trial without one is none."""
    objective, study = Objective.of("-depth_rmse"), optuna.create_study()
    for error in (0.3, 0.2):
        trial = study.ask()
        note_epoch(trial, TrialReport(epoch=1, metrics={"score": 0.5, "depth_rmse": error}, outcome="trained"))
        study.tell(trial, error)
    budget = Budget(BudgetConfig(patience=2), study, gpus=0, objective=objective)
    for name, error in (("a", 0.25), ("b", 0.1), ("c", math.inf)):
        found = {"outcome": "trained"}
        trial = cast("Trial", SimpleNamespace(trial_id=name, last_result=found, config={}))
        budget.on_trial_start(0, [], trial)
        budget.on_trial_result(0, [], trial, {"score": 0.9, "depth_rmse": error, "epoch": 1})
        budget.on_trial_complete(0, [], trial)
        assert budget.spent() == ""
    run(budget, "d", 0.9)

    assert budget.spent() == "patience"


class _BegunError(Exception):
    """The run has checked everything and begins its trials."""


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A search whose runs end before their first trial, on a cluster without GPUs."""
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(data_path="set"))
    open_study(experiment).ask()
    experiment.trials.mkdir()

    @contextmanager
    def open_session(*_: object, **__: object) -> Iterator[Any]:
        yield SimpleNamespace(study=open_study(experiment), workers=Workers(), concurrent=1)

    def begin(*_: object) -> None:
        raise _BegunError

    monkeypatch.setattr(running_search, "open_session", open_session)
    monkeypatch.setattr(running_search, "split_counts", lambda *_, **__: {"train": 1})
    for unchecked in ("check_retraining", "cluster_resources", "check_disk"):
        monkeypatch.setattr(running_search, unchecked, lambda *_, **__: None)
    monkeypatch.setattr(running_search, "start", begin)
    return experiment


def resume(experiment: Experiment, *changes: tuple[str, str]) -> None:
    running_search.run_search(experiment, experiment.extended(changes), cast("Any", None), Screen(), changes)


def test_a_budget_that_a_run_refuses_is_not_kept(begun: Experiment) -> None:
    """A later --resume without it would be refused too; nor does a run change the spec of another that runs."""
    before = begun.spec()
    with pytest.raises(InputError, match=r"'budget.gpu_hours' is 1, but the trials use no GPU"):
        resume(begun, ("budget.trials", "99"), ("budget.gpu_hours", "1"))
    with begun.lock(), pytest.raises(InputError, match="is running in another process"):
        resume(begun, ("budget.trials", "99"))
    assert begun.spec() == before

    with pytest.raises(_BegunError):
        resume(begun, ("budget.trials", "99"))
    assert begun.spec().plan.budget.trials == 99


def test_a_larger_budget_keeps_the_results_so_far(begun: Experiment) -> None:
    """A run that is stopped before its own retraining has none in their place."""
    retrained = Retrained(metrics={"score": 0.45}, checkpoint="retrained", epochs=2)
    begun.write_summary(Summary(complete=True, trials=1, retrained=retrained))
    run: Any = SimpleNamespace(
        experiment=begun,
        spec=begun.spec(),
        study=open_study(begun),
        dataset=SimpleNamespace(info=SimpleNamespace(fingerprint="ab12")),
        seconds=lambda: 1.0,
        screen=Screen(),
        stopper=Stopper(),
    )
    steps: Any = SimpleNamespace(as_plain=lambda: {"fewest": 1, "most": 1})
    search = running_search._Search(run=run, budget=budget_of(), slots=cast("Any", None), steps=steps)
    running_search._sum_up(search, [])

    assert begun.summary().retrained == retrained
    assert not begun.summary().complete


def test_a_retraining_keeps_the_hours_of_a_lost_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were in the heartbeat alone, which the retraining replaces: the next run had them once more."""
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(data_path="set"))
    experiment.write_summary(Summary(complete=True, data_fingerprint="0"))
    study = open_study(experiment)
    study.set_user_attr("seconds", 100.0)
    replace(Heartbeat.of_this_process(), state="failed", unstored=400.0).write(experiment)
    nothing: dict[str, Any] = {
        "cluster": lambda **_: nullcontext(),
        "cluster_resources": list,
        "plan": lambda *_: (Workers(), 1),
        "find_best_recipe": lambda *_: None,
    }
    for name in ("find_best", "check_retraining", "_make_run"):
        nothing[name] = lambda *_, **__: True
    for name, stand_in in nothing.items():
        monkeypatch.setattr(running_search, name, stand_in)

    def interrupt(*_: object, **__: object) -> None:
        raise InterruptedSearchError

    monkeypatch.setattr(running_search, "retrain_and_test", interrupt)
    dataset: Any = SimpleNamespace(info=SimpleNamespace(fingerprint="0"))
    with pytest.raises(InterruptedSearchError):
        running_search.retrain_again(experiment, experiment.spec(), dataset, Screen(), "again")

    beat = Heartbeat.read(experiment)
    assert open_study(experiment).user_attrs["seconds"] == 500.0
    assert beat is not None
    assert beat.seconds() == 0.0
