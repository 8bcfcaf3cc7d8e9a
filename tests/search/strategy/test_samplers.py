"""Optuna's samplers behind `RungSearcher`: same study, spaces, first trials, constraints and resumption as ours."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search.spec.sampler import NAMES, OURS, SamplerNotation
from search.strategy.proposer import KNOWN
from search.strategy.samplers import SamplerProposer
from search.strategy.searcher import RungSearcher
from search.study.trials import trial_records
from trainable.metrics.objective import Objective

RUNGS = [1, 3, 9]
SAMPLERS: list[Any] = [name for name in NAMES if name not in (OURS, "CmaEsSampler", "GPSampler")]
"""CMA-ES needs a further package."""
SAMPLERS += [pytest.param("GPSampler", marks=pytest.mark.slow)]


def plane(trial: optuna.Trial) -> None:
    trial.suggest_float("x", 0.0, 1.0)
    trial.suggest_float("y", 0.0, 1.0)


def conditional(trial: optuna.Trial) -> None:
    if trial.suggest_categorical("name", ["sgd", "adamw"]) == "sgd":
        trial.suggest_float("lr@sgd", 0.1, 1.0, log=True)
    else:
        trial.suggest_float("lr@adamw", 1e-4, 1e-2, log=True)


def limited(trial: optuna.Trial) -> None:
    trial.set_constraint("width", trial.suggest_float("x", 0.0, 1.0) - 0.5)


def searcher_of(
    sampler: SamplerNotation,
    space: Callable[[optuna.Trial], None] = plane,
    *,
    mode: str = "max",
    seed: int = 0,
    study: optuna.Study | None = None,
    objectives: tuple[str, ...] = (),
) -> RungSearcher:
    return RungSearcher(
        space,
        objective=Objective.of("score" if mode == "max" else "-score"),
        rungs=RUNGS,
        seed=seed,
        sampler=sampler,
        study=study,
        objectives=objectives,
    )


def run(searcher: RungSearcher, count: int, score: Callable[[dict[str, Any]], float], last: int = 9) -> list[Any]:
    """The configurations of trials that report at each rung up to the last one."""
    configs = []
    for number in range(count):
        name = f"{len(searcher.study.trials)}-{number}"
        configs.append(searcher.suggest(name))
        *before, end = (rung for rung in RUNGS if rung <= last)
        for epoch in before:
            searcher.on_trial_result(name, {"epoch": epoch, "score": score(configs[-1])})
        searcher.on_trial_complete(name, {"epoch": end, "score": score(configs[-1])})
    return configs


def near_a_corner(config: dict[str, Any]) -> float:
    return -((float(config["x"]) - 0.9) ** 2) - (float(config["y"]) - 0.2) ** 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_gives_same_proposals(sampler: str) -> None:
    """A search is to be repeated by its seed alone."""
    first, again = (run(searcher_of(sampler, seed=3), 15, near_a_corner) for _ in range(2))
    other = run(searcher_of(sampler, seed=4), 15, near_a_corner)

    assert first == again
    assert first != other


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_resumed_search_repeats_no_proposal(sampler: str) -> None:
    """A new sampler of the same seed would begin with the same random numbers."""
    study = optuna.create_study(direction="maximize")
    before = run(searcher_of(sampler, study=study), 6, near_a_corner)
    after = run(searcher_of(sampler, study=study), 6, near_a_corner)

    assert not [config for config in after if config in before]
    assert len(study.trials) == 12


def test_sequence_continues_after_an_interruption() -> None:
    """Otherwise the points of both parts would not cover the space together."""
    study = optuna.create_study(direction="maximize")
    parts = [run(searcher_of("QMCSampler", study=study), 5, near_a_corner) for _ in range(2)]

    assert [*parts[0], *parts[1]] == run(searcher_of("QMCSampler"), 10, near_a_corner)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_conditional_parameters_are_proposed(sampler: str) -> None:
    """Each trial has those of its choice alone."""
    configs = run(searcher_of(sampler, conditional), 14, lambda config: float(config["name"] == "sgd"))

    assert {frozenset(config) for config in configs} == {frozenset({"name", f"lr@{n}"}) for n in ("sgd", "adamw")}


def test_first_trials_run_first_and_decide_what_is_proposed() -> None:
    """Recipes teach the sampler as they teach ours: by their scores it proposes a large x, or a small one."""
    means = []
    for sign in (1, -1):
        study = optuna.create_study(direction="maximize")
        starts = [{"x": number / 11, "y": 0.5} for number in range(12)]
        for start in starts:
            study.enqueue_trial(start)
        searcher = searcher_of("tpe", study=study)
        assert run(searcher, 12, lambda config, sign=sign: sign * config["x"]) == starts  # type: ignore[misc]
        proposed = [searcher.suggest(str(number))["x"] for number in range(8)]
        means.append(sum(map(float, proposed)) / 8)  # type: ignore[arg-type]

    assert means[0] > means[1] + 0.2


@pytest.mark.parametrize("mode", ["max", "min"])
def test_sampler_follows_the_objective(mode: str) -> None:
    """TPE ends near the best configuration, of a score and of an error."""
    sign = 1 if mode == "max" else -1
    late = run(searcher_of("tpe", mode=mode), 40, lambda config: sign * near_a_corner(config))[-10:]

    assert sum(-near_a_corner(config) for config in late) / 10 < 0.05  # of random ones 0.41


def test_short_trials_do_not_outrank_long_ones() -> None:
    """The scores of stopped trials are of another epoch: though larger here, they must not draw the proposals."""
    searcher = searcher_of("tpe")
    run(searcher, 15, near_a_corner)
    for _ in range(2):
        run(searcher, 6, lambda config: 10 * float(config["y"]), last=1)

    assert sum(config["y"] for config in run(searcher, 10, near_a_corner)) / 10 < 0.5


def test_known_violations_are_not_proposed() -> None:
    """A trial over a limit would be wasted."""
    configs = run(searcher_of("random", limited), 20, lambda config: float(config["x"]))

    assert max(config["x"] for config in configs) <= 0.5


@pytest.mark.slow
def test_recipe_that_the_space_alone_would_refuse_is_a_feasible_trial() -> None:
    """It has values that the space fixes otherwise. With a constraint of its own, GPSampler would raise an error."""

    def space(trial: optuna.Trial) -> None:
        if trial.suggest_float("x", 0.0, 1.0) > 0.9 and "fixed" not in trial.user_attrs:
            trial.set_constraint("unbuildable", 1.0)

    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({"x": 0.95}, user_attrs={"fixed": {}})
    searcher = searcher_of({"GPSampler": {"n_startup_trials": 3}}, space, study=study)

    assert run(searcher, 5, lambda config: -float(config["x"]))[0] == {"x": 0.95}


def test_trial_that_was_lost_before_sampling_is_known_as_it_ran() -> None:
    """Not with parameters that the sampler draws for it once more."""
    study = optuna.create_study(direction="maximize")
    study.ask()
    searcher = searcher_of("tpe", study=study)
    run(searcher, 2, near_a_corner)
    assert isinstance(searcher._proposer, SamplerProposer)

    assert searcher._proposer._study.trials[0].params == study.trials[0].params


def test_failed_trials_repel() -> None:
    """The best scores border on a region in which trials diverge: were that ignored, all later ones would lie there."""
    configs = run(searcher_of("tpe"), 60, lambda c: math.nan if c["x"] > 0.5 else near_a_corner(c))

    assert sum(config["x"] > 0.5 for config in configs[-30:]) < 20


def test_study_of_the_search_is_as_with_ours() -> None:
    """States and values do not depend on the sampler."""
    studies = []
    for sampler in (OURS, "tpe"):
        searcher = searcher_of(sampler)
        run(searcher, 2, lambda _: 0.5)
        run(searcher, 1, lambda _: 0.25, last=1)
        run(searcher, 1, lambda _: math.nan)
        studies.append([(trial.state, trial.values, trial.intermediate_values) for trial in searcher.study.trials])

    assert str(studies[0]) == str(studies[1])
    assert [state for state, *_ in studies[1]] == [TrialState.COMPLETE] * 3 + [TrialState.FAIL]


def test_trials_name_their_sampler() -> None:
    """As the spec does, without arguments."""
    searchers = [searcher_of("tpe"), searcher_of({"TPESampler": {"n_startup_trials": 3}})]
    for searcher in searchers:
        run(searcher, 1, near_a_corner)

    assert [trial_records(each.study)[0].proposed_by for each in searchers] == ["tpe", "TPESampler"]


def test_several_objectives_are_searched() -> None:
    """NSGA-II approaches the front of a score and a size that is known before a trial runs."""

    def space(trial: optuna.Trial) -> None:
        size = trial.suggest_float("x", 0.0, 1.0)
        trial.suggest_float("y", 0.0, 1.0)
        trial.set_user_attr(KNOWN, {"macs": size})

    sampler = {"NSGAIISampler": {"population_size": 10}}
    configs = run(searcher_of(sampler, space, objectives=("-macs",)), 80, lambda c: c["x"] - (c["y"] - 0.7) ** 2)

    assert sum(abs(config["y"] - 0.7) for config in configs[-20:]) / 20 < 0.2  # of random ones 0.29
    assert max(c["x"] for c in configs[-20:]) - min(c["x"] for c in configs[-20:]) > 0.3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_warn_of_nothing(sampler: str) -> None:
    """A warning of Optuna's would go to the terminal in the middle of the search."""
    with warnings.catch_warnings(action="error"):
        run(searcher_of(sampler, conditional), 12, lambda _: 0.5)
