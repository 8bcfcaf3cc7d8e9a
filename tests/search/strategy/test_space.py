"""The search space as Optuna samples it: every sample is a valid trial, without parameters that have no effect."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

from search.spec.spec import SearchSpec, check_spec
from search.strategy.space import default_parameters, define_space
from trainable.config import TrialConfig, build
from trainable.config.settings import nest
from trainable.families import FAMILIES, WITH_DROPOUT, check_model


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


def test_every_sample_of_the_default_space_is_a_valid_trial() -> None:
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


def test_all_policies_and_optimizers_are_sampled() -> None:
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
    """A fixed optimizer keeps its own range."""
    for parameters, values in draws(spec_of(optimizer={"name": "sgd"}), 10):
        assert values["optimizer"]["name"] == "sgd"
        assert parameters["optimizer.lr@sgd"] == values["optimizer"]["lr"]


def test_a_condition_on_a_switch() -> None:
    """`per` takes any leaf with choices, not names alone."""
    lr = {"per": "optimizer.nesterov", True: 0.125, False: {"choices": [0.25, 0.5]}}
    spec = spec_of(optimizer={"nesterov": {"choices": [True, False]}, "lr": lr})
    found = {(values["optimizer"]["nesterov"], values["optimizer"]["lr"]) for _, values in draws(spec, 40)}

    assert found == {(True, 0.125), (False, 0.25), (False, 0.5)}


def test_spec_without_domains_has_no_parameters() -> None:
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


def test_domain_without_the_default_gets_no_default_parameter() -> None:
    """Adding a value to a space that excludes it would search outside the spec."""
    spec = spec_of(model={"width": {"choices": [4, 8]}}, optimizer={"name": "sgd"})
    parameters = default_parameters(spec)

    assert "model.width" not in parameters
    assert not any(key.startswith("optimizer.lr") and not key.endswith("@adamw") for key in parameters)


@pytest.mark.parametrize(("given", "largest"), [({"choices": [4, 32, 8]}, 32), ({"low": 2, "high": 40}, 40), (12, 12)])
def test_the_largest_trial_is_found(given: object, largest: int) -> None:
    """The space for checkpoints is computed from it before the search starts."""
    [config] = spec_of(model={"family": "resunet", "width": given}).largest_trials()

    assert config.model.width == largest


def test_the_largest_trial_is_found_for_each_family() -> None:
    """A wide network of one family can be smaller than a narrow one of another."""
    widths = {config.model.family: config.model.width for config in spec_of().largest_trials()}

    assert widths["resunet"] == 32
    assert widths["resunet-lite"] == 64
    assert widths["dmnet-cnn"] == 16


def test_trial_may_differ_from_fixed_values() -> None:
    """A recipe's augmentation is its own, although the search does not search augmentations."""
    study = optuna.create_study()
    study.enqueue_trial({}, user_attrs={"fixed": {"data.augment.hflip": 0.0, "depth_policy": {"name": "constant"}}})
    values = define_space(spec_of(model={"family": "pair"}))(study.ask())

    assert values["data"]["augment"]["hflip"] == 0.0
    assert build(TrialConfig, values, source="the test").depth_policy is not None


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_can_be_searched_alone(family: str) -> None:
    """A fixed family keeps its own widths and dropout."""
    for _, values in draws(spec_of(model={"family": family}), 5):
        config = build(TrialConfig, values, source="the test").model
        check_model(config)
        assert config.family == family


def test_parameters_of_a_loss_depend_on_the_loss() -> None:
    """The window of a loss that weighs nothing would be noise; half of the trials leave each further loss out."""
    found = draws(spec_of(), 80)
    with_window = [parameters for parameters, _ in found if "loss.ssim.window" in parameters]

    assert 0 < len(with_window) < len(found)
    for parameters, values in found:
        assert ("loss.ssim.window" in parameters) == (values["loss"]["depth"]["ssim"] > 0)
        assert parameters["loss.depth.ssim?"] == ("loss.depth.ssim" in parameters)


CONDITIONAL = {
    "loss.tversky_alpha": ({"loss.mask.tversky": 1.0}, {"loss.mask.tversky": 0.0}),
    "loss.huber_delta": ({"loss.depth.huber": 0.5}, {}),
    "loss.positive_weight": ({"loss.mask.weighted_bce": 1.0}, {}),
    "loss.ssim.window": ({"loss.mask.ssim": 1.0, "loss.depth.ssim": 0.0}, {"loss.depth.ssim": 0.0}),
    "loss.sqrt_eps": ({"loss.combine": "sqrt"}, {"loss.combine": "sum"}),
    "policy.cyclic.max_momentum": (
        {"policy.name": "cyclic", "policy.cyclic.cycle_momentum": True},
        {"policy.name": "onecycle", "policy.cyclic.cycle_momentum": True},
    ),
    "data.augment.rotate_p": ({"data.augment.rotate": 10.0}, {"data.augment.rotate": 0.0}),
    "data.augment.noise_p": ({"data.augment.noise": 0.1}, {}),
    "data.augment.noise_per_channel": ({"data.augment.noise": 0.1}, {}),
    "data.augment.erase.count": ({"data.augment.erase.p": 0.5}, {}),
    "optimizer.nesterov": ({"optimizer.name": "sgd"}, {"optimizer.name": "adamw"}),
}
DOMAINS: dict[str, dict[str, Any]] = {
    "loss.ssim.window": {"choices": [5, 7]},
    "data.augment.erase.count": {"low": 1, "high": 4},
    "data.augment.noise_per_channel": {"choices": [True, False]},
    "optimizer.nesterov": {"choices": [True, False]},
}


@pytest.mark.slow
@pytest.mark.parametrize("key", CONDITIONAL)
def test_parameters_without_effect_are_not_searched(key: str) -> None:
    """A parameter is there for Optuna where the rest of the configuration gives it a meaning, and nowhere else."""
    drawn = []
    for settings in CONDITIONAL[key]:
        sections: Any = nest({**settings, key: DOMAINS.get(key, {"low": 0.2, "high": 0.8})})
        [(parameters, values)] = draws(spec_of(**sections), 1)
        build(TrialConfig, values, source="the test")
        drawn.append(key in parameters)

    assert drawn == [True, False]


def test_single_value_is_not_a_parameter() -> None:
    """Families without dropout have none to be searched."""
    for parameters, values in draws(spec_of(), 40):
        dropout = [name for name in parameters if name.startswith("model.dropout")]
        assert bool(dropout) == (values["model"]["family"] in WITH_DROPOUT)


def test_a_range_may_be_left_out() -> None:
    """0 beside a range that does not reach it, about as often as all of the range."""
    rotate = {"low": 5.0, "high": 10.0, "or_zero": True}
    angles = [
        values["data"]["augment"]["rotate"] for _, values in draws(spec_of(data={"augment": {"rotate": rotate}}), 80)
    ]

    assert 20 < sum(angle == 0 for angle in angles) < 60
    assert all(angle == 0 or 5 <= angle <= 10 for angle in angles)
