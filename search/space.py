"""A spec's space as Optuna takes it: a define-by-run function whose conditions follow from the spec's shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from search.conditions import condition_of, exists, matters
from search.constraints import violations
from search.domains import Choices, Domain, Per, Range
from search.objectives import known_before
from search.plan import Plan
from search.proposals import KNOWN
from search.spec import SearchSpec
from search.spec_checks import settled
from search.tree import at, leaves, replace_leaf
from trainable.config import TrialConfig

if TYPE_CHECKING:
    import optuna

Space = Callable[["optuna.Trial"], dict[str, Any]]

FIXED = "fixed"
"""Attribute of a study's trial: values by dotted key that it has in place of what the space fixes."""


def define_space(spec: SearchSpec) -> Space:
    """The function that draws a trial's configuration.

    It gives the nested values of a `TrialConfig`. A part of a section that is named like a choice of the section's
    `name`, as `policy.step` is, exists only in trials that drew that name; what `CONDITIONS` names is drawn only where
    it has an effect. Limits that are known to be broken before the trial starts are told to the trial, and so are
    objectives that are known by then: their logarithm, for half the multiply-adds are worth as much at every size.
    """
    plan = spec.plan
    decisive = deciding(spec)
    # What others depend on is drawn before them: names first, then plain leaves, then those given per value.
    ordered = sorted(leaves(spec.space), key=lambda item: _rank(item, decisive))

    def space(trial: optuna.Trial) -> dict[str, Any]:
        drawn: dict[str, Any] = {"epochs": plan.scheduler.max_epochs, "seed": plan.search.seed}
        for path, leaf in ordered:
            key, value = ".".join(path), leaf
            if not exists(drawn, path):
                continue
            if isinstance(leaf, Domain) and key not in decisive and not matters(drawn, path):
                continue
            if isinstance(leaf, Per):
                case = at(drawn, leaf.key)
                value = leaf.for_value(case).suggest(trial, parameter(key, leaf, case))
            elif isinstance(leaf, Range | Choices):
                value = leaf.suggest(trial, key)
            drawn = replace_leaf(drawn, path, value)
        for key, value in trial.user_attrs.get(FIXED, {}).items():
            drawn = replace_leaf(drawn, key.split("."), value)
        _tell(trial, drawn, plan)
        return drawn

    return space


def deciding(spec: SearchSpec) -> set[str]:
    """Dotted keys of the leaves that a `per` names; they are drawn whether they have an effect or not."""
    return {leaf.key for _, leaf in leaves(spec.space) if isinstance(leaf, Per)}


def parameter(key: str, leaf: Domain, case: Any) -> str:
    """Name of a leaf's parameter in Optuna; `case` is the value of the other leaf that a `Per` depends on."""
    return f"{key}@{case}" if isinstance(leaf, Per) else key


def default_parameters(spec: SearchSpec) -> dict[str, Any]:
    """Optuna's parameters of the default `TrialConfig`, moved to the nearest bound of the space's ranges.

    A choice that the space does not offer is left to be drawn.
    """
    defaults = TrialConfig().model_dump()
    parameters: dict[str, Any] = {}
    for path, leaf in leaves(spec.space):
        key = ".".join(path)
        value = at(defaults, key)
        if isinstance(leaf, Per):
            case = at(defaults, leaf.key)
            key, leaf = parameter(key, leaf, case), leaf.domains.get(str(case), leaf)
        if isinstance(leaf, Range) and isinstance(value, int | float):
            parameters |= leaf.parameters(key, leaf.nearest(value))
        elif isinstance(leaf, Choices) and leaf.has(value):
            parameters |= leaf.parameters(key, value)
    return parameters


def largest_trials(spec: SearchSpec) -> Iterator[dict[str, Any]]:
    """For each family of the space, a `TrialConfig`'s values with every range and list of numbers at its largest."""
    family = at(spec.space, "model.family")
    for name in family.values if isinstance(family, Choices) else (family,):
        yield settled(spec.space, {"model.family": name})


def _tell(trial: optuna.Trial, values: Mapping[str, Any], plan: Plan) -> None:
    """Tell a trial what is known of its limits and objectives; one that is gone on with was told before."""
    for name, excess in violations(values, plan.constraints).items():
        if name not in trial.constraints:
            trial.set_constraint(name, excess)
    known = {name: math.log(value) for name, value in known_before(plan.objectives, values).items()}
    if known and KNOWN not in trial.user_attrs:
        trial.set_user_attr(KNOWN, known)


def _rank(item: tuple[tuple[str, ...], Any], decisive: set[str]) -> int:
    path, leaf = item
    if path[-1] == "name":
        return 0
    conditional = condition_of(path) is not None and ".".join(path) not in decisive
    return 1 + isinstance(leaf, Per) + 2 * conditional
