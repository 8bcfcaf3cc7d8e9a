"""Rungs and scheduling: what ASHA stops, and that a search that goes on is as strict as before."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import optuna
import pytest
from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from search.experiment import Experiment
from search.searcher import RungSearcher
from search.spec import load_spec
from search.trials import TrialRecord
from search.tuner import Stopper, Tuner, build_scheduler, open_study, rung_epochs
from trainable.config import TrialConfig, build
from trainable.trainer import TrialJob, Workers
from trainable.trial import TrialData


@dataclass
class StubTrial:
    """As much of a trial as the scheduler looks at."""

    trial_id: str


def stopped_at(scheduler: TrialScheduler, name: str, curve: list[float]) -> int:
    """The epoch after which a trial with this curve is stopped."""
    trial = cast("Trial", StubTrial(name))
    controller = cast("Any", None)
    scheduler.on_trial_add(controller, trial)
    for epoch, score in enumerate(curve, start=1):
        result = {"epoch": epoch, "score": score}
        if scheduler.on_trial_result(controller, trial, result) == TrialScheduler.STOP:
            scheduler.on_trial_complete(controller, trial, result)
            return epoch
    raise AssertionError("the scheduler let the trial run beyond its last epoch")


@pytest.mark.parametrize(
    ("max_epochs", "grace_epochs", "factor", "rungs"),
    [
        (9, 1, 3, [1, 3, 9]),
        (81, 1, 3, [1, 3, 9, 27, 81]),
        (10, 1, 3, [1, 3, 9, 10]),
        (16, 2, 4, [2, 8, 16]),
        (1, 1, 3, [1]),
        (5, 5, 2, [5]),
        (4, 3, 2, [3, 4]),
    ],
)
def test_rungs(max_epochs: int, grace_epochs: int, factor: float, rungs: list[int]) -> None:
    """Checkpoints are due at these epochs, and the searcher learns at them."""
    assert rung_epochs(max_epochs=max_epochs, grace_epochs=grace_epochs, reduction_factor=factor) == rungs


@pytest.mark.parametrize(("max_epochs", "grace_epochs", "factor"), [(9, 1, 3), (16, 2, 4), (20, 1, 2.5), (30, 2, 1.5)])
def test_rungs_are_where_the_scheduler_stops(max_epochs: int, grace_epochs: int, factor: float) -> None:
    """The searcher and the scheduler must speak of the same epochs, whatever the factor.

    Each trial of falling worth is stopped at the next rung, so that every rung of the scheduler's shows.
    """
    setting = {"max_epochs": max_epochs, "grace_epochs": grace_epochs, "reduction_factor": factor}
    stops = set()
    for last_good in range(max_epochs + 1):
        scheduler = build_scheduler(metric="score", mode="max", **setting)  # type: ignore[arg-type]
        for number in range(4):
            stopped_at(scheduler, f"good-{number}", [1.0] * max_epochs)
        stops.add(stopped_at(scheduler, "falls", [2.0] * last_good + [0.0] * (max_epochs - last_good)))

    assert rung_epochs(**setting) == sorted(stops)  # type: ignore[arg-type]


def test_bad_trials_are_stopped_and_good_ones_go_on() -> None:
    """The point of ASHA: epochs go to those that are worth it."""
    scheduler = build_scheduler(metric="score", mode="max", max_epochs=9, grace_epochs=1, reduction_factor=3)
    ends = [stopped_at(scheduler, str(score), [score] * 9) for score in (0.9, 0.1, 0.2, 0.3, 0.95, 0.5)]

    assert ends == [9, 1, 1, 1, 9, 1]


def test_a_lower_score_can_be_the_better_one() -> None:
    """The same with an error as the objective."""
    scheduler = build_scheduler(metric="score", mode="min", max_epochs=9, grace_epochs=1, reduction_factor=3)

    assert [stopped_at(scheduler, str(score), [score] * 9) for score in (0.1, 0.9, 0.05)] == [9, 1, 9]


def test_no_trial_is_stopped_within_its_grace() -> None:
    """A slow start is not held against it."""
    scheduler = build_scheduler(metric="score", mode="max", max_epochs=9, grace_epochs=3, reduction_factor=3)
    stopped_at(scheduler, "good", [0.9] * 9)

    assert stopped_at(scheduler, "slow", [0.0, 0.0, 0.95, *[0.95] * 6]) == 9
    assert stopped_at(scheduler, "bad", [0.0] * 9) == 3


def test_the_study_is_found_again(tmp_path: Path) -> None:
    """A search goes on with the trials that lie in its directory."""
    experiment = Experiment(storage=tmp_path, name="s")
    experiment.create(load_spec(data_path="set"))
    trial = open_study(experiment).ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.report(0.5, 1)

    [again] = open_study(experiment).trials
    assert (again.number, again.params, again.state) == (0, trial.params, TrialState.RUNNING)
    assert again.intermediate_values == {1: 0.5}


def test_time_ends_a_search() -> None:
    """A budget in hours holds even if no trial reports."""
    assert Stopper(seconds=1e-9).stop_all()
    assert not Stopper(seconds=3600).stop_all()
    assert not Stopper().stop_all()


def test_no_report_ends_a_trial() -> None:
    """When a trial ends is the scheduler's decision alone."""
    assert Stopper(seconds=1e-9)("trial", {"score": 0.0}) is False


def test_ctrl_c_is_asked_for_once() -> None:
    """The first is a request, the second does what it did before: nobody is kept waiting against their will."""
    stopper, told = Stopper(), []
    # Set here, for a shell that runs the tests in the background has Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), stopper.on_ctrl_c(lambda: told.append("told")):
            signal.raise_signal(signal.SIGINT)
            first = stopper.stop_all()
            signal.raise_signal(signal.SIGINT)
        after = signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)

    assert first
    assert told == ["told"]
    assert after is signal.default_int_handler


class _TunerStub:
    """In the place of Ray Tune's: keeps how it was set up, and runs nothing."""

    made: ClassVar[list[tune.TuneConfig]] = []

    def __init__(self, _: Any, *, tune_config: tune.TuneConfig, run_config: tune.RunConfig) -> None:  # noqa: ARG002
        self.made.append(tune_config)

    def fit(self) -> None:
        pass


def set_up(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> tune.TuneConfig | None:
    """How a search on what the experiment's study holds is given to Ray Tune; None if it is not."""
    monkeypatch.setattr(tune, "Tuner", _TunerStub)
    _TunerStub.made.clear()
    job = TrialJob(
        data=TrialData(path="set", fingerprint="0"),
        workers=Workers(),
        checkpoint_epochs=frozenset(),
        group_storage=str(experiment.groups),
    )
    Tuner(experiment, experiment.spec(), job, concurrent=1).run(open_study(experiment), Stopper())
    return _TunerStub.made[0] if _TunerStub.made else None


def experiment_with(storage: Path, curves: list[list[float]], trials: int) -> Experiment:
    """An experiment whose earlier run ended trials with these scores."""
    experiment = Experiment(storage=storage, name="s")
    experiment.create(
        load_spec(overrides=[("budget.trials", str(trials)), ("scheduler.grace_epochs", "1")], data_path="set")
    )
    study = open_study(experiment)
    for curve in curves:
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        for epoch, score in enumerate(curve, start=1):
            trial.report(score, epoch)
        study.tell(trial, max(curve))
    return experiment


@pytest.mark.parametrize(("score", "end"), [(0.3, 1), (0.95, 3)])
def test_a_resumed_search_is_as_strict_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: float, end: int
) -> None:
    """A new scheduler would let the first trial after an interruption run to its end, however bad it is."""
    ended = experiment_with(tmp_path, [[0.9] * 9, [0.2], [0.3], [0.4]], trials=6)
    config = set_up(ended, monkeypatch)

    assert config is not None
    curve = [score, score, 0.1, *[0.1] * 6]
    assert stopped_at(cast("TrialScheduler", config.scheduler), "new", curve) == end


def test_a_resumed_search_runs_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is that of the whole search; one that is spent starts nothing."""
    left = set_up(experiment_with(tmp_path / "a", [[0.5]] * 4, trials=6), monkeypatch)
    spent = set_up(experiment_with(tmp_path / "b", [[0.5]] * 4, trials=4), monkeypatch)

    assert left is not None
    assert left.num_samples == 2
    assert spent is None


def test_a_new_search_starts_from_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is proposed has a directory's name, a number and a whole configuration."""
    config = set_up(experiment_with(tmp_path, [], trials=6), monkeypatch)
    searcher = cast("RungSearcher", config.search_alg if config else None)
    given = searcher.suggest("a")

    assert (given["name"], given["number"], given["resume_from"]) == ("00000", 0, None)
    assert build(TrialConfig, given["trial"], source="the test").policy == TrialConfig().policy
    assert TrialRecord.of(searcher.study.trials[0]).config == given["trial"]
