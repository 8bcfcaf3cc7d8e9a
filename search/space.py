"""A spec's space as Optuna takes it: a define-by-run function whose conditions follow from the spec's shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from search.domains import Choices, Domain, Per, Range
from search.spec import SearchSpec, at, leaves, replace_leaf, settled
from trainable.config import TrialConfig

if TYPE_CHECKING:
    import optuna

Space = Callable[["optuna.Trial"], dict[str, Any]]

FIXED = "fixed"
"""Attribute of a study's trial: values by dotted key that it has in place of what the space fixes."""


def define_space(spec: SearchSpec) -> Space:
    """The function that draws a trial's configuration.

    It gives the nested values of a `TrialConfig`. A part of a section that is named like a choice of the section's
    `name`, as `policy.step` is, exists only in trials that drew that name.
    """
    plan = spec.plan

    def space(trial: optuna.Trial) -> dict[str, Any]:
        drawn: dict[str, Any] = {"epochs": plan.scheduler.max_epochs, "seed": plan.search.seed}
        # What others depend on is drawn before them: names first, then plain leaves, then those given per value.
        for path, leaf in sorted(leaves(spec.space), key=_rank):
            if not exists(drawn, path):
                continue
            key, value = ".".join(path), leaf
            if isinstance(leaf, Per):
                case = at(drawn, leaf.key)
                value = leaf.for_value(case).suggest(trial, parameter(key, leaf, case))
            elif isinstance(leaf, Range | Choices):
                value = leaf.suggest(trial, key)
            drawn = replace_leaf(drawn, path, value)
        for key, value in trial.user_attrs.get(FIXED, {}).items():
            drawn = replace_leaf(drawn, key.split("."), value)
        return drawn

    return space


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
            parameters[key] = min(max(value, leaf.low), leaf.high)
        elif isinstance(leaf, Choices) and value in leaf.values:
            parameters[key] = value
    return parameters


def largest_trials(spec: SearchSpec) -> Iterator[dict[str, Any]]:
    """For each family of the space, a `TrialConfig`'s values with every range and list of numbers at its largest."""
    family = at(spec.space, "model.family")
    for name in family.values if isinstance(family, Choices) else (family,):
        yield settled(spec.space, {"model.family": name})


def exists(drawn: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether a leaf has a meaning in this trial: not if it belongs to another name than its section drew."""
    section = drawn.get(path[0], {})
    return len(path) < 3 or "name" not in section or section["name"] == path[1]


def _rank(item: tuple[tuple[str, ...], Any]) -> int:
    path, leaf = item
    if isinstance(leaf, Per):
        return 2
    return 0 if path[-1] == "name" else 1
