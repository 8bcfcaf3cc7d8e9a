"""Searches with several objectives: the trade-offs that they find, also after an interruption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

import numpy as np
import optuna
import pytest

from search.strategy.pareto import hypervolume
from search.strategy.proposer import KNOWN
from search.strategy.searcher import RungSearcher

RUNGS = [1, 3, 9]
Figures = Callable[[dict[str, Any], int], dict[str, float]]


def box(trial: optuna.Trial) -> None:
    for name in ("x", "y", "z"):
        trial.suggest_float(name, 0.0, 1.0)


def sized(trial: optuna.Trial) -> None:
    box(trial)
    trial.set_user_attr(KNOWN, {"size": trial.params["x"]})


def conflict(config: dict[str, Any], epoch: int) -> dict[str, float]:
    """Score wants a large x and size a small one; both want y and z, of which curves show less at first."""
    off = (config["y"] - 0.3) ** 2 + (config["z"] - 0.6) ** 2
    return {"score": float(config["x"]) ** 0.5 - 2 * off - 0.3 / epoch, "size": float(config["x"])}


def only_score(config: dict[str, Any], epoch: int) -> dict[str, float]:
    return {"score": conflict(config, epoch)["score"]}


def run_trials(
    space: Callable[[optuna.Trial], None],
    count: int,
    figures: Figures,
    *,
    seed: int = 0,
    objectives: Sequence[str] = ("-size",),
    study: optuna.Study | None = None,
) -> tuple[RungSearcher, list[dict[str, Any]]]:
    searcher = RungSearcher(space, rungs=RUNGS, seed=seed, objectives=objectives, study=study)
    configs = []
    for number in map(str, range(count)):
        configs.append(searcher.suggest(number))
        for epoch in RUNGS[:-1]:
            searcher.on_trial_result(number, {"epoch": epoch, **figures(configs[-1], epoch)})
        searcher.on_trial_complete(number, {"epoch": RUNGS[-1], **figures(configs[-1], RUNGS[-1])})
    return searcher, configs


def volume(configs: Sequence[dict[str, Any]]) -> float:
    ends = [conflict(config, RUNGS[-1]) for config in configs]
    return hypervolume(np.array([[end["score"], -end["size"]] for end in ends]), np.array([0.0, -1.0]))


@pytest.mark.slow
@pytest.mark.parametrize(("space", "figures"), [(sized, only_score), (box, conflict)], ids=["known", "reported"])
def test_trade_offs_are_found_sooner_than_at_random(space: Callable[[optuna.Trial], None], figures: Figures) -> None:
    """It is what several objectives are for: with as many trials, more of the space of both objectives is reached."""
    ours = [volume(run_trials(space, 30, figures, seed=seed)[1]) for seed in range(4)]
    rng = np.random.default_rng(0)
    chance = [volume([dict(zip("xyz", rng.random(3), strict=True)) for _ in range(30)]) for _ in range(200)]

    assert mean(ours) > np.quantile(chance, 0.95)


@pytest.mark.slow
def test_whole_front_is_explored() -> None:
    """One objective alone would draw every proposal to its own end."""
    _, several = run_trials(box, 30, conflict)
    _, one = run_trials(box, 30, conflict, objectives=())

    assert min(config["x"] for config in several[10:]) < 0.1
    assert max(config["x"] for config in several[10:]) > 0.5
    assert mean(config["x"] for config in one[10:]) > mean(config["x"] for config in several[10:]) + 0.3


@pytest.mark.slow
def test_resumed_search_knows_all_objectives() -> None:
    """The study keeps what was reported of each: a new searcher on it is as far as the one that was stopped."""

    def apart(config: dict[str, Any], _: int) -> dict[str, float]:
        return {"score": 1 - abs(config["x"] - 0.5), "gain": 1 - abs(config["y"] - 0.9)}

    searcher, _ = run_trials(box, 20, apart, objectives=["gain"])
    late = []
    for seed in range(3):
        searcher, configs = run_trials(box, 4, apart, objectives=["gain"], study=searcher.study, seed=seed)
        late += [config["y"] for config in configs]

    assert mean(abs(y - 0.9) < 0.2 for y in late) > 0.6  # by chance it is 0.3


@pytest.mark.slow
def test_failures_and_nan_objectives_are_handled() -> None:
    """A trial that diverged reports its score alone; one whose depth is not finite reports NaN."""

    def broken(config: dict[str, Any], epoch: int) -> dict[str, float]:
        figures = conflict(config, epoch)
        if config["y"] > 0.7:
            return {"score": 0.0}
        return figures | ({"size": float("nan")} if config["z"] > 0.8 else {})

    searcher, configs = run_trials(box, 30, broken)

    assert len({tuple(config.values()) for config in configs}) == 30
    assert mean(config["y"] > 0.7 for config in configs[15:]) < 0.3
    assert len(searcher.study.trials) == 30


def test_objective_without_any_value_is_handled() -> None:
    """As while the first trials run: the score guides until there is something to weigh it against."""
    _, configs = run_trials(box, 24, only_score)

    assert mean(config["x"] for config in configs[12:]) > 0.6


@pytest.mark.slow
def test_infeasible_configurations_are_not_proposed() -> None:
    """A limit holds however good the trade-off is beyond it."""

    def limited(trial: optuna.Trial) -> None:
        sized(trial)
        trial.set_constraint("size", 0.4 - trial.params["x"])

    _, configs = run_trials(limited, 24, only_score)

    assert all(config["x"] >= 0.4 for config in configs)


@pytest.mark.slow
def test_parameter_may_appear_late() -> None:
    """A condition may be met by few trials, when the models have long been without its parameter."""

    def rare(trial: optuna.Trial) -> None:
        sized(trial)
        if trial.params["x"] < 0.05:
            trial.suggest_float("deep", 0.0, 1.0)

    _, configs = run_trials(rare, 24, only_score)

    assert all(("deep" in config) == (config["x"] < 0.05) for config in configs)
    assert any("deep" in config for config in configs)


@pytest.mark.slow
def test_number_of_modelled_scores_is_bounded() -> None:
    """The models are given a bounded number of reports, those of the front among them."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    rng = np.random.default_rng(0)
    for _ in range(250):
        trial = study.ask()
        box(trial)
        for epoch in RUNGS:
            figures = conflict(trial.params, epoch)
            trial.report(figures["score"] + rng.normal(0, 1e-3), epoch)
            trial.set_user_attr(f"figures:{epoch}", {"size": figures["size"]})
        study.tell(trial, figures["score"])
    _, configs = run_trials(box, 6, conflict, study=study)

    assert mean(abs(config["y"] - 0.3) < 0.25 and abs(config["z"] - 0.6) < 0.25 for config in configs) > 0.6


@pytest.mark.slow
def test_same_seed_gives_same_proposals() -> None:
    """A search is to be repeated by its seed alone."""
    first, again = (run_trials(sized, 14, only_score, seed=3)[1] for _ in range(2))

    assert first == again
