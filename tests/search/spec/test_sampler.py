"""`search.sampler` and `scheduler.name`: what is accepted, and what a refusal says."""

from __future__ import annotations

import importlib.util

import pytest

from data.errors import InputError
from search.spec.sampler import CLASSES, NAMES, SHORT_NAMES, build_sampler, class_of
from search.spec.spec import SearchSpec, check_spec, load_spec
from search.spec.trackers import check_packages


def spec_with(key: str, text: str, *more: tuple[str, str]) -> SearchSpec:
    return load_spec(data_path="set", overrides=[(key, text), *more])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_sampler_is_chosen_by_name(name: str) -> None:
    """A spec that is stored is read again."""
    spec = spec_with("search.sampler", name)

    assert spec.plan.search.sampler == name
    assert check_spec(spec.as_plain(), source="the test") == spec


def test_names_are_those_of_optuna() -> None:
    """Each class can be built from its name alone."""
    for name in (*SHORT_NAMES, *CLASSES):
        assert type(build_sampler(name, seed=0)).__name__ == class_of(name)


def test_class_takes_arguments() -> None:
    spec = spec_with("search.sampler", "{TPESampler: {n_startup_trials: 3, prior_weight: 2}}")

    assert spec.plan.search.sampler == {"TPESampler": {"n_startup_trials": 3, "prior_weight": 2}}
    assert check_spec(spec.as_plain(), source="the test") == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tpee", r"'tpee', but must be one of gp, tpe, random, CmaEsSampler, .* \(did you mean 'tpe'\?\); correct it"),
        ("[tpe]", r"\['tpe'\], but must be one of gp"),
        (
            "{TPESampler: 3}",
            r"must be one of gp, .*, or a class with arguments such as \{TPESampler: \{group: true\}\}",
        ),
        ("{TPESamplr: {}}", r"must name one of Optuna's classes .*, not 'TPESamplr' \(did you mean 'TPESampler'\?\)"),
        ("{QMCSampler: {scrambel: true}}", r"QMCSampler: qmc_type, scramble, .*; not 'scrambel' \(did you mean 'scr"),
        ("{QMCSampler: {scramble: 1}}", "must have bool as scramble of QMCSampler, not 1"),
        ("{NSGAIISampler: {population_size: true}}", "must have int as population_size of NSGAIISampler, not True"),
        ("{NSGAIISampler: {population_size: 1}}", "arguments that NSGAIISampler accepts: `population_size` must be"),
        ("{TPESampler: {seed: 1}}", "not 'seed'"),
        ("{TPESampler: {gamma: 1}}", "not 'gamma'"),
    ],
)
def test_wrong_sampler_is_refused_with_what_is_valid(text: str, said: str) -> None:
    with pytest.raises(InputError, match=f"'search.sampler' is .*{said}"):
        spec_with("search.sampler", text)


def test_sampler_of_one_objective_is_refused_for_several() -> None:
    """It would fail at its first proposal."""
    several = ("objectives", "[score, -macs]")
    with pytest.raises(InputError, match=r"is CmaEsSampler, which proposes for one objective, but the search has 2"):
        spec_with("search.sampler", "CmaEsSampler", several)

    assert spec_with("search.sampler", "NSGAIISampler", several).plan.search.sampler == "NSGAIISampler"


def test_missing_package_of_a_sampler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna would fail at its first proposal, in the middle of the search."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"is CmaEsSampler, but it needs the package cmaes, .* 'pip install cmaes'"):
        check_packages(spec_with("search.sampler", "CmaEsSampler").plan)

    check_packages(spec_with("search.sampler", "tpe").plan)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ashaa", r"must be 'halving', 'asha', 'median' or 'none'; correct it in .* \(did you mean 'asha'\?\)"),
        ("hyperband", "must be one of halving, asha, median, none \\(Ray.s HyperBand stops no trial here"),
    ],
)
def test_wrong_scheduler_is_refused_with_what_is_valid(name: str, said: str) -> None:
    with pytest.raises(InputError, match=f"'scheduler.name' is '{name}', but {said}"):
        spec_with("scheduler.name", name)
