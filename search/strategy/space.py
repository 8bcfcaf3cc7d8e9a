"""The search space as a define-by-run function for Optuna; its conditions follow from the structure of the spec."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.spec.checks import largest_values
from search.spec.conditions import Condition, condition_of, is_present
from search.spec.constraints import violations
from search.spec.domains import Choices, Domain, Per, Range
from search.spec.objectives import known_costs
from search.spec.sections import Plan
from search.spec.spec import SearchSpec
from search.spec.tree import at, leaves, put_leaf
from search.strategy.proposer import KNOWN
from trainable.config import TrialConfig

if TYPE_CHECKING:
    import optuna

Space = Callable[["optuna.Trial"], dict[str, Any]]

FIXED = "fixed"
"""Attribute of a trial: values by dotted key that replace those that the space fixes."""


def define_space(spec: SearchSpec) -> Space:
    """The function that samples the configuration of a trial.

    It returns the nested values of a `TrialConfig`. A subsection with the name of a choice of the section's `name`,
    such as `policy.step`, is present only in trials with that choice; a leaf in `CONDITIONS` is sampled only if it has
    an effect. The function also stores the excess over limits that are known before the trial starts, and the
    logarithm of objectives that are known by then, since half the multiply-adds are worth as much at every size.
    """
    plan = spec.plan
    decisive = per_keys(spec)
    # Leaves that others depend on come first: names, then plain leaves, then those with a domain per value.
    ordered = sorted(leaves(spec.space), key=lambda item: _rank(item, decisive))
    steps = [_Step.of(path, leaf, decisive) for path, leaf in ordered]  # once: a proposal samples dozens of times

    def space(trial: optuna.Trial) -> dict[str, Any]:
        values: dict[str, Any] = {"epochs": plan.scheduler.max_epochs, "seed": plan.search.seed}
        for step in steps:
            if is_present(values, step.path) and (step.condition is None or step.condition(values)):
                put_leaf(values, step.path, step.value if step.suggest is None else step.suggest(trial, values))
        for key, value in trial.user_attrs.get(FIXED, {}).items():
            put_leaf(values, key.split("."), value)
        _store_costs(trial, values, plan)
        return values

    return space


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A leaf of the space, prepared for sampling."""

    path: tuple[str, ...]
    value: Any
    """The value of a leaf that is not searched."""
    condition: Condition | None
    """Whether to sample the leaf, given the values before it; None for always, or if it is not searched."""
    suggest: Callable[[optuna.Trial, Mapping[str, Any]], Any] | None
    """Samples a value, given the values before it; None if the leaf is not searched."""

    @classmethod
    def of(cls, path: tuple[str, ...], leaf: Any, decisive: set[str]) -> _Step:
        key = ".".join(path)
        condition = None if key in decisive else condition_of(path)
        if isinstance(leaf, Per):
            return cls(path=path, value=None, condition=condition, suggest=functools.partial(_suggest_per, key, leaf))
        if isinstance(leaf, Range | Choices):
            return cls(path=path, value=None, condition=condition, suggest=functools.partial(_suggest, key, leaf))
        return cls(path=path, value=leaf, condition=None, suggest=None)


def _suggest(key: str, leaf: Range | Choices, trial: optuna.Trial, _: Mapping[str, Any]) -> Any:
    return leaf.suggest(trial, key)


def _suggest_per(key: str, leaf: Per, trial: optuna.Trial, values: Mapping[str, Any]) -> Any:
    case = at(values, leaf.key)
    return leaf.for_value(case).suggest(trial, parameter(key, leaf, case))


def per_keys(spec: SearchSpec) -> set[str]:
    """Dotted keys that a `per` refers to; these leaves are sampled even without an effect."""
    return {leaf.key for _, leaf in leaves(spec.space) if isinstance(leaf, Per)}


def parameter(key: str, leaf: Domain, case: Any) -> str:
    """Name of a leaf's parameter in Optuna; `case` is the value of the leaf that a `Per` refers to."""
    return f"{key}@{case}" if isinstance(leaf, Per) else key


def default_parameters(spec: SearchSpec) -> dict[str, Any]:
    """Optuna's parameters of the default `TrialConfig`, clipped to the ranges of the space.

    Parameters whose choices do not include the default are left out, so that the searcher samples them.
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
    """For each family of the space, the values of a `TrialConfig` with the largest value of every numeric domain."""
    family = at(spec.space, "model.family")
    for name in family.values if isinstance(family, Choices) else (family,):
        yield largest_values(spec.space, {"model.family": name})


def _store_costs(trial: optuna.Trial, values: Mapping[str, Any], plan: Plan) -> None:
    """Store the known constraints and objectives in a trial, unless a resumed trial has them already."""
    for name, excess in violations(values, plan.constraints).items():
        if name not in trial.constraints:
            trial.set_constraint(name, excess)
    known = {name: math.log(value) for name, value in known_costs(plan.objectives, values).items()}
    if known and KNOWN not in trial.user_attrs:
        trial.set_user_attr(KNOWN, known)


def _rank(item: tuple[tuple[str, ...], Any], decisive: set[str]) -> int:
    path, leaf = item
    if path[-1] == "name":
        return 0
    conditional = condition_of(path) is not None and ".".join(path) not in decisive
    return 1 + isinstance(leaf, Per) + 2 * conditional
