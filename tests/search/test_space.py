"""The space as Optuna draws from it: every draw is a trial that can run, and nothing is drawn that has no meaning."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

from search.space import default_parameters, define_space, largest_trials
from search.spec import SearchSpec, check_spec
from trainable.config import TrialConfig, build
from trainable.models import MODELS, check_model


def spec_of(**sections: dict[str, Any]) -> SearchSpec:
    return check_spec(sections, source="the test", data_path="set")


def draws(spec: SearchSpec, count: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(parameters, configuration) of random trials."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = define_space(spec)
    drawn = []
    for _ in range(count):
        trial = study.ask()
        values = space(trial)
        drawn.append((trial.params, values))
    return drawn


def test_every_draw_of_the_default_space_is_a_trial() -> None:
    """A configuration that is refused when it starts would cost a trial."""
    for _, values in draws(spec_of(scheduler={"max_epochs": 5}, search={"seed": 7}), 60):
        config = build(TrialConfig, values, source="the test")
        assert (config.epochs, config.seed) == (5, 7)


def test_only_the_drawn_policy_is_searched() -> None:
    """Parameters without an effect are noise to the model that learns from them."""
    for parameters, values in draws(spec_of(), 60):
        name = values["policy"]["name"]
        parts = {key.split(".")[1] for key in parameters if key.startswith("policy.") and key.count(".") == 2}
        assert parts <= {name}
        assert f"optimizer.lr@{values['optimizer']['name']}" in parameters
        assert sum(key.startswith("optimizer.lr") for key in parameters) == 1


def test_all_policies_and_optimizers_are_drawn() -> None:
    """A choice that never comes was not searched."""
    values = [values for _, values in draws(spec_of(), 100)]

    assert {config["policy"]["name"] for config in values} == {
        "constant",
        "step",
        "plateau",
        "cyclic",
        "onecycle",
        "cosine",
    }
    assert {config["optimizer"]["name"] for config in values} == {"sgd", "adam", "adamw"}
    assert len({config["model"]["family"] for config in values}) == 8


def test_ranges_are_kept() -> None:
    """SGD's learning rates are not AdamW's, and a logarithmic range is drawn evenly over its decades."""
    rates: dict[str, list[float]] = {"sgd": [], "adam": [], "adamw": []}
    for _, values in draws(spec_of(), 200):
        rates[values["optimizer"]["name"]].append(values["optimizer"]["lr"])

    assert 1e-2 <= min(rates["sgd"]) <= max(rates["sgd"]) <= 1.0
    assert 3e-4 <= min(rates["adamw"]) <= max(rates["adamw"]) <= 2e-2
    assert 0.35 < sum(rate < 0.1 for rate in rates["sgd"]) / len(rates["sgd"]) < 0.65  # half of the two decades


def test_conditions_follow_a_fixed_value() -> None:
    """Who fixes the optimizer keeps the range that belongs to it."""
    for parameters, values in draws(spec_of(optimizer={"name": "sgd"}), 10):
        assert values["optimizer"]["name"] == "sgd"
        assert parameters["optimizer.lr@sgd"] == values["optimizer"]["lr"]


def test_a_condition_on_a_switch() -> None:
    """`per` takes any leaf with choices, not names alone."""
    lr = {"per": "optimizer.nesterov", True: 0.125, False: {"choices": [0.25, 0.5]}}
    spec = spec_of(optimizer={"nesterov": {"choices": [True, False]}, "lr": lr})
    found = {(values["optimizer"]["nesterov"], values["optimizer"]["lr"]) for _, values in draws(spec, 40)}

    assert found == {(True, 0.125), (False, 0.25), (False, 0.5)}


def test_a_spec_without_domains_draws_nothing() -> None:
    """Everything may be fixed: then the search is one configuration."""
    plain = TrialConfig().model_dump()
    sections = {name: plain[name] for name in ("data", "model", "loss", "optimizer", "policy")}
    [(parameters, values)] = draws(spec_of(**sections), 1)

    assert parameters == {}
    assert build(TrialConfig, values, source="the test") == TrialConfig()


def test_the_default_trial_lies_in_the_default_space() -> None:
    """The first trial is the configuration that a person would take; its parameters are a draw of the space."""
    spec = spec_of()
    parameters = default_parameters(spec)
    values = define_space(spec)(FixedTrial(parameters))  # type: ignore[arg-type]
    config = build(TrialConfig, values, source="the test")
    default = TrialConfig()

    assert config.optimizer.lr == default.optimizer.lr
    assert (config.policy.name, config.optimizer.name) == (default.policy.name, default.optimizer.name)
    assert config.policy.onecycle.pct_start == default.policy.onecycle.pct_start
    assert config.loss.mask.bce == default.loss.mask.bce
    assert config.loss.mask.dice == default.loss.mask.dice == 0  # a loss can be left out


def test_a_choice_without_the_default_is_left_open() -> None:
    """Putting a value into a space that excludes it would search what was not asked for."""
    spec = spec_of(model={"width": {"choices": [4, 8]}}, optimizer={"name": "sgd"})
    parameters = default_parameters(spec)

    assert "model.width" not in parameters
    assert not any(key.startswith("optimizer.lr") and not key.endswith("@adamw") for key in parameters)


@pytest.mark.parametrize(("given", "largest"), [({"choices": [4, 32, 8]}, 32), ({"low": 2, "high": 40}, 40), (12, 12)])
def test_the_largest_trial_is_found(given: object, largest: int) -> None:
    """The room for checkpoints is reckoned with it before anything starts."""
    [values] = largest_trials(spec_of(model={"family": "resunet", "width": given}))

    assert values["model"]["width"] == largest
    assert build(TrialConfig, values, source="the test").model.width == largest


def test_the_largest_trial_is_found_for_each_family() -> None:
    """A wide network of one family can be smaller than a narrow one of another."""
    widths = {values["model"]["family"]: values["model"]["width"] for values in largest_trials(spec_of())}

    assert widths["resunet"] == 32
    assert widths["resunet-lite"] == 64
    assert widths["dmnet-cnn"] == 16


def test_a_trial_may_have_values_that_the_space_fixes_otherwise() -> None:
    """A recipe's augmentation is its own, although the search does not search augmentations."""
    study = optuna.create_study()
    study.enqueue_trial({}, user_attrs={"fixed": {"data.augment.hflip": 0.0, "depth_policy": {"name": "constant"}}})
    values = define_space(spec_of(model={"family": "pair"}))(study.ask())

    assert values["data"]["augment"]["hflip"] == 0.0
    assert build(TrialConfig, values, source="the test").depth_policy is not None


@pytest.mark.parametrize("family", sorted(MODELS))
def test_every_family_can_be_searched_by_itself(family: str) -> None:
    """Who names one keeps the widths and the dropout that belong to it."""
    for _, values in draws(spec_of(model={"family": family}), 5):
        config = build(TrialConfig, values, source="the test").model
        check_model(config)
        assert config.family == family
