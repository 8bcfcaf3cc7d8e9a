"""Importance of parameters: it agrees with Optuna, with intervals that depend on the number of trials."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from search.results import importance as measured
from search.results.importance import MIN_TRIALS, importance

SPACE: dict[str, BaseDistribution] = {
    "optimizer.lr": FloatDistribution(1e-4, 1.0, log=True),
    "loss.dice": FloatDistribution(0.0, 2.0),
    "data.batch": IntDistribution(4, 64, log=True),
    "model.width": IntDistribution(2, 9),
    "model.family": CategoricalDistribution(["a", "b", "c"]),
    "policy.warmup": FloatDistribution(0.0, 0.5, step=0.1),
    "policy.constant": FloatDistribution(1.0, 1.0),
}


def searched(count: int, seed: int = 0) -> tuple[list[FrozenTrial], list[float]]:
    """Trials of a random search whose score depends on the learning rate, a bit on the family, and on chance.

    A third of them have 'model.width', and the first three have 'policy.rare'.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    chance = np.random.default_rng(seed)
    trials, scores = [], []
    for number in range(count):
        space = {name: kind for name, kind in SPACE.items() if name != "model.width" or number % 3 == 0}
        if number < 3:
            space["policy.rare"] = FloatDistribution(0.0, 1.0)
        params: dict[str, Any] = study.ask(space).params
        score = -abs(math.log10(params["optimizer.lr"]) + 2) + 0.3 * (params["model.family"] == "a")
        scores.append(score + 0.1 * chance.normal())
        trials.append(create_trial(value=scores[-1], params=params, distributions=space))
    return trials, scores


@pytest.mark.parametrize("count", [40, 97])
def test_shares_agree_with_optuna(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Ranges, whole numbers, steps, choices, parameters that some trials lack, and ties at the border."""
    monkeypatch.setattr(measured, "MIN_TRIALS", 1)
    trials, scores = searched(count)
    scores = [round(score, 1) for score in scores]
    study = optuna.create_study(direction="maximize")
    for trial, score in zip(trials, scores, strict=True):
        trial.value = score
        study.add_trial(trial)
    good = count // 8
    with warnings.catch_warnings(action="ignore"):
        evaluator = PedAnovaImportanceEvaluator(target_quantile=(good - 0.5) / count)
        wanted = get_param_importances(study, evaluator=evaluator)

    found = importance(trials, scores, good).parameters

    assert {name: figure.share for name, figure in found.items()} == pytest.approx(wanted, abs=1e-9)
    assert sum(figure.share for figure in found.values()) == pytest.approx(1)


def test_parameter_of_few_trials_has_no_importance() -> None:
    """Three trials of which two are good would make it the most important of all."""
    trials, scores = searched(30)
    found = importance(trials, scores, 5)

    assert found.too_few == {"policy.rare": 3}
    assert "policy.rare" not in found.parameters
    assert min(figure.trials for figure in found.parameters.values()) >= MIN_TRIALS
    assert found.parameters["model.width"].trials == 10


def test_interval_of_an_important_parameter_is_above_chance() -> None:
    """And one that holds its share; more trials make it narrower."""
    trials, scores = searched(300)
    many = importance(trials, scores, 30).parameters
    few = importance(trials[:40], scores[:40], 5).parameters
    deciding = many["optimizer.lr"]

    assert next(iter(many)) == "optimizer.lr"
    assert deciding.low < deciding.share < deciding.high
    assert deciding.low > many["loss.dice"].high
    assert all(figure.low <= figure.share <= figure.high for figure in (*many.values(), *few.values()))
    assert deciding.high - deciding.low < few["optimizer.lr"].high - few["optimizer.lr"].low


def test_intervals_are_reproducible() -> None:
    """Running the command again gives the same numbers."""
    trials, scores = searched(40)

    assert importance(trials, scores, 5) == importance(trials, scores, 5)
    assert importance(trials, scores, 5, seed=1) != importance(trials, scores, 5)


def test_a_section_is_the_sum_of_its_parameters() -> None:
    """A choice that many parameters describe is not many small ones."""
    trials, scores = searched(60)
    found = importance(trials, scores, 6)
    model = [figure.share for name, figure in found.parameters.items() if name.startswith("model.")]

    assert next(iter(found.sections)) == "optimizer"
    assert found.sections["model"].share == pytest.approx(sum(model))
    assert found.sections["model"].trials == 60
    assert sum(figure.share for figure in found.sections.values()) == pytest.approx(1)


def test_trials_without_a_common_parameter_have_no_importances() -> None:
    """Each parameter is of too few of them, which is said of each."""
    trials, scores = searched(9)
    found = importance(trials, scores, 4)

    assert (found.parameters, found.sections) == ({}, {})
    assert found.too_few["optimizer.lr"] == 9


def test_identical_scores_give_no_important_parameter() -> None:
    """Nothing divides by zero."""
    trials, _ = searched(20)
    found = importance(trials, [0.5] * 20, 5)

    assert {figure.share for figure in found.parameters.values()} == {0.0}
