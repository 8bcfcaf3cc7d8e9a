"""A spec's space as Optuna takes it: a define-by-run function whose conditions follow from the spec's shape."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.spec.checks import settled
from search.spec.conditions import Condition, condition_of, exists
from search.spec.constraints import violations
from search.spec.domains import Choices, Domain, Per, Range
from search.spec.objectives import known_before
from search.spec.sections import Plan
from search.spec.spec import SearchSpec
from search.spec.tree import at, leaves, put_leaf
from search.strategy.proposer import KNOWN
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
    steps = [_Step.of(path, leaf, decisive) for path, leaf in ordered]  # a proposal draws dozens of configurations

    def space(trial: optuna.Trial) -> dict[str, Any]:
        drawn: dict[str, Any] = {"epochs": plan.scheduler.max_epochs, "seed": plan.search.seed}
        for step in steps:
            if exists(drawn, step.path) and (step.condition is None or step.condition(drawn)):
                put_leaf(drawn, step.path, step.value if step.draw is None else step.draw(trial, drawn))
        for key, value in trial.user_attrs.get(FIXED, {}).items():
            put_leaf(drawn, key.split("."), value)
        _tell(trial, drawn, plan)
        return drawn

    return space


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A leaf of the space, and all that is known of it before a configuration is drawn."""

    path: tuple[str, ...]
    value: Any
    """What a leaf has that is not searched."""
    condition: Condition | None
    """What the rest must be like for it to be drawn; None if it always is, or is not searched."""
    draw: Callable[[optuna.Trial, Mapping[str, Any]], Any] | None
    """Asks the trial for a value, given what was drawn before; None if it is not searched."""

    @classmethod
    def of(cls, path: tuple[str, ...], leaf: Any, decisive: set[str]) -> _Step:
        key = ".".join(path)
        condition = None if key in decisive else condition_of(path)
        if isinstance(leaf, Per):
            return cls(path=path, value=None, condition=condition, draw=functools.partial(_draw_per, key, leaf))
        if isinstance(leaf, Range | Choices):
            return cls(path=path, value=None, condition=condition, draw=functools.partial(_draw, key, leaf))
        return cls(path=path, value=leaf, condition=None, draw=None)


def _draw(key: str, leaf: Range | Choices, trial: optuna.Trial, _: Mapping[str, Any]) -> Any:
    return leaf.suggest(trial, key)


def _draw_per(key: str, leaf: Per, trial: optuna.Trial, drawn: Mapping[str, Any]) -> Any:
    case = at(drawn, leaf.key)
    return leaf.for_value(case).suggest(trial, parameter(key, leaf, case))


def deciding(spec: SearchSpec) -> set[str]:
    """Dotted keys of the leaves that a `per` names; they are drawn whether they have an effect or not."""
    return {leaf.key for _, leaf in leaves(spec.space) if isinstance(leaf, Per)}


def parameter(key: str, leaf: Domain, case: Any) -> str:
    """Name of a leaf's parameter in Optuna; `case` is the value of the other leaf that a `Per` depends on."""
    return f"{key}@{case}" if isinstance(leaf, Per) else key


def default_parameters(spec: SearchSpec) -> dict[str, Any]:
    """Optuna's parameters of the default `TrialConfig`, neighbours to the nearest bound of the space's ranges.

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
