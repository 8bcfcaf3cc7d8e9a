"""Proposals of `RungSearcher` with constraints, in small spaces, and with parameters that appear late."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import mean
from typing import Any

import optuna
import pytest

from search.spec.spec import load_spec
from search.strategy.proposer import MIN_RESULTS, RANDOM_EVERY, UNBUILDABLE
from search.strategy.searcher import RungSearcher
from search.strategy.space import define_space, unbuildable

Space = Callable[[optuna.Trial], "dict[str, Any] | None"]


def searcher_of(space: Space, *, seed: int = 0, study: optuna.Study | None = None) -> RungSearcher:
    return RungSearcher(space, rungs=[1, 3, 9], seed=seed, study=study)


def run_trials(
    searcher: RungSearcher, count: int, score: Callable[[dict[str, Any]], float], limit: float = math.inf
) -> list[dict[str, Any]]:
    """Trials of constant scores, with the constraint that x must not be above a limit."""
    configs = []
    for number in range(count):
        configs.append(searcher.suggest(str(number)))
        if limit < math.inf and (trial := searcher.running(str(number))):
            trial.set_constraint("x", configs[-1]["x"] - limit)
        for epoch in (1, 3):
            searcher.on_trial_result(str(number), {"epoch": epoch, "score": score(configs[-1])})
        searcher.on_trial_complete(str(number), {"epoch": 9, "score": score(configs[-1])})
    return configs


def line(trial: optuna.Trial) -> None:
    trial.suggest_float("x", 0.0, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [False, True])
def test_constraints_are_learned(resumed: bool) -> None:
    """The best allowed trial is wanted: the score alone would draw every proposal beyond the limit."""
    late: list[float] = []
    for seed in range(4):
        searcher = searcher_of(line, seed=seed)
        run_trials(searcher, 10, lambda config: float(config["x"]), limit=0.4)
        if resumed:
            searcher = searcher_of(line, seed=seed, study=searcher.study)
        late += [config["x"] for config in run_trials(searcher, 4, lambda config: float(config["x"]), limit=0.4)]

    assert mean(abs(x - 0.4) < 0.15 for x in late) > 0.7
    assert 0.3 < mean(x <= 0.4 for x in late) < 1


@pytest.mark.slow
def test_feasibility_is_searched_for_before_any_feasible_trial() -> None:
    """Before the first allowed trial there is no best one to improve on."""
    late: list[float] = []
    for seed in range(4):
        configs = run_trials(searcher_of(line, seed=seed), 24, lambda config: float(config["x"]), limit=-0.1)
        late += [config["x"] for config in configs[-4:]]

    assert mean(late) < 0.3  # the limit is nearest at 0


@pytest.mark.slow
def test_known_infeasible_configurations_are_not_proposed() -> None:
    """A network that is too large needs no trial to be known as such."""

    def limited(trial: optuna.Trial) -> None:
        trial.set_constraint("size", trial.suggest_float("x", 0.0, 1.0) - 0.3)

    configs = run_trials(searcher_of(limited), 3 * RANDOM_EVERY, lambda config: float(config["x"]))
    assert all(config["x"] <= 0.3 for config in configs)


@pytest.mark.slow
def test_fully_infeasible_space_is_still_sampled() -> None:
    """Tune takes None for 'no more trials'."""

    def forbidden(trial: optuna.Trial) -> None:
        trial.set_constraint("size", 1 + trial.suggest_float("x", 0.0, 1.0))

    configs = run_trials(searcher_of(forbidden), 2 * MIN_RESULTS, lambda config: float(config["x"]))
    assert all(0 <= config["x"] <= 1 for config in configs)


def test_a_parameter_may_appear_among_infeasible_candidates() -> None:
    """Candidates are sampled in rounds until enough are feasible: a later round may have a parameter that is new."""

    def forbidden(trial: optuna.Trial) -> None:
        if trial.suggest_float("x", 0.0, 1.0) > 0.95 and trial.number:
            trial.suggest_float("y", 0.0, 1.0)
        trial.set_constraint("size", 1.0)

    for seed in range(4):
        configs = run_trials(searcher_of(forbidden, seed=seed), 4, lambda config: float(config["x"]))
        assert all(0 <= config["x"] <= 1 for config in configs)


@pytest.mark.slow
def test_small_space_is_exhausted() -> None:
    """A configuration is not proposed again while untried ones exist; then proposals repeat."""

    def small(trial: optuna.Trial) -> None:
        trial.suggest_categorical("c", ["a", "b", "c"])
        trial.suggest_int("n", 1, 4)

    configs = run_trials(searcher_of(small), 40, lambda config: float(config["n"]))
    assert len({tuple(config.values()) for config in configs[:24]}) == 12


def test_space_without_parameters_is_proposed_from() -> None:
    """Nothing to search is no reason to fail."""
    assert (
        run_trials(searcher_of(lambda _: {"fixed": 1}), 2 * MIN_RESULTS, lambda _: 0.5)
        == [{"fixed": 1}] * 2 * MIN_RESULTS
    )


@pytest.mark.slow
def test_parameter_may_appear_late() -> None:
    """A condition may be met by one trial in a hundred, when the model has long been without its parameter."""

    def rare(trial: optuna.Trial) -> None:
        if trial.suggest_float("x", 0.0, 1.0) > 0.97:
            trial.suggest_float("deep", 0.0, 1.0)

    configs = run_trials(searcher_of(rare), 40, lambda config: config["x"] + config.get("deep", 0.0))
    assert all(("deep" in config) == (config["x"] > 0.97) for config in configs)
    assert max(config.get("deep", 0.0) for config in configs) > 0.8


@pytest.mark.slow
def test_ranges_may_depend_on_other_parameters() -> None:
    """The model sees one axis, the space gives each trial its part of it."""

    def dependent(trial: optuna.Trial) -> None:
        high = 1.0 + trial.suggest_int("n", 0, 3)
        trial.suggest_float("x", 0.0, high)

    configs = run_trials(searcher_of(dependent), 40, lambda config: float(config["x"]))
    assert all(0 <= config["x"] <= 1 + config["n"] for config in configs)
    assert max(config["x"] for config in configs) > 3.8


@pytest.mark.slow
def test_identical_scores_are_handled() -> None:
    """As of networks that all diverged to the same value: no division by their spread."""
    configs = run_trials(searcher_of(line), 3 * MIN_RESULTS, lambda _: 0.0)

    assert len({config["x"] for config in configs}) == len(configs)


@pytest.mark.slow
def test_number_of_modelled_scores_is_bounded() -> None:
    """The model is given a bounded number of scores: the best, and others from all over their range."""
    searcher = searcher_of(line)
    for number in range(300):
        trial = searcher.study.ask()
        x = trial.suggest_float("x", 0.0, 1.0)
        trial.report(-abs(x - 0.7), 1 if number % 2 else 9)
        searcher.study.tell(trial, -abs(x - 0.7))
    after = searcher_of(line, study=searcher.study)
    configs = run_trials(after, 5, lambda config: -abs(config["x"] - 0.7))

    assert mean(abs(config["x"] - 0.7) for config in configs) < 0.15


@pytest.mark.slow
def test_configurations_that_cannot_be_built_are_not_proposed() -> None:
    """Scores that grow as weights fall lead to where all losses of the mask are left out."""
    names = ("bce", "dice", "l1")
    space = define_space(load_spec(data_path="set"))
    searcher = RungSearcher(space, rungs=[1, 3, 9], describe=lambda _, values: dict(values))
    configs = run_trials(searcher, 40, lambda config: -sum(config["loss"]["mask"][name] for name in names))

    assert not [why for config in configs if (why := unbuildable(config))]
    assert any(sum(config["loss"]["mask"][name] for name in names) < 0.1 for config in configs)


def small_part(trial: optuna.Trial) -> None:
    """Only one configuration in fifty can be built."""
    if trial.suggest_float("x", 0.0, 1.0) > 0.02:
        trial.set_constraint(UNBUILDABLE, 1.0)


@pytest.mark.slow
def test_small_feasible_part_of_a_space_is_found() -> None:
    """Each proposal elsewhere would be a trial that is not trained."""
    configs = run_trials(searcher_of(small_part), 30, lambda config: float(config["x"]))

    assert all(config["x"] <= 0.02 for config in configs)


def test_trial_that_cannot_be_built_hides_no_other() -> None:
    """Such a trial, as a first one can be, is the only one with this constraint; a model of it would refuse all."""
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"x": 0.9})

    def lower_half(trial: optuna.Trial) -> None:
        if trial.suggest_float("x", 0.0, 1.0) > 0.5:
            trial.set_constraint(UNBUILDABLE, 1.0)

    configs = run_trials(searcher_of(lower_half, study=study), 25, lambda config: -abs(config["x"] - 0.3))

    assert all(config["x"] <= 0.5 for config in configs[1:])
    assert mean(abs(config["x"] - 0.3) for config in configs[-8:]) < 0.1
