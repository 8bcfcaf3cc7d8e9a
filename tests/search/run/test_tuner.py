"""Running trials with Tune: limits, Ctrl-C, and resumed searches."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import optuna
import pytest
from optuna.trial import TrialState
from ray import tune

from search.run.tuner import Stopper, tune_spec
from search.spec.spec import load_spec
from search.strategy.limiter import SlotLimiter
from search.strategy.searcher import RungSearcher
from search.strategy.space import default_parameters
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import TrialRecord
from trainable.config import TrialConfig, build
from trainable.job import TrialData, TrialJob, Workers


def test_study_is_reopened(tmp_path: Path) -> None:
    """A search continues with the trials in its directory."""
    experiment = Experiment(storage=tmp_path, name="s")
    experiment.create(load_spec(data_path="set"))
    trial = open_study(experiment).ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.report(0.5, 1)

    [again] = open_study(experiment).trials
    assert (again.number, again.params, again.state) == (0, trial.params, TrialState.RUNNING)
    assert again.intermediate_values == {1: 0.5}


def test_time_limit_ends_a_search() -> None:
    """A budget in hours holds even if no trial reports."""
    assert Stopper(seconds=1e-9).stop_all()
    assert not Stopper(seconds=3600).stop_all()
    assert not Stopper().stop_all()


def test_stopper_never_ends_a_single_trial() -> None:
    """When a trial ends is the scheduler's decision alone."""
    assert Stopper(seconds=1e-9)("trial", {"score": 0.0}) is False


def test_second_ctrl_c_is_immediate() -> None:
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
        objective=experiment.objective,
    )
    tune_spec(experiment, experiment.spec(), job, open_study(experiment), slots=lambda: 1, stopper=Stopper())
    return _TunerStub.made[0] if _TunerStub.made else None


def experiment_with(storage: Path, curves: list[list[float]], trials: int, objective: str = "score") -> Experiment:
    """An experiment whose earlier run ended trials with these values of the objective."""
    experiment = Experiment(storage=storage, name="s")
    overrides = [("budget.trials", str(trials)), ("scheduler.grace_epochs", "1"), ("objective", objective)]
    experiment.create(load_spec(overrides=overrides, data_path="set"))
    study = open_study(experiment)
    for curve in curves:
        trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        for epoch, score in enumerate(curve, start=1):
            trial.report(score, epoch)
        study.tell(trial, max(curve))
    return experiment


@pytest.mark.parametrize(("score", "end"), [(0.3, 1), (0.95, 3)])
def test_resumed_search_keeps_the_cutoffs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped_at: Callable[..., int],
    score: float,
    end: int,
) -> None:
    """A new scheduler would let the first trial after an interruption run to its end, however bad it is."""
    ended = experiment_with(tmp_path, [[0.9] * 9, [0.2], [0.3], [0.4]], trials=6)
    config = set_up(ended, monkeypatch)

    assert config is not None
    curve = [score, score, 0.1, *[0.1] * 6]
    assert stopped_at(config.scheduler, "new", curve) == end


@pytest.mark.parametrize(("error", "end"), [(0.7, 1), (0.05, 3)])
def test_resumed_search_keeps_the_cutoffs_of_its_objective(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped_at: Callable[..., int],
    error: float,
    end: int,
) -> None:
    """Of errors, the smaller ones continue; the searcher reads the same key."""
    ended = experiment_with(tmp_path, [[0.1] * 9, [0.8], [0.7], [0.6]], trials=6, objective="-depth_rmse")
    config = set_up(ended, monkeypatch)

    assert config is not None
    assert (config.search_alg.metric, config.search_alg.mode) == ("depth_rmse", "min")
    assert stopped_at(config.scheduler, "new", [error, error, *[0.9] * 7], metric="depth_rmse") == end


def test_resumed_search_runs_the_remaining_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The budget is that of the whole search; one that is spent starts nothing."""
    left = set_up(experiment_with(tmp_path / "a", [[0.5]] * 4, trials=6), monkeypatch)
    spent = set_up(experiment_with(tmp_path / "b", [[0.5]] * 4, trials=4), monkeypatch)

    assert left is not None
    assert left.num_samples == 2
    assert spent is None


def test_enqueued_trials_run_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is proposed has a directory's name, a number and a whole configuration."""
    experiment = experiment_with(tmp_path, [], trials=6)
    open_study(experiment).enqueue_trial(default_parameters(experiment.spec()))
    config = set_up(experiment, monkeypatch)
    searcher = cast("RungSearcher", cast("SlotLimiter", config.search_alg).searcher if config else None)
    given = searcher.suggest("a")

    assert (given["name"], given["number"], given["resume_from"]) == ("00000", 0, None)
    assert build(TrialConfig, given["trial"], source="the test").policy == TrialConfig().policy
    assert TrialRecord.of(searcher.study.trials[0]).config == given["trial"]


def test_invalid_proposal_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fail three times, and take the warm process with it each time."""
    experiment = experiment_with(tmp_path, [], trials=6)
    open_study(experiment).enqueue_trial({**default_parameters(experiment.spec()), "loss.mask.bce": 0.0})
    config = set_up(experiment, monkeypatch)
    searcher = cast("RungSearcher", cast("SlotLimiter", config.search_alg).searcher if config else None)

    assert searcher.suggest("a")["refused"].startswith("its values do not go together (The section 'loss'")
