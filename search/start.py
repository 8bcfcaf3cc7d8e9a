"""What a search tries first: the recipes that fit its space, exact but for what all trials of a search have alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna

from search.conditions import exists, matters
from search.constraints import broken
from search.domains import Choices, Per, Range
from search.scheduler import RECIPE
from search.space import FIXED, deciding, default_parameters, parameter
from search.spec import SearchSpec, check_spec
from search.tree import at, leaves, replace_leaf
from trainable.config import TrialConfig
from trainable.recipes import RECIPES, load_recipe

OWN = frozenset({"data.image_size", "data.resize", "data.batch_size", "data.split_by"})
"""What a search never takes from a recipe, with the shares of the split: all its trials have it alike."""


class OutsideError(ValueError):
    """A recipe has a value that the space does not."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A recipe as a point of the space."""

    recipe: str
    parameters: dict[str, Any] = field(default_factory=dict)
    """Optuna's: of every leaf that is searched."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """By dotted key, where the recipe differs from what the space fixes without having been told to."""


def enqueue_starts(study: optuna.Study, spec: SearchSpec) -> dict[str, str]:
    """Make the first trials of a new study: the recipes and the default that `search.start_from` names.

    Returns:
        For each recipe that lies outside of the space, why.
    """
    names = spec.plan.search.start_from
    starts, outside = find_starts(spec, [name for name in names if name != "default"])
    for start in starts:
        study.enqueue_trial(start.parameters, user_attrs={RECIPE: start.recipe, FIXED: start.fixed})
    default = _on_own_pictures(TrialConfig().model_dump(), spec)
    if "default" in names and not broken(default, spec.plan.constraints):
        study.enqueue_trial(default_parameters(spec))
    return outside


def find_starts(spec: SearchSpec, names: Sequence[str]) -> tuple[list[Start], dict[str, str]]:
    """Place recipes in the space.

    A leaf that the spec searches must allow the recipe's value, and one that it fixes otherwise than by default must
    have it. What the spec leaves fixed by default is the recipe's own: augmentation, normalisation, a loss that is
    not searched. Picture size, batch size and split are the search's (where it searches batch sizes, the one nearest to
    the default), and a policy's horizon is the whole trial. A recipe must keep to the search's limits too.

    Args:
        spec: the search.
        names: of recipes; 'recipes' stands for all.

    Returns:
        The recipes within the space, and for each of the others the reason why it is not.
    """
    wanted = dict.fromkeys(recipe for name in names for recipe in (RECIPES if name == "recipes" else (name,)))
    by_default = dict(leaves(check_spec({}, source="the defaults", data_path=spec.data_path).space))
    starts, outside = [], {}
    for name in wanted:
        config = load_recipe(name).scaled(spec.plan.scheduler.max_epochs)
        try:
            starts.append(_place(name, config, spec, by_default))
        except OutsideError as error:
            outside[name] = str(error)
    return starts, outside


def _place(name: str, config: TrialConfig, spec: SearchSpec, by_default: dict[tuple[str, ...], Any]) -> Start:
    values = config.model_dump()
    for stage in values["data"]["progression"]:
        stage["batch_size"] = None
    if wrong := broken(_on_own_pictures(values, spec), spec.plan.constraints):
        raise OutsideError(wrong)
    start, decisive = Start(recipe=name), deciding(spec)
    for path, leaf in leaves(spec.space):
        key = ".".join(path)
        if path[:2] == ("data", "split") or not exists(values, path):
            continue
        case = at(values, leaf.key) if isinstance(leaf, Per) else None
        domain = leaf.domains.get(str(case)) if isinstance(leaf, Per) else leaf
        if isinstance(domain, Range | Choices):
            if key in decisive or matters(values, path):
                value = _nearest(domain, at(TrialConfig().model_dump(), key)) if key in OWN else at(values, key)
                start.parameters.update(_drawn(key, domain, value, parameter(key, leaf, case)))
        elif key not in OWN and at(values, key) != domain:
            if leaf != by_default[path]:
                raise OutsideError(f"its {key} is {at(values, key)}, and the space has {domain}")
            start.fixed[key] = at(values, key)
    if values["depth_policy"]:
        start.fixed["depth_policy"] = values["depth_policy"]
    return start


def _drawn(key: str, domain: Range | Choices, value: Any, name: str) -> dict[str, Any]:
    """Optuna's parameters of a leaf that is searched; `name` is that of its own one."""
    if not domain.has(value):
        raise OutsideError(f"its {key} is {value}, and the space has {_shown(domain)}")
    return domain.parameters(name, value)


def _on_own_pictures(values: dict[str, Any], spec: SearchSpec) -> dict[str, Any]:
    """A recipe's values on pictures of the search's size."""
    return replace_leaf(values, ("data", "image_size"), at(spec.space, "data.image_size"))


def _nearest(domain: Range | Choices, default: Any) -> Any:
    """What a domain has that is nearest to a default."""
    if isinstance(domain, Range):
        return domain.nearest(default)
    if domain.has(default) or not isinstance(default, int | float):
        return default if domain.has(default) else domain.values[0]
    return min(domain.values, key=lambda value: abs(value - default))  # type: ignore[operator]


def _shown(domain: Range | Choices) -> str:
    if isinstance(domain, Range):
        return f"{'0 or ' if domain.or_zero else ''}{domain.low:g} to {domain.high:g}"
    return ", ".join(str(value) for value in domain.values)
