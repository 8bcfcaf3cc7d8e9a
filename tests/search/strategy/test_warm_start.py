"""First trials of a search: the exact recipes, as far as space and spec allow them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from search.spec.spec import SearchSpec, check_spec
from search.strategy.space import define_space
from search.strategy.warm_start import enqueue, enqueue_starts, find_starts, start
from search.study.trials import TrialRecord
from search.terminal import Screen
from trainable.config import TrialConfig, build
from trainable.recipes import PORTFOLIO, RECIPES, load_recipe

NOWHERE = Path("nowhere")
"""A storage without earlier searches."""


def spec_of(**sections: dict[str, Any]) -> SearchSpec:
    return check_spec(sections, source="the test", data_path="set")


def first_trials(spec: SearchSpec) -> dict[str, TrialConfig]:
    """The configuration of every trial that waits in a new study, by its recipe."""
    study = optuna.create_study()
    enqueue_starts(study, spec, NOWHERE)
    waiting = len(study.get_trials(deepcopy=False))
    drawn = [(trial := study.ask(), define_space(spec)(trial)) for _ in range(waiting)]
    return {trial.user_attrs.get("recipe", ""): build(TrialConfig, values, source="a start") for trial, values in drawn}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_tried_unchanged(name: str) -> None:
    """A search that starts from something near a recipe cannot say that it got beyond the recipe."""
    spec = spec_of(scheduler={"max_epochs": 7})
    found = first_trials(spec)[name]
    recipe = load_recipe(name).scaled(7)
    alike = {
        key: getattr(TrialConfig().data, key) for key in ("image_size", "batch_size", "resize", "split", "split_by")
    }
    stages = [stage.model_copy(update={"batch_size": None}) for stage in recipe.data.progression]
    data = recipe.data.model_copy(update={**alike, "progression": stages})

    # The parts of policies that the recipe does not have are not compared: they have no effect.
    part = {recipe.policy.name: getattr(recipe.policy, recipe.policy.name, None)}
    assert getattr(found.policy, recipe.policy.name, None) == part[recipe.policy.name]
    policy = recipe.policy.model_dump(include={"name", "horizon_epochs", "horizon_batches", "warmup", "hold"})
    assert found.policy.model_dump(include=set(policy)) == policy
    assert (found.data, found.model, found.loss) == (data, recipe.model, recipe.loss)
    assert (found.optimizer, found.depth_policy, found.epochs) == (recipe.optimizer, recipe.depth_policy, 7)


def test_recipes_come_first_in_their_order() -> None:
    """A budget that is too small for all of them tries the first ones."""
    starts, outside = find_starts(spec_of(), ["recipes"], NOWHERE)
    assert [start.name for start in starts] == list(RECIPES)
    assert outside == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", PORTFOLIO)
def test_the_portfolio_is_tried_unchanged(name: str) -> None:
    """What was chosen is a whole configuration, its batch size included; image size and split are the search's."""
    study, spec = optuna.create_study(), spec_of(scheduler={"max_epochs": 7}, search={"start_from": [name]})
    enqueue_starts(study, spec, NOWHERE)
    found = build(TrialConfig, define_space(spec)(trial := study.ask()), source="a start")
    chosen = load_recipe(name).config

    assert trial.user_attrs["portfolio"] == name
    assert TrialRecord.of(trial).proposed_by == "portfolio"
    image_size = {"image_size": spec.space["data.image_size"]}
    assert (found.data, found.model, found.loss) == (
        chosen.data.model_copy(update=image_size),
        chosen.model,
        chosen.loss,
    )
    assert (found.optimizer, found.epochs) == (chosen.optimizer, 7)
    policy = found.policy.name
    assert (policy, getattr(found.policy, policy, None)) == (chosen.policy.name, getattr(chosen.policy, policy, None))


def test_a_search_starts_from_recipes_and_portfolio_by_default() -> None:
    """And names those of the portfolio that the space leaves out."""
    study, spec = optuna.create_study(), spec_of()
    assert enqueue_starts(study, spec, NOWHERE) == {}
    kinds = [kind for trial in study.trials for kind in ("recipe", "portfolio") if kind in trial.user_attrs]
    assert kinds == ["portfolio"] * len(PORTFOLIO) + ["recipe"] * len(RECIPES)

    names = [name for name in PORTFOLIO if load_recipe(name).config.model.family != "sepunet"]
    starts, outside = find_starts(spec_of(model={"family": "sepunet"}), ["portfolio"], NOWHERE)
    assert set(outside) == set(names)
    assert [start.name for start in starts] == [name for name in PORTFOLIO if name not in names]


def test_an_interrupted_start_is_completed() -> None:
    """Nothing is left out, and nothing comes twice; a search that runs gets no first trials later."""
    spec = spec_of(search={"start_from": ["birender-cnn", "default", "monimoyd-unet"]})
    starts, _ = find_starts(spec, ["birender-cnn"], NOWHERE)
    study = optuna.create_study()
    enqueue(study, starts[0])
    for _ in range(2):
        start(study, spec, NOWHERE, Screen())

    names = [trial.user_attrs.get("recipe", trial.user_attrs.get("proposed_by")) for trial in study.get_trials()]
    assert names == ["birender-cnn", "monimoyd-unet", "default"]

    running = optuna.create_study()
    running.ask()
    start(running, spec, NOWHERE, Screen())
    assert len(running.get_trials()) == 1


@pytest.mark.parametrize(("trials", "is_said"), [(2, True), (3, False)])
def test_a_search_without_proposals_is_named(trials: int, is_said: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """It trains known configurations alone; who compares searches must know."""
    spec = spec_of(budget={"trials": trials}, search={"start_from": ["birender-cnn", "default"]})
    start(optuna.create_study(), spec, NOWHERE, Screen())
    said = " ".join(capsys.readouterr().err.split())

    assert ("budget.trials is 2, and there are 2 first trials: the searcher proposes none" in said) == is_said


def test_a_recipe_outside_of_the_space_is_named() -> None:
    """After narrowing the space, users must see what it leaves out, and why."""
    starts, outside = find_starts(spec_of(model={"family": "sepunet", "width": 32}), ["recipes"], NOWHERE)
    assert [start.name for start in starts] == ["monimoyd-unet"]
    assert set(outside) == set(RECIPES) - {"monimoyd-unet"}
    assert outside["birender-cnn"] == "its model.family is dmnet-cnn, and the space has sepunet"


def test_a_range_that_excludes_a_recipe_leaves_it_out() -> None:
    """Its value neighbours to the bound would be another recipe."""
    lr = {"per": "optimizer.name", "sgd": {"low": 0.1, "high": 1.0}, "adam": 1e-3, "adamw": 1e-3}
    _, outside = find_starts(spec_of(optimizer={"lr": lr}), ["recipes"], NOWHERE)
    assert outside["monimoyd-unet"] == "its optimizer.lr is 0.01, and the space has 0.1 to 1"
    assert "raguram-resunet" not in outside


def test_fixed_values_of_the_spec_apply_to_recipes() -> None:
    """A spec without flips must not run a trial with flips."""
    _, outside = find_starts(spec_of(data={"augment": {"hflip": 0.25}}), ["ramana-dnn"], NOWHERE)
    assert outside["ramana-dnn"] == "its data.augment.hflip is 0.5, and the space has 0.25"


def test_single_recipes_and_the_default_can_be_chosen() -> None:
    """Not everybody has the time for all of them."""
    found = first_trials(spec_of(search={"start_from": ["birender-cnn", "default"]}))
    assert list(found) == ["birender-cnn", ""]
    assert found[""].optimizer.lr == TrialConfig().optimizer.lr


def test_start_from_may_be_empty() -> None:
    """The demo starts from random trials alone."""
    assert first_trials(spec_of(search={"start_from": []})) == {}
