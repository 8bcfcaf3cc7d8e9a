"""What a search exports for Prometheus, seen where Ray takes it."""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from ray.tune.experiment import Trial
from ray.util import metrics
from rich.console import Console

from data.errors import EnvironmentFaultError
from search.driver import TrialCallback
from search.results.tally import STATES, RunPlan, Tally
from search.run.budget import GPU_SECONDS, Budget
from search.run.metrics import SearchMetrics
from search.run.progress import SearchProgress
from search.spec.spec import check_spec
from search.study.trials import TrialRecord
from search.terminal import Screen

DOCS = Path(__file__).parents[3] / "docs"
Exported = dict[tuple[str, str], float]
"""Values by metric, without its prefix, and by the second tag; '' if it has only the name of the search."""


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    """The present values; a metric of another search than 'first' is an error."""
    values: Exported = {}

    def key(metric: Any, tags: Mapping[str, str] | None) -> tuple[str, str]:
        own = metric.info["default_tags"] | (tags or {})
        assert own.pop("search") == "first"
        assert metric.info["name"].startswith("twinhead_")
        return metric.info["name"].removeprefix("twinhead_"), "".join(own.values())

    def set_value(gauge: Any, value: float, tags: Mapping[str, str] | None = None) -> None:
        values[key(gauge, tags)] = value

    def increase(counter: Any, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        assert value > 0
        values[key(counter, tags)] = values.get(key(counter, tags), 0.0) + value

    monkeypatch.setattr(metrics.Gauge, "set", set_value)
    monkeypatch.setattr(metrics.Counter, "inc", increase)
    return values


class Callbacks:
    """Callbacks that Tune calls one after the other: the metrics read what the one before them counts."""

    def __init__(self, *callbacks: TrialCallback) -> None:
        self._callbacks = callbacks

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            for callback in self._callbacks:
                getattr(callback, name)(*arguments)

        return call


def search(
    earlier: list[TrialRecord] | None = None, seconds: float = 0.0, objective: str = "score", **limits: float
) -> Callbacks:
    """The callbacks of a search with four trials of three epochs."""
    given = {
        "scheduler": {"max_epochs": 3, "grace_epochs": 1},
        "budget": {"trials": 4, **limits},
        "objective": objective,
    }
    spec = check_spec(given, source="the test", data_path="/data")
    study = optuna.create_study()
    study.set_user_attr(GPU_SECONDS, 1800.0)
    budget = Budget(spec.plan.budget, study, gpus=1.0, clock=lambda: 0.0)
    tally = Tally(RunPlan.of_search("first", spec), earlier or [])
    counted = SearchProgress(Screen(Console(file=io.StringIO())), tally)
    return Callbacks(counted, SearchMetrics("first", spec, tally, budget, lambda: seconds))


def trial(number: int) -> Trial:
    stub = SimpleNamespace(trial_id=f"t{number}", config={"number": number}, last_result={}, error_file=None)
    return cast("Trial", stub)


def report(callback: Callbacks, reported: Trial, epoch: int, **changed: Any) -> None:
    result = {
        "epoch": epoch,
        "score": 0.5,
        "outcome": "trained",
        "seconds": 10.0,
        "samples_per_second": 100.0,
        "time_data": 0.2,
        "time_checkpoint": 0.05,
        "memory_host_gb": 2.0,
    } | changed
    reported.last_result.update(result)
    callback.on_trial_result(0, [], reported, result)


def states(exported: Exported) -> dict[str, float]:
    return {state: exported["trials", state] for state in STATES if exported["trials", state]}


def test_trials_are_counted_by_state(exported: Exported) -> None:
    callback, trials = search(), [trial(number) for number in range(5)]
    for each in trials:
        callback.on_trial_start(0, [], each)
    assert states(exported) == {"running": 5}

    for each, epoch, outcome in zip(
        trials, (3, 1, 2, 0), ("trained", "trained", "diverged", "constraint"), strict=False
    ):
        report(callback, each, epoch, outcome=outcome)
        callback.on_trial_complete(0, [], each)
    callback.on_trial_error(0, [], trials[4])

    assert states(exported) == {"finished": 1, "stopped": 1, "diverged": 1, "constraint": 1, "failed": 1}


def test_a_trial_that_is_retried_is_counted_once(exported: Exported) -> None:
    callback = search()
    callback.on_trial_start(0, [], trial(0))
    callback.on_trial_start(0, [], trial(0))

    assert states(exported) == {"running": 1}


def test_a_trial_that_waits_for_its_retry_has_no_speed(exported: Exported) -> None:
    callback = search()
    callback.on_trial_start(0, [], trial(0))
    report(callback, trial(0), 1)
    assert exported["samples_per_second", ""] == 100.0
    callback.on_trial_recover(0, [], trial(0))

    assert exported["samples_per_second", ""] == 0.0


def test_trials_of_earlier_runs_count(exported: Exported) -> None:
    """A dashboard shows the search, not the process that happens to run it."""
    epoch = {"epoch:1": {"metrics": {"score": 0.75}, "checkpoint": None}}
    stopped = create_trial(state=TrialState.COMPLETE, value=0.75, user_attrs={"outcome": "trained", **epoch})
    begun = create_trial(state=TrialState.RUNNING)
    callback = search([TrialRecord.of(stopped), replace(TrialRecord.of(begun), number=1)])
    assert states(exported) == {"stopped": 1, "interrupted": 1}
    assert exported["best_score", ""] == 0.75

    callback.on_trial_start(0, [], trial(1))
    assert states(exported) == {"stopped": 1, "running": 1}


def test_figures_are_those_of_the_running_trials(exported: Exported) -> None:
    """Their speeds add up; the wait for data is a mean over their time; the memory is that of the largest."""
    callback, first, second = search(), trial(0), trial(1)
    for each in (first, second):
        callback.on_trial_start(0, [], each)
    report(callback, first, 1, seconds=30.0, memory_device_gb=3.0)
    report(callback, second, 1, time_data=0.6)

    assert exported["samples_per_second", ""] == 200
    assert exported["data_wait", ""] == pytest.approx(0.3)
    assert (exported["memory_bytes", "host"], exported["memory_bytes", "gpu"]) == (2e9, 3e9)

    callback.on_trial_complete(0, [], first)
    assert (exported["samples_per_second", ""], exported["memory_bytes", "gpu"]) == (100, 0)

    callback.on_experiment_end([first, second])
    assert exported["samples_per_second", ""] == 0
    assert states(exported) == {"stopped": 1, "interrupted": 1}


def test_epochs_and_checkpoint_seconds_add_up(exported: Exported) -> None:
    """A trial that is refused or diverges reports no epoch."""
    callback, refused = search(), trial(1)
    report(callback, trial(0), 1, time_checkpoint=0.0)
    assert ("checkpoint_seconds", "") not in exported

    report(callback, trial(0), 2)
    callback.on_trial_result(0, [], refused, {"epoch": 0, "score": 0.0, "outcome": "constraint"})

    assert exported["epochs", ""] == 2
    assert exported["checkpoint_seconds", ""] == pytest.approx(0.5)


def test_the_best_score_is_that_of_a_trained_trial(exported: Exported) -> None:
    callback = search()
    callback.on_trial_result(0, [], trial(0), {"epoch": 0, "score": 0.0, "outcome": "constraint"})
    assert ("best_score", "") not in exported

    for epoch, score in enumerate((0.25, 0.625, 0.5), start=1):
        report(callback, trial(1), epoch, score=score)
    assert exported["best_score", ""] == 0.625


def test_each_limit_of_the_budget_has_its_share(exported: Exported) -> None:
    callback = search(seconds=900.0, hours=0.5, gpu_hours=2.0)
    report(callback, trial(0), 1)
    callback.on_trial_complete(0, [], trial(0))

    budget = {limit: share for (name, limit), share in exported.items() if name == "budget_used"}
    assert budget == {"trials": 0.25, "hours": 0.5, "gpu_hours": 0.25}


def test_a_limit_that_is_not_set_is_not_exported(exported: Exported) -> None:
    search()

    assert [limit for name, limit in exported if name == "budget_used"] == ["trials"]


def test_a_trial_whose_data_set_is_gone_is_interrupted(exported: Exported, tmp_path: Path) -> None:
    """It is resumed when the data set is back, and uses no budget."""
    callback, lost = search(), trial(0)
    callback.on_trial_start(0, [], lost)
    (tmp_path / "error.pkl").write_bytes(pickle.dumps(EnvironmentFaultError("The data set is gone.")))
    lost.error_file = str(tmp_path / "error.txt")  # type: ignore[misc]
    callback.on_trial_error(0, [], lost)

    assert states(exported) == {"interrupted": 1}
    assert exported["budget_used", "trials"] == 0


def test_the_documents_name_every_metric(exported: Exported) -> None:
    """One that no document names is not found; one that no search exports is an empty chart."""
    callback = search(hours=1.0)
    report(callback, trial(0), 1)
    counters = {"epochs", "checkpoint_seconds"}
    names = {f"ray_twinhead_{name}{'_total' if name in counters else ''}" for name, _ in exported}

    for document in ("cluster.md", "grafana.json"):
        assert set(re.findall(r"ray_twinhead_\w+", (DOCS / document).read_text())) == names


def test_the_gauge_has_the_value_of_the_objective(exported: Exported) -> None:
    """As it is measured; a trial that diverged has none."""
    callback = search(objective="-depth_rmse")
    report(callback, trial(0), 1, outcome="diverged", depth_rmse=math.inf)
    assert ("best_score", "") not in exported

    for epoch, error in enumerate((0.25, 0.125, 0.5), start=1):
        report(callback, trial(1), epoch, depth_rmse=error)
    assert exported["best_score", ""] == 0.125
