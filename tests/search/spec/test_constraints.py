"""Limits of a network: a configuration that violates them is reported to the searcher, and never trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial

from search.spec.constraints import broken_limits, violations
from search.spec.sections import ConstraintsConfig
from search.spec.spec import SearchSpec, check_spec
from search.strategy.space import define_space
from search.strategy.warm_start import enqueue_starts, find_starts
from trainable.config import ModelConfig
from trainable.models import build_model, multiply_adds, parameter_count

NETWORK = {"model.family": "resunet-lite", "model.width": 16, "data.image_size": 64}
NOWHERE = Path("nowhere")
"""A storage without earlier searches."""


def spec_of(**sections: Any) -> SearchSpec:
    return check_spec(sections, source="the test", data_path="set")


def test_the_excess_is_a_share_of_the_limit() -> None:
    """The searcher models how far a limit is exceeded, in any unit."""
    model = build_model(ModelConfig(family="resunet-lite", width=16))
    parameters, macs = parameter_count(model), multiply_adds(model, 64)
    limits = ConstraintsConfig(parameters=parameters / 2, macs=macs * 2.0)

    assert violations(NETWORK, limits) == {"parameters": pytest.approx(1.0), "macs": pytest.approx(-0.5)}
    assert violations(NETWORK, ConstraintsConfig(parameters=float(parameters)))["parameters"] == 0


@pytest.mark.slow
def test_multiply_adds_are_of_the_area_of_a_rectangle() -> None:
    """Those of a convolution are proportional to it."""
    limits = ConstraintsConfig(macs=float(multiply_adds(build_model(ModelConfig(family="resunet-lite", width=16)), 64)))

    assert violations(NETWORK | {"data.image_size": [64, 128]}, limits)["macs"] == pytest.approx(1.0, rel=0.01)


def test_without_limits_nothing_is_counted() -> None:
    """Counting takes a tenth of a second for each network; who sets no limit does not wait for it."""
    assert violations({}, ConstraintsConfig(ms_per_picture=5.0)) == {}


def test_violated_limits_are_described() -> None:
    """A recipe that is left out is left out for a reason."""
    assert broken_limits(NETWORK, ConstraintsConfig(parameters=1e3)) == (
        f"it has {parameter_count(build_model(ModelConfig(family='resunet-lite', width=16))):,} parameters, and "
        "constraints.parameters is 1,000"
    )
    assert broken_limits(NETWORK, ConstraintsConfig(parameters=1e9)) == ""


@pytest.mark.parametrize(("width", "excess"), [(16, True), (64, False)])
def test_drawn_configuration_reports_violated_limits(width: int, excess: bool) -> None:
    """The searcher samples again, and models where the limit is."""
    limit = parameter_count(build_model(ModelConfig(family="resunet-lite", width=32)))
    spec = spec_of(
        model={"family": "resunet-lite", "width": {"choices": [16, 64]}},
        constraints={"parameters": limit},
    )
    study = optuna.create_study()
    study.enqueue_trial({"model.width": width})
    trial = study.ask()
    define_space(spec)(trial)

    assert (trial.constraints["parameters"] < 0) is excess


@pytest.mark.slow
def test_recipes_that_violate_limits_are_left_out() -> None:
    """The first trials would be the most expensive way to break them."""
    spec = spec_of(constraints={"parameters": 3e5}, search={"start_from": ["recipes", "default"]})
    starts, outside = find_starts(spec, ["recipes"], NOWHERE)
    study = optuna.create_study()
    enqueue_starts(study, spec, NOWHERE)

    assert "raguram-resunet" not in {start.name for start in starts}
    assert "constraints.parameters is 300,000" in outside["raguram-resunet"]
    assert len(study.get_trials()) == len(starts)  # the default network is too large as well
    assert enqueue_starts(optuna.create_study(), spec, NOWHERE)["default"].endswith("constraints.parameters is 300,000")


def test_limit_below_the_smallest_network_is_refused() -> None:
    """One family within the limit is enough."""
    assert spec_of(constraints={"parameters": 2e5}).plan.constraints.parameters == 2e5


def test_search_space_accepts_any_trial() -> None:
    """Optuna's fixed trials are what a person tries a space with."""
    spec = spec_of(model={"family": "debug", "width": 2}, constraints={"parameters": 1e6})
    parameters = {"optimizer.name": "sgd", "optimizer.lr@sgd": 0.1, "policy.name": "constant", "policy.warmup": 0.0}
    parameters |= {"data.batch_size": 16, "data.augment.jitter?": False, "data.augment.rotate?": False}
    parameters |= {"model.depth_activation": "linear", "loss.combine": "sum", "optimizer.weight_decay": 0.0}
    parameters |= {f"loss.{name}?": False for name in ("mask.l1", "mask.dice", "depth.ssim", "depth.edge")}
    parameters |= {"loss.mask.bce": 1.0, "loss.depth.l1": 1.0}
    values = define_space(spec)(FixedTrial(parameters))  # type: ignore[arg-type]

    assert values["loss"]["depth"]["ssim"] == 0
    assert "window" not in values["loss"]["ssim"]
