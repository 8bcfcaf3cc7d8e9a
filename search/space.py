"""A spec's space as Optuna takes it: a define-by-run function whose conditions follow from the spec's shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from search.domains import Choices, Domain, Per, Range, representatives
from search.spec import SearchSpec, leaves, replace_leaf
from trainable.config import TrialConfig

if TYPE_CHECKING:
    import optuna

Space = Callable[["optuna.Trial"], dict[str, Any]]


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
            if not _exists(drawn, path):
                continue
            key, value = ".".join(path), leaf
            if isinstance(leaf, Per):
                case = _at(drawn, tuple(leaf.key.split(".")))
                value = leaf.for_value(case).suggest(trial, f"{key}@{case}")
            elif isinstance(leaf, Range | Choices):
                value = leaf.suggest(trial, key)
            drawn = replace_leaf(drawn, path, value)
        return drawn

    return space


def default_parameters(spec: SearchSpec) -> dict[str, Any]:
    """Optuna's parameters of the default `TrialConfig`, moved to the nearest bound of the space's ranges.

    A choice that the space does not offer is left to be drawn.
    """
    defaults = TrialConfig().model_dump()
    parameters: dict[str, Any] = {}
    for path, leaf in leaves(spec.space):
        key, value = ".".join(path), _at(defaults, path)
        if isinstance(leaf, Per):
            case = _at(defaults, tuple(leaf.key.split(".")))
            key, leaf = f"{key}@{case}", leaf.domains.get(str(case), leaf)
        if isinstance(leaf, Range) and isinstance(value, int | float):
            parameters[key] = min(max(value, leaf.low), leaf.high)
        elif isinstance(leaf, Choices) and value in leaf.values:
            parameters[key] = value
    return parameters


def largest_trial(spec: SearchSpec) -> dict[str, Any]:
    """The values of a `TrialConfig` with every range and every list of numbers at its largest."""
    values = dict(spec.space)
    for path, leaf in leaves(spec.space):
        if isinstance(leaf, Domain):
            candidates = representatives(leaf)
            numbers = [value for value in candidates if isinstance(value, int | float)]
            values = replace_leaf(values, path, max(numbers, default=candidates[0]))
    return values


def _rank(item: tuple[tuple[str, ...], Any]) -> int:
    path, leaf = item
    if isinstance(leaf, Per):
        return 2
    return 0 if path[-1] == "name" else 1


def _exists(drawn: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether a leaf has a meaning in this trial: not if it belongs to another name than its section drew."""
    section = drawn.get(path[0], {})
    return len(path) < 3 or "name" not in section or section["name"] == path[1]


def _at(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    node: Any = values
    for name in path:
        node = node[name]
    return node
