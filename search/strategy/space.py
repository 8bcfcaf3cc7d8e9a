"""The search space as a define-by-run function for Optuna; its conditions follow from the structure of the spec."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from data.errors import InputError
from search.spec.conditions import Condition, condition_of, is_present
from search.spec.constraints import violations
from search.spec.domains import Choices, Domain, Leaf, Per, Range, resolve
from search.spec.objectives import known_costs
from search.spec.sections import Plan
from search.spec.spec import SearchSpec
from search.strategy.proposer import KNOWN, UNBUILDABLE
from trainable.config import TrialConfig, build
from trainable.config.settings import Settings, Value, nest

if TYPE_CHECKING:
    import optuna

Space = Callable[["optuna.Trial"], dict[str, Value]]

FIXED = "fixed"
"""Attribute of a trial: values by dotted key that replace those that the space fixes."""


def define_space(spec: SearchSpec) -> Space:
    """The function that samples the configuration of a trial.

    It returns the nested values of a `TrialConfig`. A subsection with the name of a choice of the section's `name`,
    such as `policy.step`, is present only in trials with that choice; a leaf in `CONDITIONS` is sampled only if it has
    an effect. The function also stores the excess over limits that are known before the trial starts, `UNBUILDABLE` if
    the values do not go together, and the logarithm of objectives that are known by then, since half the multiply-adds
    are worth as much at every size.
    """
    plan = spec.plan
    decisive = per_keys(spec)
    # Leaves that others depend on come first: names, then plain leaves, then those with a domain per value.
    ordered = sorted(spec.space.items(), key=lambda item: _rank(item[0], item[1], decisive))
    # Worked out once, since a proposal samples dozens of configurations.
    steps = [(key, leaf, _may_be_absent(key, spec), _condition(key, leaf, decisive)) for key, leaf in ordered]

    def space(trial: optuna.Trial) -> dict[str, Value]:
        settings: dict[str, Value] = {"epochs": plan.scheduler.max_epochs, "seed": plan.search.seed}
        for key, leaf, may_be_absent, condition in steps:
            if may_be_absent and not is_present(settings, key):
                continue
            if condition is None or condition(settings):
                settings[key] = _suggest(trial, key, leaf, settings)
        # In the order of the spec, which is that of its transforms.
        settings = {key: settings[key] for key in spec.space if key in settings} | settings
        settings |= trial.user_attrs.get(FIXED, {})
        values = nest(settings)
        if unbuildable(values):
            if UNBUILDABLE not in trial.constraints:
                trial.set_constraint(UNBUILDABLE, 1.0)
        else:
            _store_costs(trial, settings, plan)
        return values

    return space


def unbuildable(values: Mapping[str, Value]) -> str:
    """Why values of a `TrialConfig` do not go together, without a full stop; '' if they do."""
    try:
        build(TrialConfig, values, source="the proposal")
    except InputError as error:
        return str(error).rpartition(";")[0]
    return ""


def _suggest(trial: optuna.Trial, key: str, leaf: Leaf, settings: Settings) -> Value:
    """The value of a leaf, given the values of the leaves before it."""
    if not isinstance(leaf, Domain):
        return leaf
    name, domain = resolve(key, leaf, settings)
    return domain.suggest(trial, name) if isinstance(domain, Range | Choices) else domain


def per_keys(spec: SearchSpec) -> set[str]:
    """Dotted keys that a `per` refers to; these leaves are sampled even without an effect."""
    return {leaf.key for leaf in spec.space.values() if isinstance(leaf, Per)}


def default_parameters(spec: SearchSpec) -> dict[str, Value]:
    """Optuna's parameters of the default `TrialConfig`, clipped to the ranges of the space.

    Parameters whose choices do not include the default are left out, so that the searcher samples them.
    """
    defaults = spec.defaults
    parameters: dict[str, Value] = {}
    for key, leaf in spec.space.items():
        value, (name, domain) = defaults[key], resolve(key, leaf, defaults)
        if isinstance(domain, Range) and isinstance(value, int | float):
            parameters |= domain.parameters(name, domain.nearest(value))
        elif isinstance(domain, Choices) and domain.has(value):
            parameters |= domain.parameters(name, value)
    return parameters


def _store_costs(trial: optuna.Trial, settings: Settings, plan: Plan) -> None:
    """Store the known constraints and objectives in a trial, unless a resumed trial has them already."""
    for name, excess in violations(settings, plan.constraints).items():
        if name not in trial.constraints:
            trial.set_constraint(name, excess)
    known = {name: math.log(value) for name, value in known_costs(plan.objectives, settings).items()}
    if known and KNOWN not in trial.user_attrs:
        trial.set_user_attr(KNOWN, known)


def _may_be_absent(key: str, spec: SearchSpec) -> bool:
    section, *inner = key.split(".")
    return len(inner) > 1 and f"{section}.name" in spec.space


def _condition(key: str, leaf: Leaf, decisive: set[str]) -> Condition | None:
    """The condition under which a leaf that is present is sampled; None for always."""
    return condition_of(key) if isinstance(leaf, Domain) and key not in decisive else None


def _rank(key: str, leaf: Leaf, decisive: set[str]) -> int:
    if key.endswith(".name"):
        return 0
    conditional = condition_of(key) is not None and key not in decisive
    return 1 + isinstance(leaf, Per) + 2 * conditional
