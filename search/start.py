"""What a search tries first: the recipes that fit its space, exact but for what all trials of a search have alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna

from search.domains import Choices, Per, Range
from search.scheduler import RECIPE
from search.space import FIXED, default_parameters, exists, parameter
from search.spec import SearchSpec, at, check_spec, leaves
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
    if "default" in names:
        study.enqueue_trial(default_parameters(spec))
    return outside


def find_starts(spec: SearchSpec, names: Sequence[str]) -> tuple[list[Start], dict[str, str]]:
    """Place recipes in the space.

    A leaf that the spec searches must allow the recipe's value, and one that it fixes otherwise than by default must
    have it. What the spec leaves fixed by default is the recipe's own: augmentation, normalisation, a loss that is
    not searched. Picture size, batch size and split are the search's, and a policy's horizon is the whole trial.

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
    start = Start(recipe=name)
    for path, leaf in leaves(spec.space):
        key = ".".join(path)
        if key in OWN or path[:2] == ("data", "split") or not exists(values, path):
            continue
        value, domain, case = at(values, key), leaf, None
        if isinstance(leaf, Per):
            case = at(values, leaf.key)
            domain = leaf.domains.get(str(case))
        if isinstance(domain, Range | Choices):
            if not _has(domain, value):
                raise OutsideError(f"its {key} is {value}, and the space has {_shown(domain)}")
            start.parameters[parameter(key, leaf, case)] = value
        elif value != domain:
            if leaf != by_default[path]:
                raise OutsideError(f"its {key} is {value}, and the space has {domain}")
            start.fixed[key] = value
    if values["depth_policy"]:
        start.fixed["depth_policy"] = values["depth_policy"]
    return start


def _has(domain: Range | Choices, value: Any) -> bool:
    return value in domain.values if isinstance(domain, Choices) else domain.low <= value <= domain.high


def _shown(domain: Range | Choices) -> str:
    if isinstance(domain, Range):
        return f"{domain.low:g} to {domain.high:g}"
    return ", ".join(str(value) for value in domain.values)
